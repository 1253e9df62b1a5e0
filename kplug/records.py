"""What the kernel's own data structures answer, in the form that a `Session` takes.

`kplug.runtime.records` makes them from drgn. In a debugger they are made at the first question that needs them
(`on_demand`); without drgn only symbols and memory remain (`static_records`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from kplug import model
from kplug.errors import KplugError, TargetError
from kplug.frozen import Frozen, replace
from kplug.image.images import Images, as_images
from kplug.image.placed import Piece, PlacedImage
from kplug.kinds import in_order
from kplug.model import Layer, State
from kplug.resolver import LineSource, Locator, StateError, StateSource
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, Area, address_space
from kplug.space.locators import area_parts
from kplug.target import FramePlace, StackBounds, Target

if TYPE_CHECKING:
    from kplug.loaded_modules import LoadedModule, LoadedSection, ModuleSource, UnloadedModule
    from kplug.memory.percpu import Instances
    from kplug.type_layouts import TypeLayouts

# Classes that the kernel neither frees nor writes to: memory has nothing about them that the vmlinux does not have.
_CONSTANT = frozenset((model.TEXT, model.RODATA, model.PERCPU_CLASS))
_FIRST_PAGE, _LAST_BYTES = 4096, 4096


class Programs(Protocol):
    """The user programs that run on a kernel."""

    def problem(self) -> str | None:
        """Why user addresses are not any program's; None where they are. TargetError if that cannot be read."""

    def of(self, pid: int) -> AbstractContextManager[None]:
        """Inside, user addresses are those of that task. UsageError if it has none, TargetError if it is unreadable."""

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a user address. TargetError if they cannot be read."""


class Records(Frozen):
    """The sources of answers for a kernel with memory, in the forms that a `Session` takes.

    `images`: those given and the kernel's modules. `areas`: the memory that the kernel gave to modules. `facts` reads
    those of the address space, `types` are sources of the kernel's types, `virtual` gives the kernel's addresses of a
    physical one. `freed` says whether the kernel freed what was at an address, `stack_at` gives the stack that holds an
    address, and `is_zero_filled` says whether it reads as zeros because the dump does not contain the page. `frames`
    walks the stack of a CPU with these registers. `live`: the kernel runs, so the debugger sees what is mapped.
    """

    images: Images
    locators: Sequence[Locator] = ()
    percpu: Instances | None = None
    states: StateSource | None = None
    modules: ModuleSource | None = None
    areas: Callable[[], Iterable[Area]] | None = None
    facts: Callable[[], AddressSpaceFacts] | None = None
    lines: LineSource | None = None
    types: Sequence[TypeLayouts] = ()
    virtual: Callable[[int], Sequence[int]] | None = None
    programs: Programs | None = None
    freed: Callable[[int], bool | None] = lambda address: None
    stack_at: Callable[[int], StackBounds | None] = lambda address: None
    is_zero_filled: Callable[[int], bool] = lambda address: False
    frames: Callable[[Mapping[str, int]], Sequence[FramePlace]] = lambda registers: ()
    live: bool = False


def static_records(images: Sequence[PlacedImage], target: Target, lasting: bool = True) -> Records:
    """What the vmlinux's symbols lead to in a target's memory. If the kernel will still move (not `lasting`), only the
    state of an address is asked."""
    given = as_images(images)
    if not given:
        return Records(given)
    from kplug.memory.percpu import StaticPercpu  # files alone need none of it

    percpu = StaticPercpu(given[0], target.read, target.memo)
    asked = (percpu,) if lasting and target.has_memory() else ()
    return Records(given, asked, percpu, target)


# -- made when they are needed -----------------------------------------------------------------------------------------


class Supply(Protocol):
    """Makes a kernel's records once a question needs them."""

    @property
    def own_errors(self) -> tuple[type[Exception], ...]:
        """The host's own errors, which it shows itself; others come from a library that met something unknown."""

    def records(self) -> Records | None:
        """The records, made at the first call; None if they cannot be made."""

    def needed(self) -> Records:
        """The records. TargetError, with the reason, if they cannot be made."""


