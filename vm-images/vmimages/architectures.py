"""The machines that QEMU makes for each architecture: one row each."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass

from .errors import VMError


@dataclass(frozen=True)
class Architecture:
    """What differs between the machines of two architectures."""

    qemu: str  # the program
    machine: str
    cpu: str  # the widest CPU that TCG can be
    levels: tuple[str, str] | None  # what to add to it for the usual levels of page tables, and for one more
    words: tuple[str, ...]  # of the kernel's command line
    pti: str  # and the one that asks for page-table isolation
    cross: str  # the start of the names of the tools that build for it elsewhere
    elf_paging: bool  # QEMU can dump by virtual address
    uname: str  # as `uname -m` has it; makedumpfile knows dumps of its own machine only
    modes: re.Pattern[str]  # each CPU's mode, in the monitor's registers
    privilege: Callable[[str], int]  # its privilege level: 0 in the kernel, 3 in user mode
    # Each CPU's register that says, by the bit, that it has the page tables of user mode; None if none is shown.
    user_tables: tuple[re.Pattern[str], int] | None
    control: str = "virtio-serial-pci"  # the bus of the channel to the host
    hands_over_vmcoreinfo: bool = True  # the machine has what -device vmcoreinfo needs (fw_cfg with DMA)
    moves: bool = True  # its kernels have KASLR
    threads: str = "single"  # TCG's, where nothing else is asked for: one for all CPUs, or "multi"

    @property
    def is_the_hosts(self) -> bool:
        """Whether this is what the host is."""
        return platform.machine() == self.uname

    @property
    def tools(self) -> str:
        """The start of the names of the tools that build for it here."""
        return "" if self.is_the_hosts else self.cross


# RDRAND seeds the guest's random numbers; else it waits for noise that an emulated machine hardly has.
_TRUST_CPU = "random.trust_cpu=on"

ARCHITECTURES: dict[str, Architecture] = {
    "amd64": Architecture(
        qemu="qemu-system-x86_64",
        machine="pc",
        cpu="max",  # SMAP, SMEP and RDRAND are there
        levels=("la57=off", "la57=on"),  # five levels only where asked for
        words=("console=ttyS0", _TRUST_CPU),
        # TCG's CPUs don't need isolation, and the kernel knows; =on asks for it all the same.
        pti="pti=on",
        cross="x86_64-linux-gnu-",
        elf_paging=True,
        uname="x86_64",
        modes=re.compile(r"\bCPL=(\d)"),
        privilege=int,
        # PTI_USER_PGTABLE_BIT in arch/x86/entry/calling.h.
        user_tables=(re.compile(r"\bCR3=([0-9a-f]+)"), 0x1000),
    ),
    # KASLR takes its seed from the device tree that QEMU makes.
    "arm64": Architecture(
        qemu="qemu-system-aarch64",
        machine="virt",
        # 52-bit addresses (LPA2) and pointer authentication, not with the architecture's own slow hash.
        cpu="max,pauth-impdef=on",
        levels=None,
        words=("console=ttyAMA0", _TRUST_CPU),
        pti="kpti=on",
        cross="aarch64-linux-gnu-",
        elf_paging=False,
        uname="aarch64",
        modes=re.compile(r"\bPSTATE=[0-9a-f]+ \S+ (?:NS |S )?(EL\d)"),
        privilege={"EL0": 3, "EL1": 0, "EL2": 0, "EL3": 0}.__getitem__,
        user_tables=None,
    ),
    "i386": Architecture(
        qemu="qemu-system-i386",
        machine="pc",
        cpu="max",
        levels=None,
        words=("console=ttyS0", _TRUST_CPU),
        pti="pti=on",
        cross="i686-linux-gnu-",
        elf_paging=False,
        uname="i686",
        modes=re.compile(r"\bCPL=(\d)"),
        privilege=int,
        user_tables=(re.compile(r"\bCR3=([0-9a-f]+)"), 0x1000),  # PTI_SWITCH_MASK in arch/x86/entry/entry_32.S
    ),
    "riscv64": Architecture(
        qemu="qemu-system-riscv64",
        machine="virt",
        cpu="rv64",  # five levels of page tables
        levels=None,
        words=("console=ttyS0", _TRUST_CPU),
        pti="",
        cross="riscv64-linux-gnu-",
        elf_paging=False,
        uname="riscv64",
        # The level itself is not shown: the kernel runs in the upper half.
        modes=re.compile(r"^ pc +([0-9a-f]+)", re.MULTILINE),
        privilege=lambda pc: 0 if int(pc, 16) >> 63 else 3,
        user_tables=None,
        hands_over_vmcoreinfo=False,
        moves=False,  # Debian's have no CONFIG_RELOCATABLE
    ),
    "armhf": Architecture(
        qemu="qemu-system-arm",
        machine="virt,highmem=off",  # a kernel without LPAE reaches 32 bits of physical addresses
        cpu="cortex-a15",
        levels=None,
        words=("console=ttyAMA0", _TRUST_CPU),
        pti="",
        cross="arm-linux-gnueabihf-",
        elf_paging=False,
        uname="armv7l",
        modes=re.compile(r"\bPSR=[0-9a-f]+ \S+ \S (?:NS |S )?([a-z]+)32"),
        privilege=lambda mode: 3 if mode == "usr" else 0,
        user_tables=None,
        moves=False,
        # While one CPU flushes the TLB page by page, the others spin (stop_machine): in one thread, for minutes.
        threads="multi",
    ),
    "s390x": Architecture(
        qemu="qemu-system-s390x",
        machine="s390-ccw-virtio",
        cpu="max",
        levels=None,
        words=("console=ttyS0", _TRUST_CPU),
        pti="",
        cross="s390x-linux-gnu-",
        elf_paging=False,
        uname="s390x",
        modes=re.compile(r"\bPSW=mask ([0-9a-f]+)"),
        privilege=lambda mask: 3 if int(mask, 16) >> 48 & 1 else 0,  # PSW_MASK_PSTATE
        user_tables=None,
        control="virtio-serial-ccw",
        hands_over_vmcoreinfo=False,
    ),
    "ppc64el": Architecture(
        qemu="qemu-system-ppc64",
        machine="pseries",
        cpu="power9",  # radix page tables
        levels=None,
        words=("console=hvc0", _TRUST_CPU),
        pti="",
        cross="powerpc64le-linux-gnu-",
        elf_paging=False,
        uname="ppc64le",
        modes=re.compile(r"\bMSR ([0-9a-f]+)"),
        privilege=lambda msr: 3 if int(msr, 16) >> 14 & 1 else 0,  # MSR_PR
        user_tables=None,
        hands_over_vmcoreinfo=False,
        moves=False,
    ),
}


def architecture(name: str) -> Architecture:
    """The row of Debian's architecture `name`."""
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise VMError(f"there is no machine to boot {name} on") from None


def host() -> str:
    """Debian's name of what this machine is."""
    for name, row in ARCHITECTURES.items():
        if row.is_the_hosts:
            return name
    raise VMError(f"nothing can be built on {platform.machine()}")
