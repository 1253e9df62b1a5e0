"""Build IDs of ELF files, and the order in which modules are loaded: of files made here, right and broken."""

from __future__ import annotations

import contextlib
import io
import lzma
from pathlib import Path

import pytest
from support.vmhelp import BUILD_ID, make_elf, make_module, make_vmlinux, note
from vmimages import elf, modules
from vmimages.errors import VMError


def test_build_id(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(make_vmlinux())
    assert elf.build_id(path) == BUILD_ID.hex()
    path.write_bytes(make_elf({".note.gnu.build-id": note(b"GNU", 3, b"\xab" * 8)}))
    assert elf.build_id(path) == "ab" * 8
    path.write_bytes(make_elf({".text": b""}))
    with pytest.raises(VMError, match="no build ID"):
        elf.build_id(path)


def test_elf_truncated_at_every_byte() -> None:
    whole = make_vmlinux()
    for size in range(len(whole)):
        with pytest.raises(VMError):
            elf.section(io.BytesIO(whole[:size]), ".notes")


def test_elf_with_one_lying_byte() -> None:
    whole = make_vmlinux()
    for at in range(len(whole)):
        for value in (0, 1, 0x7F, 0xFF):
            bad = bytearray(whole)
            bad[at] = value
            with contextlib.suppress(VMError):
                elf.section(io.BytesIO(bytes(bad)), ".notes")


def test_notes_of_rubbish() -> None:
    for data in (b"", b"\0" * 11, b"\xff" * 40, b"\0" * 4096):
        assert elf.build_id_in_notes(data) is None


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("kernel/a/virtio-rng.ko", "virtio_rng"),
        ("x.ko.xz", "x"),
        ("x.ko.zst", "x"),
        ("x.ko.debug", "x"),
        ("modules.dep", None),
        ("x.kox", None),
    ],
)
def test_module_name(file: str, name: str | None) -> None:
    assert modules.module_name(file) == name


def test_modules_dep_and_order(tmp_path: Path) -> None:
    tree = tmp_path / "modules/kernel"
    tree.mkdir(parents=True)
    for name, needs in (("br-x", "bridge,llc"), ("bridge", "stp,llc"), ("stp", "llc"), ("llc", "")):
        if name == "stp":
            (tree / f"{name}.ko.xz").write_bytes(lzma.compress(make_module(needs)))
        else:
            (tree / f"{name}.ko").write_bytes(make_module(needs))
    text = modules.make_modules_dep(tmp_path / "modules")
    assert "kernel/br-x.ko: kernel/bridge.ko kernel/stp.ko.xz kernel/llc.ko\n" in text
    assert "kernel/llc.ko:\n" in text
    files, needs_of = modules.parse_modules_dep(text)
    assert files["br_x"] == "kernel/br-x.ko"
    assert modules.load_order(["br_x"], needs_of) == ["llc", "stp", "bridge", "br_x"]
    assert modules.load_order(["llc", "br_x", "llc"], needs_of) == ["llc", "stp", "bridge", "br_x"]


def test_load_order_cuts_circles() -> None:
    assert modules.load_order(["a"], {"a": ["b"], "b": ["a"]}) == ["b", "a"]


def test_broken_module(tmp_path: Path) -> None:
    path = tmp_path / "x.ko.xz"
    path.write_bytes(b"not xz")
    with pytest.raises(VMError, match=r"x\.ko\.xz"):
        modules.read_module(path)
