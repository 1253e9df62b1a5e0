"""Fetching with packages made here in place of a mirror's: what ends up in the cache, and what if it goes wrong."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.vmhelp import BUILD_ID, make_deb, make_module, make_vmlinux
from vmimages import cli, fetching, manifest
from vmimages.aptparse import Package, version_key
from vmimages.dumping import DumpSet
from vmimages.errors import HeadersGone, VMError
from vmimages.manifest import Kernel, Source
from vmimages.truth import GroundTruth

OLD, NEW = "9.1.0-1-cloud-amd64", "9.1.0-2-cloud-amd64"
NAME = "amd64-test"


class Mirror:
    """Packages by name, made when they are downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages: list[Package] = []
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.missing: set[str] = set()
        self.downloads = 0

    def add(self, name: str, version: str, files: dict[str, bytes], depends: str = "") -> None:
        self.packages.append(Package(name, version, ((depends, version),) if depends else (), "00", 1))
        self.files[name, version] = files

    def add_kernel(self, release: str, version: str) -> None:
        image, module = f"linux-image-{release}", f"lib/modules/{release}/kernel/loop.ko"
        boot = {f"boot/vmlinuz-{release}": b"zimage", f"boot/config-{release}": b"CONFIG_X=y\n"}
        self.add(image, version, {**boot, f"boot/System.map-{release}": b"stub", module: make_module("")})
        debug = "usr/lib/debug/"
        self.add(f"{image}-dbg", version, {
            f"{debug}boot/vmlinux-{release}": make_vmlinux(), f"{debug}boot/System.map-{release}": b"0" * 5000,
            debug + module: b"debug", f"{debug}lib/modules/{release}/kernel/other.ko": b"debug",
        })  # fmt: skip


class FakeApt:
    mirror: Mirror
    suites = ("x",)

    def __init__(self, suites: tuple[str, ...], arch: str, kernel: str) -> None:
        pass

    def update(self, note: Callable[[str], None]) -> None:
        pass

    def show(self, *names: str) -> list[Package]:
        found = [package for package in self.mirror.packages if package.name in names]
        return sorted(found, key=lambda package: version_key(package.version), reverse=True)

    def names(self, pattern: str) -> list[str]:
        return [package.name for package in self.mirror.packages if package.name.endswith("-dbg")]

    def download(self, package: Package, update: Callable[[float], None]) -> Path:
        self.mirror.downloads += 1
        if self.mirror.missing & {package.name, f"{package.name}={package.version}"}:
            raise VMError(f"{package.name}: 404 Not Found")
        path = self.mirror.folder / f"{package.name}_{self.mirror.downloads}.deb"
        return make_deb(path, "p", "1", self.mirror.files[package.name, package.version])

    def forget(self, paths: list[Path]) -> None:
        for path in paths:
            path.unlink()


