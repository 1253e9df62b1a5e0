"""Dumps of a 6.1 and a 6.12, opened by drgn as a script does, and drgn's own prompt on a pseudo-terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import drgn
    from support.drgn_prompt import Prompt
    from vmimages import DumpSet


@pytest.fixture(scope="session", params=["amd64-6.1", "amd64-6.12"])
def dumped(request: pytest.FixtureRequest) -> DumpSet:
    from vmimages import dumps

    return dumps(request.param, ("elf",), quiet=True)


@pytest.fixture(scope="session")
def prog(dumped: DumpSet) -> drgn.Program:
    """The dump with the debug information of its vmlinux, as `drgn -c DUMP -s VMLINUX` has it."""
    from support.drgn_dump import load_debug_info, open_program

    prog = open_program(dumped)
    load_debug_info(prog, dumped)
    return prog


@pytest.fixture(scope="module")
def prompt(dumped: DumpSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompt]:
    """drgn's own command line on the dump, at its prompt."""
    from support.drgn_prompt import Prompt

    words = ["-q", "-c", str(dumped.paths["elf"]), "-s", str(dumped.files.vmlinux)]
    with Prompt(words, tmp_path_factory.mktemp("home")) as prompt:
        yield prompt
