"""A real crash dump: the CPUs, the log and the notes of the kernel that crashed; and the parts that need no boot."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
import vmimages
from vmimages import DumpSet, kexec


def test_archive_has_kexec_and_libraries_where_they_are_looked_for(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("usr/sbin/kexec", "sbin/kdump", "lib/a/libc.so.6", "usr/lib/a/liby.so.2.1", "usr/lib/a/gconv/X.so"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "usr/lib/a/liby.so.2").symlink_to("liby.so.2.1")
    kexec._pack(root, tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as archive:
        assert sorted(archive.getnames()) == ["lib/a/libc.so.6", "lib/a/liby.so.2", "lib/a/liby.so.2.1", "sbin/kexec"]
        assert archive.getmember("lib/a/liby.so.2").linkname == "liby.so.2.1"


@pytest.fixture(scope="module")
def crashed() -> DumpSet:
    return vmimages.kexec_dumps("amd64-6.1", quiet=True)


@pytest.mark.boot
def test_it_crashed_as_it_should(crashed: DumpSet) -> None:
    assert crashed.truth.text("online") == "0,2-3\n"
    console = crashed.truth.text("console")
    assert "Kernel panic - not syncing: sysrq triggered crash" in console
    assert f"CPU: {kexec.CRASHED} " in console


@pytest.mark.boot
def test_vmcore_is_the_kernels_own(crashed: DumpSet) -> None:
    notes = subprocess.run(
        ["readelf", "-nW", str(crashed.paths["vmcore"])], capture_output=True, text=True, check=True
    ).stdout
    assert notes.count("NT_PRSTATUS") == kexec.CPUS - 1
    assert "QEMU" not in notes
    assert b"CRASHTIME=" in crashed.paths["vmcore"].read_bytes()[: 1 << 16]


@pytest.mark.boot
def test_parts_of_the_split_dump_share_its_pages(crashed: DumpSet) -> None:
    if "zlib-d31" not in crashed.paths:
        pytest.skip("makedumpfile isn't installed")
    parts = [crashed.paths[f"split-d31-{number}"].stat().st_size for number in (1, 2, 3)]
    whole = crashed.paths["zlib-d31"].stat().st_size
    assert all(size < whole * 0.9 for size in parts)
    assert crashed.paths["flat-d31"].stat().st_size > whole
