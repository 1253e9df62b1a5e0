"""KFENCE's objects in gdb, where drgn answers, by the guest's own list. More: tests/runtime/memory/test_kfence.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.gdbhelp import run

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


def test_objects_of_the_guests_list(bare_612: Path, tmp_path: Path) -> None:
    from vmimages import dumps

    found = dumps("amd64-6.12", ("elf",), quiet=True, append=("kfence.sample_interval=1",))
    listed = re.findall(r"^kfence-#(\d+): (0x\w+)-0x\w+, size=(\d+), cache=(.+)$", found.truth.text("kfence"), re.M)
    assert len(listed) > 50
    command = f"kwhere --json {' '.join(start for _, start, _, _ in listed)}"
    session = run([command], tmp_path, vmlinux=bare_612, before=[f"core-file {found.paths['elf']}"])
    answers = session[command].json
    assert len(answers) == len(listed)
    for answer, (number, start, size, cache) in zip(answers, listed):
        (layer,) = (each for each in answer["layers"] if each["kind"] == "kfence")
        assert (layer["name"], layer["start"], layer["offset"]) == (cache, start, "0x0")
        assert (layer["details"]["number"], layer["details"]["size"]) == (int(number), int(size))
        assert f"KFENCE object {cache}+0x0" in answer["summary"]
        assert "slab" not in {each["kind"] for each in answer["layers"]}
