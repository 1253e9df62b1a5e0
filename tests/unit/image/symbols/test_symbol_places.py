"""Which entries can hold an address is answered alike for one of them, for those near an address, and for all."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.elf_builder import (
    EM_386,
    EM_AARCH64,
    EM_PPC64,
    EM_RISCV,
    EM_X86_64,
    FILE,
    FUNC,
    LOCAL,
    NOTYPE,
    OBJECT,
    SECTION,
    SHN_ABS,
    SHN_UNDEF,
    TLS_SYMBOL,
    Elf,
    Sym,
)
from support.symbol_tables import sections, table_of

_FORMS = (
    (64, True, EM_X86_64),
    (64, True, EM_AARCH64),
    (64, True, EM_RISCV),
    (64, False, EM_PPC64),
    (32, True, EM_386),
)
_NAMES = ("f", ".Lbranch", "__pi_.L1", "$x", "$d.realdata", "$xrv64i2p1", "__kvm_nvhe_$x", "$other", "_.L", "x.L", "")
_FAR = 0x40_0000


@pytest.mark.parametrize(("bits", "little", "machine"), _FORMS)
def test_one_by_one_and_all_at_once(tmp_path: Path, bits: int, little: bool, machine: int) -> None:
    symbols = [
        Sym(name, 0x1000 + 4 * number, size, ".text", kind, LOCAL)
        for number, name in enumerate(_NAMES)
        for size in (0, 4)
        for kind in (NOTYPE, FUNC, OBJECT)
    ]
    symbols += [Sym("a.c", 0, 0, SHN_ABS, FILE, LOCAL), Sym("", 0x1000, 0, ".text", SECTION, LOCAL)]
    symbols += [Sym("absolute", 0x1000, 0, SHN_ABS), Sym("undefined", 0, 0, SHN_UNDEF), Sym("note", 0, 1, ".comment")]
    symbols += [Sym("thread", 8, 4, ".data", TLS_SYMBOL)]
    symbols += [Sym("broken", 0x1010, 4, ".text", FUNC, fields={"st_name": 1 << 20})]
    symbols += [Sym("wide", 0x2000, 0x30000, ".data", OBJECT), Sym("empty", 0x2000, 0, ".data", OBJECT)]
    elf = Elf(bits, little, machine=machine, sections=sections(), symbols=symbols)
    one, whole = table_of(tmp_path, elf), table_of(tmp_path, elf)
    places = whole.places()
    assert bool(one) == bool(places)
    assert [entry for entry in range(len(symbols) + 1) if one._is_place(entry)] == places
    for low, high, larger in ((0x1000, 0x1010, 0x10000), (0x1008, 0x3000, 2), (_FAR, _FAR + 1, 0x10000)):
        near = [i for i in places if low <= whole.values[i] < high or whole.sizes[i] > larger]
        assert one.near(low, high, larger) == whole.near(low, high, larger) == near
    assert one.empty_objects() == whole.empty_objects()
    assert one.places() == places
