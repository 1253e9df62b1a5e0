"""The values of `set kplug ...`, as plain values."""

from __future__ import annotations

# What the names of kplug's commands begin with: kwhere, kmod.
USUAL_PREFIX = "k"


class Settings:
    """The settings. `kaslr_offset` is None for auto, else the number of bytes (0 for none)."""

    def __init__(self) -> None:
        self.vmlinux: str | None = None
        self.vmlinuz: str | None = None
        self.system_map: str | None = None
        self.kallsyms = "auto"
        self.kaslr_offset: int | None = None
        self.check = True
        self.lines = True
        self.color = "auto"
        self.drgn = "auto"
        self.prefix = USUAL_PREFIX

    def change(self, name: str, value: object) -> None:
        """What the user set. AttributeError if there is no such setting."""
        getattr(self, name)
        setattr(self, name, value)


SETTINGS = Settings()
