"""In what an answer without the vmlinux may differ from the one with it, and why. docs/sources.md has the same list.

Whatever a source answers is true: a symbol that it names has that name in the vmlinux, at that very address. What it
may do is to know less. Every difference must fall under one of these rules.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kplug import model
from kplug.image.columns import Columns
from kplug.image.symbols.symbol_list import SymbolList
from kplug.model import Annotation, Layer
from kplug.resolver import Resolver
from support.full_vmlinux import MASK, Full
from support.oracle.rules import section_class

TO_THE_NEXT = "a list states no sizes: a symbol reaches to the next one, over the padding behind it"
INNER = "no sizes: behind a symbol inside a larger one, the larger one is not seen any more"
OTHER_NAME = "of several names of one address another is chosen: sizes and types are not known"
LEFT_OUT = "the name is not in the list"
BEYOND = "without sections nothing is known before _text and beyond _end"
NO_SECTIONS = "there are no sections"
NO_CLASS = "the class of what no region holds is told by its section"
CODE_ONLY = "kallsyms have code only: of the rest it is told what its section tells"
RULES = (TO_THE_NEXT, INNER, OTHER_NAME, LEFT_OUT, BEYOND, NO_SECTIONS, NO_CLASS, CODE_ONLY)

# Of scripts/kallsyms.c itself.
KALLSYMS_TABLES = (
    r"kallsyms_(addresses|offsets|relative_base|num_syms|names|markers|token_table|token_index|seqs_of_names)$"
)
# What the builds leave out of System.map and kallsyms: scripts/mksysmap; up to 6.1 of kallsyms is_ignored_symbol() and
# is_ignored_prefix in scripts/kallsyms.c. Lists may have them all the same: each build leaves out some.
NAMES_LEFT_OUT = tuple(
    re.compile(pattern)
    for pattern in (
        r"__crc_",  # checksums of exported symbols, up to 6.18
        r"__kstrtab",  # their names
        r"__flags_",  # their flags, since 7.2
        r"__ksymtab_",
        r"__efistub_",  # arm64: the EFI stub
        r"__kvm_nvhe_",  # arm64: all that runs at EL2, in 5.10
        r"__cfi_|__kcfi_typeid_|__pfx_",
        KALLSYMS_TABLES,  # of kallsyms alone
        r"\.L|\$[xdat](\.|$)|__pi_\$|__pi_\.L|__kvm_nvhe_\$|__kvm_nvhe_\.L",  # assembler labels, mapping symbols
        r"_SDA2?_BASE_$",
        r"__gnu_lto_|\.Ltmp",
        r"[0-9a-f]{8}\.(long|plt)_branch\.",  # ppc64: the linker's own
    )
)


class Listed(NamedTuple):
    """A list of symbols, by address."""

    addresses: list[int]
    names: dict[int, set[str]]
    code_only: bool

    @classmethod
    def of(cls, symbols: SymbolList, kaslr_offset: int = 0, unmoved: int = 1 << 32) -> Listed:
        """By link addresses, of a kernel that was moved by `kaslr_offset`, but for what is below `unmoved`."""
        names: dict[int, set[str]] = {}
        for address, name in zip(symbols.addresses, symbols.names):
            link = address - kaslr_offset & MASK if address >= unmoved else address
            names.setdefault(link, set()).add(name.decode())
        return cls(sorted(names), names, not any(letter in symbols.letters for letter in b"drb"))


class Differences:
    """How many differences there were by which rule, and the first of those that fall under none."""

    def __init__(self) -> None:
        self.by_rule: Counter[str] = Counter()
        self.unexplained: list[str] = []

    def add(self, rule: str | None, what: str, *values: object) -> None:
        """`values` go into the braces of `what` where somebody will read it."""
        if rule is None:
            self.unexplained.append(what.format(*values))
        else:
            self.by_rule[rule] += 1

    def check(self) -> None:
        assert not self.unexplained, f"{len(self.unexplained)} differ by no rule: " + "\n".join(self.unexplained[:12])


def compare_columns(full: Full, expected: Columns, columns: Columns, listed: Listed, *, sections: bool) -> Differences:
    """The columns of `Resolver.bulk` as linked beside the full vmlinux's; `sections`: whether the source has them."""
    differences = Differences()
    _compare_wide(full, expected, columns, listed, sections, differences)
    return compare_symbols(full, expected.address, expected, columns, listed, differences, sections=sections)