@pytest.fixture
def mirror(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    found = Mirror(tmp_path)
    found.add("linux-image-cloud-amd64", "9.1.2-1", {}, depends=f"linux-image-{NEW}")
    found.add_kernel(NEW, "9.1.2-1")
    found.add_kernel(OLD, "9.1.1-1")
    found.add("busybox-static", "1:1", {"usr/bin/busybox": b"busybox", "etc/x": b""})
    monkeypatch.setattr(FakeApt, "mirror", found, raising=False)
    monkeypatch.setattr(fetching, "PrivateApt", FakeApt)
    row = Kernel(NAME, "amd64", (Source(("x",), "linux-image-cloud-amd64"),))
    monkeypatch.setattr(manifest, "KERNELS", (row,))
    return found


def test_fetch(mirror: Mirror, cache: Path) -> None:
    assert fetching.cached(NAME) is None
    files = fetching.fetch(NAME, quiet=True)
    assert files.root == cache / "kernels" / NAME
    assert (files.release, files.version, files.build_id) == (NEW, "9.1.2-1", BUILD_ID.hex())
    assert files.vmlinux.read_bytes() == make_vmlinux()
    assert files.vmlinuz.read_bytes() == b"zimage"
    # The real System.map, not /boot's stub.
    assert files.system_map is not None
    assert files.system_map.stat().st_size == 5000
    assert (files.modules / "kernel/loop.ko").exists()
    assert (files.modules / "modules.dep").read_text() == "kernel/loop.ko:\n"
    assert [path.name for path in files.debug_modules.rglob("*.ko")] == ["loop.ko"]
    assert files.busybox.stat().st_mode & 0o111
    assert fetching.verify(files) == []
    assert not list(mirror.folder.glob("*.deb"))
    info = json.loads(files.info.read_text())
    assert info["packages"][f"linux-image-{NEW}-dbg"] == {"version": "9.1.2-1", "sha256": "00"}


def test_an_older_busybox_is_taken_where_the_newest_is_gone(mirror: Mirror) -> None:
    mirror.add("busybox-static", "1:1+deb11u1", {"usr/bin/busybox": b"newer"})
    mirror.missing.add("busybox-static=1:1+deb11u1")
    files = fetching.fetch(NAME, quiet=True)
    assert files.busybox.read_bytes() == b"busybox"
    assert json.loads(files.info.read_text())["busybox_version"] == "1:1"


def test_a_kernel_for_its_files_alone(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = manifest.KERNELS
    whole = fetching.fetch(NAME, quiet=True)
    monkeypatch.setattr(manifest, "KERNELS", (dataclasses.replace(row, files_only=True),))
    assert fetching.fetch(NAME, quiet=True) == whole  # more than is wanted is fine
    whole.info.unlink()
    files = fetching.fetch(NAME, quiet=True)
    assert files.vmlinux.read_bytes() == make_vmlinux()
    assert not list(files.modules.rglob("*.ko"))
    assert not list(files.debug_modules.iterdir())
    monkeypatch.setattr(manifest, "KERNELS", (row,))
    assert fetching.cached(NAME) is None


def test_other_kernels_are_downloaded_while_one_is_unpacked(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = manifest.KERNELS
    monkeypatch.setattr(manifest, "KERNELS", (row, dataclasses.replace(row, name="amd64-other")))
    downloaded = threading.Event()
    unpack = fetching.unpack.unpack

    def slow(*arguments: Any) -> list[str]:
        assert downloaded.wait(600)
        return unpack(*arguments)

    def obtain(name: str, *arguments: bool, **options: bool) -> Callable[[threading.Event], fetching.KernelFiles]:
        unpacked = fetching.obtain(name, *arguments, **options)
        if name == "amd64-other":
            downloaded.set()
        return unpacked

    monkeypatch.setattr(fetching.unpack, "unpack", slow)
    monkeypatch.setattr(cli, "obtain", obtain)
    assert cli.main(["fetch", "--all"]) == 0
    assert [fetching.verify(fetching.fetch(each.name)) for each in manifest.KERNELS] == [[], []]


def test_a_kernel_whose_header_packages_are_gone_is_fetched_anew(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetching.fetch(NAME, quiet=True)
    newer = "9.1.0-3-cloud-amd64"
    mirror.add("linux-image-cloud-amd64", "9.1.3-1", {}, depends=f"linux-image-{newer}")
    mirror.add_kernel(newer, "9.1.3-1")

    def headers(files: fetching.KernelFiles) -> None:
        if files.release == NEW:
            raise HeadersGone("gone")

    monkeypatch.setattr(cli, "headers", headers)
    assert cli.main(["fetch", NAME, "--headers", NAME]) == 0
    assert fetching.fetch(NAME).release == newer
    assert "vm.py: gone" in capsys.readouterr().err


def test_unpacking_stops_when_told(mirror: Mirror, cache: Path) -> None:
    unpacked = fetching.obtain(NAME, quiet=True)
    stop = threading.Event()
    stop.set()
    with pytest.raises(VMError, match="interrupted"):
        unpacked(stop)
    assert list((cache / "kernels").iterdir()) == []
    assert fetching.verify(fetching.fetch(NAME, quiet=True)) == []


def test_a_warm_cache_needs_no_mirror(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fetching.fetch(NAME, quiet=True)
    monkeypatch.delattr(fetching, "PrivateApt")
    assert fetching.fetch(NAME, quiet=True) == files


@pytest.mark.parametrize("damage", ["no stamp", "broken stamp", "foreign stamp", "short file", "no file", "old layout"])
def test_half_made_is_made_again(mirror: Mirror, damage: str) -> None:
    files = fetching.fetch(NAME, quiet=True)
    if damage == "no stamp":
        files.info.unlink()
    elif damage == "broken stamp":
        files.info.write_text(files.info.read_text()[:100])
    elif damage == "foreign stamp":
        files.info.write_text('["something else"]')
    elif damage == "short file":
        files.vmlinux.write_bytes(files.vmlinux.read_bytes()[:-1])
    elif damage == "no file":
        (files.modules / "kernel/loop.ko").unlink()
    else:
        files.info.write_text(files.info.read_text().replace('"layout": 1', '"layout": 0'))
    assert fetching.cached(NAME) is None
    again = fetching.fetch(NAME, quiet=True)
    assert fetching.verify(again) == []
    assert again.vmlinux.read_bytes() == make_vmlinux()


def test_changed_content_is_noticed_on_demand(mirror: Mirror) -> None:
    files = fetching.fetch(NAME, quiet=True)
    files.config.write_bytes(b"CONFIG_X=n\n")
    assert fetching.verify(files) == ["config"]


def test_debug_twin_missing_from_the_mirror(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.missing.add(f"linux-image-{NEW}-dbg")
    assert fetching.fetch(NAME).release == OLD
    assert "404" in capsys.readouterr().err


def test_nothing_comes(mirror: Mirror, cache: Path) -> None:
    mirror.missing |= {f"linux-image-{NEW}-dbg", f"linux-image-{OLD}-dbg"}
    with pytest.raises(VMError, match=r"nothing could be fetched.*404"):
        fetching.fetch(NAME, quiet=True)
    assert not (cache / "kernels").exists()


def test_interrupted_while_unpacking(mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "_finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetching.fetch(NAME, quiet=True)
    assert list((cache / "kernels").iterdir()) == []
    # Killed instead, it could not clean up: the next run does.
    (cache / "kernels" / f".{NAME}.left").mkdir()
    fetching.fetch(NAME, quiet=True)
    assert [path.name for path in (cache / "kernels").iterdir()] == [NAME]


def test_packages_without_what_is_needed(mirror: Mirror) -> None:
    del mirror.files[f"linux-image-{NEW}", "9.1.2-1"][f"boot/vmlinuz-{NEW}"]
    with pytest.raises(VMError, match="have no vmlinuz"):
        fetching.fetch(NAME, quiet=True)


def test_refresh(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    fetching.fetch(NAME, quiet=True)
    count = mirror.downloads
    assert fetching.fetch(NAME, refresh=True).release == NEW
    assert mirror.downloads == count
    assert "newest" in capsys.readouterr().err
    newer = "9.1.0-3-cloud-amd64"
    mirror.add("linux-image-cloud-amd64", "9.1.3-1", {}, depends=f"linux-image-{newer}")
    mirror.add_kernel(newer, "9.1.3-1")
    assert fetching.fetch(NAME, quiet=True).release == NEW
    assert fetching.fetch(NAME, refresh=True, quiet=True).release == newer


def test_cache_that_cannot_be_written(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KPLUG_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(VMError, match="can't be written"):
        fetching.fetch(NAME, quiet=True)


def test_dumps_are_made_of_what_is_asked_once_it_is_here(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, bool]] = []

    def dumps(name: str, quiet: bool) -> DumpSet:
        made.append((name, fetching.cached(name) is not None))
        files = fetching.fetch(name, quiet=quiet)
        return DumpSet(files, Path("/dumps"), {}, GroundTruth(Path("/dumps")), True)

    monkeypatch.setattr(cli, "dumps", dumps)
    assert cli.main(["fetch", NAME, "--dump", NAME, "--dump", "another"]) == 0
    assert made == [(NAME, True)]
    assert capsys.readouterr().out.splitlines()[-1].split() == [NAME, "dumps", "/dumps"]
