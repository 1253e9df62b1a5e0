"""The meaning of the type numbers of ELF notes, which depends on a note's owner.

readelf 2.40 names many by the number alone, or by the kind of file: a kernel's Xen notes as NT_VERSION, NT_ARCH and
GO BUILDID, its build salt as OPEN, LTO_INFO as func. A note that is not in these tables has no name.
"""

from __future__ import annotations

from collections.abc import Mapping

from kplug.arch import registry

# How a note's content is read.
TEXT, NUMBER, HEX, ADDRESS, PAIRS, FEATURES, BUILD_ID, ABI_TAG, PROPERTIES = (
    *("text", "number", "hex", "address", "pairs", "features", "build ID", "ABI tag", "properties"),
)
PHYS32_RELOC, PRSTATUS, PRPSINFO, QEMU_CPU, VERSION_CODE, VMCOREINFO, DEVICE_DUMP, RAW = (
    *("PHYS32_RELOC", "PRSTATUS", "PRPSINFO", "QEMU CPU", "version code", "VMCOREINFO", "device dump", "raw"),
)

# Xen's public elfnote.h (xen/include/public/elfnote.h; Linux has it as include/xen/interface/elfnote.h).
_XEN = {
    0: ("INFO", TEXT),
    1: ("ENTRY", ADDRESS),
    2: ("HYPERCALL_PAGE", ADDRESS),
    3: ("VIRT_BASE", ADDRESS),
    4: ("PADDR_OFFSET", ADDRESS),
    5: ("XEN_VERSION", TEXT),
    6: ("GUEST_OS", TEXT),
    7: ("GUEST_VERSION", TEXT),
    8: ("LOADER", TEXT),
    9: ("PAE_MODE", TEXT),
    10: ("FEATURES", TEXT),
    11: ("BSD_SYMTAB", TEXT),
    12: ("HV_START_LOW", ADDRESS),
    13: ("L1_MFN_VALID", PAIRS),
    14: ("SUSPEND_CANCEL", NUMBER),
    15: ("INIT_P2M", ADDRESS),
    16: ("MOD_START_PFN", NUMBER),
    17: ("SUPPORTED_FEATURES", FEATURES),
    18: ("PHYS32_ENTRY", ADDRESS),
    19: ("PHYS32_RELOC", PHYS32_RELOC),
    # Of crash and core dumps of the hypervisor.
    0x1000001: ("CRASH_INFO", RAW),
    0x1000002: ("CRASH_REGS", RAW),
    0x2000000: ("DUMPCORE_NONE", RAW),
    0x2000001: ("DUMPCORE_HEADER", RAW),
    0x2000002: ("DUMPCORE_XEN_VERSION", RAW),
    0x2000003: ("DUMPCORE_FORMAT_VERSION", RAW),
}

# XENFEAT_* of Xen's public features.h, by bit.
XEN_FEATURES = {
    0: "writable_page_tables",
    1: "writable_descriptor_tables",
    2: "auto_translated_physmap",
    3: "supervisor_mode_kernel",
    4: "pae_pgdir_above_4gb",
    5: "mmu_pt_update_preserve_ad",
    6: "highmem_assist",
    7: "gnttab_map_avail_bits",
    8: "hvm_callback_vector",
    9: "hvm_safe_pvclock",
    10: "hvm_pirqs",
    11: "dom0",
    12: "grant_map_identity",
    13: "memory_op_vnode_supported",
    14: "ARM_SMCCC_supported",
    15: "linux_rsdp_unrestricted",
    16: "not_direct_mapped",
    17: "direct_mapped",
}

# glibc's elf.h; the linux-abi specification of program properties.
_GNU = {
    1: ("ABI_TAG", ABI_TAG),
    2: ("HWCAP", RAW),
    3: ("BUILD_ID", BUILD_ID),
    4: ("GOLD_VERSION", TEXT),
    5: ("PROPERTY_TYPE_0", PROPERTIES),
}
# The operating systems of an ABI tag, by number.
GNU_SYSTEMS = ("Linux", "Hurd", "Solaris", "FreeBSD", "NetBSD", "Syllable")

# 0 is LINUX_VERSION_CODE in the note.S of the vDSOs; include/linux/build-salt.h,
# include/linux/elfnote-lto.h.
_LINUX_BUILD = {0: ("VERSION_CODE", VERSION_CODE), 0x100: ("BUILD_SALT", TEXT), 0x101: ("LTO_INFO", NUMBER)}

