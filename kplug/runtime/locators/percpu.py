"""Per-CPU memory with its allocator's own records: static variables, modules' and what alloc_percpu() gave out.

mm/percpu.c: memory is in chunks; a chunk has one unit for each CPU, and whatever lies in it lies at the same offset in
each unit. The first units begin with the static variables; behind them are the part reserved for modules (where the
architecture keeps one) and the first dynamic part, each described by a chunk of its own. Further chunks are in vmalloc
space. A __percpu pointer is an address in the chunk's base unit, less the distance that static variables have from it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import drgn

from kplug import model
from kplug.errors import TargetError
from kplug.image.placed import PlacedImage
from kplug.lifetimes import UNTIL_MOVED, remembered
from kplug.memory.percpu import DYNAMIC, KIND, MODULE, Areas, NoAreasError, StaticPercpu, shifted_symbols
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel, reading
from kplug.runtime.locators.registry import locates
from kplug.runtime.modules.images import images_of
from kplug.runtime.modules.module_list import modules_of

# The smallest allocation, for which the maps have a bit (include/linux/percpu.h, PCPU_MIN_ALLOC_SIZE, since 4.14).
_GRAIN = 4
# Far more than there are: some hundreds of chunks on some 20 lists, with some hundred pages a unit.
_MOST_CHUNKS, _MOST_SLOTS, _MOST_UNIT_PAGES = 1 << 16, 1 << 10, 1 << 14
_CHUNKS = "per-CPU chunks"
_CHUNK_SOURCE = "the chunks of mm/percpu.c in memory"


class Chunk(NamedTuple):
    """A chunk: where its descriptor and its base unit are, and the part of a unit that it gives out.

    `start` and `end` are the runtime addresses of that part in the base unit, `pages` counts from `base`.
    """

    descriptor: int
    kind: str
    base: int
    start: int
    end: int
    pages: int
    alloc_map: int
    bound_map: int
    populated: int


class _Span(NamedTuple):
    """What one CPU has of a chunk (runtime addresses), `distance` behind the chunk's base unit; no chunk if static."""

    start: int
    end: int
    cpu: int
    distance: int
    chunk: Chunk | None


class _Map(NamedTuple):
    """All that is known of the per-CPU memory: one sorted list of spans, and one of the ranges of __percpu pointers."""

    spans: list[_Span]
    starts: list[int]
    chunks: list[Chunk]
    pointer_starts: list[int]
    areas: Areas
    base: int  # the base unit of the static area
    problem: str | None


class Allocation(NamedTuple):
    """A run of a chunk's bytes, as addresses in the base unit: given out as one piece, or free."""

    start: int
    end: int
    allocated: bool


class _ModuleArea(NamedTuple):
    """The per-CPU variables of a loaded module: its __percpu pointer and their size."""

    name: str
    pointer: int
    size: int


