"""Which symbol holds an address: the table's places, sorted.

The rule, in one sentence: the narrowest symbol whose bytes hold the address, never the nearest one.
- A sized symbol holds its bytes, within its section. What follows its end is padding, not more of the symbol.
- A sizeless one (an assembler label) holds what follows, up to the next symbol, boundary marker or end of its section
  or of the sized symbol around it; no more than it is known to have. One of data ends at an assembler's local label
  (.LC0) too: what a compiler put there, strings for the most part, has no other symbol.
- A boundary marker of the linker script holds nothing: it answers for its own address only, if it is alone there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from itertools import accumulate
from operator import add

from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.image.symbols.extents import Extent, Padding
from kplug.image.symbols.preference import preference
from kplug.image.symbols.table import SymbolTable
from kplug.linker.object_prefixes import OBJECT_PREFIXES

# Bytes around a requested address whose symbols are sorted for it.
_NEIGHBOURHOOD = 1 << 16
# Addresses whose neighbourhoods are sorted one by one, before all symbols are.
_FEW_NEIGHBOURHOODS = 4
# Symbols checked one by one for one that reaches over them, before the whole table is prepared for that.
_PATIENT_STEPS = 64
# Addresses answered one by one, each from the symbols around it, before all are sorted.
_FEW_WINDOWS = 64
_EVERYWHERE = (0, BEYOND_ADDRESSES)
_NOWHERE = (0, 0)
_BEYOND = (BEYOND_ADDRESSES, 0)


class SymbolIndex:
    """Address lookups in one `SymbolTable`.

    `markers` are the names of the linker script's boundary symbols. Those in `starts` begin something, and are
    preferred to markers that end something. Objects without a size are like markers and hold nothing. `known_size`
    gives the size of what a sizeless symbol is the start of, by its name, where that is known.

    Sorting a whole kernel's symbols takes longer than the rest of a single answer, so the first questions sort only
    those around their address; a later one elsewhere sorts them all.
    """

    def __init__(
        self,
        table: SymbolTable,
        markers: Collection[str] = (),
        starts: Collection[str] = (),
        known_size: Callable[[str], int | None] = lambda name: None,
    ) -> None:
        self.table = table
        self._known_size = known_size
        self._marker_addresses: dict[int, list[int]] = {}
        self._start_markers = frozenset(starts)
        marked = table.empty_objects()
        marked += [i for name, i in table.typeless_entries if name in markers or _unprefixed(name) in markers]
        for index in marked:
            self._marker_addresses.setdefault(table.values[index], []).append(index)
        self._marked = frozenset(marked)
        self._marker_starts = sorted(self._marker_addresses)
        self._held_sections = sorted((s for s in table.sections if s.occupies_addresses), key=lambda s: s.address)
        self._section_starts = [section.address for section in self._held_sections]
        self._window = _NOWHERE
        self._windows = 0

    @cached_property
    def _places(self) -> list[int]:
        return self.table.places(without=self._marked)

    @cached_property
    def _labels(self) -> list[int]:
        return self.table.label_addresses()

    def __len__(self) -> int:
        """The number of symbols that can hold an address, without boundary markers."""
        return len(self._places)

    def _cover(self, address: int) -> None:
        """Make the sorted columns answer for `address`."""
        low, high = self._window
        if low <= address < high:
            return
        self._sort_around(address)
        low, high = self._window
        if not low <= address < high:
            self._sort_all()

    def _sort_around(self, address: int) -> None:
        """Sort the symbols near the address, if that is less work than sorting all."""
        self._windows += 1
        around = self.table.around(address) if self._windows <= _FEW_WINDOWS else None
        if around is not None:
            self._order = [index for index in around.entries if index not in self._marked]
            self._sort()
            first, last = (self._starts[0], self._starts[-1]) if self._starts else _BEYOND
            self._known_from = 0 if around.is_start else first
            self._window = self._known_from, (_EVERYWHERE[1] if around.is_end else last)
        elif self._windows <= _FEW_NEIGHBOURHOODS:
            self._sort_neighbourhood(address)

    def _sort_neighbourhood(self, address: int) -> None:
        """Sort the symbols near the address, and those so large that they may reach there.

        All other symbols end before `_known_from`. The window in which the columns can answer also begins there, and
        goes from the first of the near symbols to the last: both neighbours of an address in it are known.
        """
        low, high = address - 2 * _NEIGHBOURHOOD, address + _NEIGHBOURHOOD
        near = self.table.near(low, high, _NEIGHBOURHOOD)
        if near is None:
            return
        values = self.table.values
        self._order = [index for index in near if index not in self._marked]
        starts = [values[i] for i in self._order if low <= values[i] < high]
        self._known_from = low + _NEIGHBOURHOOD
        self._window = (max(min(starts), self._known_from), max(starts)) if starts else _NOWHERE
        self._sort()

    def _sort_all(self) -> None:
        self._order = list(self._places)
        self._known_from = 0
        self._window = _EVERYWHERE
        self._sort()

    def _sort(self) -> None:
        values = self.table.values
        # A list gives its numbers faster than what makes each of them when it is asked.
        value = (list(values) if self._window == _EVERYWHERE else values).__getitem__
        self._order.sort(key=value)
        self._starts = list(map(value, self._order))
        self._ends: list[int] = []
        self._reach: list[int] | None = None
        self._maxima: list[list[int]] = []
        self._extents: dict[int, Extent] = {}

    def chain(self, address: int) -> tuple[Extent, ...]:
        """All extents that hold `address`, widest first: a sized symbol around, then a label inside it."""
        self._cover(address)
        position = bisect_right(self._starts, address) - 1
        if position > 0:
            extent = self._extents.get(self._starts[position]) or self._extent(position)
            if address < extent.end and self._reach_column()[position - 1] <= address:
                return (extent,)  # nearly always: the nearest symbol holds it, and no earlier one reaches that far
        found = list(self._inside_out(address))
        found.reverse()
        return tuple(found)

    def stretch(self, address: int) -> tuple[int, int, Extent | None] | None:
        """Start and end of the addresses around one that a single symbol holds, and its extent, or no symbol. None
        where that is not seen at once.
        """
        low, high = self._window
        if not low <= address < high:
            self._cover(address)
        starts, reach = self._starts, self._reach or self._reach_column()
        position = bisect_right(starts, address) - 1
        if position <= 0 or position + 1 == len(starts) or reach[position - 1] > address:
            return None
        extent, end = self._extents.get(starts[position]) or self._extent(position), starts[position + 1]
        # As max(), for less: a long log has thousands of stretches.
        start = extent.start if extent.start > self._known_from else self._known_from
        start = start if start > reach[position - 1] else reach[position - 1]
        if address < extent.end:
            return start, extent.end if extent.end < end else end, extent
        # Nothing holds it, unless a marker does.
        markers, marker = self._marker_starts, bisect_right(self._marker_starts, address)
        if marker and markers[marker - 1] == address:
            return None
        start = max(start, extent.end, markers[marker - 1] + 1 if marker else 0)
        return start, min(end, markers[marker]) if marker < len(markers) else end, None

    def innermost(self, address: int) -> Extent | None:
        """The narrowest extent that holds `address`, or None: the last one of `chain(address)`."""
        return next(self._inside_out(address), None)

    def _inside_out(self, address: int) -> Iterator[Extent]:
        """The extents that hold `address`, narrowest first; a lone boundary marker only if nothing else does."""
        self._cover(address)
        starts = self._starts
        position = bisect_right(starts, address) - 1
        found = False
        if position >= 0:
            extent = self._extent(position)
            if address < extent.end:
                found = True
                yield extent
            for outer in self._reaching(bisect_left(starts, starts[position], 0, position) - 1, address):
                extent = self._extent(outer)
                if address < extent.end:
                    found = True
                    yield extent
        if not found:
            marker = self._marker_at(address)
            if marker is not None:
                yield marker

    # What `SymbolIntervals` is made from.

    def columns(self) -> tuple[list[int], list[int], list[int]]:
        """All symbols sorted by address: their starts, the ends of their bytes, and the highest end up to each."""
        if self._window != _EVERYWHERE:
            self._sort_all()
        reach = self._reach_column()
        return self._starts, self._ends, reach

    def extent_at(self, position: int) -> Extent:
        """The extent of the symbols at that sorted position."""
        return self._extent(position)

    def marker_addresses(self) -> list[int]:
        """The addresses that have markers, sorted."""
        return self._marker_starts

    def distance_to_next(self, address: int) -> int:
        """Bytes from `address` to the next symbol, the size that kallsyms gives a symbol. 0 after a section's last."""
        self._cover(address)
        position = bisect_right(self._starts, address)
        return self._starts[position] - address if position < len(self._starts) else 0

    def padding(self, address: int, start: int, end: int) -> Padding:
        """For an address in `[start, end)` that no symbol holds: the gap, clipped to that range, and its neighbours."""
        self._cover(address)
        limits, after, before = (start, end), None, None
        following = bisect_right(self._starts, address)
        if following < len(self._starts) and self._starts[following] < end:
            before, end = self._extent(following).symbol.name, self._starts[following]
        position, edge = following - 1, start
        reach = self._reach_column()
        # Of the symbols before it, the one that ends last: an earlier, larger one may end after the nearest one.
        while position >= 0 and self._starts[position] >= start and (after is None or reach[position] > edge):
            extent = self._extent(position)
            if after is None or extent.end > edge:
                after, edge = extent.symbol.name, max(extent.end, start)
            position = bisect_left(self._starts, extent.start, 0, position) - 1
        if edge < self._known_from:
            self._sort_all()
            return self.padding(address, *limits)
        return Padding(edge, end, after, before)

    def _reach_column(self) -> list[int]:
        """For each sorted position, the highest end of the sized symbols up to it; `_ends` has their own."""
        if self._reach is None:
            self._ends = list(map(add, self._starts, map(self._size, self._order)))
            if not self._within_sections():
                self._ends = list(map(self._end_of, self._order))
            self._reach = list(accumulate(self._ends, max))
        return self._reach

    @property
    def _size(self) -> Callable[[int], int]:
        """The function that gives the size of an entry."""
        return self.table.sizes.__getitem__ if self._window == _EVERYWHERE else self.table.size

    def _within_sections(self) -> bool:
        """Whether no symbol claims bytes beyond its section; in a valid file none does."""
        done = 0
        for section in self._held_sections:
            first = bisect_left(self._starts, section.address, done)
            last = bisect_left(self._starts, section.end, first)
            if max(self._ends[first:last], default=0) > section.end or self._sized(done, first):
                return False
            done = last
        return not self._sized(done, len(self._starts))

    def _sized(self, first: int, last: int) -> bool:
        """Whether a symbol in that range of sorted positions has a size."""
        return first < last and any(map(self._size, self._order[first:last]))

    def _end_of(self, index: int) -> int:
        """The end of the bytes of table entry `index`, at most its section's end; outside all sections it has none."""
        start = self.table.values[index]
        section = self.table.sections[self.table.section_index(index)]
        if not section.address <= start < section.end:
            section = self._held_sections[bisect_right(self._section_starts, start) - 1]
        return min(start + self._size(index), section.end) if section.address <= start < section.end else start

    def _reaching(self, position: int, address: int) -> Iterator[int]:
        """From sorted `position` down, one position of each group of symbols at one address whose bytes hold `address`.

        Sizeless symbols do not count: none reaches past the next one.
        """
        starts, reach = self._starts, self._reach_column()
        steps = 0
        while position >= 0 and reach[position] > address:
            if self._ends[position] > address:
                yield position
                position = bisect_left(starts, starts[position], 0, position) - 1
            elif steps < _PATIENT_STEPS:
                steps += 1
                position -= 1
            else:
                position = self._last_ending_after(address, position)

    def _last_ending_after(self, address: int, position: int) -> int:
        """The last sorted position up to `position` whose symbol's bytes end after `address`; -1 if there is none."""
        if not self._maxima:
            # A tree: the maxima of pairs of ends, of pairs of those, and so on.
            level = self._ends
            self._maxima = [level]
            while len(level) > 1:
                level = list(map(max, level[::2], [*level[1::2], *level[-1:]]))
                self._maxima.append(level)
        height = 0
        while position >= 0 and self._maxima[height][position] <= address:
            if position % 2:
                position -= 1
            else:
                position, height = position // 2 - 1, height + 1
        while position >= 0 and height:
            height -= 1
            position = 2 * position + 1
            if position >= len(self._maxima[height]) or self._maxima[height][position] <= address:
                position -= 1
        return position

    def _sizeless_end(self, position: int) -> int:
        """The end of the sizeless symbol at sorted `position`: next symbol, marker or label, or its section's end."""
        start = self._starts[position]
        section = self.table.sections[self.table.section_index(self._order[position])]
        if not section.address <= start < section.end:
            return start  # a label at the end of its section holds nothing of the next one
        end = section.end
        following = bisect_right(self._starts, start, position)
        if following < len(self._starts):
            end = min(end, self._starts[following])
        marker = bisect_right(self._marker_starts, start)
        if marker < len(self._marker_starts):
            end = min(end, self._marker_starts[marker])
        if not section.executable:  # a function of the assembler has such labels within it
            label = bisect_right(self._labels, start)
            if label < len(self._labels):
                end = min(end, self._labels[label])
        # Inside a sized symbol a label ends with it at the latest.
        end = min((end, *(self._ends[outer] for outer in self._reaching(position - 1, start))))
        return max(end, start)

    def _extent(self, position: int) -> Extent:
        """The extent of the group of symbols that share the address at sorted `position` (cached by address)."""
        start = self._starts[position]
        extent = self._extents.get(start)
        if extent is not None:
            return extent
        starts, first, last = self._starts, position, position + 1
        if (first and starts[first - 1] == start) or (last < len(starts) and starts[last] == start):
            first, last = bisect_left(starts, start, 0, position), bisect_right(starts, start, position)
        if last - first == 1:
            best = self.table.symbol(self._order[position])
            sizeless = not best.size
            aliases: tuple[str, ...] = ()
        else:
            group = sorted(map(self.table.symbol, self._order[first:last]), key=preference)
            best, sizeless = group[0], not any(symbol.size for symbol in group)
            aliases = tuple(symbol.name for symbol in group[1:])
        if sizeless:
            end, known = self._sizeless_end(first), self._known_size(best.name)
            end = min(end, start + known) if known is not None else end
        else:
            self._reach_column()
            end = self._ends[position] if last - first == 1 else max(self._ends[first:last])
        markers = self._marker_addresses.get(start)
        if markers:
            aliases += tuple(map(self.table.name, markers))
        if aliases:
            aliases = tuple(name for name in dict.fromkeys(aliases) if name != best.name)
        extent = self._extents[start] = Extent._make((start, end, best, aliases, sizeless))
        return extent

    def _marker_at(self, address: int) -> Extent | None:
        """The boundary marker that is alone at `address`, as an empty extent."""
        markers = self._marker_addresses.get(address)
        if not markers:
            return None
        table, starts = self.table, self._start_markers
        symbols = map(table.symbol, markers)
        # A number, or the place of an empty section that is in no memory, is not what the address is.
        best, *others = sorted(
            symbols, key=lambda s: (not table.is_allocated(s.section_index), s.name not in starts, preference(s))
        )
        aliases = tuple(name for name in dict.fromkeys(s.name for s in others) if name != best.name)
        return Extent(address, address, best, aliases, True)


def _unprefixed(name: str) -> str:
    """The name without the prefix that objcopy added."""
    for prefix in OBJECT_PREFIXES:
        name = name.removeprefix(prefix)
    return name
