"""Dumps of a 6.1 and a 6.12, opened by drgn as a script does, and drgn's own prompt on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

_HERE = Path(__file__).resolve()
sys.path.insert(0, str(_HERE.parent))
sys.path.append(str(_HERE.parents[2] / "vm-images"))

if TYPE_CHECKING:
    import drgn
    from prompt import Prompt
    from vmimages import DumpSet


@pytest.fixture(scope="session", params=["amd64-6.1", "amd64-6.12"])
def dumped(request: pytest.FixtureRequest) -> DumpSet:
    from vmimages import dumps

    return dumps(request.param, ("elf",), quiet=True)


def opened(dumped: DumpSet) -> drgn.Program:
    """The dump, without debug information."""
    import drgn

    prog = drgn.Program()
    prog.set_core_dump(str(dumped.paths["elf"]))
    return prog


def load_debug_info(prog: drgn.Program, dumped: DumpSet) -> None:
    """Give drgn the vmlinux, and no module's debug information."""
    import drgn

    with contextlib.suppress(drgn.MissingDebugInfoError):
        prog.load_debug_info([str(dumped.files.vmlinux)])


@pytest.fixture(scope="session")
def prog(dumped: DumpSet) -> drgn.Program:
    """The dump with the debug information of its vmlinux, as `drgn -c DUMP -s VMLINUX` has it."""
    prog = opened(dumped)
    load_debug_info(prog, dumped)
    return prog


@pytest.fixture(scope="module")
def prompt(dumped: DumpSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompt]:
    """drgn's own command line on the dump, at its prompt."""
    from prompt import Prompt

    words = ["-q", "-c", str(dumped.paths["elf"]), "-s", str(dumped.files.vmlinux)]
    with Prompt(words, tmp_path_factory.mktemp("home")) as prompt:
        yield prompt
