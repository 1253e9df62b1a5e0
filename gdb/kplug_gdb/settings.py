"""The values of `set kplug ...`, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """The settings. `kaslr_offset` is None for auto, else the number of bytes (0 for none)."""

    vmlinux: str | None = None
    vmlinuz: str | None = None
    system_map: str | None = None
    kallsyms: str = "auto"
    kaslr_offset: int | None = None
    check: bool = True
    lines: bool = True
    color: str = "auto"
    drgn: str = "auto"

    def change(self, name: str, value: object) -> None:
        """What the user set. AttributeError if there is no such setting."""
        getattr(self, name)
        setattr(self, name, value)


SETTINGS = Settings()
