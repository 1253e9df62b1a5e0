"""What drgn answers in gdb, in the shapes that a `Session` takes: images, layers, instances, states, modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import gdb
from kplug.errors import KplugError, TargetError
from kplug.image.images import Images
from kplug.image.placed import Piece, PlacedImage
from kplug.kinds import in_order
from kplug.loaded_modules import LoadedModule, LoadedSection, ModuleSource, UnloadedModule
from kplug.memory.percpu import StaticPercpu
from kplug.model import Layer, State
from kplug.resolver import StateError
from kplug_gdb.drgn_kernel import CORES, Runtime, first_line
from kplug_gdb.gdb_target import GdbTarget

if TYPE_CHECKING:
    from kplug.runtime.locators.percpu import Percpu


class RuntimeImages(Images):
    """gdb's own images, and the kernel's modules behind them. The modules are asked for what the former do not have."""

    def __init__(self, given: Sequence[PlacedImage], runtime: Runtime) -> None:
        super().__init__(given)
        self._runtime = runtime

    def _loaded(self) -> Images:
        """The modules that the kernel has and gdb was not given."""
        known = self._runtime.images()
        names = {placed.image.name for placed in self._images}
        modules = (placed for placed in (known if known is not None else ()) if placed.image.is_module)
        return Images([module for module in modules if module.image.name not in names])

    def __iter__(self) -> Iterator[PlacedImage]:
        yield from self._images
        yield from self._loaded()

    def holding(self, address: int) -> tuple[PlacedImage, Piece] | None:
        found = super().holding(address)
        if found is not None or not address >> 63 or not self._runtime.concerns(address):
            return found
        known = self._runtime.images()
        return known.holding(address) if known is not None else None

    def named(self, name: str) -> PlacedImage | None:
        found = next((placed for placed in self._images if placed.image.is_module and placed.image.name == name), None)
        known = self._runtime.images() if found is None else None
        return known.named(name) if known is not None else found

    def candidates_for_symbol(self, name: str) -> Sequence[PlacedImage]:
        if not name.replace(".", "").isidentifier() or any(p.image.symbols.indexes_of(name) for p in self._images):
            return self._images
        known = self._runtime.images()
        return (*self._images, *known.candidates_for_symbol(name)[1:]) if known is not None else self._images

    def candidates_for_addresses(self, addresses: Iterable[int]) -> Sequence[PlacedImage]:
        asked = [each for each in addresses if each >> 63 and super(RuntimeImages, self).holding(each) is None]
        known = self._runtime.images() if asked else None
        return (*self._images, *known.candidates_for_addresses(asked)[1:]) if known is not None else self._images


class RuntimeLocator:
    """All that drgn tells of an address; where it is not asked, the static per-CPU variables."""

    def __init__(self, runtime: Runtime, otherwise: StaticPercpu) -> None:
        self._runtime = runtime
        self._otherwise = otherwise

    def locate(self, address: int) -> Iterator[Layer]:
        locators = self._runtime.locators if self._runtime.concerns(address) else ()
        if not locators:
            yield from self._otherwise.locate(address)
        problems: list[str] = []
        found: list[list[Layer]] = []
        for locator in locators:
            found.append([])
            try:
                for layer in locator.locate(address):  # one by one: what was found before an error stands
                    found[-1].append(layer)
            except KplugError as error:
                problems.append(str(error))
            except gdb.error:
                raise
            except Exception as error:  # a library that meets what it does not know; the rest of the answer stands
                problems.append(f"drgn: {type(error).__name__}: {first_line(error)}")
        yield from in_order(found)
        if problems:
            raise TargetError("; ".join(dict.fromkeys(problems)))


class RuntimeInstances:
    """Each CPU's own copy: of static variables by gdb's memory alone, of others by the allocator's records."""

    def __init__(self, runtime: Runtime, static: StaticPercpu) -> None:
        self._runtime = runtime
        self._static = static

    def instances(self, address: int, cpu: int | None) -> Sequence[int]:
        found = self._static.instances(address, cpu)
        if found:
            return found
        from_drgn = self._percpu()
        return from_drgn.instances(address, cpu) if from_drgn is not None else ()

    def _percpu(self) -> Percpu | None:
        locators = self._runtime.locators
        if not locators:
            return None
        from kplug.runtime.locators.percpu import Percpu

        return next((locator for locator in locators if isinstance(locator, Percpu)), None)


class RuntimeStates:
    """The state of an address: what gdb sees of it, and whether the kernel freed it; of a core what its tables say."""

    def __init__(self, runtime: Runtime, target: GdbTarget) -> None:
        self._runtime = runtime
        self._target = target

    def state(self, address: int) -> State:
        view = self._target.view
        if view is None:
            return State()
        kernel = self._runtime.kernel() if self._runtime.concerns(address) else None
        if kernel is None:
            return view.state(address)
        if isinstance(view, CORES):
            from kplug.runtime.locators.page_state import MemoryState

            return MemoryState(kernel).state(address)
        seen = view.state(address)
        from kplug.runtime.locators.freed import is_freed

        try:
            return State(seen.mapped, seen.permissions, is_freed(kernel, address), seen.page_size)
        except TargetError as error:
            raise StateError(str(error), seen) from None


class DrgnModules:
    """The loaded modules (`kplug.loaded_modules.ModuleSource`). TargetError where drgn cannot be started."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def _source(self) -> ModuleSource:
        kernel = self._runtime.needed()
        from kplug.runtime.modules.listing import RuntimeModules as Source

        return Source(kernel)

    def modules(self) -> Sequence[LoadedModule]:
        return self._source().modules()

    def problem(self) -> str | None:
        return self._source().problem()

    def unloaded(self) -> Sequence[UnloadedModule]:
        return self._source().unloaded()

    def named(self, name: str) -> LoadedModule | None:
        return self._source().named(name)

    def holding(self, address: int) -> LoadedModule | None:
        return self._source().holding(address)

    def sections(self, name: str) -> Sequence[LoadedSection]:
        return self._source().sections(name)
