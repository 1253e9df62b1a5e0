"""Every bound, every symbol and 100,000 random addresses of four real kernels: kplug answers as the oracle does.

Answers are compared at every bound and at a sample of the rest, which `--whole` makes all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from support.oracle_comparison import KASLR_OFFSET, Subject, claims
from support.recorder import Recorder
from support.sampling import Sampling

from kplug.linker.regions import Region

pytestmark = pytest.mark.kernel


def test_enough_is_asked(subject: Subject) -> None:
    # A comparison that lost its questions would pass.
    assert len(subject.addresses) > subject.least(300_000)
    assert len(subject.near_bounds) > 250
    answers = list(subject.oracle.answers(subject.near_bounds))
    assert sum(claims(answer.piece) for answer in answers) > 250
    assert len(subject.oracle.groups) > subject.least(45_000)
    assert len(subject.oracle.regions) > 60


@pytest.mark.parametrize("kaslr_offset", [0, KASLR_OFFSET], ids=["as linked", "moved"])
def test_bulk_answers_as_the_oracle(subject: Subject, kaslr_offset: int, sampling: Sampling, cell: Recorder) -> None:
    differences = subject.compare_bulk(kaslr_offset, sampling)
    cell.compared("addresses", differences.asked, differences.different)
    differences.check()


@pytest.mark.parametrize("kaslr_offset", [0, KASLR_OFFSET], ids=["as linked", "moved"])
def test_where_answers_as_the_oracle(subject: Subject, kaslr_offset: int, sampling: Sampling, cell: Recorder) -> None:
    differences = subject.compare_where(kaslr_offset, sampling)
    cell.compared("whole answers", differences.asked, differences.different)
    differences.check()


def test_what_is_an_offset_does_not_move(subject: Subject) -> None:
    """The place the per-CPU section would have, had it moved, is nobody's."""
    move, resolver = subject.moved(KASLR_OFFSET)
    addresses = [KASLR_OFFSET + offset for offset in range(0, subject.percpu_end + 8, 64)]
    columns = resolver.bulk(addresses)
    assert {*columns.image, *columns.section, *columns.segment, *columns.region, *columns.symbol} == {None}
    assert set(columns.region_class) == {"none"}
    assert not [
        layer for address in addresses[::16] for layer in resolver.where(address).layers if layer.kind == "image"
    ]
    assert move.runtime(subject.oracle.image[0]) == subject.oracle.image[0] + KASLR_OFFSET


def test_regions_have_the_values_of_their_symbols(subject: Subject, cell: Recorder) -> None:
    oracle, tree = subject.oracle, subject.image.regions
    assert tree.root is not None
    assert (tree.root.start, tree.root.end) == oracle.image
    wrong = []
    for region in (*tree.regions, *tree.empty):
        start = oracle.value(region.start_symbol) if region.start_symbol else None
        end = oracle.value(region.end_symbol) if region.end_symbol else None
        if start != region.start or (region.end_symbol and end != region.end):
            wrong.append((region.name, region.start_symbol, region.end_symbol))
    cell.compared("regions", len(tree.regions) + len(tree.empty), len(wrong))
    assert wrong == []


def test_every_known_pair_is_a_region(subject: Subject) -> None:
    def described(regions: Iterable[Any]) -> list[tuple[int, int, str, str, str | None]]:
        found = [(r.start, r.end, r.name, r.start_symbol, r.end_symbol) for r in regions]
        return sorted(found, key=lambda row: (row[0], row[1], row[2]))

    tree = subject.image.regions
    assert described(r for r in tree.regions if r is not tree.root) == described(subject.oracle.regions)
    assert described(tree.empty) == described(subject.oracle.empty)


#: x86: what is beyond the image, and the unused end of what is decrypted.
FREED_BESIDES = {"init.scratch", "bss..decrypted.unused"}
READ_ONLY = [("_stext", "_etext"), ("__start_rodata", "__end_rodata"), ("__start_ro_after_init", "__end_ro_after_init")]
WRITTEN = [("_sdata", "_edata"), ("__bss_start", "__bss_stop")]
#: arch/arm64/mm/mmu.c and arch/riscv/mm/init.c: mark_rodata_ro().
READ_ONLY_BESIDES = {"aarch64": [("__start_rodata", "__init_begin")], "riscv64": [("__end_rodata", "_data")]}


def test_what_is_freed_and_what_is_read_only(subject: Subject, cell: Recorder) -> None:
    """By the bounds that free_initmem() and mark_rodata_ro() go by."""
    oracle, tree = subject.oracle, subject.image.regions

    def within(region: Region, pairs: Iterable[tuple[str, str]]) -> bool:
        bounds = [(oracle.value(start), oracle.value(end)) for start, end in pairs]
        return any(low <= region.start and region.end <= high for low, high in bounds if low is not None and high)

    wrong = []
    for region in tree.regions[1:]:
        freed, read_only = region.freed_after_boot is True, region.read_only_after_init
        if freed != within(region, [("__init_begin", "__init_end")]) and region.name not in FREED_BESIDES:
            wrong.append((region.name, "freed", freed))
        if within(region, [*READ_ONLY, *READ_ONLY_BESIDES.get(oracle.machine, ())]):
            wrong += [(region.name, "read-only", read_only)] * (read_only is not True)
        elif within(region, WRITTEN):
            wrong += [(region.name, "read-only", read_only)] * (read_only is not False)
    cell.compared("regions' fates", len(tree.regions) - 1, len(wrong))
    assert wrong == []


def test_every_start_stop_pair_is_a_region(subject: Subject) -> None:
    """The convention that the linker and the kernel's macros use: `__start_X` with `__stop_X` or `__end_X`."""
    known = {(region.start_symbol, region.end_symbol) for region in (*subject.oracle.regions, *subject.oracle.empty)}
    missing = []
    for row in subject.oracle.symbol_rows:
        if row.name.startswith("__start_") and row.size == 0 and row.binding == "GLOBAL":
            for end in ("__stop_", "__end_"):
                end_name = end + row.name[len("__start_") :]
                if subject.oracle.value(end_name) is not None and (row.name, end_name) not in known:
                    missing.append((row.name, end_name))
    assert missing == []


def test_every_byte_of_the_image_is_answered(subject: Subject) -> None:
    """A region, or a gap between two that have names."""
    _, resolver = subject.moved(0)
    start, end = subject.oracle.image
    for bound in (start, *(bound for bound in subject.oracle.bounds() if start <= bound < end)):
        layers = resolver.where(bound).layers
        gaps = [layer for layer in layers if layer.kind == "gap" and layer.details["after"] and layer.details["before"]]
        assert gaps or any(layer.kind == "region" for layer in layers), hex(bound)
