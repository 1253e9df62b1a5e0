"""The running kernel by a machine's files: a guest's /proc and /sys, with this or that of its kernel's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.answers import names
from support.saved_trees import BOOT_IMAGE, MODULES, SYSTEM_MAP, VMLINUX, hide_addresses, saved_tree

from kplug import model
from kplug.live.kernel import LiveKernel, open_live
from kplug.live.machine import Machine
from kplug.live.survey import survey
from kplug.model import Annotation
from kplug.session import Session

if TYPE_CHECKING:
    from support.saved_trees import Guest
    from vmimages.truth import Symbol

pytestmark = pytest.mark.kernel

WAYS = {
    VMLINUX: (VMLINUX, BOOT_IMAGE, SYSTEM_MAP, MODULES),
    BOOT_IMAGE: (BOOT_IMAGE, SYSTEM_MAP, MODULES),
    SYSTEM_MAP: (SYSTEM_MAP,),
    "kallsyms": (),
}
SAMPLES = 400


def live_session(guest: Guest, root: Path, having: Sequence[str]) -> tuple[LiveKernel, Session]:
    live = open_live(Machine(str(saved_tree(root, guest.truth, guest.files, having))))
    return live, Session(live.images, warnings=live.warnings)


def sample(symbols: Sequence[Symbol]) -> Sequence[Symbol]:
    return symbols[:: max(1, len(symbols) // SAMPLES)]


def asked(session: Session, address: int) -> Annotation:
    (answer,) = session.where(hex(address))
    return answer


@pytest.mark.parametrize("way", WAYS)
def test_every_way_answers_as_the_guest_itself_does(guest: Guest, tmp_path: Path, way: str) -> None:
    live, session = live_session(guest, tmp_path, WAYS[way])
    assert live.main is not None
    assert live.warnings == []
    found = {VMLINUX: "/vmlinux-", BOOT_IMAGE: "/vmlinuz-", SYSTEM_MAP: "/System.map-", "kallsyms": "/proc/kallsyms"}
    assert found[way] in live.used[0]
    kernel = [each for each in guest.symbols if each.module is None and each.address >> 63 and each.kind in "tTdDbBrR"]
    known: dict[int, set[str]] = {}
    for each in kernel:
        known.setdefault(each.address, set()).add(each.name)
    wrong = [
        (hex(each.address), each.name, names(answer))
        for each in sample(kernel)
        if not each.name.startswith((".L", "__kvm_nvhe_.L"))
        and known[each.address].isdisjoint(names(answer := asked(session, each.address)))
    ]
    assert not wrong


@pytest.mark.parametrize("way", [BOOT_IMAGE, SYSTEM_MAP, "kallsyms"])
def test_other_ways_know_less_than_the_vmlinux_and_nothing_else(guest: Guest, tmp_path: Path, way: str) -> None:
    _, whole = live_session(guest, tmp_path / "whole", WAYS[VMLINUX])
    _, part = live_session(guest, tmp_path / "part", WAYS[way])
    text = [each for each in guest.symbols if each.module is None and each.kind in "tT" and each.address >> 63]
    for each in sample(text)[::4]:
        best, other = asked(whole, each.address + 1), asked(part, each.address + 1)
        assert best.region_class == other.region_class, hex(each.address)
        assert not names(best) or names(best) & names(other), hex(each.address)
        regions = [layer.name for layer in best.layers if layer.kind == model.REGION]
        assert [layer.name for layer in other.layers if layer.kind == model.REGION] == regions
        if way == BOOT_IMAGE and guest.files.arch == "amd64":
            sections = [layer.name for layer in best.layers if layer.kind == model.SECTION]
            assert [layer.name for layer in other.layers if layer.kind == model.SECTION] == sections


@pytest.mark.parametrize("having", [(MODULES,), ()], ids=["with their files", "by kallsyms"])
def test_modules(guest: Guest, tmp_path: Path, having: Sequence[str]) -> None:
    _, session = live_session(guest, tmp_path, having)
    percpu = 1 << 47  # x86's per-CPU variables are offsets
    of_modules = (each for each in guest.symbols if each.module is not None and not each.name.startswith((".L", "$")))
    own = [each for each in of_modules if each.address > percpu and each.kind in "tTdr"]
    known: dict[int, set[str]] = {}
    for each in own:
        known.setdefault(each.address, set()).add(each.name)
    assert {each.module for each in own} >= {"bridge", "overlay", "loop"}
    for each in sample(own):
        answer = asked(session, each.address)
        modules = [layer.name for layer in answer.layers if layer.kind == model.MODULE]
        if not modules and each.kind == "d":  # arm64's per-CPU variables lie behind those of the kernel
            continue
        assert modules == [each.module], each
        assert not known[each.address].isdisjoint(names(answer)), each


def test_a_module_by_kallsyms_never_claims_more_than_its_file(guest: Guest, tmp_path: Path) -> None:
    files, _ = live_session(guest, tmp_path / "files", (MODULES,))
    listed, _ = live_session(guest, tmp_path / "listed", ())
    for name in ("bridge", "overlay", "loop"):
        whole, part = files.images.named(name), listed.images.named(name)
        assert whole is not None
        assert part is not None
        memory = sorted((s.address, s.end) for s in whole.image.sections if s.occupies_addresses and s.address)
        pages = {page for start, end in memory for page in range(start >> 12, (end + 0xFFF >> 12) + 1)}
        for extent in part.image.extents:
            if extent.occupies_addresses and extent.size > 1:
                assert {extent.address >> 12, extent.end - 1 >> 12} <= pages, (name, hex(extent.address))


def test_hidden_addresses_are_said_and_the_files_answer_by_link_address(guest: Guest, tmp_path: Path) -> None:
    root = saved_tree(tmp_path, guest.truth, guest.files, (SYSTEM_MAP,))
    hide_addresses(root)
    live = open_live(Machine(str(root)))
    assert live.main is not None
    assert not live.main.placement.known
    assert any("all addresses are zero" in warning for warning in live.warnings)
    assert guest.files.system_map is not None
    linked = {line.split()[2]: int(line.split()[0], 16) for line in guest.files.system_map.read_text().splitlines()}
    (answer,) = Session(live.images, warnings=live.warnings).where("schedule")
    assert answer.address == linked["schedule"]


def test_hidden_addresses_and_no_file_answer_nothing(guest: Guest, tmp_path: Path) -> None:
    root = saved_tree(tmp_path, guest.truth, guest.files)
    hide_addresses(root)
    live = open_live(Machine(str(root)))
    assert not live.images
    assert "kptr_restrict" in live.unused[-1]


def test_another_kernels_files_are_not_used(guest: Guest, tmp_path: Path) -> None:
    root = saved_tree(tmp_path, guest.truth, guest.files, (VMLINUX, BOOT_IMAGE))
    notes = root / "sys/kernel/notes"
    notes.write_bytes(notes.read_bytes().replace(bytes.fromhex(guest.files.build_id), b"\xee" * 20))
    live = open_live(Machine(str(root)))
    assert [why for why in live.unused if "another kernel's file" in why] == live.unused
    assert len(live.unused) == 2
    assert "/proc/kallsyms" in live.used[0]


def test_iomem_has_the_bounds_that_a_kallsyms_of_text_alone_lacks(guest: Guest, tmp_path: Path) -> None:
    root = saved_tree(tmp_path, guest.truth, guest.files)
    kallsyms = root / "proc/kallsyms"
    lines = kallsyms.read_bytes().splitlines(keepends=True)
    truth = {each.name: each.address for each in guest.symbols if each.module is None}
    # As symbol_valid() in scripts/kallsyms.c; these are in no text range and are seen in such kernels all the same.
    other = {b"__start_rodata", b"__init_begin", b"_text"}
    ranges = [(truth["_stext"], truth["_etext"]), (truth["_sinittext"], truth["_einittext"])]

    def is_listed(line: bytes) -> bool:
        return line.split()[2] in other or any(start <= int(line[:16], 16) <= end for start, end in ranges)

    kallsyms.write_bytes(b"".join(filter(is_listed, lines)))
    live = open_live(Machine(str(root)))
    assert live.main is not None
    added = {"_sdata", "_edata", "__bss_start"} if guest.files.arch == "amd64" else {"_sdata", "_end"}
    for name in added:
        (symbol,) = live.main.image.symbols.exact(name)
        assert symbol.address == truth[name]
    answer = asked(Session(live.images), truth["init_task"] + 8)
    assert names(answer) == set()
    # arm64's _edata is told by neither.
    assert answer.region_class == ("data" if guest.files.arch == "amd64" else "none")


def test_the_doctor_finds_each_thing_by_its_state(guest: Guest, tmp_path: Path) -> None:
    root = saved_tree(tmp_path, guest.truth, guest.files, (BOOT_IMAGE, MODULES))
    (root / f"boot/System.map-{guest.files.release}").write_text(
        f"ffffffffffffffff B The real System.map is in the linux-image-{guest.files.release}-dbg package\n"
    )
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('PRETTY_NAME="Debian GNU/Linux"\nID=debian\n')
    found = survey(Machine(str(root)))
    assert found.answers
    states = {finding.what: finding.state for finding in found.findings}
    of_interest = ("vmlinux", "boot image", "System.map", "kallsyms", "iomem", "modules", "modules' sections")
    assert [states[what] for what in of_interest] == ["missing", "there", "not usable", *["there"] * 4]
    remedies = {finding.what: finding.remedy for finding in found.findings}
    package = f"apt install linux-image-{guest.files.release}-dbg"
    assert remedies["vmlinux"] == remedies["System.map"] == package
    assert all(finding.remedy or finding.found for finding in found.findings)
