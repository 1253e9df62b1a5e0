"""The linker script of a build tree, as far as regions need it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkerScript:
    """What a preprocessed `vmlinux.lds` says."""

    name: str
