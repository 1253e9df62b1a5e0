"""The rules of docs/oracle.md, applied to what readelf and nm say of one kernel; brute force where that is plain.

Nothing of kplug is imported. Only the regions that kplug finds by naming convention are handed in, as pairs of symbols
(`Oracle.conventions`): which pairs of names mean something is a matter of taste, where they lie is not.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from support.oracle import binutils
from support.oracle.binutils import SectionRow, SegmentRow, SymbolRow
from support.oracle.regions import ARM, IMAGE, INIT_DATA, METHODS, ONE_PAGE, PAGE, PAIRS, READ_ONLY, TEMPLATE

MASK = (1 << 64) - 1

# Objects that the build links into the kernel under other names (objcopy --prefix-symbols) keep their labels.
_BUILD_PREFIXES = ("__kvm_nvhe_", "__pi_", "__efistub_")
_MAPPING_SYMBOL = re.compile(r"\$[xdat](\.|$|rv)")  # rv: RISC-V's have the ISA after the letter
# Nobody means these when the address has another name.
_SECONDARY = (
    "__pfx_",
    "__SCT__",
    "__SCK__",
    "__UNIQUE_ID",
    "__cfi_",
    ".L",
    "__initcall__kmod_",
    "__event_",
    "__BTF_ID__",
    "__ia32_",
)


class Region(NamedTuple):
    start: int
    end: int
    name: str
    region_class: str | None
    start_symbol: str
    end_symbol: str | None


class Group(NamedTuple):
    """The symbols that share an address, and the bytes they hold together."""

    start: int
    end: int
    chosen: SymbolRow
    others: tuple[str, ...]  # every other name at that address, sorted; boundary markers too
    sizeless: bool


class Piece(NamedTuple):
    """What does not change between two neighbouring bounds of segments, sections and regions."""

    segments: tuple[int, ...]
    sections: tuple[int, ...]
    regions: tuple[Region, ...]
    region_class: str
    in_image: bool
    region_gap: tuple[int, int, frozenset[str], frozenset[str]] | None


class SymbolGap(NamedTuple):
    start: int
    end: int
    after: frozenset[str]
    before: frozenset[str]


class Answer(NamedTuple):
    """The expected answer for one link address. `symbols` are the holders, widest first; the last is the answer."""

    piece: Piece
    symbols: tuple[Group, ...]
    marker: Group | None
    gap: SymbolGap | None


class Oracle:
    """One kernel as readelf and nm describe it."""

    def __init__(self, path: str, machine: str, conventions: Iterable[tuple[str, str, str]] = ()) -> None:
        self.path = path
        self.machine = machine
        self.section_rows = binutils.sections(path)
        self.segment_rows = binutils.segments(path)
        self.symbol_rows = binutils.symbols(path)
        self.sections = {row.number: row for row in self.section_rows if self._has_room(row)}
        self.segments = [row for row in self.segment_rows if row.memory_size > 0]
        self._values: dict[str, list[int]] = defaultdict(list)
        for row in self.symbol_rows:
            if row.section != "UND" and row.type not in ("FILE", "SECTION"):
                self._values[row.name].append(row.value)
        start, end = (self.value(name) for name in IMAGE)
        assert start is not None
        assert end is not None
        self.image = (start, end)
        self.regions, self.empty = self._regions(conventions)
        self.groups, self.markers = self._groups()
        self._group_starts = [group.start for group in self.groups]
        self._cut()

    @staticmethod
    def _has_room(row: SectionRow) -> bool:
        """Sections that occupy memory: allocated, not empty, not .tbss."""
        return "A" in row.flags and row.size > 0 and not ("T" in row.flags and row.type == "NOBITS")

    def value(self, name: str) -> int | None:
        """What nm says a boundary symbol's value is; None if there is none, or several that differ."""
        values = set(self._values.get(name, ()))
        return values.pop() if len(values) == 1 else None

    # -- regions -------------------------------------------------------------------------------------------------------

    def _regions(self, conventions: Iterable[tuple[str, str, str]]) -> tuple[list[Region], list[Region]]:
        found: list[Region] = []
        for pair in PAIRS:
            start, end = self.value(pair.start), self.value(pair.end)
            if self.machine not in pair.machines or start is None or end is None:
                continue
            # The same by two names: one under the prefix of the code that runs before the kernel is mapped.
            if not any((region.start, region.end, region.name) == (start, end, pair.name) for region in found):
                found.append(Region(start, end, pair.name, pair.region_class, pair.start, pair.end))
        page = self.value(ONE_PAGE.start)
        if page is not None and self.machine in ONE_PAGE.machines:
            found.append(Region(page, page + PAGE, ONE_PAGE.name, ONE_PAGE.region_class, ONE_PAGE.start, None))
        load, first, last = self.value(TEMPLATE.start), self.value("__per_cpu_start"), self.value("__per_cpu_end")
        if load is not None and first == 0 and last is not None and self.machine in TEMPLATE.machines:
            found.append(Region(load, load + last, TEMPLATE.name, TEMPLATE.region_class, TEMPLATE.start, None))
        there = [(name, value) for name in INIT_DATA if (value := self.value(name)) is not None]
        for (name, start), (next_name, end) in zip(there, there[1:]):
            if name.endswith("_of_table"):
                empty = start == end or (name in METHODS and self.machine not in ARM)
                until = (start, None) if empty else (end, next_name)
                found.append(Region(start, until[0], name.strip("_"), None, name, until[1]))
        for name, start_symbol, end_symbol in conventions:
            start, end = self.value(start_symbol), self.value(end_symbol)
            assert start is not None, start_symbol
            assert end is not None, end_symbol
            found.append(Region(start, end, name, None, start_symbol, end_symbol))
        held = sorted((region for region in found if region.start < region.end), key=lambda r: (r.start, -r.end))
        return held, [region for region in found if region.start == region.end]

    # -- symbols -------------------------------------------------------------------------------------------------------

    def _holds(self, row: SymbolRow) -> bool:
        """Whether a symbol names bytes in memory."""
        if row.type in ("FILE", "SECTION", "TLS") or not row.section.isdigit() or not row.name:
            return False
        if "A" not in self.section_rows[int(row.section)].flags:
            return False
        return not self._is_label(row)

    def _is_label(self, row: SymbolRow) -> bool:
        """Whether the name is the assembler's own, of a local label or a mapping symbol."""
        name = _unprefixed(row.name)
        if name.startswith(".L"):
            return row.type == "NOTYPE"  # clang's `.L__const.FUNCTION.VARIABLE` are objects
        return bool(self.machine in ("aarch64", "arm", "riscv64") and _MAPPING_SYMBOL.match(name))

    def _is_marker(self, row: SymbolRow, names: set[str]) -> bool:
        """Boundary symbols have no size; a copy under a build prefix counts where it has the boundary's value."""
        if row.size or row.section == "UND" or row.type in ("FILE", "SECTION"):
            return False
        bare = _unprefixed(row.name)
        return row.name in names or (bare in names and row.value == self.value(bare))

    def _tables(self) -> dict[str, int]:
        """The sizes of the tables of scripts/kallsyms.c whose symbols have none, and after which others may follow."""
        count = self.value("kallsyms_num_syms")
        if count is None:
            return {}
        symbols = int.from_bytes(binutils.data(self.path, count, 4), binutils.byte_order(self.path))
        return {
            "kallsyms_offsets": 4 * symbols, "kallsyms_seqs_of_names": 3 * symbols, "kallsyms_token_index": 512,
        }  # fmt: skip

    def _groups(self) -> tuple[list[Group], dict[int, Group]]:
        """The groups that hold bytes, by start; and the boundary markers, by address."""
        marker_names = set(IMAGE)
        for region in (*self.regions, *self.empty):
            marker_names.update(name for name in (region.start_symbol, region.end_symbol) if name)
        members: dict[int, list[SymbolRow]] = defaultdict(list)
        marks: dict[int, list[SymbolRow]] = defaultdict(list)
        for row in self.symbol_rows:
            if self._is_marker(row, marker_names) or (self._holds(row) and row.type == "OBJECT" and not row.size):
                marks[row.value].append(row)
            elif self._holds(row):
                members[row.value].append(row)
        starts = sorted(members)
        stops = sorted({*members, *marks})
        labels = sorted(row.value for row in self.symbol_rows if row.section.isdigit() and self._is_label(row))
        groups = []
        tables = self._tables()
        open_ends: list[int] = []  # of the sized groups that reach beyond the present one
        for start in starts:
            ranked = sorted(members[start], key=_preference)
            chosen = ranked[0]
            size = max(row.size for row in ranked)
            open_ends = [end for end in open_ends if end > start]
            if size:
                end = start + size
                open_ends.append(end)
            else:
                own = self.section_rows[int(chosen.section)]
                following = bisect_right(stops, start)
                limits = [own.address + own.size, *open_ends]
                if following < len(stops):
                    limits.append(stops[following])
                label = bisect_right(labels, start)
                if "X" not in own.flags and label < len(labels):
                    limits.append(labels[label])
                if chosen.name in tables:
                    limits.append(start + tables[chosen.name])
                within = own.address <= start
                end = max(start, min(limits)) if within else start
            others = _names_but(chosen, [*ranked, *marks.get(start, ())])
            groups.append(Group(start, end, chosen, others, not size))
        markers = {}
        allocated = {str(row.number) for row in self.section_rows if "A" in row.flags}
        beginnings = {region.start_symbol for region in (*self.regions, *self.empty)}
        for address, rows in marks.items():
            ranked = sorted(
                rows, key=lambda row: (row.section not in allocated, row.name not in beginnings, _preference(row))
            )
            markers[address] = Group(address, address, ranked[0], _names_but(ranked[0], ranked), True)
        return groups, markers

    def letter(self, row: SymbolRow) -> str:
        """nm's; but in a section that is written and executed nm calls all text: there the region tells what it is."""
        flags = self.section_rows[int(row.section)].flags if row.section.isdigit() else ""
        if row.letter not in "tT" or not {"W", "X"} <= {*flags}:
            return row.letter
        piece = self._pieces[bisect_right(self._bounds, row.value)]
        if any(region.name == "relocate_kernel" for region in piece.regions):  # the code in .data
            return row.letter
        told = {"data": "d", "percpu": "d", "rodata": "r", "bss": "b", "brk": "b"}.get(piece.region_class, "t")
        return told if row.letter == "t" else told.upper()

    # -- answers -------------------------------------------------------------------------------------------------------

    def bounds(self) -> list[int]:
        """Every bound of a section, segment, region and of the image, sorted."""
        found = set(self.image)
        for section in self.sections.values():
            found.update((section.address, section.address + section.size))
        for segment in self.segments:
            found.update((segment.address, segment.address + segment.memory_size))
        for region in self.regions:
            found.update((region.start, region.end))
        return sorted(found)

    def _cut(self) -> None:
        """Between two neighbouring bounds every address has the same piece, so one answer is made for each run."""
        self._bounds = self.bounds()
        names = READ_ONLY.get(self.machine, ())
        self._read_only = [value for name in names if (value := self.value(name)) is not None] or [0, 0]
        nothing = Piece((), (), (), "none", False, None)
        self._pieces = [nothing, *(self._piece(bound) for bound in self._bounds)]

    def _piece(self, address: int) -> Piece:
        segments = [row for row in self.segments if row.address <= address < row.address + row.memory_size]
        sections = [row for row in self.sections.values() if row.address <= address < row.address + row.size]
        regions = [region for region in self.regions if region.start <= address < region.end]
        segments.sort(key=lambda row: -row.memory_size)
        sections.sort(key=lambda row: -row.size)
        regions.sort(key=lambda region: region.start - region.end)
        in_image = self.image[0] <= address < self.image[1]
        gap = None
        if in_image and not regions:
            start = max([region.end for region in self.regions if region.end <= address] + [self.image[0]])
            end = min([region.start for region in self.regions if region.start > address] + [self.image[1]])
            after = [region for region in self.regions if region.end == start]
            before = [region for region in self.regions if region.start == end]
            gap = (start, end, _widest(after, "_text"), _widest(before, "_end"))
        return Piece(
            tuple(row.number for row in segments),
            tuple(row.number for row in sections),
            tuple(regions),
            _class(regions, sections, bool(gap and self._read_only[0] <= address < self._read_only[1])),
            in_image,
            gap,
        )

    def answers(self, addresses: Sequence[int]) -> Iterator[Answer]:
        """The expected answers for link addresses, which must be sorted: one sweep over all of them."""
        position = 0
        active: list[Group] = []
        last_end = 0  # the greatest end of a group that began before the address
        enders: list[Group] = []
        for address in addresses:
            while position < len(self.groups) and self.groups[position].start <= address:
                group = self.groups[position]
                active.append(group)
                if group.end > last_end:
                    last_end, enders = group.end, []
                if group.end == last_end:
                    enders.append(group)
                position += 1
            active = [group for group in active if group.end > address]
            piece = self._pieces[bisect_right(self._bounds, address)]
            # Narrowest last; of two equally wide ones (which then overlap in part) the later.
            symbols = tuple(sorted(active, key=lambda group: (group.start - group.end, group.start)))
            # An end marker may lie outside everything: then the address is not this image's.
            claimed = piece.segments or piece.sections or piece.regions or piece.in_image
            marker = self.markers.get(address) if claimed and not symbols else None
            gap = None
            if not symbols and piece.sections:
                section = self.section_rows[piece.sections[-1]]
                gap = self._gap(section, last_end, enders, position)
            yield Answer(piece, symbols, marker, gap)

    def _gap(self, section: SectionRow, last_end: int, enders: Sequence[Group], position: int) -> SymbolGap | None:
        """Bytes of a section that no symbol holds, and the names on both sides: symbols, or the section's own ends.

        A section without any symbol is no gap between two.
        """
        section_end = section.address + section.size
        start, after = section.address, {f"start of {section.name}"}
        # A symbol that holds nothing (an end label) is a neighbour, too, at the section's very start.
        if last_end > section.address or any(group.start == section.address for group in enders):
            start, after = last_end, {group.chosen.name for group in enders}
        end, before = section_end, {f"end of {section.name}"}
        if position < len(self.groups) and self.groups[position].start < section_end:
            end, before = self.groups[position].start, {self.groups[position].chosen.name}
        if (start, end) == (section.address, section_end):
            return None
        return SymbolGap(start, end, frozenset(after), frozenset(before))


