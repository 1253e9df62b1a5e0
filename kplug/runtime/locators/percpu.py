"""Per-CPU memory from its allocator's own records: static variables, modules' variables, and allocations.

mm/percpu.c: memory is in chunks; a chunk has one unit for each CPU, and everything in it is at the same offset in each
unit. The first units begin with the static variables, followed by the part reserved for modules (if the architecture
has one) and the first dynamic part, each described by a chunk of its own. Further chunks are in vmalloc space. A
__percpu pointer is an address in the chunk's base unit, minus the distance of the static variables from it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from kplug import model
from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.errors import TargetError
from kplug.image.elf.sections import PERCPU_SECTION
from kplug.image.placed import PlacedImage
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.percpu import KIND, MODULE, Areas, NoAreasError, StaticPercpu, shifted_symbols, template
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.registry import locates
from kplug.runtime.modules.images import images_of
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.tables.percpu_chunks import CHUNKS, Chunk, ChunkReader

# The smallest allocation, for which the maps have a bit (include/linux/percpu.h, PCPU_MIN_ALLOC_SIZE, since 4.14).
_GRAIN = 4
# More than modules have after the image's own variables: PERCPU_MODULE_RESERVE (include/linux/percpu.h) is 8 KiB, and
# 64 KiB with CONFIG_MEM_ALLOC_PROFILING.
_MOST_RESERVED = 1 << 18
_CHUNK_SOURCE = "the chunks of mm/percpu.c in memory"


class _Span(NamedTuple):
    """One CPU's part of a chunk (runtime addresses), `distance` after the chunk's base unit; no chunk if static."""

    start: int
    end: int
    cpu: int
    distance: int
    chunk: Chunk | None


class _Map(NamedTuple):
    """All that is known about per-CPU memory: sorted lists of the spans, and of the ranges of __percpu pointers."""

    spans: list[_Span]
    starts: list[int]
    chunks: list[Chunk]
    pointer_starts: list[int]
    areas: Areas
    base: int  # the base unit of the static area
    problem: str | None


class Allocation(NamedTuple):
    """A run of a chunk's bytes, as addresses in the base unit: one allocation, or free."""

    start: int
    end: int
    allocated: bool


class _ModuleArea(NamedTuple):
    """The per-CPU variables of a loaded module: its __percpu pointer and their size."""

    name: str
    pointer: int
    size: int


