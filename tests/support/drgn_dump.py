"""A dump as a drgn script opens it."""

from __future__ import annotations

import contextlib

import drgn
from vmimages import DumpSet


def open_program(dumped: DumpSet) -> drgn.Program:
    """The dump, without debug information."""
    prog = drgn.Program()
    prog.set_core_dump(str(dumped.paths["elf"]))
    return prog


def load_debug_info(prog: drgn.Program, dumped: DumpSet) -> None:
    """Give drgn the vmlinux, and no module's debug information."""
    with contextlib.suppress(drgn.MissingDebugInfoError):
        prog.load_debug_info([str(dumped.files.vmlinux)])
