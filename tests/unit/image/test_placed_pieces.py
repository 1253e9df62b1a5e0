"""The pieces of an image in its place."""

from __future__ import annotations

from pathlib import Path

from support.elf_builder import BASE_64, A, Sec, W, small_vmlinux

from kplug import model
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked


def test_where_there_can_be_code(tmp_path: Path) -> None:
    """The debugger is asked for a line only there: it searches all its tables for an address that has none."""
    elf = small_vmlinux()
    elf.sections.append(Sec(".init.data", flags=A | W, address=BASE_64 + 0x3800, data=bytes(0x80), align=16))
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(elf))
    image = open_vmlinux(str(path))
    placed = PlacedImage(image, as_linked(image.sections))
    found = {}
    for offset in (0x10, 0x1010, 0x2010, 0x2050, 0x3010, 0x3810, 0x3900):
        piece = placed.piece(BASE_64 + offset)
        assert piece is not None
        found[offset] = (piece.region_class, piece.may_be_code)
    assert found == {
        0x10: (model.TEXT, True),
        0x1010: (model.RODATA, False),
        0x2010: (model.DATA, False),
        0x2050: (model.BSS, False),
        0x3010: (model.INIT, True),
        0x3810: (model.INIT, False),
        0x3900: (model.INIT, True),  # in no section: not known
    }