def on_demand(images: Sequence[PlacedImage], target: Target, supply: Supply) -> Records:
    """The records that `supply` makes, for the kernel whose `images` the debugger has. Nothing is made before it is
    needed; if that fails, answers are the same as without records."""
    static = static_records(images, target)
    assert static.percpu is not None
    asked = _Asked(images[0], supply)
    return Records(
        _Images(images, asked),
        (_Locator(asked, static.locators), AreaParts(asked)),
        _Instances(asked, static.percpu),
        _States(asked, target),
        _Modules(supply),
        lambda: areas() if (areas := supply.needed().areas) is not None else (),
        virtual=lambda physical: virtual(physical) if (virtual := supply.needed().virtual) is not None else (),
        programs=_Programs(asked),
    )


class _Asked:
    """The records, as far as an address concerns them."""

    def __init__(self, placed: PlacedImage, supply: Supply) -> None:
        self._placed = placed
        self._last = placed.placement.mask - _LAST_BYTES
        self.machine = placed.image.machine
        self.is_kernel = placed.image.elf.word.is_kernel
        self.supply = supply
        #: Whether the question names the program whose addresses are meant.
        self.program = False

    @contextmanager
    def for_program(self) -> Iterator[None]:
        """Inside, all addresses of the user's half concern them."""
        self.program = True
        try:
            yield
        finally:
            self.program = False

    def of(self, address: int) -> Records | None:
        """The records, if they may have more about an address than the vmlinux."""
        if self.program and not self.is_kernel(address):
            return self.supply.records()
        if not _FIRST_PAGE <= address <= self._last:
            return None
        piece = self._placed.piece(address)
        concerned = piece is None or piece.region_class not in _CONSTANT or piece.freed_after_boot is True
        return self.supply.records() if concerned else None


class _Images(Images):
    """The debugger's own images, then the kernel's modules, which are asked only for what the former lack."""

    def __init__(self, given: Sequence[PlacedImage], asked: _Asked) -> None:
        super().__init__(given)
        self._asked = asked

    def _known(self) -> Images | None:
        records = self._asked.supply.records()
        return records.images if records is not None else None

    def __iter__(self) -> Iterator[PlacedImage]:
        yield from self._images
        names = {placed.image.name for placed in self._images}
        for placed in self._known() or ():
            if placed.image.is_module and placed.image.name not in names:
                yield placed

    def holding(self, address: int) -> tuple[PlacedImage, Piece] | None:
        found = super().holding(address)
        if found is not None or not self._asked.is_kernel(address):
            return found
        records = self._asked.of(address)
        return records.images.holding(address) if records is not None else None

    def named(self, name: str) -> PlacedImage | None:
        found = next((placed for placed in self._images if placed.image.is_module and placed.image.name == name), None)
        known = self._known() if found is None else None
        return known.named(name) if known is not None else found

    def candidates_for_symbol(self, name: str) -> Sequence[PlacedImage]:
        if not name.replace(".", "").isidentifier() or any(p.image.symbols.indexes_of(name) for p in self._images):
            return self._images
        known = self._known()
        return (*self._images, *known.candidates_for_symbol(name)[1:]) if known is not None else self._images

    def candidates_for_source_name(self, name: str) -> Sequence[PlacedImage]:
        if not name.isidentifier() or any(placed.image.symbols.of_source_name(name) for placed in self._images):
            return self._images
        known = self._known()
        return (*self._images, *known.candidates_for_source_name(name)[1:]) if known is not None else self._images

    def candidates_for_addresses(self, addresses: Iterable[int]) -> Sequence[PlacedImage]:
        own, is_kernel = super().holding, self._asked.is_kernel
        asked = [each for each in addresses if is_kernel(each) and own(each) is None]
        known = self._known() if asked else None
        return (*self._images, *known.candidates_for_addresses(asked)[1:]) if known is not None else self._images


