"""The loaded modules from the kernel's own list: name, state, memory, sections, build ID.

`struct module` is read as bytes, once for each module, with member offsets from the debug information that are looked
up once for each kernel. Data behind its pointers is read at the first question about it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property

from kplug.arch.types.memory_map import Area
from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.lists import list_nodes
from kplug.runtime.modules.parts import MemoryRange
from kplug.runtime.modules.struct_module import MAX_MODULES, Module, ModuleLayout
from kplug.runtime.modules.unloaded import Unloaded, last_unloaded, unloaded_tainted


class Modules:
    """The kernel's list of modules, the last loaded first. The list is read at the first question.

    If it could not be read to its end, `problem` says so, and what was read is kept.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._problem: str | None = None

    def __iter__(self) -> Iterator[Module]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def problem(self) -> str | None:
        """Why the list is incomplete, in a sentence for the user; None if it is complete."""
        _ = self.all
        return self._problem

    @cached_property
    def all(self) -> tuple[Module, ...]:
        """The modules. TargetError if the kernel's debug information does not have the types to read them."""
        kernel = self._kernel
        head = kernel.symbol("modules")
        if head is None and not _has_modules(kernel):
            return ()
        with kernel.reading("the module list"):
            layout = ModuleLayout(kernel)
            if head is None:
                head = kernel.prog["modules"].address_
        if head is None:
            return ()
        found: list[Module] = []
        try:
            for node in list_nodes(kernel, head, MAX_MODULES):
                found.append(layout.module(node - layout.offset("list") & self._kernel.word.mask))
        except TargetError as error:
            where = f"past {found[-1].name}" if found else "at all"
            self._problem = f"the module list could not be read {where}: {error}"
        return tuple(found)

    @property
    def unloaded(self) -> tuple[Unloaded, ...]:
        """The unloaded modules that the kernel remembers: the last one, and those that tainted it.

        TargetError if they cannot be read.
        """
        return self._unloaded

    @cached_property
    def _unloaded(self) -> tuple[Unloaded, ...]:
        found: dict[str, Unloaded] = {}
        with self._kernel.reading("the unloaded modules"):
            for gone in (*last_unloaded(self._kernel), *unloaded_tainted(self._kernel)):
                found[gone.name] = gone  # the list of those that tainted it says more
        return tuple(found.values())

    def named(self, name: str) -> Module | None:
        """The module of that name, or None."""
        return next((module for module in self.all if module.name == name), None)

    def holding(self, address: int) -> tuple[Module, MemoryRange] | None:
        """The module whose memory holds the address, and the part of it; None if none does."""
        position = bisect_right(self._starts, address) - 1
        if position < 0:
            return None
        part, module = self._parts[position]
        return (module, part) if address < part.end else None

    @cached_property
    def _parts(self) -> list[tuple[MemoryRange, Module]]:
        """The memory of all modules, sorted by address."""
        parts = [(part, module) for module in self.all for part in module.memory]
        return sorted(parts, key=lambda entry: entry[0].start)

    @cached_property
    def _starts(self) -> list[int]:
        return [part.start for part, _ in self._parts]

    def neighbours(self, address: int) -> tuple[tuple[MemoryRange, Module] | None, tuple[MemoryRange, Module] | None]:
        """For an address that no module holds: the module memory before and after it, or None."""
        position = bisect_right(self._starts, address)
        before = self._parts[position - 1] if position else None
        after = self._parts[position] if position < len(self._parts) else None
        return before, after


def _has_modules(kernel: Kernel) -> bool:
    """Whether the kernel can load modules: without CONFIG_MODULES there is neither the list nor the type."""
    if "modules" in kernel.prog:
        return True
    try:
        kernel.prog.type("struct module")
    except LookupError:
        return False
    return True


@remembered(UNTIL_RESUMED)
def modules_of(kernel: Kernel) -> Modules:
    """The loaded modules of a kernel; their list is read at the first question about it."""
    return Modules(kernel)


def module_areas(kernel: Kernel) -> Iterator[Area]:
    """The memory of the loaded modules, each part of it. TargetError if their list cannot be read."""
    for module in modules_of(kernel):
        for part in module.memory:
            details = {"module": module.name}
            yield Area(f"{module.name} {part.type}", part.start, part.end, "the list of modules", details=details)