class Percpu:
    """Locator and `Instances` for all per-CPU memory of a kernel that drgn holds."""

    def __init__(self, kernel: Kernel, image: PlacedImage) -> None:
        self._kernel = kernel
        self.memo = kernel.memo
        self._image = image
        self._static = StaticPercpu(image, kernel.read, lambda: kernel.generation)
        self._mask = image.placement.mask

    # -- addresses -----------------------------------------------------------------------------------------------------

    def locate(self, address: int) -> Iterator[Layer]:
        """The layers of an address in a CPU's memory, or of a __percpu pointer."""
        if self._image.piece(address) is not None:
            return  # static variables' own addresses are the image's to answer
        try:
            known = self._map
        except NoAreasError:
            return
        position = bisect_right(known.starts, address) - 1
        if position >= 0 and address < known.spans[position].end:
            span = known.spans[position]
            if span.chunk is None:
                yield from self._static.layers(address, span.cpu, span.distance)
            else:
                yield from self._in_chunk(address, span, span.chunk, known)
            return
        chunk = _pointed(known, address)
        if chunk is not None:
            yield from self._pointer(address, chunk, known)
        if known.problem is not None and address >> 63:
            raise TargetError(known.problem)

    def _in_chunk(self, address: int, span: _Span, chunk: Chunk, known: _Map) -> Iterator[Layer]:
        place = address - span.distance  # in the base unit
        pointer = _pointer_of(place, known.base, known.areas, self._mask)
        facts, run = self._facts(chunk, place, pointer)
        module, problem = self._module_or_problem(chunk, pointer)
        narrower: list[Layer] = []
        if module is not None:
            narrower += self._module_layers(module, pointer, address - pointer)
        elif run is not None:
            details = {"variable": None, "cpu": span.cpu, "kind": chunk.kind, **facts}
            start, end = run.start + span.distance, run.end + span.distance
            narrower.append(Layer(model.PERCPU, _run_name(run), start, end, _CHUNK_SOURCE, details))
        variable = next((layer.name for layer in narrower if layer.kind == model.SYMBOL), None)
        details = {"variable": variable, "cpu": span.cpu, "kind": chunk.kind, **facts}
        yield Layer(model.PERCPU, f"CPU {span.cpu}", span.start, span.end, _CHUNK_SOURCE, details)
        yield from narrower
        if problem is not None:
            raise problem

    def _pointer(self, pointer: int, chunk: Chunk, known: _Map) -> Iterator[Layer]:
        """A __percpu pointer: what is at that offset of each CPU's unit."""
        place = _place_of(pointer, known, self._mask)
        facts, run = self._facts(chunk, place, pointer)
        module, problem = self._module_or_problem(chunk, pointer)
        if module is not None:
            what = f"of module {module.name}"
        elif run is None:
            what = "into a chunk whose records could not be read"
        elif run.allocated:
            what = f"into an allocation of {run.end - run.start:#x} bytes"
        else:
            what = "to per-CPU memory that is free"
        details = {
            "what": "percpu-offset",
            "meaning": f"A __percpu pointer {what}: each CPU has it at its own base plus this.",
            "kind": chunk.kind,
            **facts,
        }
        yield Layer(model.SPECIAL, "per-CPU pointer", None, None, _CHUNK_SOURCE, details)
        if module is not None and images_of(self._kernel).holding(pointer) is None:
            yield from self._module_layers(module, pointer, 0)
        if problem is not None:
            raise problem

    def _facts(self, chunk: Chunk, place: int, pointer: int) -> tuple[dict[str, Any], Allocation | None]:
        """What a chunk's own records say of an address in its base unit; what cannot be read stays None."""
        populated = run = None
        try:
            populated = self._is_populated(chunk, place)
            run = self._run(chunk, place)
        except TargetError:
            pass  # a page that the dump lacks: the place in the chunk is known all the same
        facts = {
            "offset": hex(place - chunk.base),
            "chunk": hex(chunk.descriptor),
            "pointer": hex(pointer),
            "allocated": None if run is None else run.allocated,
            "populated": populated,
        }
        return facts, run

    # -- the records of a chunk ----------------------------------------------------------------------------------------

    def _run(self, chunk: Chunk, place: int) -> Allocation:
        """The allocation, or the free bytes, that hold an address of the base unit.

        alloc_map has a bit set for each grain given out. bound_map has one where an allocation begins and one past its
        end; what was freed keeps its own, so free bytes are those between two grains that are given out.
        """
        size = chunk.pages * self._page_size
        allocated, bounds = self._maps(chunk)
        bit, last = (place - chunk.base) // _GRAIN, size // _GRAIN
        if allocated >> bit & 1:
            start = (bounds & (1 << bit + 1) - 1).bit_length() - 1
            end = bit + 1 + _lowest_bit(bounds >> bit + 1, last - bit - 1)
            given = True
        else:
            start = (allocated & (1 << bit) - 1).bit_length()
            end = bit + _lowest_bit(allocated >> bit, last - bit)
            given = False
        lowest, highest = chunk.start, chunk.end
        return Allocation(
            max(chunk.base + max(start, 0) * _GRAIN, lowest), min(chunk.base + end * _GRAIN, highest), given
        )

    @remembered(UNTIL_MOVED)
    def _maps(self, chunk: Chunk) -> tuple[int, int]:
        size = chunk.pages * self._page_size // _GRAIN // 8
        return self._bits(chunk.alloc_map, size), self._bits(chunk.bound_map, size)

    def _bits(self, address: int, size: int) -> int:
        """A kernel bitmap as one number. Little-endian: no big-endian machine has a table here."""
        return int.from_bytes(self._kernel.read(address, size), "little")

    def _is_populated(self, chunk: Chunk, place: int) -> bool:
        page = (place - chunk.base) // self._page_size
        return bool(self._kernel.read(chunk.populated + page // 8, 1)[0] >> page % 8 & 1)

    @property
    @remembered(UNTIL_MOVED)
    def _page_size(self) -> int:
        return int(self._kernel.prog["PAGE_SIZE"])

    # -- all chunks ----------------------------------------------------------------------------------------------------

    @property
    @remembered(UNTIL_MOVED)
    def _map(self) -> _Map:
        areas = self._static.areas
        first, size = areas.template.start, len(areas.template)
        spans = _Spans()
        for cpu, distance in areas.offsets.items():
            start = first + distance & self._mask
            spans.add([_Span(start, start + size, cpu, distance, None)])
        chunks: list[Chunk] = []
        problems: list[str] = []
        base = 0
        if self._kernel.has_types:
            try:
                base, units = self._units(areas)
                for chunk in self._chunks(problems):
                    if spans.add(self._spans_of(chunk, units)):
                        chunks.append(chunk)
                    else:
                        problems.append(f"{_CHUNKS}: what is at {chunk.descriptor:#x} lies over something else")
            except TargetError as error:
                problems.append(str(error))
        pointers = sorted((_pointer_of(chunk.start, base, areas, self._mask), chunk) for chunk in chunks)
        return _Map(
            spans.all,
            spans.starts,
            [chunk for _, chunk in pointers],
            [pointer for pointer, _ in pointers],
            areas,
            base,
            problems[0] if problems else None,
        )

    def _spans_of(self, chunk: Chunk, units: dict[int, int]) -> list[_Span]:
        return [_Span(chunk.start + unit, chunk.end + unit, cpu, unit, chunk) for cpu, unit in units.items()]

    def _units(self, areas: Areas) -> tuple[int, dict[int, int]]:
        """The base unit's address, and each CPU's unit offset from it."""
        prog = self._kernel.prog
        with reading(f"{_CHUNKS} could not be read"):
            base = prog["pcpu_base_addr"].value_()
            offsets = prog["pcpu_unit_offsets"]
            return base, {cpu: offsets[cpu].value_() for cpu in areas.offsets}

    def _chunks(self, problems: list[str]) -> Iterator[Chunk]:
        """The chunks of modules and of allocations. What could not be read is added to `problems`, the rest stands."""
        prog = self._kernel.prog
        with _noted(problems):
            with reading(f"{_CHUNKS}: pcpu_reserved_chunk could not be read"):
                reserved = prog["pcpu_reserved_chunk"]
                there = bool(reserved)
            if there:  # it is on no list
                yield self._chunk(reserved, MODULE)
        heads = self._list_heads()
        seen = {head.address_ for head in heads}
        for head in heads:
            with _noted(problems):
                for chunk in self._on_list(head, seen):
                    with _noted(problems):
                        yield self._chunk(chunk, DYNAMIC)

    def _list_heads(self) -> list[drgn.Object]:
        prog = self._kernel.prog
        with reading(f"{_CHUNKS}: pcpu_nr_slots could not be read"):
            slots = prog["pcpu_nr_slots"].value_()
            try:
                lists = prog["pcpu_chunk_lists"].read_()  # 3c7be18ac9a0 (5.9)
            except LookupError:
                lists = prog["pcpu_slot"].read_()
            types = 1
            with suppress(LookupError):
                types = prog.constant("PCPU_NR_CHUNK_TYPES").value_()  # 5.9 to 5.13: lists of two types of chunks
        if not 0 < slots <= _MOST_SLOTS:
            raise TargetError(f"{_CHUNKS}: pcpu_nr_slots is {slots}")
        return [lists[number] for number in range(slots * types)]

    def _on_list(self, head: drgn.Object, seen: set[int]) -> Iterator[drgn.Object]:
        """The chunks on one list, as pointers. TargetError where the list leads nowhere, or back into itself."""
        prog = self._kernel.prog
        with reading(f"{_CHUNKS}: a list could not be read"):
            start = head.address_
            chunk_type = prog.type("struct pcpu_chunk")
            within = drgn.offsetof(chunk_type, "list")
            pointer_type = prog.pointer_type(chunk_type)
            node = head.next.value_()
            while node != start:
                if node in seen:
                    raise TargetError(f"{_CHUNKS}: the list loops at {node:#x}")
                if len(seen) >= _MOST_CHUNKS:
                    raise TargetError(f"{_CHUNKS}: more than {_MOST_CHUNKS} on the lists")
                seen.add(node)
                chunk = drgn.Object(prog, pointer_type, node - within & self._mask)
                following = chunk.list.next.value_()
                yield chunk
                node = following

    def _chunk(self, chunk: drgn.Object, kind: str) -> Chunk:
        with reading(f"{_CHUNKS} could not be read"):
            read = chunk[0].read_()
            descriptor, base, pages = chunk.value_(), read.base_addr.value_(), read.nr_pages.value_()
            size = pages * self._page_size
            before, behind = read.start_offset.value_(), read.end_offset.value_()
            if not (0 < pages <= _MOST_UNIT_PAGES and min(before, behind) >= 0 and before + behind <= size):
                raise TargetError(f"{_CHUNKS}: what is at {descriptor:#x} is no chunk")
            return Chunk(
                descriptor,
                kind,
                base,
                base + before,
                base + size - behind,
                pages,
                read.alloc_map.value_(),
                read.bound_map.value_(),
                chunk.populated.address_of_().value_(),
            )

    # -- modules -------------------------------------------------------------------------------------------------------

    def _module_or_problem(self, chunk: Chunk, pointer: int) -> tuple[_ModuleArea | None, TargetError | None]:
        """The module that has a place in the reserved chunk; and why it may not be known."""
        if chunk.kind != MODULE:
            return None, None
        try:
            found, problem = self._module_at(pointer), modules_of(self._kernel).problem
        except TargetError as error:
            return None, error
        return found, TargetError(problem) if problem is not None and found is None else None

    def _module_at(self, pointer: int) -> _ModuleArea | None:
        """The loaded module whose per-CPU variables have that __percpu pointer."""
        areas = self._module_areas()
        return next((area for area in areas if area.pointer <= pointer < area.pointer + area.size), None)

    @remembered(UNTIL_MOVED)
    def _module_areas(self) -> list[_ModuleArea]:
        found = ((module.name, module.percpu) for module in modules_of(self._kernel))
        return [_ModuleArea(name, percpu.base, percpu.size) for name, percpu in found if percpu is not None]

    def _module_layers(self, module: _ModuleArea, pointer: int, distance: int) -> Iterator[Layer]:
        start = module.pointer + distance
        placed = images_of(self._kernel).named(module.name)
        details = {
            "release": None,
            "build_id": placed.image.build_id if placed is not None else None,
            "slide": None,
            "path": placed.image.path if placed is not None else None,
            "memory": "percpu",
        }
        yield Layer(model.MODULE, module.name, start, start + module.size, "struct module in memory", details)
        if placed is not None:
            yield from shifted_symbols(placed, pointer, distance)

    # -- expressions ---------------------------------------------------------------------------------------------------

    def instances(self, address: int, cpu: int | None) -> Sequence[int]:
        """See `kplug.memory.percpu.Instances`: static variables, modules', and __percpu pointers to allocations."""
        found = self._static.instances(address, cpu)
        if found:
            return found
        known = self._map
        if _pointed(known, address) is None:
            if known.problem is not None:
                raise TargetError(known.problem)
            return ()
        return [address + distance & self._mask for distance in known.areas.distances(cpu)]


class _Spans:
    """Spans in the order of their addresses, none over another: a broken record must not hide what is known."""

    def __init__(self) -> None:
        self.all: list[_Span] = []
        self.starts: list[int] = []

    def add(self, spans: Sequence[_Span]) -> bool:
        """Add them, if there is room for all of them."""
        if not all(self._has_room(span) for span in spans):
            return False
        for span in spans:
            position = bisect_right(self.starts, span.start)
            self.all.insert(position, span)
            self.starts.insert(position, span.start)
        return True

    def _has_room(self, span: _Span) -> bool:
        position = bisect_right(self.starts, span.start)
        before = self.all[position - 1].end if position else 0
        after = self.starts[position] if position < len(self.starts) else 1 << 64
        return before <= span.start < span.end <= after


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except TargetError as error:
        problems.append(str(error))


def _pointer_of(place: int, base: int, areas: Areas, mask: int) -> int:
    """The __percpu pointer of an address in the base unit (mm/percpu.c, __addr_to_pcpu_ptr)."""
    return place - base + areas.template.start & mask


def _place_of(pointer: int, known: _Map, mask: int) -> int:
    """The address in the base unit of a __percpu pointer."""
    return pointer - known.areas.template.start + known.base & mask


def _pointed(known: _Map, pointer: int) -> Chunk | None:
    """The chunk into which a __percpu pointer points."""
    position = bisect_right(known.pointer_starts, pointer) - 1
    if position < 0:
        return None
    chunk = known.chunks[position]
    return chunk if pointer - known.pointer_starts[position] < chunk.end - chunk.start else None


def _lowest_bit(bits: int, otherwise: int) -> int:
    """The number of the lowest bit that is set; `otherwise` if none is."""
    return (bits & -bits).bit_length() - 1 if bits else otherwise


def _run_name(run: Allocation) -> str:
    return "allocation" if run.allocated else "free"


locates(KIND, lambda kernel, user: Percpu(kernel, kernel.image) if kernel.image is not None else None)
