"""kmap in gdb: the same declaration; the bases are read from the kernel's own variables.

Truth: drgn's reading of those variables, and the guest's own symbols.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import drgn
import pytest
from support.gdbhelp import run

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


def test_the_map_of_a_core(dumped: DumpSet, bare_61: Path, tmp_path: Path) -> None:
    prog = drgn.Program()
    prog.set_core_dump(dumped.paths["elf-paging"])
    prog.load_debug_info([dumped.files.vmlinux])
    session = run(
        ["kmap --json", "kmap", "kmap vmemmap", "kmap --json $pc", "kmap fixmap", "help kmap"],
        tmp_path, vmlinux=bare_61, before=[f"core-file {dumped.paths['elf-paging']}"],
    )  # fmt: skip
    rows = {row["name"]: row for row in session["kmap --json"].json}
    bases = {"direct map": "page_offset_base", "vmalloc": "vmalloc_base", "vmemmap": "vmemmap_base"}
    for name, variable in bases.items():
        assert (rows[name]["start"], rows[name]["source"]) == (hex(prog[variable].value_()), variable)
        assert rows[name]["nominal"] is False
    image = next(row for name, row in rows.items() if name.startswith("vmlinux"))
    assert image["physical"] is not None
    assert image["start"] == hex(dumped.truth.address("_text"))
    assert "x86_64, 4-level page tables" in session["kmap"].text
    assert rows["vmemmap"]["start"] in session["kmap vmemmap"].text
    names = [row["name"] for row in session["kmap --json $pc"].json]
    assert names[0] == "kernel image mapping"
    assert names[-1] == "text"
    # gdb is not asked for types: that takes seconds.
    assert "FIXADDR_START depends on the configuration and is not known" in session["kmap fixmap"].text
    assert "virtual address space" in session["help kmap"].text
