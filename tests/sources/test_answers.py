"""Answers without the vmlinux beside those with it, for six of Debian's kernels: support/source_rules has how."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.full_vmlinux import MASK, Full
from support.oracle import kernels
from support.recorder import Recorder
from support.sampling import Sampling
from support.source_rules import (
    BEYOND,
    INNER,
    LEFT_OUT,
    NO_CLASS,
    NO_SECTIONS,
    OTHER_NAME,
    TO_THE_NEXT,
    Listed,
    compare_columns,
    compare_symbols,
    compare_where,
    same_columns,
)

from kplug.image.opening.kernel_files import open_kernel
from kplug.image.opening.sources import Given, join
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked, moved_by
from kplug.resolver import Resolver

pytestmark = pytest.mark.kernel

SOURCES = {
    "vmlinuz": ("vmlinuz",),
    "System.map": ("system_map",),
    "vmlinuz+System.map": ("vmlinuz", "system_map"),
}
#: Kernels that are booted and asked, which has KASLR move them.
GUESTS = ("amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")
FILES = {"vmlinuz": "vmlinuz", "system_map": "System.map", "vmlinux": "vmlinux"}


def given(full: Full, *kinds: str, kallsyms: Path | None = None) -> Given:
    return Given(
        **{kind: full.path(FILES[kind]) for kind in kinds}, kallsyms=str(kallsyms) if kallsyms is not None else None
    )


@pytest.mark.parametrize("source", SOURCES)
def test_answers_as_linked(full: Full, source: str, sampling: Sampling, cell: Recorder) -> None:
    image = join(given(full, *SOURCES[source])).image
    resolver = Resolver([PlacedImage(image, as_linked(image.extents))])
    expected = full.some_columns(sampling)
    if image.listed is None:
        same = same_columns(full, expected, resolver.bulk(expected.address))
        cell.compared("addresses", len(expected.address), len(same.unexplained))
        same.check()
        return
    listed, has_sections = Listed.of(image.listed), full.has_headers and "vmlinuz" in SOURCES[source]
    columns = compare_columns(full, expected, resolver.bulk(expected.address), listed, sections=has_sections)
    few = full.few_addresses(sampling)
    answers = compare_where(full, few, full.resolver, resolver, listed, sections=has_sections)
    cell.compared("addresses", len(expected.address), len(columns.unexplained))
    cell.compared("whole answers", len(few), len(answers.unexplained))
    columns.check()
    answers.check()


@pytest.mark.parametrize("source", ["vmlinuz", "System.map"])
def test_regions(full: Full, source: str, cell: Recorder) -> None:
    """From each source alone they are those of the vmlinux, with all that is known of them; some, from code only."""
    image, expected = open_kernel(full.path(source)), full.image.regions
    tree = image.regions
    if image.listed is not None and Listed.of(image.listed).code_only:
        places = {(each.name, each.start, each.end) for each in expected.regions}
        wrong = {(each.name, each.start, each.end) for each in tree.regions} - places
        cell.compared("regions", len(tree.regions), len(wrong))
        assert wrong == set()
        return
    cell.compared("regions", len(expected.regions), len({*tree.regions} ^ {*expected.regions}))
    assert tree.root == expected.root
    assert tree.regions == expected.regions
    assert tree.empty == expected.empty


@pytest.mark.source("vmlinuz")
def test_sections_and_segments_of_a_vmlinuz(full: Full) -> None:
    """The ELF file in a bzImage has the headers of the vmlinux, without what is not loaded; a flat Image has none."""
    image = open_kernel(full.path("vmlinuz"))
    if not full.has_headers:
        assert not image.sections
        assert not image.segments
        return
    loaded = [row for row in full.section_rows if "A" in row.flags]
    assert len(loaded) > 25
    sections = [s for s in image.sections if s.allocated]
    assert [(s.name, s.type, s.address, s.size, s.flag_letters, s.alignment) for s in sections] == [
        (row.name, row.type, row.address, row.size, row.flags, row.alignment) for row in loaded
    ]
    assert [
        (s.type, s.address, s.physical_address, s.file_size, s.memory_size, s.flag_letters) for s in image.segments
    ] == [
        (row.type, row.address, row.physical_address, row.file_size, row.memory_size, row.flags)
        for row in full.segment_rows
    ]
    symbols = {".symtab", ".strtab"} if image.has_symbol_table else set()
    assert {s.name for s in image.sections if not s.allocated and s.size} <= {"", ".shstrtab", ".comment", *symbols}
    assert image.build_id == full.image.build_id
    assert image.release == full.image.release


@pytest.mark.boot
@pytest.mark.source("kallsyms")
@pytest.mark.parametrize("full", GUESTS, indirect=True)
def test_answers_of_a_running_kernel(full: Full, sampling: Sampling) -> None:
    """/proc/kallsyms of a guest, alone and with what else there is: KASLR offset and answers are the guest's.

    Asked are a quarter of the addresses, or a sample of these; of the other files, all in a whole run, else one.
    """
    from vmimages import dumps

    truth = dumps(full.name, quiet=True).truth
    kallsyms = truth.root / "kallsyms"
    kaslr_offset = truth.kaslr_offset(full.files)
    links = [address for address in sampling.of(full.addresses[::4]) if full.start <= address < full.end]
    asked = [address + kaslr_offset & MASK for address in links]
    columns = full.moved(kaslr_offset).bulk(asked)
    for kinds in ((), *sampling.one_of((("vmlinuz",), ("system_map",), ("vmlinux",)))):
        joined = join(given(full, *kinds, kallsyms=kallsyms))
        assert joined.placement is not None
        assert not joined.disputed
        assert {"bridge", "br_netfilter"} <= set(joined.modules)
        got = Resolver([PlacedImage(joined.image, joined.placement)]).bulk(asked)
        assert got.region == columns.region
        if kinds:
            assert joined.placement.kaslr_offset == kaslr_offset
            # The same that its files alone say, moved.
            alone = join(given(full, *kinds)).image
            moved = Resolver([PlacedImage(alone, moved_by(alone.extents, kaslr_offset, ""))]).bulk(asked)
            assert (got.link_address, got.symbol, got.offset) == (moved.link_address, moved.symbol, moved.offset)
            assert (got.section, got.region_class) == (moved.section, moved.region_class)
        else:
            assert set(got.link_address) == {None}  # nothing tells where it was linked
            assert joined.image.listed is not None
            running = Listed.of(joined.image.listed, kaslr_offset)
            compare_symbols(full, links, columns, got, running).check()


@pytest.mark.source("System.map")
def test_each_rule_is_needed(full: Full, sampling: Sampling) -> None:
    """What no kernel shows needs no rule, and no explanation in the documentation.

    One has seven cases in all of 6.1: symbols and classes are compared for all addresses, the rest for a sample. A run
    does so for one kernel of each machine; of the others a sample may lack some rule, and must need no other. So may
    those of other machines, of which all addresses are compared.
    """
    image = open_kernel(full.path("System.map"))
    assert image.listed is not None
    listed, resolver = Listed.of(image.listed), Resolver([PlacedImage(image, as_linked(image.extents))])
    every = full.name not in kernels.ALL or full.name in {
        name for machine in ("amd64", "arm64") for name in sampling.one_of(_kernels_of(machine))
    }
    theirs = full.columns if every else full.some_columns(sampling)
    columns = resolver.bulk(theirs.address)
    rows = zip(theirs.address, theirs.region_class, columns.region_class)
    of_another_class = {address for address, full_class, own_class in rows if full_class != own_class}
    expected = full.resolver.bulk(sorted({*full.some_columns(sampling).address, *of_another_class}))
    differences = compare_columns(full, expected, resolver.bulk(expected.address), listed, sections=False)
    compare_symbols(full, theirs.address, theirs, columns, listed, differences)
    differences.check()
    if full.name not in kernels.ALL:
        return
    found = set(differences.by_rule) - {LEFT_OUT}
    here = {TO_THE_NEXT, INNER, OTHER_NAME, NO_SECTIONS, *((BEYOND,) if full.machine == "x86_64" else (NO_CLASS,))}
    assert found == here if every else found <= here


def _kernels_of(machine: str) -> list[str]:
    return [name for name in kernels.ALL if name.startswith(machine)]
