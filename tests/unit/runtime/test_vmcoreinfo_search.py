"""VMCOREINFO in the memory of a dump with missing pages."""

from __future__ import annotations

from collections.abc import Collection

import drgn
import pytest

from kplug.runtime.opening.vmcoreinfo_search import find_notes

_PAGE, _SIZE = 0x1000, 0x40000
_TEXT = "OSRELEASE=6.1.0-fake\nPAGESIZE=4096\n" + "".join(
    [f"SYMBOL({name})=ffffffff82a1a8c0\n" for name in ("init_uts_ns", "swapper_pg_dir", "_stext")]
    + [f"OFFSET(page.{name})=0\n" for name in ("flags", "_refcount", "mapping")]
)


def program(place: int, missing: Collection[int]) -> drgn.Program:
    """Physical memory with the text at a place, of which several pages are read at once, or none: as libkdumpfile's."""
    memory = bytearray(_SIZE)
    memory[place : place + len(_TEXT)] = _TEXT.encode()

    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        if any(address < page + _PAGE and page < address + size for page in missing):
            raise drgn.FaultError("excluded", address)
        return bytes(memory[offset : offset + size])

    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    prog.add_memory_segment(0, _SIZE, read, True)
    return prog


@pytest.mark.parametrize("scattered", [True, False])
@pytest.mark.parametrize("away", [-2, -1, 1, 2])
def test_a_page_beside_a_missing_one(away: int, scattered: bool) -> None:
    place = 0x1B000
    prog = program(place, [place + away * _PAGE])
    assert [info.text for info in find_notes(prog, [(0, _SIZE)], scattered=scattered)] == [_TEXT]


def test_each_other_page_is_missing() -> None:
    place = 0x1B000
    prog = program(place, range(0, _SIZE, 2 * _PAGE))
    assert [info.text for info in find_notes(prog, [(0, _SIZE)], scattered=True)] == [_TEXT]


def test_the_page_itself_is_missing() -> None:
    assert not list(find_notes(program(0x1B000, [0x1B000]), [(0, _SIZE)], scattered=True))
