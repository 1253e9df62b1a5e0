"""The symbols in a vmlinuz's own kallsyms beside the System.map of the debug package, and their letters beside nm's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.full_vmlinux import Full, named
from support.oracle import binutils, kernels
from support.oracle_tables import assert_symbols_as_nm
from support.recorder import Recorder
from support.sampling import Sampling

from kplug.image.opening.symbol_list_kernel import open_system_map
from kplug.image.opening.vmlinuz import open_vmlinuz
from kplug.image.symbols.symbol_list import SymbolList

pytestmark = pytest.mark.kernel

#: Of is_ignored_symbol() in scripts/kallsyms.c, which scripts/mksysmap has only since 6.2.
IGNORED = ("kallsyms_", "__efistub_", "__kvm_nvhe_$", "__kvm_nvhe_.L")
AT_EL2 = "__kvm_nvhe_"  # arm64's KVM without VHE


def rows(symbols: SymbolList) -> Counter[tuple[int, str]]:
    return Counter(zip(symbols.addresses, (name.decode() for name in symbols.names)))


def system_map(full: Full) -> Counter[tuple[int, str]]:
    lines = Path(full.path("System.map")).read_text().splitlines()
    return Counter((int(address, 16), name) for address, _, name in (line.split(" ") for line in lines))


@pytest.mark.source("vmlinuz")
def test_no_symbol_of_a_vmlinuz_is_missing_and_none_is_wrong(full: Full, cell: Recorder) -> None:
    """But for numbers that are no addresses, and what up to 6.1 kallsyms leave out alone: their own tables, and names
    of arm64's EFI stub and of local labels in KVM."""
    image = open_vmlinuz(full.path("vmlinuz"))
    if image.listed is None:  # the vmlinux itself, with its symbol table
        own = binutils.symbols(full.path("vmlinuz"))
        assert_symbols_as_nm(image, own)
        known = {(row.value, row.size, row.letter, row.name) for row in full.symbol_rows}
        assert known == {(row.value, row.size, row.letter, row.name) for row in named(own)}
        return
    found, expected = rows(image.listed), system_map(full)
    assert sum(expected.values()) > kernels.least(full.name, 60_000)
    absolute = {(row.value, row.name) for row in full.symbol_rows if row.section == "ABS"}
    at_el2 = any(name.startswith(AT_EL2) for _, name in found)  # 5.10 leaves out all of them
    ignored = (*IGNORED, *(() if at_el2 else (AT_EL2,)))
    missing = [row for row in expected - found if row not in absolute and not row[1].startswith(ignored)]
    if not full.lists_data:
        missing = [row for row in missing if full.is_code(*row)]
    # What mksysmap drops: 5.10 made kallsyms of what it had not filtered.
    beyond = [row for row in found - expected if not row[1].startswith(".L") or row[1] not in full.names_at[row[0]]]
    cell.compared("symbols", sum(expected.values()), len(missing) + len(beyond))
    assert (missing, beyond) == ([], [])


@pytest.mark.source("System.map")
def test_a_system_map_is_read_whole(full: Full, cell: Recorder) -> None:
    symbols = open_system_map(full.path("System.map")).listed
    assert symbols is not None
    found, expected = rows(symbols), system_map(full)
    cell.compared(
        "symbols", sum(expected.values()), sum((found - expected).values()) + sum((expected - found).values())
    )
    assert found == expected


@pytest.mark.parametrize("source", ["vmlinuz", "System.map"])
def test_letters(full: Full, source: str, sampling: Sampling, cell: Recorder) -> None:
    """They are nm's, but where nm calls data text, since the section has both: there the region says it.

    Some of arm64's page tables lie in a section of code, too, and in the region of read-only data. Asked
    are all symbols, or a sample of them.
    """
    image = (open_vmlinuz if source == "vmlinuz" else open_system_map)(full.path(source))
    if image.listed is None:
        return  # not a list
    letters = {(row.value, row.name, row.letter) for row in full.symbol_rows}
    percpu = {(address, name, letter.upper()) for address, name, letter in letters if letter == "d"}
    corrected, wrong = 0, []
    asked = sampling.of(range(len(image.symbols.values)))
    for number in asked:
        symbol, listed = image.symbols.symbol(number), image.symbols.listed_letter(number)
        found = (symbol.address, symbol.name, symbol.letter)
        # kallsyms calls per-CPU variables absolute, and tells not whether they are local.
        if found in letters or (listed == "A" and (found in percpu or symbol.name == "__per_cpu_end")):
            continue
        region_class = image.regions.region_class(symbol.address)
        true = {"data": "d", "rodata": "r"}.get(region_class or "", "")
        if listed in "Tt" and true and symbol.letter == (true.upper() if listed == "T" else true):
            corrected += 1
        else:
            wrong.append((symbol, listed, region_class))
    cell.compared("letters", len(asked), len(wrong))
    assert not wrong, f"{len(wrong)} letters, as {wrong[:5]}"
    # arch/x86/kernel/relocate_kernel_64.S is in .data since 6.14.
    assert full.name not in kernels.ALL or (corrected > sampling.count(10_000)) == (full.name == "amd64-sid")