def compare_symbols(
    full: Full,
    links: Sequence[int],
    expected: Columns,
    columns: Columns,
    listed: Listed,
    differences: Differences | None = None,
    *,
    sections: bool = False,
) -> Differences:
    """The symbols and offsets for some link addresses."""
    differences = differences or Differences()
    for row in zip(links, expected.symbol, expected.offset, columns.symbol, columns.offset):
        if row[1:3] != row[3:5]:
            rule = _symbol_rule(full, listed, sections, *row)
            differences.add(rule, "{:#x}: {}+{} by vmlinux, {}+{}", *row)
    return differences


def same_columns(full: Full, expected: Columns, columns: Columns) -> Differences:
    """The columns of a boot image that is the vmlinux itself, with its symbol table: no rule is needed."""
    differences = Differences()
    fields = ("link_address", "segment", "section", "region", "region_class", "symbol", "offset")
    rows, own = (zip(*(getattr(each, field) for field in fields)) for each in (expected, columns))
    for address, full_row, row in zip(expected.address, rows, own):
        if row != full_row:
            differences.add(None, "{:#x}: {} by vmlinux, {}", address, full_row, row)
    return differences


def compare_where(
    full: Full, addresses: Sequence[int], expected: Resolver, resolver: Resolver, listed: Listed, *, sections: bool
) -> Differences:
    """Whole answers, as linked. Which symbol it is `compare_columns` tells; here it is what is said of it."""
    differences = Differences()
    columns = resolver.bulk(addresses)
    for address, symbol, offset in zip(addresses, columns.symbol, columns.offset):
        answer, full_answer = resolver.where(address), expected.where(address)
        layer = answer.last(model.SYMBOL)
        if (symbol, offset) != ((layer.name, layer.offset(address)) if layer is not None else (None, None)):
            differences.add(None, "{:#x}: {}+{} of many, {} alone", address, symbol, offset, layer)
        got, wide = _wide_layers(answer), _wide_layers(full_answer)
        if not sections:
            wide = [row for row in wide if row[0] not in (model.SECTION, model.SEGMENT)]
            if not full.start <= address < full.end and not any(row[0] == model.REGION for row in wide):
                wide = []
        if listed.code_only:
            got = [row for row in got if row[0] not in (model.IMAGE, model.GAP) and not _says_no_other(row, wide)]
            wide = []
        if got != wide:
            differences.add(None, "{:#x}: {} by vmlinux, {}", address, wide, got)
        full_layer = full_answer.last(model.SYMBOL)
        if layer is not None and full_layer is not None and layer.name == full_layer.name:
            for what in _wrongly_said(full, layer, full_layer, answer.region_class):
                differences.add(None, "{:#x}: {}: {} by vmlinux, {}", address, what, full_layer, layer)
    return differences


def _wide_layers(answer: Annotation) -> list[tuple[object, ...]]:
    """All layers but symbols and the gaps between them, without what the files are called and how they are known."""
    found: list[tuple[object, ...]] = []
    for layer in answer.layers:
        if layer.kind == model.IMAGE:
            found.append((layer.kind, layer.start, layer.end, layer.details["slide"]))
        elif layer.kind in (model.SECTION, model.SEGMENT, model.REGION) or " .. " in layer.name:
            found.append((layer.kind, layer.name, layer.start, layer.end, dict(layer.details)))
    return found


def _says_no_other(row: tuple[object, ...], full_rows: Sequence[tuple[object, ...]]) -> bool:
    """Whether a layer of the full answer is the same, but for details that are not known."""
    *place, details = row
    assert isinstance(details, dict)
    known = {key: value for key, value in details.items() if value is not None}
    for *full_place, full_details in full_rows:
        if place == full_place and isinstance(full_details, dict) and known.items() <= full_details.items():
            return True
    return False


