"""Packages unpacked: where each file goes, and what is made of broken ones. dpkg-deb makes the packages."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.vmhelp import make_deb
from vmimages import unpack
from vmimages.errors import VMError

REL = "6.1.0-56-cloud-amd64"


@pytest.mark.parametrize(
    ("member", "size", "place"),
    [
        # As bullseye and bookworm have it,
        (f"boot/vmlinuz-{REL}", 9, "vmlinuz"),
        (f"boot/config-{REL}", 9, "config"),
        (f"boot/System.map-{REL}", 83, None),
        (f"usr/lib/debug/boot/System.map-{REL}", 3 << 20, "System.map"),
        (f"usr/lib/debug/boot/vmlinux-{REL}", 9, "vmlinux"),
        (f"boot/vmlinux-{REL}", 9, "vmlinuz"),
        (f"lib/modules/{REL}/kernel/drivers/block/loop.ko", 9, "modules/kernel/drivers/block/loop.ko"),
        (f"lib/modules/{REL}/modules.builtin", 9, "modules/modules.builtin"),
        (
            f"usr/lib/debug/lib/modules/{REL}/kernel/drivers/block/loop.ko",
            9,
            "debug-modules/kernel/drivers/block/loop.ko",
        ),
        (f"usr/lib/debug/lib/modules/{REL}/kernel/fs/xfs/xfs.ko", 9, None),
        # as sid does,
        (f"usr/lib/modules/{REL}/vmlinuz", 9, "vmlinuz"),
        (f"usr/lib/modules/{REL}/config", 9, "config"),
        (f"usr/lib/debug/lib/modules/{REL}/vmlinux", 9, "vmlinux"),
        (f"usr/lib/debug/lib/modules/{REL}/System.map", 3 << 20, "System.map"),
        (f"usr/lib/debug/lib/modules/{REL}/vdso/vdso64.so", 9, None),
        (f"usr/lib/modules/{REL}/kernel/fs/x.ko.xz", 9, "modules/kernel/fs/x.ko.xz"),
        # and what is none of it.
        ("usr/share/doc/linux/changelog.gz", 9, None),
        (f"lib/modules/{REL}/kernel/../../../../etc/x.ko", 9, None),
        ("boot/vmlinuz-5.0", 9, None),
        (f"usr/src/{REL}/config", 9, "config"),
    ],
)
def test_destination(member: str, size: int, place: str | None) -> None:
    assert unpack.destination(member, size, REL, ["loop"]) == place


def test_unpack_takes_files_and_leaves_links(tmp_path: Path) -> None:
    deb = make_deb(
        tmp_path / "a.deb", "a", "1",
        {f"usr/lib/debug/boot/vmlinux-{REL}": b"real" * 9, "usr/share/doc/a/x": b"doc", "etc/y": b"y"},
        {f"usr/lib/debug/lib/modules/{REL}/vmlinux": f"../../../boot/vmlinux-{REL}"},
    )  # fmt: skip
    seen: list[int] = []
    names = unpack.unpack(
        deb, lambda path, size: unpack.destination(path, size, REL, []), tmp_path / "out", seen.append
    )
    assert names == ["vmlinux"]
    assert (tmp_path / "out/vmlinux").read_bytes() == b"real" * 9
    assert seen


def test_what_comes_after_enough_is_left(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a.deb", "a", "1", {name: name.encode() * 100_000 for name in ("a", "b", "c", "d")})
    names = unpack.unpack(
        deb, lambda path, _: path, tmp_path / "out", lambda _: None, lambda written: len(written) == 2
    )
    assert len(names) == 2
    assert [(tmp_path / "out" / name).read_bytes() for name in names] == [name.encode() * 100_000 for name in names]


@pytest.mark.parametrize("size", [0, 1, 100, 3000])
def test_broken_package(tmp_path: Path, size: int) -> None:
    deb = make_deb(tmp_path / "a.deb", "a", "1", {"etc/x": b"x" * 20000})
    deb.write_bytes(deb.read_bytes()[:size])
    with pytest.raises(VMError, match=r"a\.deb"):
        unpack.unpack(deb, lambda path, size: path, tmp_path / "out", lambda at: None)
