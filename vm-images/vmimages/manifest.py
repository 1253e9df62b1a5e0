"""The kernels to have: one row each. Names of packages and suites only; no version is ever pinned, since exact
versions leave the mirror with each update.

To add a kernel, add a row to `KERNELS`. Debian 11's would be

    Kernel("amd64-5.10", "amd64", (Source(BULLSEYE, "linux-image-cloud-amd64"),)),

A row's name starts with the architecture. To boot one of another, add a row to `architectures.py` too.
"""

from __future__ import annotations

from dataclasses import dataclass

from .architectures import ARCHITECTURES
from .errors import VMError


@dataclass(frozen=True)
class Source:
    """Where a kernel can come from. The debug twin is the package `image` with `-dbg` added."""

    suites: tuple[str, ...]
    image: str


@dataclass(frozen=True)
class Kernel:
    """One kernel. `sources` are tried in order; the first that has both the image and its debug twin wins. One with a
    `tree` is built instead of fetched."""

    name: str
    arch: str  # Debian's name of the architecture
    sources: tuple[Source, ...]
    default: bool = True  # fetched when no name is given
    tested: bool = True  # `make test` asks about it; others are fetched for a cell of `make matrix` alone
    files_only: bool = False  # without modules and busybox: nothing boots it
    tree: str | None = None  # instead of packages: which kernel of `.ci/build-tree` it is

    @property
    def bootable(self) -> bool:
        """Whether there is a machine for it; without one its files are still fetched."""
        return self.arch in ARCHITECTURES


BULLSEYE = ("bullseye", "bullseye-security")
BOOKWORM = ("bookworm", "bookworm-security")
TRIXIE = ("trixie", "trixie-security")
SID = ("sid",)

# Of the architectures that only `make matrix` boots, one kernel each is booted.
BOOTED_FOREIGN: tuple[str, ...] = ("i386-6.1-pae", "riscv64-sid", "armhf-6.12", "s390x-6.12", "ppc64el-6.12")
_FOREIGN = tuple(name.partition("-")[0] for name in BOOTED_FOREIGN)

KERNELS: tuple[Kernel, ...] = (
    Kernel("amd64-6.1", "amd64", (Source(BOOKWORM, "linux-image-cloud-amd64"),)),
    Kernel(
        "amd64-6.12",
        "amd64",
        (
            Source(BOOKWORM, "linux-image-6.12-cloud-amd64"),
            Source(TRIXIE, "linux-image-cloud-amd64"),
        ),
    ),
    Kernel(
        "arm64-6.12",
        "arm64",
        (
            Source(BOOKWORM, "linux-image-6.12-cloud-arm64"),
            Source(TRIXIE, "linux-image-cloud-arm64"),
        ),
    ),
    # The oldest and the newest: tests of files need them, and are skipped when the mirror has them no longer.
    Kernel(
        "amd64-5.10",
        "amd64",
        (Source(BULLSEYE, "linux-image-cloud-amd64"),),
        default=False,
    ),
    Kernel("amd64-sid", "amd64", (Source(SID, "linux-image-cloud-amd64"),), default=False),
    Kernel("arm64-sid", "arm64", (Source(SID, "linux-image-cloud-arm64"),), default=False),
    Kernel("riscv64-6.12", "riscv64", (Source(TRIXIE, "linux-image-riscv64"),), default=False, files_only=True),
    # Small ones: by gcc; and by clang, with ThinLTO and kCFI, and kallsyms of functions only.
    Kernel("amd64-6.12-page-owner", "amd64", (), default=False, tested=False, tree="page-owner"),
    Kernel("amd64-6.12-clang", "amd64", (), default=False, tested=False, tree="clang"),
    *(
        Kernel(
            name,
            name.partition("-")[0],
            (Source(suites, image),),
            default=False,
            tested=False,
            files_only=name.partition("-")[0] in _FOREIGN and name not in BOOTED_FOREIGN,
        )
        for name, suites, image in (
            ("amd64-6.1-generic", BOOKWORM, "linux-image-amd64"),
            ("amd64-6.12-rt", TRIXIE, "linux-image-rt-amd64"),
            ("arm64-5.10", BULLSEYE, "linux-image-cloud-arm64"),
            ("arm64-6.1", BOOKWORM, "linux-image-cloud-arm64"),
            ("armhf-5.10", BULLSEYE, "linux-image-armmp"),
            ("armhf-6.1", BOOKWORM, "linux-image-armmp"),
            ("armhf-6.1-lpae", BOOKWORM, "linux-image-armmp-lpae"),
            ("armhf-6.12", TRIXIE, "linux-image-armmp"),
            ("armhf-sid", SID, "linux-image-armmp"),
            ("i386-5.10", BULLSEYE, "linux-image-686"),
            ("i386-6.1", BOOKWORM, "linux-image-686"),
            ("i386-6.1-pae", BOOKWORM, "linux-image-686-pae"),
            ("ppc64el-5.10", BULLSEYE, "linux-image-powerpc64le"),
            ("ppc64el-6.1", BOOKWORM, "linux-image-powerpc64le"),
            ("ppc64el-6.12", TRIXIE, "linux-image-powerpc64le"),
            ("ppc64el-sid", SID, "linux-image-powerpc64le"),
            ("riscv64-sid", SID, "linux-image-riscv64"),
            ("s390x-5.10", BULLSEYE, "linux-image-s390x"),
            ("s390x-6.1", BOOKWORM, "linux-image-s390x"),
            ("s390x-6.12", TRIXIE, "linux-image-s390x"),
            ("s390x-sid", SID, "linux-image-s390x"),
        )
    ),
)

# Modules that the guest loads when it boots, besides what these depend on. A kernel that has one built in, or not at
# all, does without. virtio_console carries the channel to the host; qemu_fw_cfg hands VMCOREINFO to QEMU.
BOOT_MODULES: tuple[str, ...] = ("virtio_pci", "virtio_console", "qemu_fw_cfg")

# Loaded after these, so that a test finds modules to ask about: drop_monitor has per-CPU variables, br_netfilter has
# too and is the last of a chain of modules that need each other.
EXTRA_MODULES: tuple[str, ...] = ("loop", "dummy", "overlay", "drop_monitor", "br_netfilter")

# Modules whose debug twins are unpacked. All of an image's modules are, but all of their twins take over 1 GB.
DEBUG_MODULES: tuple[str, ...] = (
    *BOOT_MODULES,
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev"),
    *EXTRA_MODULES,
    *("bridge", "stp", "llc", "ipv6"),
    *("virtio_blk", "virtio_net", "net_failover", "failover", "virtio_rng", "tun", "x_tables", "squashfs"),
    *("9p", "9pnet", "9pnet_virtio", "netfs", "ext4", "jbd2", "mbcache", "crc16"),
)


def names(bootable: bool = False) -> tuple[str, ...]:
    """The names of the kernels that are fetched by default; on demand only those that can be booted."""
    return tuple(row.name for row in KERNELS if row.default and (row.bootable or not bootable))


def find(name: str) -> Kernel:
    """The row called `name`."""
    for row in KERNELS:
        if row.name == name:
            return row
    raise VMError(f"no kernel is called {name!r}; there are: {', '.join(row.name for row in KERNELS)}")
