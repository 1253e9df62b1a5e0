"""System.map against nm of its vmlinux, and guests' /proc/kallsyms against their own lines."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from kplug.image.symbols.listings import read_kallsyms, read_system_map
from kplug.image.symbols.symbol_list import SymbolList

if TYPE_CHECKING:
    from support.saved_trees import Guest

pytestmark = pytest.mark.kernel

# scripts/mksysmap, in its forms from 5.10 to 7.x: what it leaves out of nm's output.
_LEFT_OUT = re.compile(
    r" [aNUw] |__crc_| \$| \.L| L0$| __kstrtab| __(?:efistub|kvm_nvhe_)[^ ]*(?:\$|\.L)| __efistub_| __pi_\.L| __pi_\$"
    r"|_veneer$| __ksymtab_| __mod_device_table__"
)


def rows(symbols: SymbolList) -> set[tuple[int, str, str]]:
    return {(symbols.addresses[n], chr(symbols.letters[n]), symbols.name(n)) for n in range(len(symbols))}


def test_a_system_map_is_what_nm_says_of_the_vmlinux(guest: Guest) -> None:
    assert guest.files.system_map is not None
    found = read_system_map(str(guest.files.system_map))
    output = subprocess.run(["nm", guest.files.vmlinux], capture_output=True, text=True, check=True).stdout
    lines = [line for line in output.splitlines() if not line.startswith(" ")]
    all_of_them = {(int(line[:16], 16), line[17], line[19:]) for line in lines}
    wanted = {(int(line[:16], 16), line[17], line[19:]) for line in lines if not _LEFT_OUT.search(line)}
    assert rows(found) <= all_of_them
    assert wanted <= rows(found)
    assert len(found) == guest.files.system_map.read_bytes().count(b"\n")


def test_a_guests_kallsyms_is_its_lines(guest: Guest) -> None:
    listing = read_kallsyms(str(guest.truth / "kallsyms"))
    own = {(each.address, each.kind, each.name) for each in guest.symbols if each.module is None}
    assert rows(listing.kernel) == own
    modules = {each.module for each in guest.symbols if each.module is not None}
    assert set(listing.modules) == modules
    for name, symbols in listing.modules.items():
        assert rows(symbols) == {(each.address, each.kind, each.name) for each in guest.symbols if each.module == name}
