"""Return addresses by the call before them, against objdump: in vmlinux files, and in a kernel's memory, where calls
were patched (alternatives, static calls, retpolines).

A call that is missed would hide a frame. Bytes of other instructions that read as a call can only be few.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.open_dumps import session_in

from kplug.arch.calls import call_reach, calls_before
from kplug.image.opening.files import open_vmlinux

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

SAMPLE = 0x180000
CALL = re.compile(r"(?:(?:cs|ds|notrack|bnd|data16|addr32|rex\S*)\s+)*call\b")


def disassembled(*words: str) -> list[tuple[int, str]]:
    """objdump's instructions: address and text."""
    command = ["objdump", "--no-show-raw-insn", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(int(at, 16), text) for at, text in re.findall(r"^\s*([0-9a-f]{8,16}):\s+(.+)$", done.stdout, re.MULTILINE)]


def compare(code: bytes, start: int, listed: list[tuple[int, str]], is_code: Callable[[int], bool]) -> None:
    def follows_call(address: int) -> bool:
        place = address - start
        found = calls_before(code[max(0, place - call_reach("x86_64")) : place], address, "x86_64")
        return any(call.target is None or is_code(call.target) for call in found)

    pairs = list(zip(listed, listed[1:]))
    behind = {after for (_, text), (after, _) in pairs if CALL.match(text)}
    others = {after for _, (after, _) in pairs} - behind
    assert len(behind) > 20_000
    assert [hex(address) for address in behind if not follows_call(address)] == []
    assert sum(map(follows_call, others)) < len(others) / 1000


@pytest.fixture(params=["amd64-6.1", "amd64-6.12"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_in_a_vmlinux(name: str) -> None:
    from vmimages import fetch

    image = open_vmlinux(str(fetch(name, quiet=True).vmlinux))
    start = next(section.address for section in image.sections if section.name == ".text")
    code = image.elf.read_address(start, SAMPLE)
    assert code is not None
    text = [(section.address, section.end) for section in image.sections if section.executable]
    listed = disassembled("-d", f"--start-address={start:#x}", f"--stop-address={start + SAMPLE:#x}", image.path)
    compare(code, start, listed, lambda target: any(first <= target < end for first, end in text))


def test_in_memory(name: str, tmp_path: Path) -> None:
    from vmimages import dumps

    dumped = dumps(name, ("elf",), quiet=True)
    session = session_in(dumped)
    assert session.main is not None
    assert session.target is not None
    start = session.places(".text")[0].address
    code = session.target.read(start, SAMPLE)
    path = tmp_path / "text"
    path.write_bytes(code)
    listed = disassembled("-D", "-b", "binary", "-m", "i386:x86-64", f"--adjust-vma={start:#x}", str(path))
    placement, image = session.main.placement, session.main.image
    text = [(placement.runtime(each.address), each.size) for each in image.sections if each.executable]
    assert code != image.elf.read_address(placement.link(start), SAMPLE), "nothing was patched"
    compare(code, start, listed, lambda target: any(0 <= target - first < size for first, size in text))