def _wrongly_said(full: Full, layer: Layer, full_layer: Layer, region_class: str) -> Iterator[str]:
    """What is said of a symbol that both name, and cannot be so."""
    details, full_details = layer.details, full_layer.details
    if layer.start != full_layer.start:
        yield "start"
    if details.get("listed_type") == "A":  # of a per-CPU variable, which tells not whether it is local
        if (details["binding"], details["type"]) != (None, full_details["type"].upper()):
            yield "binding, type"
    elif details["binding"] != full_details["binding"]:
        yield "binding"
    elif details["type"] != full_details["type"]:
        # Without sections the region alone tells: arm64 has page tables in a section of code, among read-only data.
        letter = {"data": "d", "rodata": "r"}.get(region_class, "")
        if details.get("listed_type") != full_details["type"] or details["type"].lower() != letter:
            yield "type"
    if not details["sizeless"]:
        yield "sizeless"
    if details.get("part_of") != full_details.get("part_of"):
        yield "part_of"
    if not set(details["aliases"]) <= full.names_at[layer.start or 0]:
        yield "aliases"
    if "file" in details:
        yield "file"


def _compare_wide(
    full: Full, expected: Columns, columns: Columns, listed: Listed, sections: bool, differences: Differences
) -> None:
    """Link address, segment, section, region and class."""
    rows = zip(
        expected.address,
        zip(expected.link_address, expected.segment, expected.section, expected.region, expected.region_class),
        zip(columns.link_address, columns.segment, columns.section, columns.region, columns.region_class),
    )
    for address, full_row, row in rows:
        if row == full_row:
            continue
        link, _, _, region, region_class = full_row
        rule = None
        if not sections:
            if not full.start <= address < full.end and row == (None, None, None, None, "none"):
                rule = BEYOND
            elif row == (link, None, None, region, region_class):
                rule = NO_SECTIONS
            elif row == (link, None, None, None, "none") and region is None:
                rule = NO_CLASS
        if rule is None and listed.code_only and _is_less(full, address, full_row, row):
            rule = CODE_ONLY
        differences.add(rule, "{:#x}: {} by vmlinux, {}", address, full_row, row)


def _is_less(full: Full, address: int, full_row: tuple[object, ...], row: tuple[object, ...]) -> bool:
    """Whether what is told without the names of data is true: the section is the same, where it is told at all, the
    region one that is around the other, the class that of the region or of the section's flags."""
    places = [row[at] in (None, full_row[at]) for at in range(3)]
    around = {None, *(region.name for region in full.image.regions.chain(address))}
    flags = next((each for each in full.section_rows if "A" in each.flags and each.name == row[2]), None)
    classes = {"none", full_row[4], *(() if flags is None else (section_class(flags),))}
    return all(places) and row[3] in around and row[4] in classes


def _symbol_rule(
    full: Full,
    listed: Listed,
    sections: bool,
    address: int,
    name: str | None,
    offset: int | None,
    got: str | None,
    got_offset: int | None,
) -> str | None:
    """The rule by which a symbol may differ; None if there is none."""
    start = None if offset is None else address - offset
    if listed.code_only and not full.is_code(address):
        known = got is not None and got in full.names_at.get(address - (got_offset or 0), ())
        return CODE_ONLY if got is None or (known and got_offset == 0) else None
    if got is None or got_offset is None:
        if start is not None and is_zero_filled(full, listed, start):
            return LEFT_OUT
        return BEYOND if not sections and not full.start <= address < full.end else None
    got_start = address - got_offset
    if got not in full.names_at.get(got_start, ()) or not _is_next(full, listed, got_start, address):
        return None  # what is answered must be true
    if start == got_start:
        return OTHER_NAME
    if start is None:
        return TO_THE_NEXT
    if start < got_start:
        return INNER
    return LEFT_OUT if is_zero_filled(full, listed, start) else None


def is_zero_filled(full: Full, listed: Listed, start: int) -> bool:
    """Whether the list has none of the names of that address, as is known of such names."""
    names = full.names_at[start]
    there = listed.names.get(start, set())
    missing = names - there
    return bool(missing) and all(any(left.match(name) for left in NAMES_LEFT_OUT) for name in missing)


def _is_next(full: Full, listed: Listed, start: int, address: int) -> bool:
    """Whether the list has nothing between `start` and `address` that could hold it."""
    first, last = bisect_right(listed.addresses, start), bisect_right(listed.addresses, address)
    between: Sequence[int] = listed.addresses[first:last]
    return all(_only_labels(listed.names[each]) or _only_absolute(full, each) for each in between)


def _only_labels(names: set[str]) -> bool:
    return all(re.match(r"(__pi_|__kvm_nvhe_|__efistub_)*(\.L|\$[xdat](\.|$))", name) for name in names)


def _only_absolute(full: Full, address: int) -> bool:
    return address in full.absolute