# include/uapi/linux/elf.h: with the owner "CORE" the classic ones, with "LINUX" the register sets.
_CORE = {
    1: ("PRSTATUS", PRSTATUS),
    2: ("PRFPREG", RAW),
    3: ("PRPSINFO", PRPSINFO),
    4: ("TASKSTRUCT", RAW),
    6: ("AUXV", RAW),
    0x46494C45: ("FILE", RAW),
    0x53494749: ("SIGINFO", RAW),
}
_LINUX_CORE_NAMES = {
    0x46E62B7F: "PRXFPREG",
    **dict(enumerate(("PPC_VMX", "PPC_SPE", "PPC_VSX", "PPC_TAR", "PPC_PPR", "PPC_DSCR", "PPC_EBB", "PPC_PMU"), 0x100)),
    **dict(enumerate(("PPC_TM_CGPR", "PPC_TM_CFPR", "PPC_TM_CVMX", "PPC_TM_CVSX", "PPC_TM_SPR"), 0x108)),
    **dict(enumerate(("PPC_TM_CTAR", "PPC_TM_CPPR", "PPC_TM_CDSCR", "PPC_PKEY", "PPC_DEXCR", "PPC_HASHKEYR"), 0x10D)),
    **dict(enumerate(("386_TLS", "386_IOPERM", "X86_XSTATE"), 0x200)),
    **dict(enumerate(("X86_SHSTK", "X86_XSAVE_LAYOUT"), 0x204)),
    **dict(enumerate(("S390_HIGH_GPRS", "S390_TIMER", "S390_TODCMP", "S390_TODPREG", "S390_CTRS"), 0x300)),
    **dict(enumerate(("S390_PREFIX", "S390_LAST_BREAK", "S390_SYSTEM_CALL", "S390_TDB", "S390_VXRS_LOW"), 0x305)),
    **dict(enumerate(("S390_VXRS_HIGH", "S390_GS_CB", "S390_GS_BC", "S390_RI_CB", "S390_PV_CPU_DATA"), 0x30A)),
    **dict(enumerate(("ARM_VFP", "ARM_TLS", "ARM_HW_BREAK", "ARM_HW_WATCH", "ARM_SYSTEM_CALL", "ARM_SVE"), 0x400)),
    **dict(enumerate(("ARM_PAC_MASK", "ARM_PACA_KEYS", "ARM_PACG_KEYS", "ARM_TAGGED_ADDR_CTRL"), 0x406)),
    **dict(enumerate(("ARM_PAC_ENABLED_KEYS", "ARM_SSVE", "ARM_ZA", "ARM_ZT", "ARM_FPMR", "ARM_POE"), 0x40A)),
    0x410: "ARM_GCS",
    0x600: "ARC_V2",
    **dict(enumerate(("MIPS_DSP", "MIPS_FP_MODE", "MIPS_MSA"), 0x800)),
    **dict(enumerate(("RISCV_CSR", "RISCV_VECTOR", "RISCV_TAGGED_ADDR_CTRL", "RISCV_USER_CFI"), 0x900)),
    **dict(enumerate(("LOONGARCH_CPUCFG", "LOONGARCH_CSR", "LOONGARCH_LSX", "LOONGARCH_LASX", "LOONGARCH_LBT"), 0xA00)),
    **dict(enumerate(("LOONGARCH_HW_BREAK", "LOONGARCH_HW_WATCH"), 0xA05)),
}
_LINUX_CORE = {**{number: (name, RAW) for number, name in _LINUX_CORE_NAMES.items()}, 0x700: ("VMCOREDD", DEVICE_DUMP)}

_OWNERS: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "Xen": _XEN,
    "GNU": _GNU,
    "Linux": _LINUX_BUILD,
    "CORE": _CORE,
    "LINUX": _LINUX_CORE,
    # Their only number: kernel/vmcore_info.c, makedumpfile, dump.c and target/i386/arch_dump.c of QEMU.
    "VMCOREINFO": {0: ("VMCOREINFO", VMCOREINFO)},
    "VMCOREINFO_XEN": {0: ("VMCOREINFO_XEN", VMCOREINFO)},
    "ERASEINFO": {0: ("ERASEINFO", TEXT)},
    "QEMU": {0: ("QEMUCPUState", QEMU_CPU)},
    # arch/powerpc/include/asm/elfnote.h
    "PowerPC": {1: ("CAPABILITIES", HEX)},
    # systemd's package metadata; the specifications "Package Metadata" and "dlopen metadata" of uapi-group.org.
    "FDO": {0xCAFE1A7E: ("PACKAGING_METADATA", TEXT), 0x407C0C0A: ("DLOPEN_METADATA", TEXT)},
    "Go": {4: ("BUILDID", TEXT)},
    "stapsdt": {3: ("STAPSDT", RAW)},
}


def meaning(owner: str, number: int) -> tuple[str | None, str]:
    """The name of a note's type and how its content is read; (None, RAW) if it is not known."""
    return _OWNERS.get(owner, {}).get(number, (None, RAW))


# Program properties of every architecture (linux-abi specification "GNU property"): name, names of its bits.
_PROPERTIES: Mapping[int, tuple[str, tuple[str, ...]]] = {
    1: ("stack size", ()),
    2: ("no copy on protected", ()),
    0xB0008000: ("1_needed", ("indirect external access",)),
}


def property_meaning(machine: str, number: int) -> tuple[str, tuple[str, ...]] | None:
    """The name of a program property and of its bits, lowest first (none: a number); None if it is not known."""
    return _PROPERTIES.get(number) or registry.named(machine).elf.properties.get(number)