def _unprefixed(name: str) -> str:
    """The name that a symbol had before the build put a prefix before it."""
    for prefix in _BUILD_PREFIXES:
        name = name[len(prefix) :] if name.startswith(prefix) else name
    return name


def _preference(row: SymbolRow) -> tuple[bool, bool, bool, int, int, str]:
    """The order in which names of one address are preferred, the best first."""
    return (
        row.name.startswith(_SECONDARY),
        row.size == 0,
        row.binding == "LOCAL",
        len(row.name) - len(row.name.lstrip("_")),
        -row.size,
        row.name,
    )


def _names_but(chosen: SymbolRow, rows: Iterable[SymbolRow]) -> tuple[str, ...]:
    """The other names; several static variables may share one, it is said once."""
    return tuple(sorted({row.name for row in rows} - {chosen.name}))


def _widest(regions: Sequence[Region], edge: str) -> frozenset[str]:
    """The names of the widest of some regions (several if equally wide); the image's own bound if there are none."""
    size = max((region.end - region.start for region in regions), default=0)
    return frozenset(r.name for r in regions if r.end - r.start == size) or frozenset((edge,))


def _class(regions: Sequence[Region], sections: Sequence[SectionRow], read_only: bool) -> str:
    """The narrowest region that has a class says it, else the section's flags, as readelf prints them; no region's
    bytes are data where the kernel maps all read-only."""
    for region in reversed(regions):
        if region.region_class:
            return region.region_class
    if not sections:
        return "none"
    by_flags = section_class(sections[-1])
    return "rodata" if read_only and by_flags == "data" else by_flags


def section_class(section: SectionRow) -> str:
    """What the flags of a section say."""
    if "X" in section.flags:
        return "text"
    if section.type == "NOBITS":
        return "bss"
    return "data" if "W" in section.flags else "rodata"


def loads(rows: Iterable[SegmentRow]) -> list[SegmentRow]:
    """The segments that are loaded."""
    return [row for row in rows if row.type == "LOAD"]
