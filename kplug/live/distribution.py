"""How to get the files of a running kernel, for each distribution."""

from __future__ import annotations

import re

from kplug.live.machine import Machine
from kplug.named_tuples import NamedTuple


class Distribution(NamedTuple):
    """A family of distributions: its names in ID and ID_LIKE of os-release, a pattern for its kernels' banner, and the
    commands that install the debug information and the kernel itself. `{release}` is `uname -r`, `{flavour}` what
    follows its last hyphen, `{build_id}` the kernel's."""

    names: tuple[str, ...]
    banner: str
    debug_command: str
    image_command: str


# The first match counts: Ubuntu is like Debian. Banners: the builder's name and the version that each distribution's
# packaging sets (scripts/mkcompile_h), as in /proc/version.
DISTRIBUTIONS = (
    Distribution(
        ("ubuntu",),
        r"buildd@|-Ubuntu ",
        "apt install linux-image-{release}-dbgsym (from the ddebs archive: apt install ubuntu-dbgsym-keyring)",
        "apt install --reinstall linux-image-{release}",
    ),
    Distribution(
        ("debian",),
        r"debian-kernel@| Debian ",
        "apt install linux-image-{release}-dbg",
        "apt install --reinstall linux-image-{release}",
    ),
    Distribution(
        ("fedora", "rhel", "centos", "amzn"),
        r"mockbuild@|\.(?:fc|el|amzn)\d",
        "dnf debuginfo-install kernel-{release}",
        "dnf reinstall kernel-core-{release}",
    ),
    Distribution(
        ("suse", "opensuse", "sles"),
        r"geeko@",
        "zypper install kernel-{flavour}-debuginfo (with the debug repositories enabled)",
        "zypper install --force kernel-{flavour}",
    ),
    Distribution(
        ("arch", "archlinux"),
        r"-arch\d|@archlinux",
        "debuginfod-find debuginfo {build_id} (DEBUGINFOD_URLS names the distribution's server)",
        "pacman -S linux",
    ),
)
_OTHER = "the vmlinux of the build, or debuginfod-find debuginfo {build_id} (DEBUGINFOD_URLS names a server); -s FILE"
_OTHER_IMAGE = "the boot image of the build: --vmlinuz FILE"
_NAME = re.compile(r'^(ID|ID_LIKE|PRETTY_NAME)="?([^"\n]*)"?$', re.MULTILINE)


class Remedies(NamedTuple):
    """The commands for this machine. `distribution` is its name to show; `is_its_kernel` says whether the running
    kernel is the distribution's own."""

    distribution: str
    is_its_kernel: bool
    debug_command: str
    image_command: str


def remedies(machine: Machine) -> Remedies:
    """How to get what is missing on the machine. A distribution's packages only have its own kernels."""
    os_release = dict(_NAME.findall(machine.text("/etc/os-release") or machine.text("/usr/lib/os-release") or ""))
    names = [os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()]
    banner = machine.text("/proc/version") or ""
    found = next((each for name in names for each in DISTRIBUTIONS if name in each.names), None)
    its_own = found is not None and re.search(found.banner, banner) is not None
    release = machine.release or "$(uname -r)"
    words = {
        "release": release,
        "flavour": release.rpartition("-")[2],
        "build_id": machine.build_id or "BUILD-ID",
    }
    debug, image = (found.debug_command, found.image_command) if found and its_own else (_OTHER, _OTHER_IMAGE)
    pretty = os_release.get("PRETTY_NAME") or os_release.get("ID") or "unknown"
    return Remedies(pretty, its_own, debug.format(**words), image.format(**words))