class _Locator:
    """Everything that the records know about an address; if they are not asked, what is known without them."""

    def __init__(self, asked: _Asked, otherwise: Sequence[Locator]) -> None:
        self._asked = asked
        self._otherwise = otherwise

    def locate(self, address: int) -> Iterator[Layer]:
        records = self._asked.of(address)
        if records is None:
            for locator in self._otherwise:
                yield from locator.locate(address)
            return
        problems: list[str] = []
        found: list[list[Layer]] = []
        for locator in records.locators:
            found.append([])
            try:
                for layer in locator.locate(address):  # one by one: what was found before an error stands
                    found[-1].append(layer)
            except KplugError as error:
                problems.append(str(error))
            except self._asked.supply.own_errors:
                raise
            except Exception as error:  # a library that meets what it does not know; the rest of the answer stands
                problems.append(f"drgn: {type(error).__name__}: {first_line(error)}")
        yield from in_order(found)
        if problems:
            raise TargetError("; ".join(dict.fromkeys(problems)))


class AreaParts:
    """The parts of an area that debug information alone knows: the fixmap's slots, the CPUs' entry areas.

    The session's own map, made before the records, has the area without these, and what is known without them.
    """

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked
        self._made: tuple[AddressSpaceFacts, AddressSpace | None, AddressSpace | None] | None = None

    def locate(self, address: int) -> Iterable[Layer]:
        records = self._asked.of(address)
        if records is None or records.facts is None:
            return ()
        facts = records.facts()
        if self._made is None or self._made[0] is not facts:
            untyped = replace(facts, fixed_addresses=(), cpu_entry_areas=(), cpu_entry_area_size=None)
            machine = self._asked.machine
            self._made = facts, address_space(machine, facts), address_space(machine, untyped)
        with_types, without = (
            [] if space is None else list(area_parts(space, space.area_at(address), address))
            for space in self._made[1:]
        )
        return [part for part in with_types if part not in without]


class _Instances:
    """Each CPU's own copy: of static variables by the debugger's memory alone, of others by the allocator's records."""

    def __init__(self, asked: _Asked, static: Instances) -> None:
        self._asked = asked
        self._static = static

    def instances(self, address: int, cpu: int | None) -> Sequence[int]:
        found = self._static.instances(address, cpu)
        records = self._asked.supply.records() if not found else None
        return records.percpu.instances(address, cpu) if records is not None and records.percpu is not None else found


class _States:
    """The state of an address: what the debugger sees, and whether the kernel freed it; in a dump, the page tables'."""

    def __init__(self, asked: _Asked, target: Target) -> None:
        self._asked = asked
        self._target = target

    def state(self, address: int) -> State:
        records = self._asked.of(address)
        if records is not None and records.states is not None:
            asked = self._asked.program and not self._asked.is_kernel(address)
            if asked or not records.live:  # the debugger sees the program that runs
                return records.states.state(address)
        seen = self._target.state(address)
        if records is None:
            return seen
        try:
            return State(seen.mapped, seen.permissions, records.freed(address), seen.page_size)
        except TargetError as error:
            raise StateError(str(error), seen) from None


class _Programs:
    """The programs that the records know. TargetError where they cannot be had."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked

    def problem(self) -> str | None:
        records = self._asked.supply.records()
        return records.programs.problem() if records is not None and records.programs is not None else None

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        programs = self._asked.supply.needed().programs
        assert programs is not None
        with programs.of(pid), self._asked.for_program():
            yield

    def read(self, address: int, size: int) -> bytes:
        programs = self._asked.supply.needed().programs
        assert programs is not None
        return programs.read(address, size)


class _Modules:
    """The loaded modules. TargetError where the records cannot be had."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply

    def _source(self) -> ModuleSource:
        source = self._supply.needed().modules
        assert source is not None
        return source

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


def first_line(error: Exception) -> str:
    """What an error of somebody else's says, on one line."""
    return (str(error).strip().splitlines() or ["unknown error"])[0]
