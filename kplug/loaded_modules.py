"""The loaded modules of a kernel, as commands show them: the data, and the protocol for getting it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kplug.frozen import Frozen
from kplug.named_tuples import NamedTuple


class ModuleMemory(NamedTuple):
    """A part of a module's memory: its type (text, rodata, ro_after_init, data, init_text, ...), and `[start, end)`."""

    type: str
    start: int
    end: int


class LoadedSection(NamedTuple):
    """A section of a module in memory. `memory` is the type of the memory that it lies in; for variables of the per-CPU
    section, whose addresses are offsets, it is "percpu". Type and flags are as readelf has them."""

    name: str
    start: int
    end: int
    type: str
    flags: str
    memory: str


class UnloadedModule(NamedTuple):
    """An unloaded module: its name, the taints it left, how often it was unloaded (None: not recorded)."""

    name: str
    taints: str
    times: int | None


class LoadedModule(Frozen):
    """One loaded module. A field is None if this kernel does not have it or it could not be read: see `problems`.

    `size` is in bytes, without per-CPU memory; `memory` is sorted by address; `percpu` is (base, size of one CPU's).
    `symbols_from` is "debug file", "kallsyms in memory", or None; `path` the debug file's.
    """

    name: str
    state: str
    size: int
    memory: tuple[ModuleMemory, ...]
    percpu: tuple[int, int] | None
    refcount: int | None
    users: tuple[str, ...]
    taints: str
    version: str | None
    source_version: str | None
    build_id: str | None
    symbols_from: str | None
    path: str | None
    problems: tuple[str, ...]


class ModuleSource(Protocol):
    """Something that knows the loaded modules."""

    def modules(self) -> Sequence[LoadedModule]:
        """All of them, in the order of the kernel's list. TargetError if the list cannot be read."""

    def problem(self) -> str | None:
        """Why the list is incomplete, in a sentence; None if it is complete."""

    def unloaded(self) -> Sequence[UnloadedModule]:
        """The unloaded modules that the kernel remembers. TargetError."""

    def named(self, name: str) -> LoadedModule | None:
        """The module of that name."""

    def holding(self, address: int) -> LoadedModule | None:
        """The module whose memory holds the address."""

    def sections(self, name: str) -> Sequence[LoadedSection]:
        """The sections of the module of that name that it has in memory, by address."""
