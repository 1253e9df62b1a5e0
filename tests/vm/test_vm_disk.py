"""The disk that a guest with Python gets: what goes in can be read back by e2fsprogs' own tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vmimages import VMError, disk

_SBIN = "/usr/sbin:/sbin:/usr/bin"
needs_tools = pytest.mark.skipif(
    not all(shutil.which(tool, path=_SBIN) for tool in ("mke2fs", "debugfs")), reason="needs mke2fs and debugfs"
)


def in_image(image: Path, request: str) -> str:
    tool = shutil.which("debugfs", path=_SBIN)
    assert tool is not None
    return subprocess.run([tool, "-R", request, str(image)], capture_output=True, text=True, check=True).stdout


@needs_tools
def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/text").write_text("of the disk\n")
    (tree / "etc/link").symlink_to("text")
    (tree / "zeros").write_bytes(bytes(3 << 20))
    image = disk.image(tree, tmp_path / "disk.ext4")
    assert in_image(image, "cat /etc/text") == "of the disk\n"
    assert "Fast link dest" in in_image(image, "stat /etc/link")
    assert "Size: 3145728" in in_image(image, "stat /zeros")


def test_no_mke2fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_MKE2FS", ("no-such-tool",))
    (tmp_path / "tree").mkdir()
    with pytest.raises(VMError, match=r"mke2fs isn't installed; it is in the package e2fsprogs"):
        disk.image(tmp_path / "tree", tmp_path / "disk.ext4")


def test_qemus_arguments() -> None:
    arguments = disk.devices(Path("/a,b"), Path("/c"))
    assert arguments[1] == "if=none,id=disk0,format=raw,readonly=on,file=/a,,b"
    assert arguments[3::4] == ("virtio-blk-pci,drive=disk0", "virtio-blk-pci,drive=disk1")


def test_only_this_pythons_compiled_modules_go_along() -> None:
    tag = sys.implementation.cache_tag
    assert disk._is_for_this_python(Path(f"x.{tag}.pyc"))
    assert not disk._is_for_this_python(Path("x.cpython-27.pyc"))
    assert disk._is_for_this_python(Path("x.py"))
