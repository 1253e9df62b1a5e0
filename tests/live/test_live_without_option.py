"""kplug without any option: in a guest, about that guest's kernel, as root and as somebody who may see nothing."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.live_guest import Guest

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(
        shutil.which("qemu-system-x86_64") is None or shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") is None,
        reason="needs qemu-system-x86_64 and mke2fs",
    ),
]
WITHOUT_VMLINUX = (
    "import sys, kplug.live; kplug.live._VMLINUX_PLACES = (); from kplug.shell.cli import main; sys.exit(main({}))"
)


def without_vmlinux(guest: Guest, *words: str, **options: Any) -> tuple[int, str]:
    """kplug as it is on a machine that has no vmlinux."""
    return guest.python(WITHOUT_VMLINUX.format(list(words)), **options)


def layers(output: str, kind: str) -> list[dict[str, Any]]:
    return [each for line in output.splitlines() for each in json.loads(line)["layers"] if each["kind"] == kind]


def test_root_has_everything_of_the_vmlinux(guest: Guest) -> None:
    status, output = guest.kplug("where --json schedule")
    assert status == 0, output
    assert int(json.loads(output)["address"], 16) == guest.truth.address("schedule")
    assert [each["name"] for each in layers(output, "section")] == [".text"]
    assert [each["name"] for each in layers(output, "symbol")] == ["schedule"]


def test_root_without_a_vmlinux_has_the_kernels_own_symbols_and_its_modules(guest: Guest) -> None:
    truth = guest.truth
    bridge = next(each for each in truth.symbols if each.name == "br_fdb_update" and each.module == "bridge")
    asked = ["schedule", hex(truth.address("schedule") + 4), hex(bridge.address + 4), "br_fdb_update"]
    status, output = without_vmlinux(guest, "where", "--json", *asked)
    assert status == 0, output
    answers = [json.loads(line) for line in output.splitlines()]
    assert [int(each["address"], 16) for each in answers] == [
        truth.address("schedule"),
        truth.address("schedule") + 4,
        bridge.address + 4,
        bridge.address,
    ]
    assert [each["name"] for each in layers(output, "symbol")] == [*["schedule"] * 2, *["br_fdb_update"] * 2]
    assert [each["name"] for each in layers(output, "module")] == ["bridge"] * 2


def test_nobody_has_link_addresses_and_is_told_so(guest: Guest) -> None:
    status, output = guest.kplug("where schedule", root=False)
    assert status == 0, output
    assert "all addresses are zero" in output
    assert "schedule+0x0" in output


def test_nobody_without_a_file_is_told_why(guest: Guest) -> None:
    status, output = without_vmlinux(guest, "where", "schedule", root=False)
    assert status == 2
    (line,) = output.splitlines()
    assert "kptr_restrict" in line
    assert "kplug doctor" in line


@pytest.mark.parametrize("root", [True, False])
def test_the_doctor_tells_what_each_may_see(guest: Guest, root: bool) -> None:
    status, output = guest.kplug("doctor --json", root=root)
    assert status == 0, output
    states = {row["what"]: row["state"] for row in map(json.loads, output.splitlines())}
    seen = [states[what] for what in ("root", "CAP_SYSLOG", "vmlinux", "kallsyms", "iomem")]
    assert seen == (["there"] * 5 if root else ["missing", "missing", "there", "zeros", "zeros"])
