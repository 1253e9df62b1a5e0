"""The kernel of a list of symbols alone, as a System.map has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.elf_builder import EM_X86_64, NOTYPE, Elf, Sym
from support.symbol_tables import sections, table_of

from kplug.image.opening.symbol_list_kernel import open_system_map

EM_RISCV = 243
RISCV = """\
ffffffff80000000 T _start
ffffffff800010d8 T _start_kernel
ffffffff80002000 T _stext
ffffffff80002000 T _text
ffffffff80002010 T do_trap_ecall_u
ffffffff80003000 T _etext
ffffffff80004000 B _end
"""
ARM = """\
c0208000 T _text
c0300000 T _stext
c0300010 T vector_swi
c1000000 T _etext
c1400000 A __vectors_start
c1400000 T __vectors_lma
c1400020 A __vectors_end
c1400060 T start_kernel
c1500000 B _end
"""
# Of both i386 and riscv.
I386 = """\
c1000000 T _text
c1000000 T _stext
c1000010 t handle_exception
c1000020 T entry_INT80_32
c1001000 T _etext
c1002000 B _end
"""
S390X = """\
0000000000100000 T _text
0000000000100000 T _stext
0000000000100010 T startup_continue
0000000000101000 T _etext
0000000000102000 B _end
"""


def test_no_symbol_reaches_over_a_boundary_that_is_absolute(tmp_path: Path) -> None:
    """arm's vectors: the symbols between which their bytes lie in the image are no section's."""
    path = tmp_path / "System.map"
    path.write_text(ARM)
    image = open_system_map(str(path))
    assert image.machine == "arm"
    names = [image.index.innermost(0xC1400000 + offset) for offset in (0, 0x1F, 0x20, 0x21)]
    assert [name and name.symbol.name for name in names] == ["__vectors_lma", "__vectors_lma", "__vectors_end", None]


def test_code_before_text_is_the_images_too(tmp_path: Path) -> None:
    """riscv's image begins at _start, some pages before _text."""
    path = tmp_path / "System.map"
    path.write_text(RISCV)
    image = open_system_map(str(path))
    assert image.machine == "riscv64"
    assert [extent.symbol.name for extent in image.index.chain(0xFFFFFFFF800010DC)] == ["_start_kernel"]
    assert [extent.symbol.name for extent in image.index.chain(0xFFFFFFFF80000008)] == ["_start"]
    assert [region.name for region in image.regions.chain(0xFFFFFFFF800010DC)] == ["head.text"]


@pytest.mark.parametrize(("machine", "counts"), [(EM_RISCV, True), (EM_X86_64, False)])
def test_a_function_bounds_the_image_where_it_begins_with_one(tmp_path: Path, machine: int, counts: bool) -> None:
    symbols = [Sym("_start", 0x1000, 0x80, ".text", NOTYPE), Sym("_text", 0x1100, 0, ".text", NOTYPE)]
    table = table_of(tmp_path, Elf(machine=machine, sections=sections(), symbols=symbols))
    assert ("_start" in table.boundary_candidates()) == counts


def test_a_list_is_of_the_architecture_whose_own_symbols_it_has(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text(I386)
    assert open_system_map(str(path)).machine == "i386"
    path.write_text(I386.replace("entry_INT80_32", "schedule"))
    assert open_system_map(str(path)).machine == ""


def test_a_list_of_low_addresses_has_the_width_of_its_architecture(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text(S390X)
    assert open_system_map(str(path)).elf.bits == 64
    path.write_text(I386)
    assert open_system_map(str(path)).elf.bits == 32
