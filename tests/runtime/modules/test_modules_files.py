"""Which file a module's symbols come from: the one of its own build, wherever it may lie and however it is packed."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.open_dumps import kernel_in, module_of

from kplug.image.opening.module_files import ModuleFiles
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.images import FROM_FILE, FROM_MEMORY, LoadedImages, PlacedModule

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def kernel(dumps_61: DumpSet) -> Kernel:
    return kernel_in(dumps_61)


@pytest.fixture
def debug_file(dumps_61: DumpSet) -> Path:
    return dumps_61.files.debug_modules / "kernel/net/802/stp.ko"


def _stp(kernel: Kernel, folder: Path) -> PlacedModule:
    return LoadedImages(kernel, [str(folder)]).placed(module_of(kernel, "stp"))


@pytest.mark.parametrize("name", ["stp.ko", "deep/down/stp.ko", "stp.ko.debug", "stp.ko.xz", "stp.ko.gz"])
def test_it_is_found_below_the_folder(kernel: Kernel, debug_file: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = debug_file.read_bytes()
    path.write_bytes({"xz": lzma.compress, "gz": gzip.compress}.get(name.rpartition(".")[2], bytes)(data))
    placed = _stp(kernel, tmp_path)
    assert (placed.image.symbols_from, placed.image.path) == (FROM_FILE, str(path))
    assert placed.warnings == ()


def test_hyphens_are_underscores(kernel: Kernel, dumps_61: DumpSet, tmp_path: Path) -> None:
    shutil.copy(dumps_61.files.debug_modules / "kernel/net/core/drop_monitor.ko", tmp_path / "drop-monitor.ko")
    placed = LoadedImages(kernel, [str(tmp_path)]).placed(module_of(kernel, "drop_monitor"))
    assert placed.image.symbols_from == FROM_FILE


def test_one_of_another_build_is_not_used(kernel: Kernel, dumps_61: DumpSet, tmp_path: Path) -> None:
    """Its build ID is not the one in memory: both are told, and the kernel's own symbols do."""
    from vmimages import fetch

    other = fetch("amd64-6.12", quiet=True).debug_modules / "kernel/net/802/stp.ko"
    shutil.copy(other, tmp_path / "stp.ko")
    placed = _stp(kernel, tmp_path)
    assert placed.image.symbols_from == FROM_MEMORY
    (warning,) = placed.warnings
    assert warning.startswith(f"{tmp_path}/stp.ko is not used for module stp: its build ID is ")
    assert warning.endswith(f", the one in memory is {dumps_61.truth.module_build_ids['stp']}")


def test_the_right_one_of_two_is_used(kernel: Kernel, debug_file: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "stp.ko").write_bytes(debug_file.read_bytes().replace(b"\x7fELF\x02", b"\x7fELF\x07"))
    shutil.copy(debug_file, tmp_path / "b" / "stp.ko")
    placed = _stp(kernel, tmp_path)
    assert placed.image.path == str(tmp_path / "b" / "stp.ko")
    assert placed.warnings == ()


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"no module at all"])
def test_a_broken_file_is_said(kernel: Kernel, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "stp.ko").write_bytes(data)
    placed = _stp(kernel, tmp_path)
    assert placed.image.symbols_from == FROM_MEMORY
    assert str(tmp_path / "stp.ko") in placed.warnings[0]


def test_a_debug_file_that_was_split_off(kernel: Kernel, debug_file: Path, tmp_path: Path) -> None:
    """`objcopy --only-keep-debug` leaves NOBITS of every section; their nature is that of the memory they lie in."""
    whole = _stp(kernel, debug_file.parent)
    subprocess.run(["objcopy", "--only-keep-debug", str(debug_file), str(tmp_path / "stp.ko.debug")], check=True)
    placed = _stp(kernel, tmp_path)
    assert placed.image.path.endswith("stp.ko.debug")

    def symbols(each: PlacedModule) -> set[tuple[str, int, str]]:
        table = each.image.symbols
        return {(symbol.name, symbol.address, symbol.letter) for symbol in map(table.symbol, table.places())}

    assert symbols(placed) == symbols(whole)
    address = module_of(kernel, "stp").memory[0].start
    assert placed.piece(address).layers[1].details["type"] == "PROGBITS"  # type: ignore[union-attr]


def test_a_folder_that_is_not_there(kernel: Kernel, tmp_path: Path) -> None:
    assert _stp(kernel, tmp_path / "nowhere").image.symbols_from == FROM_MEMORY


def test_beside_the_vmlinux(kernel: Kernel, debug_file: Path, tmp_path: Path) -> None:
    """An unpacked debug package has the vmlinux and the folder `kernel` side by side."""
    (tmp_path / "kernel").mkdir()
    shutil.copy(debug_file, tmp_path / "kernel" / "stp.ko")
    elf, refused = ModuleFiles((), None, str(tmp_path / "vmlinux")).find(module_of(kernel, "stp"))
    assert elf is not None
    assert elf.path == str(tmp_path / "kernel" / "stp.ko")
    assert refused == ()
