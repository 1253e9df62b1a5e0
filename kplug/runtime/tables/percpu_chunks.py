"""The chunks of the per-CPU allocator, which mm/percpu.c keeps on lists by their free space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import drgn

from kplug.errors import TargetError
from kplug.memory.percpu import DYNAMIC, MODULE, Areas
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel

# Far more than usual: some hundreds of chunks on some 20 lists, with some hundred pages per unit.
_MOST_CHUNKS, _MOST_SLOTS, _MOST_UNIT_PAGES = 1 << 16, 1 << 10, 1 << 14
CHUNKS = "per-CPU chunks"


class Chunk(NamedTuple):
    """A chunk: the addresses of its descriptor and its base unit, and the part of a unit that it allocates from.

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


class ChunkReader:
    """Reads the chunks of a kernel with types. `mask` keeps addresses within the machine's width."""

    def __init__(self, kernel: Kernel, mask: int) -> None:
        self._kernel = kernel
        self._mask = mask

    def units(self, areas: Areas) -> tuple[int, dict[int, int]]:
        """The base unit's address, and each CPU's unit offset from it."""
        prog = self._kernel.prog
        with self._kernel.reading(f"{CHUNKS} could not be read"):
            base = prog["pcpu_base_addr"].value_()
            offsets = prog["pcpu_unit_offsets"]
            return base, {cpu: offsets[cpu].value_() for cpu in areas.offsets}

    def chunks(self, problems: list[str]) -> Iterator[Chunk]:
        """The chunks of modules and of allocations. What could not be read is added to `problems`, the rest is kept."""
        prog = self._kernel.prog
        with _noted(problems):
            with self._kernel.reading(f"{CHUNKS}: pcpu_reserved_chunk could not be read"):
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
        with self._kernel.reading(f"{CHUNKS}: pcpu_nr_slots could not be read"):
            slots = prog["pcpu_nr_slots"].value_()
            try:
                lists = prog["pcpu_chunk_lists"].read_()  # 3c7be18ac9a0 (5.9)
            except LookupError:
                lists = prog["pcpu_slot"].read_()
            types = 1
            with suppress(LookupError):
                types = prog.constant("PCPU_NR_CHUNK_TYPES").value_()  # 5.9 to 5.13: lists of two types of chunks
        if not 0 < slots <= _MOST_SLOTS:
            raise TargetError(f"{CHUNKS}: pcpu_nr_slots is {slots}")
        return [lists[number] for number in range(slots * types)]

    def _on_list(self, head: drgn.Object, seen: set[int]) -> Iterator[drgn.Object]:
        """The chunks on one list, as pointers. TargetError if the list leads nowhere, or loops."""
        prog = self._kernel.prog
        with self._kernel.reading(f"{CHUNKS}: a list could not be read"):
            start = head.address_
            chunk_type = prog.type("struct pcpu_chunk")
            within = drgn.offsetof(chunk_type, "list")
            pointer_type = prog.pointer_type(chunk_type)
            node = head.next.value_()
            while node != start:
                if node in seen:
                    raise TargetError(f"{CHUNKS}: the list loops at {node:#x}")
                if len(seen) >= _MOST_CHUNKS:
                    raise TargetError(f"{CHUNKS}: more than {_MOST_CHUNKS} on the lists")
                seen.add(node)
                chunk = drgn.Object(prog, pointer_type, node - within & self._mask)
                following = chunk.list.next.value_()
                yield chunk
                node = following

    def _chunk(self, chunk: drgn.Object, kind: str) -> Chunk:
        with self._kernel.reading(f"{CHUNKS} could not be read"):
            read = chunk[0].read_()
            page_size = int(self._kernel.prog["PAGE_SIZE"])
            descriptor, base, pages = chunk.value_(), read.base_addr.value_(), read.nr_pages.value_()
            size = pages * page_size
            before, after = read.start_offset.value_(), read.end_offset.value_()
            if not (0 < pages <= _MOST_UNIT_PAGES and min(before, after) >= 0 and before + after <= size):
                raise TargetError(f"{CHUNKS}: what is at {descriptor:#x} is not a chunk")
            return Chunk(
                descriptor,
                kind,
                base,
                base + before,
                base + size - after,
                pages,
                read.alloc_map.value_(),
                read.bound_map.value_(),
                chunk.populated.address_of_().value_(),
            )


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except TargetError as error:
        problems.append(str(error))
