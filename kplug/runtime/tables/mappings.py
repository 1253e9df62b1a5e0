"""Where the kernel's own page tables map a page of memory, outside the direct map: the way back from `translation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kplug.arch.registry import named
from kplug.arch.types.memory_map import DIRECT_MAP, VMEMMAP
from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import try_read
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.translation import page_tables

# Tables that are read: those of 16 GiB in small pages. Beyond it, what is found is not all.
_MAX_TABLES = 1 << 13


class Mappings:
    """The mappings at one moment. The direct map and vmemmap are left out, and the image, which is mapped as linked.

    `problem` says why there may be others: tables that were not searched. None if all were.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.problem: str | None = None
        self._pages: dict[int, list[int]] = {}
        # Large pages: physical address, size, and where they are mapped.
        self._large: list[tuple[int, int, int]] = []
        tables = page_tables(kernel)
        self._paging = paging = tables.paging
        if paging is None or paging.root is None:
            self.problem = "where the kernel's page tables are is not known"
            return
        self._tables = paging.tables(paging.root, False)
        self._skipped = tuple(self._left_out())
        top = self._tables.levels - 1
        # One table for both halves, or a separate one for the kernel.
        first = self._tables.top_entries // 2 if named(kernel.machine).shared_top_table else 0
        upper = paging.first_address(kernel.word.mask)
        self._walk(paging.root, top, upper, first)

    def _left_out(self) -> Iterator[range]:
        space, paging = space_of(self._kernel), self._paging
        for area in space.areas if space is not None else ():
            if area.name in (DIRECT_MAP, VMEMMAP):
                yield range(area.start, area.end)
        if paging is not None and paging.direct_map is not None:  # where no memory map is declared
            yield paging.direct_map
        if paging is not None and paging.image is not None:
            yield paging.image

    def _walk(self, root: int, top: int, upper: int, first: int) -> None:
        paging, kernel, tables = self._paging, self._kernel, self._tables
        assert paging is not None
        waiting, count, word = [(root, top, upper)], 0, kernel.word
        while waiting:
            table, level, start = waiting.pop()
            size = paging.length(tables, level)
            data = try_read(kernel.read_physical, table, size * paging.entry_size)
            if data is None:
                self.problem = "some of the kernel's page tables cannot be read"
                continue
            count += 1
            if count > _MAX_TABLES:
                self.problem = f"the kernel has over {_MAX_TABLES:,} page tables, and no more were searched"
                return
            span = paging.shift(level)
            for number, entry in enumerate(word.numbers(data, paging.entry_size)):
                if not entry or (level == top and number < first):
                    continue
                place = start | number << span
                if level and any(place >= each.start and place + (1 << span) <= each.stop for each in self._skipped):
                    continue
                page = tables.page_at(entry, level)
                if page is not None and level:
                    self._large.append((page, 1 << span, place))
                elif page is not None:
                    self._pages.setdefault(page, []).append(place)
                elif level:
                    below = tables.table_below(entry, level)
                    if below is not None:
                        waiting.append((below, level - 1, place))

    def of(self, physical: int) -> Sequence[int]:
        """The virtual addresses of a physical one, sorted."""
        paging = self._paging
        if paging is None:
            return ()
        offset = physical % paging.page_size
        found = [place + offset for place in self._pages.get(physical - offset, ())]
        found += [place + physical - page for page, size, place in self._large if page <= physical < page + size]
        return sorted(place for place in found if not any(place in each for each in self._skipped))


def addresses_of(kernel: Kernel, physical: int) -> Sequence[int]:
    """The kernel's virtual addresses by which a physical one is asked about: the direct map's, which leads to all
    others; without one, those that the page tables have. TargetError if there is none.
    """
    tables = page_tables(kernel)
    paging = tables.paging
    if paging is None:
        raise TargetError(f"its virtual addresses are not known: kplug does not know page tables of {kernel.machine}")
    direct = tables.direct_address(physical)
    found = (direct,) if direct is not None else mappings_of(kernel).of(physical)
    if not found and paging.direct_offset is not None:
        # Where the direct map would have it: the answer is that this is beyond RAM.
        space, place = space_of(kernel), physical + paging.direct_offset
        if space is not None and kernel.word.is_kernel(place) and space.area_at(place).name == DIRECT_MAP:
            found = (place,)
    if not found:
        read = "" if mappings_of(kernel).problem is None else ", as far as they can be read,"
        lack = "no RAM" if paging.direct_map is not None else "where the direct map is, is not known"
        raise TargetError(f"{lack}, and the kernel's page tables{read} do not map it")
    return found


@remembered(UNTIL_RESUMED)
def mappings_of(kernel: Kernel) -> Mappings:
    """The mappings of a kernel's memory; its page tables are read once while it stands still."""
    return Mappings(kernel)
