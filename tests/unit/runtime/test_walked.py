"""Memory whose page tables drgn cannot walk: kplug's own walk of them, over crafted tables."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import drgn
import pytest

from kplug.runtime.opening.walked import walk_for_drgn

_NAME = b"Linux".ljust(65, b"\0") + b"box".ljust(65, b"\0") + b"6.1.0-fake".ljust(65, b"\0")
# What VMCOREINFO says, beside the symbols: where the tables are and the name.
_TEXT = "OSRELEASE=6.1.0-fake\nPAGESIZE=4096\nOFFSET(uts_namespace.name)=0\n"


def program(architecture: drgn.Architecture, memory: Mapping[int, bytes], lines: str) -> drgn.Program:
    """Physical memory, in pages, of a kernel with this VMCOREINFO."""
    prog = drgn.Program(drgn.Platform(architecture))
    for start, data in memory.items():
        page = data.ljust(0x4000, b"\0")
        prog.add_memory_segment(
            start, len(page), lambda at, size, offset, _, page=page: page[offset : offset + size], True
        )
    prog.set_linux_kernel_custom(_TEXT + lines, is_live=False)
    return prog


def entries(layout: str, places: Mapping[int, int]) -> bytes:
    size = struct.calcsize(layout)
    table = bytearray(0x4000)
    for index, value in places.items():
        table[index * size : (index + 1) * size] = struct.pack(layout, value)
    return bytes(table)


def i386_pae() -> tuple[drgn.Program, int]:
    """0xc1000000 by a page of 2 MiB at 0x1000000, whose beginning has the tables."""
    top = entries("<Q", {3: 0x1004001})
    middle = entries("<Q", {8: 0x1000063 | 1 << 7})
    memory = {0x1000000: top, 0x1004000: middle, 0x1008000: _NAME}
    lines = "SYMBOL(swapper_pg_dir)=c1000000\nSYMBOL(init_uts_ns)=c1008000\nCONFIG_X86_PAE=y\n"
    return program(drgn.Architecture.I386, memory, lines), 0xC1008000


def arm() -> tuple[drgn.Program, int]:
    """0xc0300000 by a section of 1 MiB at 0x40300000: memory begins at 0x40000000."""
    memory = {0x40300000: entries("<I", {0xC03: 0x4030040E}), 0x40304000: _NAME}
    lines = "SYMBOL(swapper_pg_dir)=c0300000\nSYMBOL(init_uts_ns)=c0304000\n"
    return program(drgn.Architecture.ARM, memory, lines), 0xC0304000


def riscv64() -> tuple[drgn.Program, int]:
    """0xffffffff80000000 by a page of 2 MiB at 0x80200000 under Sv39."""
    top = entries("<Q", {0x1FE: 0x80204000 >> 2 | 1})
    middle = entries("<Q", {0: 0x80200000 >> 2 | 0xEF})
    memory = {0x80200000: top, 0x80204000: middle, 0x80208000: _NAME}
    lines = (
        "SYMBOL(swapper_pg_dir)=ffffffff80000000\nSYMBOL(init_uts_ns)=ffffffff80008000\nNUMBER(VA_BITS)=39\n"
        f"NUMBER(va_kernel_pa_offset)={0xFFFFFFFF80000000 - 0x80200000:#x}\n"
    )
    return program(drgn.Architecture.RISCV64, memory, lines), 0xFFFFFFFF80008000


@pytest.mark.parametrize("made", [i386_pae, arm, riscv64])
def test_the_kernels_memory_is_read(made) -> None:  # type: ignore[no-untyped-def]
    prog, address = made()
    with pytest.raises(drgn.FaultError):
        prog.read(address, 5)
    walk_for_drgn(prog, [0x10000000, 0x40000000], still=True)
    assert prog.read(address, 5) == b"Linux"
    assert prog.read(address - 0x1004, 0x1004 + len(_NAME))[-len(_NAME) :] == _NAME  # over the bounds of pages
    with pytest.raises(drgn.FaultError, match="not mapped"):
        prog.read(address + 0x10000000, 5)


def test_tables_that_do_not_lead_to_the_name_do_not_count() -> None:
    prog, address = arm()
    walk_for_drgn(prog, [0x80000000], still=True)
    with pytest.raises(drgn.FaultError):
        prog.read(address, 5)
