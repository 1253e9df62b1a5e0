"""apt's output and index files, as they are and as rubbish; versions in the order that dpkg has them in."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from vmimages import aptparse
from vmimages.aptparse import Mirrors

SHOW = """\
Package: linux-image-cloud-amd64
Source: linux-signed-amd64 (6.1.192+2)
Version: 6.1.192-2
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)
Description-en: Linux for x86-64 cloud (meta-package)
 This package depends on the latest Linux kernel.
 .
 Version: not a field
Size: 1504
SHA256: 00BE21c0

Package: linux-image-cloud-amd64
Version: 6.1.176-1
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120) | linux-initramfs-tool
Size: 1500
SHA256: 6f32

Package: without-a-checksum
Version: 1
Size: 3
"""


def test_packages() -> None:
    first, second = aptparse.packages(SHOW)
    assert (first.name, first.version, first.sha256, first.size) == (
        "linux-image-cloud-amd64", "6.1.192-2", "00be21c0", 1504,
    )  # fmt: skip
    assert first.depends == (("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"),)
    assert second.depends == (("kmod", None), ("linux-base", None), ("initramfs-tools", None))


@pytest.mark.parametrize(
    "text", ["", "\n\n\n", "no colon here", " folded first\n", "A:\n\n:\n", "Package: x\nSize: many\n"]
)
def test_packages_of_rubbish(text: str) -> None:
    assert aptparse.packages(text) == []


def line(uri: str, release: str, label: str, created: str = "Packages") -> str:
    return "\t".join((uri, release, label, "main", created)) + "\n"


MAIN, SECURITY, OTHER = "http://m.example/debian/", "http://m.example/debian-security/", "http://o.example/apt/"


def test_mirrors_by_label() -> None:
    text = (
        line(OTHER, "bookworm", "Other")
        + line(MAIN, "bookworm", "Debian", "Sources")
        + line(MAIN, "bookworm-updates", "Debian")
        + line(SECURITY, "bookworm-security", "Debian-Security")
    )
    assert aptparse.mirrors(text, ["bookworm"]) == Mirrors(MAIN, SECURITY)


def test_mirrors_before_the_first_update() -> None:
    unknown = "$(LABEL)"
    text = (
        line(OTHER, "nodistro", unknown)
        + line(OTHER, "cloud-sdk-bookworm", unknown)
        + line(SECURITY, "bookworm-security", unknown)
        + line(MAIN, "bookworm", unknown)
    )
    assert aptparse.mirrors(text, ["bookworm"]) == Mirrors(MAIN, SECURITY)
    older = line(SECURITY, "bullseye/updates", unknown) + line(MAIN, "bullseye", unknown)
    assert aptparse.mirrors(older, ["bullseye"]) == Mirrors(MAIN, SECURITY)


def test_no_mirror() -> None:
    assert aptparse.mirrors(line(OTHER, "jammy", "Ubuntu"), ["bookworm"]) is None
    assert aptparse.mirrors("", ["bookworm"]) is None
    assert aptparse.mirrors(line(MAIN, "bookworm", "Debian"), []) == Mirrors(MAIN, None)


def test_config_lines_keep_proxies_only() -> None:
    dump = (
        'APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";\n'
        'Acquire::http::Proxy "http://p.example:3128";\nAcquire::IndexTargets::deb::Packages::MetaKey "x";\n'
        'Acquire::cdrom "";\nDir::State "var/lib/apt";\nAcquire::https::Verify-Peer "true";\n'
    )
    assert aptparse.config_lines(dump) == [
        'Acquire::http::Proxy "http://p.example:3128";',
        'Acquire::https::Verify-Peer "true";',
    ]


ORDER = [
    "6.1~rc1-1", "6.1-1", "6.1-1+b1", "6.1.9-1", "6.1.10-1", "6.1.176-1", "6.1.192-2", "6.12.9-1~deb12u1", "6.12.9-1",
    "6.12.107-1", "7.2.13-1", "1:1.0-1",
]  # fmt: skip


def test_version_order() -> None:
    assert sorted([*ORDER[5:], *ORDER[:5]], key=aptparse.version_key) == ORDER
    assert aptparse.compare_versions("1.0", "1.00") == 0
    assert aptparse.compare_versions("a", "") == 1
    assert aptparse.compare_versions("~", "") == -1


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is the oracle")
def test_version_order_as_dpkg_has_it() -> None:
    tricky = [*ORDER[:4], "1.0~", "1.0", "1.0a", "1.0+", "1.0-0", "1.0.", "0:1.0"]
    for left in tricky:
        for right in tricky:
            less = subprocess.run(["dpkg", "--compare-versions", left, "lt", right], check=False).returncode == 0
            assert (aptparse.compare_versions(left, right) < 0) == less, (left, right)
