"""The twenty questions (docs/questions.md), asked of a kernel that `make test` does not boot: a specimen of every kind.

tests/runtime/planted asks the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.open_dumps import open_files
from support.planted import expected_of, missing
from support.recorder import Recorder
from vmimages import Planted, dump, planted_guest

from kplug.render.text import TextRenderer
from kplug.runtime.session import session_of

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# Up to 5.13 what a cache asks for is not debugged unless the kernel is told to debug any (1f0723a4c0df).
_OPTIONS: dict[str, dict[str, Any]] = {"amd64-5.10": {"pti": True, "append": ("slub_debug=FZPU",)}}


@pytest.fixture(scope="module")
def planted(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Planted, Path]]:
    """The guest, stopped, and its dump."""
    with planted_guest(kernel, quiet=True, **_OPTIONS.get(kernel, {})) as guest:
        guest.vm.stop()
        yield guest, dump(guest.vm, tmp_path_factory.mktemp("planted") / "elf", quiet=True)


@pytest.mark.source("planted")
@pytest.mark.parametrize("vmlinux", [True, False], ids=["vmlinux", "no-vmlinux"])
def test_specimens(planted: tuple[Planted, Path], vmlinux: bool, cell: Recorder) -> None:
    guest, core = planted
    session = session_of(open_files(core, guest.vm.files.vmlinux if vmlinux else None))
    asked, wrong = 0, []
    for specimens, pid in ((guest.specimens, None), (guest.user_specimens, guest.pid)):
        for specimen in filter(expected_of, specimens):
            with session.program(pid):
                (answer,) = session.where(f"{specimen.address:#x}")
            asked += 1
            text = TextRenderer().annotation(answer)
            if answer.warnings or missing(specimen, text):
                wrong.append(f"{specimen.key}: {specimen.truth}\n{text}")
    cell.about("release", guest.vm.files.release)
    cell.compared(f"specimens {'with' if vmlinux else 'without'} vmlinux", asked, len(wrong))
    assert asked
    assert not wrong, "\n".join(wrong)