class Percpu:
    """Locator and `Instances` for all per-CPU memory of a kernel that drgn has open."""

    def __init__(self, kernel: Kernel, image: PlacedImage) -> None:
        self._kernel = kernel
        self.memo = kernel.memo
        self._image = image
        self._static = StaticPercpu(image, kernel.read, kernel.memo)
        self._mask = image.placement.mask

    # -- addresses -----------------------------------------------------------------------------------------------------

    def locate(self, address: int) -> Iterator[Layer]:
        """The layers of an address in a CPU's memory, or of a __percpu pointer."""
        in_image = self._image.piece(address) is not None
        if in_image and not self._follows_template(address):
            return  # the image answers for static variables' own addresses
        try:
            known = self._map
        except NoAreasError:
            return
        if in_image:
            yield from self._pointer_in_image(address, known)
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
        if known.problem is not None and self._kernel.word.is_kernel(address):
            raise TargetError(known.problem)

    def _follows_template(self, address: int) -> bool:
        """Whether a module's __percpu pointer may have this value: only then is it worth reading the chunks."""
        found = self._template
        return found is not None and found.stop <= address < found.stop + _MOST_RESERVED

    @property
    @remembered(UNTIL_RESUMED)
    def _template(self) -> range | None:
        return template(self._image)

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
        """A __percpu pointer: what is at that offset in each CPU's unit."""
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

    def _pointer_in_image(self, pointer: int, known: _Map) -> Iterator[Layer]:
        """A __percpu pointer to a module's static variable, or into an allocation of the first chunks. Where the
        image's own variables have their addresses in the image (arm64; x86_64 since 6.15), these come after them there.

        Of an allocation only where the image's memory is freed: else the value is rather an address of the image.
        """
        chunk, piece = _pointed(known, pointer), self._image.piece(pointer)
        if chunk is None or piece is None:
            return
        module = self._module_or_problem(chunk, pointer)[0]
        if module is not None:
            variables = (each for each in self._module_layers(module, pointer, 0) if each.kind == model.SYMBOL)
            variable = next((f"{each.name}+{pointer - (each.start or 0):#x}" for each in variables), "per-CPU data")
            what = f"to {variable} of module {module.name}"
        else:
            run = self._facts(chunk, _place_of(pointer, known, self._mask), pointer)[1]
            if run is None or not run.allocated or not piece.freed_after_boot:
                return
            what = f"into an allocation of {run.end - run.start:#x} bytes"
        meaning = f"Also a __percpu pointer {what}: each CPU has it at its own base."
        details = {"what": "percpu-pointer", "meaning": meaning}
        yield Layer(model.SPECIAL, "per-CPU pointer", None, None, _CHUNK_SOURCE, details)

    def _facts(self, chunk: Chunk, place: int, pointer: int) -> tuple[dict[str, Any], Allocation | None]:
        """The facts about an address in a chunk's base unit, from the chunk's records; unreadable ones stay None."""
        populated = run = None
        try:
            populated = self._is_populated(chunk, place)
            run = self._run(chunk, place)
        except TargetError:
            pass  # the dump does not contain the page, but the place in the chunk is known
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

        alloc_map has a bit set for each allocated grain. bound_map has one at the start of an allocation and one after
        its end; freed ones keep theirs, so free bytes are those between two allocated grains.
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

    @remembered(UNTIL_RESUMED)
    def _maps(self, chunk: Chunk) -> tuple[int, int]:
        size = chunk.pages * self._page_size // _GRAIN // 8
        return self._bits(chunk.alloc_map, size), self._bits(chunk.bound_map, size)

    def _bits(self, address: int, size: int) -> int:
        """A kernel bitmap as one number."""
        return self._kernel.word.bitmap(self._kernel.read(address, size))

    def _is_populated(self, chunk: Chunk, place: int) -> bool:
        page = (place - chunk.base) // self._page_size
        word = self._kernel.word
        return bool(self._kernel.read_word(chunk.populated + page // word.bits * word.size) >> page % word.bits & 1)

    @property
    @remembered(UNTIL_RESUMED)
    def _page_size(self) -> int:
        return int(self._kernel.prog["PAGE_SIZE"])

    # -- all chunks ----------------------------------------------------------------------------------------------------

    @property
    @remembered(UNTIL_RESUMED)
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
                chunk_reader = ChunkReader(self._kernel, self._mask)
                base, units = chunk_reader.units(areas)
                for chunk in chunk_reader.chunks(problems):
                    if spans.add(self._spans_of(chunk, units)):
                        chunks.append(chunk)
                    else:
                        problems.append(f"{CHUNKS}: what is at {chunk.descriptor:#x} overlaps something else")
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

    # -- modules -------------------------------------------------------------------------------------------------------

    def _module_or_problem(self, chunk: Chunk, pointer: int) -> tuple[_ModuleArea | None, TargetError | None]:
        """The module with a place in the reserved chunk; and why it may not be known."""
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

    @remembered(UNTIL_RESUMED)
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
            section = next((each for each in placed.image.sections if each.name == PERCPU_SECTION), None)
            if section is not None:
                of_it = {"type": section.type, "flags": section.flag_letters, "link_start": None}
                end, source = start + module.size, "struct module in memory"
                yield Layer(model.SECTION, section.name, start, end, source, of_it)
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
    """Spans sorted by address, without overlaps: a broken record must not hide what is known."""

    def __init__(self) -> None:
        self.all: list[_Span] = []
        self.starts: list[int] = []

    def add(self, spans: Sequence[_Span]) -> bool:
        """Add them, if none of them overlaps another span."""
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
        after = self.starts[position] if position < len(self.starts) else BEYOND_ADDRESSES
        return before <= span.start < span.end <= after


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
    """The number of the lowest set bit; `otherwise` if there is none."""
    return (bits & -bits).bit_length() - 1 if bits else otherwise


def _run_name(run: Allocation) -> str:
    return "allocation" if run.allocated else "free"


locates(KIND, lambda kernel, user: Percpu(kernel, kernel.image) if kernel.image is not None else None)
