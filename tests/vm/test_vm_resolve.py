"""Which packages are a kernel's: rows of an index as Debian's mirrors have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import pytest
from vmimages.apt import PrivateApt
from vmimages.aptparse import Package, version_key
from vmimages.errors import VMError
from vmimages.manifest import KERNELS, Source, find, names
from vmimages.resolve import candidates, release_of, series_of

Row = tuple[str, str, Sequence[str]]  # name, version, what it depends on
Rows = Sequence[Row]


class FakeApt:
    def __init__(self, packages: Rows) -> None:
        self.packages = [
            Package(name, version, tuple((other, version) for other in depends), "00", 1)
            for name, version, depends in packages
        ]

    def show(self, *wanted: str) -> list[Package]:
        found = [package for package in self.packages if package.name in wanted]
        return sorted(found, key=lambda package: version_key(package.version), reverse=True)

    def names(self, pattern: str) -> list[str]:
        return sorted({package.name for package in self.packages if re.search(pattern, package.name)})


def found(packages: Rows, image: str = "linux-image-cloud-amd64") -> list[tuple[str, list[str]]]:
    fake = cast(PrivateApt, FakeApt(packages))
    result = []
    for candidate in candidates(fake, Source(("x",), image)):
        result.append((candidate.release, [package.name for package in (*candidate.images, candidate.debug)]))
    return result


@pytest.mark.parametrize(
    ("package", "release"),
    [
        ("linux-image-6.1.0-56-cloud-amd64", "6.1.0-56-cloud-amd64"),
        ("linux-image-6.12.117+deb12-cloud-amd64-dbg", "6.12.117+deb12-cloud-amd64"),
        ("linux-image-6.1.0-56-cloud-amd64-unsigned", "6.1.0-56-cloud-amd64"),
        ("linux-image-cloud-amd64", None),
        ("kmod", None),
    ],
)
def test_release_of(package: str, release: str | None) -> None:
    assert release_of(package) == release


def test_series_of() -> None:
    assert series_of("6.1.0-56-cloud-amd64") == ("6.1", "cloud-amd64")
    assert series_of("6.12.117+deb12-cloud-arm64") == ("6.12", "cloud-arm64")
    assert series_of("7.2.13+deb14-cloud-amd64") == ("7.2", "cloud-amd64")
    assert series_of("5.10.0-32-amd64") == ("5.10", "amd64")
    assert series_of("x") is None


def test_newest_first_and_only_of_the_series() -> None:
    kernel = "linux-image-6.1.0-{}-cloud-amd64"
    packages: list[Row] = [("linux-image-cloud-amd64", "6.1.9-1", [kernel.format(9)])]
    for number in (8, 9, 10):
        packages.append((kernel.format(number), f"6.1.{number}-1", ()))
        packages.append((kernel.format(number) + "-dbg", f"6.1.{number}-1", ()))
    # Another series and another flavour of the same suite, and twins of other versions.
    packages.append(("linux-image-6.12.5+deb12-cloud-amd64-dbg", "6.12.5-1", ()))
    packages.append(("linux-image-6.1.0-11-rt-amd64-dbg", "6.1.11-1", ()))
    packages.append((kernel.format(7), "6.1.7-1", ()))
    packages.append((kernel.format(7) + "-dbg", "6.1.7-2", ()))
    releases = [release for release, _ in found(packages)]
    # What the meta-package names comes before what only the debug twins' names tell.
    assert releases == ["6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.1.0-8-cloud-amd64"]


def test_unsigned_image_will_do() -> None:
    packages: list[Row] = [
        ("linux-image-cloud-amd64", "1", ["linux-image-6.1.0-1-cloud-amd64"]),
        ("linux-image-6.1.0-1-cloud-amd64-unsigned", "1", ()),
        ("linux-image-6.1.0-1-cloud-amd64-dbg", "1", ()),
    ]
    assert found(packages) == [
        ("6.1.0-1-cloud-amd64", ["linux-image-6.1.0-1-cloud-amd64-unsigned", "linux-image-6.1.0-1-cloud-amd64-dbg"])
    ]


def test_split_packages() -> None:
    release = "7.2.13+deb14-cloud-amd64"
    parts = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
    packages: list[Row] = [
        ("linux-image-cloud-amd64", "7", [f"linux-image-{release}"]),
        (f"linux-image-{release}", "7", ["dracut", *parts]),
        *((part, "7", ()) for part in parts),
        (f"linux-image-{release}-dbg", "7", ()),
    ]
    assert found(packages) == [(release, [f"linux-image-{release}", *parts, f"linux-image-{release}-dbg"])]


def test_nothing() -> None:
    assert found([]) == []
    assert found([("linux-image-cloud-amd64", "1", ["kmod"])]) == []


def test_manifest() -> None:
    assert len({row.name for row in KERNELS}) == len(KERNELS)
    assert set(names(bootable=True)) == set(names())
    assert {"amd64-6.1", "amd64-6.12", "arm64-6.12"} == set(names())
    for row in KERNELS:
        assert row.name.startswith(row.arch + "-")
        assert find(row.name) is row
    with pytest.raises(VMError, match=r"amd64-6\.1"):
        find("amd64")
