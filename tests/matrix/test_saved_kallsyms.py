"""A copy of /proc/kallsyms and nothing else, of kernels that need not boot: written from the debug System.map.

What scripts/kallsyms.c leaves out of the list is left out, and all is moved as KASLR does.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.first_answer import first_answer
from support.full_vmlinux import Full
from support.recorder import Recorder
from support.sampling import Sampling
from support.source_rules import KALLSYMS_TABLES, Listed, compare_symbols, same_columns

from kplug.image.opening.sources import Given, join
from kplug.image.placed import PlacedImage
from kplug.resolver import Resolver

pytestmark = [pytest.mark.kernel, pytest.mark.source("kallsyms")]

KASLR_OFFSET = 0x8A00000
#: Debian's kernels for these have no CONFIG_RANDOMIZE_BASE.
UNMOVED = ("armhf", "ppc64el")
_LEFT_OUT = re.compile(KALLSYMS_TABLES + r"|__crc_|__efistub_|__kvm_nvhe_\$|\.L|\$[xdat](\.|$)")


def _offset(full: Full) -> int:
    return 0 if full.name.startswith(UNMOVED) else KASLR_OFFSET


@pytest.fixture(scope="module")
def saved(full: Full, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `cat /proc/kallsyms` prints it."""
    digits = 8 if full.files.arch in ("armhf", "i386") else 16
    percpu = {row.value: row for row in full.symbol_rows if row.name == "__per_cpu_end" and row.value < full.start}
    lines = []
    for line in Path(full.path("System.map")).read_text().splitlines():
        address, letter, name = int(line.split(" ")[0], 16), line.split(" ")[1], line.split(" ", 2)[2]
        if _LEFT_OUT.match(name) or letter in "Aa" or not (full.lists_data or full.is_code(address, name)):
            continue
        if percpu and address <= max(percpu):
            letter = "A"  # up to 6.14 the offsets of per-CPU variables are absolute
        else:
            address = address + _offset(full) & full.image.elf.word.mask
        lines.append(f"{address:0{digits}x} {letter} {name}\n")
    path = tmp_path_factory.mktemp("saved") / "kallsyms"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("beside", [None, "vmlinuz", "system_map", "vmlinux"])
def test_answers_of_a_saved_kallsyms(
    full: Full, saved: Path, beside: str | None, sampling: Sampling, cell: Recorder
) -> None:
    """Alone, and with another file, which tells where the kernel was linked."""
    kaslr_offset = _offset(full)
    links = [address for address in sampling.of(full.addresses) if full.start <= address < full.end]
    asked = [address + kaslr_offset & full.image.elf.word.mask for address in links]
    expected = full.moved(kaslr_offset).bulk(asked)
    other_file = {} if beside is None else {beside: full.path(beside.replace("system_map", "System.map"))}
    joined = join(Given(kallsyms=str(saved), **other_file))
    assert joined.placement is not None
    assert not joined.disputed
    assert beside is None or joined.placement.kaslr_offset == kaslr_offset
    got = Resolver([PlacedImage(joined.image, joined.placement)]).bulk(asked)
    cell.about("release", full.files.release)
    if joined.image.listed is None:  # the answers are those of the other file's own symbol table
        differences = same_columns(full, expected, got)
        cell.compared("addresses", len(links), len(differences.unexplained))
        differences.check()
        return
    listed = Listed.of(joined.image.listed, 0 if beside else kaslr_offset, full.unmoved)
    other = [(hex(link), a, b) for link, a, b in zip(links, expected.region, got.region) if a != b]
    if listed.code_only:  # tests/sources ask its regions
        other = []
    differences = compare_symbols(full, links, expected, got, listed, sections=bool(joined.image.sections))
    cell.compared("addresses", len(links), len(other) + len(differences.unexplained))
    assert not other, f"{len(other)} regions, as {other[:5]}"
    differences.check()


def test_the_first_answer(full: Full, saved: Path, cell: Recorder) -> None:
    first_answer(cell, "--kallsyms", saved, full.name)
