"""The boundary symbols that the kernel's linker scripts are known to define, as data.

One row for each region. Rows hold names only: whether a kernel has the region, and where, its symbol table says. A row
is written down here when its name, its class or its fate after boot cannot be told from the two symbols' names alone;
`kplug.linker.regions` finds well-named pairs that no row knows by itself. A new architecture is a few more rows.

`kernels` names the first and the last kernel that was read and has the row's first pair; kernels are asked for the
symbols, never for their version.
"""

from __future__ import annotations

from dataclasses import dataclass

from kplug.model import BRK, BSS, DATA, INIT, PERCPU_CLASS, RODATA, TEXT

ANY: frozenset[str] = frozenset()
X86 = frozenset({"x86_64", "i386"})
X86_64 = frozenset({"x86_64"})
ARM64 = frozenset({"aarch64"})
ARM = frozenset({"arm"})
RISCV = frozenset({"riscv"})
S390 = frozenset({"s390"})
POWERPC = frozenset({"ppc64", "ppc"})
LOONGARCH = frozenset({"loongarch"})

GENERIC_SCRIPT = "include/asm-generic/vmlinux.lds.h"
X86_SCRIPT = "arch/x86/kernel/vmlinux.lds.S"
ARM64_SCRIPT = "arch/arm64/kernel/vmlinux.lds.S"
ARM_SCRIPT = "arch/arm/kernel/vmlinux.lds.S"
RISCV_SCRIPT = "arch/riscv/kernel/vmlinux.lds.S"
S390_SCRIPT = "arch/s390/kernel/vmlinux.lds.S"
POWERPC_SCRIPT = "arch/powerpc/kernel/vmlinux.lds.S"
LOONGARCH_SCRIPT = "arch/loongarch/kernel/vmlinux.lds.S"
EVERY_SCRIPT = "arch/*/kernel/vmlinux.lds.S"


@dataclass(frozen=True)
class Pair:
    """A start symbol and the symbols that may end it: of those present, the nearest at or above the start counts."""

    start: str
    ends: tuple[str, ...]


@dataclass(frozen=True)
class BoundaryRow:
    """What is known of one region before any kernel is seen."""

    name: str
    pairs: tuple[Pair, ...]  # newest first; the first one whose start and an end are present counts
    region_class: str | None = None  # None: the enclosing region's
    freed: bool | None = None  # None: the enclosing region's
    read_only_after_init: bool | None = None  # None: the enclosing region's
    arches: frozenset[str] = ANY
    where: str = GENERIC_SCRIPT
    kernels: str = "all"
    outside: bool = False  # may lie outside [_text, _end)
    inside: tuple[str, str] | None = None  # counts only where the start lies between these two symbols
    length: tuple[str, str] | None = None  # no symbol ends it: it is as long as this other pair
    least: int = 0  # bytes; what is shorter is padding before the next table, so the region is empty


def _row(
    name: str,
    *pairs: str,
    cls: str | None = None,
    freed: bool | None = None,
    ro: bool | None = None,
    arches: frozenset[str] = ANY,
    where: str = GENERIC_SCRIPT,
    kernels: str = "all",
    outside: bool = False,
    inside: tuple[str, str] | None = None,
    length: tuple[str, str] | None = None,
    least: int = 0,
) -> BoundaryRow:
    """A row; each pair is written "start end", or "start end other_end ..."."""
    parsed = tuple(Pair(words[0], tuple(words[1:])) for words in (pair.split() for pair in pairs))
    return BoundaryRow(name, parsed, cls, freed, ro, arches, where, kernels, outside, inside, length, least)


def _text(name: str, stem: str, kernels: str = "all", where: str = GENERIC_SCRIPT) -> BoundaryRow:
    return _row(name, f"__{stem}_text_start __{stem}_text_end", kernels=kernels, where=where)


def _bounded(name: str, label: str = "", kernels: str = "all", writable: bool = False) -> BoundaryRow:
    """A section whose bounds are `__start_X` and `__stop_X`, which is what the generic script's macros write.

    `writable` is for the ones that some script leaves outside [_sdata, _edata): they are plain data all the same.
    """
    stem = label or f"__{name}"
    pair = f"__start_{stem} __stop_{stem}"
    if writable:
        return _row(name, pair, kernels=kernels, cls=DATA, freed=False, ro=False)
    return _row(name, pair, kernels=kernels)


def _initcalls() -> tuple[BoundaryRow, ...]:
    """Each initcall level ends where the next one that is present starts."""
    levels = ("early", "0", "1", "2", "3", "4", "5", "rootfs", "6", "7")
    starts = ("__initcall_start", *(f"__initcall{level}_start" for level in levels[1:]))
    rows = [_row("initcall", "__initcall_start __initcall_end")]
    for position, level in enumerate(levels):
        ends = " ".join((*starts[position + 1 :], "__initcall_end"))
        rows.append(_row(f"initcall{level}", f"{starts[position]} {ends}"))
    return tuple(rows)


# The tables of INIT_DATA in the order of the script: those without an end symbol end where the next one begins.
_INIT_TABLES = (
    "__clk_of_table",
    "__reservedmem_of_table",
    "__timer_of_table",
    "__cpu_method_of_table",
    "__cpuidle_method_of_table",
    "__dtb_start",
    "__irqchip_of_table",
    "__irqchip_acpi_probe_table",
    "__timer_acpi_probe_table",
    "__governor_thermal_table",
    "__dtpm_table",
    "__earlycon_table",
    "__start_lsm_info",
    "__start_early_lsm_info",
    "__kunit_init_suites_start",
    "__setup_start",
)


def _of_tables() -> tuple[BoundaryRow, ...]:
    rows = []
    for position, start in enumerate(_INIT_TABLES):
        if start.endswith("_of_table"):
            # Even an unused table holds a closing entry of two pointers, if its subsystem is built in. The last has
            # none, and only 32-bit arm makes entries for it: elsewhere padding follows (STRUCT_ALIGN, 32 or 64 bytes).
            least = 65 if start == "__cpuidle_method_of_table" else 16
            rows.append(_row(start.strip("_"), " ".join((start, *_INIT_TABLES[position + 1 :])), least=least))
    return tuple(rows)


_ARM64_RODATA = ("__start_rodata", "__init_begin")


def _arm64_page_tables() -> tuple[BoundaryRow, ...]:
    """The page tables between rodata and init (4.19: behind bss). They are in no section: the script only counts up."""
    following = "tramp_pg_dir reserved_pg_dir reserved_ttbr0 swapper_pg_dir"
    tables = (
        ("idmap_pg_dir", f"idmap_pg_dir idmap_pg_end {following}", None),
        ("tramp_pg_dir", "tramp_pg_dir reserved_pg_dir reserved_ttbr0 swapper_pg_dir", None),
        ("reserved_pg_dir", "reserved_pg_dir swapper_pg_dir", None),
        ("reserved_ttbr0", "reserved_ttbr0 swapper_pg_dir", None),
        ("swapper_pg_dir", "swapper_pg_dir swapper_pg_end", ("reserved_pg_dir", "swapper_pg_dir")),
    )
    rows = []
    for name, pair, length in tables:
        for cls, ro, inside in ((RODATA, True, _ARM64_RODATA), (BSS, False, ("__bss_stop", "_end"))):
            rows.append(
                _row(
                    name,
                    pair,
                    cls=cls,
                    freed=False,
                    ro=ro,
                    arches=ARM64,
                    where=ARM64_SCRIPT,
                    inside=inside,
                    length=length,
                )
            )
    return tuple(rows)


ROOT_START = "_text"
ROOT_END = "_end"

TEXT_ROWS: tuple[BoundaryRow, ...] = (
    _row("text", "_stext _etext", cls=TEXT, freed=False, ro=True, where=EVERY_SCRIPT),
    _row("head.text", "_text _stext", cls=TEXT, freed=False, ro=True, arches=ARM64, where=ARM64_SCRIPT),
    _row("head.text", "_text _stext", cls=TEXT, freed=False, ro=True, arches=ARM, where=ARM_SCRIPT),
    _row("head.text", "_text _stext", cls=TEXT, freed=False, ro=True, arches=LOONGARCH, where=LOONGARCH_SCRIPT),
    _row("head.text", "_start _text", cls=TEXT, freed=False, arches=RISCV, where=RISCV_SCRIPT, outside=True),
    _row("head.text", "_stext __head_end", arches=POWERPC, where=POWERPC_SCRIPT),
    _text("entry.text", "entry"),
    _text("irqentry.text", "irqentry"),  # x86 since 5.10: arch/x86/entry/entry_64.S, inside .entry.text
    _text("softirqentry.text", "softirqentry"),
    _text("exception.text", "exception", "4.19-5.4", ARM64_SCRIPT),
    _row(
        "entry_trampoline",
        "__entry_trampoline_start __entry_trampoline_end",
        arches=X86,
        where=X86_SCRIPT,
        kernels="4.19",
    ),
    _text("sched.text", "sched"),
    _text("cpuidle.text", "cpuidle"),
    _text("spinlock.text", "lock"),
    _text("kprobes.text", "kprobes"),
    _text("noinstr.text", "noinstr", "5.10-"),
    _text("static_call.text", "static_call", "5.10-"),
    _text("text.split", "split", "6.13-"),
    _text("text.unlikely", "unlikely", "6.13-"),
    _text("text.hot", "hot", "6.13-"),
    _row("cfi_jt", "__cfi_jt_start __cfi_jt_end", kernels="5.15-6.0"),
    _row(
        "indirect_thunk",
        "__indirect_thunk_start __indirect_thunk_end",
        arches=X86,
        where=X86_SCRIPT,
        kernels="4.19-6.1",
    ),
    _row(
        "relocate_kernel",
        "__relocate_kernel_start __relocate_kernel_end",
        arches=X86,
        where=X86_SCRIPT,
        kernels="6.14-",
    ),
    _text("hyp.idmap.text", "hyp_idmap", where=ARM64_SCRIPT),
    _text("hyp.text", "hyp", where=ARM64_SCRIPT),
    _row("kvm_ex_table", "__start___kvm_ex_table __stop___kvm_ex_table", arches=ARM64, where=ARM64_SCRIPT),
    # In .text up to 6.1, then in .rodata.text, behind __end_rodata: code that no kernel address runs.
    _row("idmap.text", "__idmap_text_start __idmap_text_end", cls=TEXT, freed=False, ro=True, where=ARM64_SCRIPT),
    _row(
        "entry.tramp.text",
        "__entry_tramp_text_start __entry_tramp_text_end",
        cls=TEXT,
        freed=False,
        ro=True,
        arches=ARM64,
        where=ARM64_SCRIPT,
    ),
    _row(
        "hibernate_exit.text",
        "__hibernate_exit_text_start __hibernate_exit_text_end",
        cls=TEXT,
        freed=False,
        ro=True,
        arches=ARM64,
        where=ARM64_SCRIPT,
    ),
    _row(
        "kexec_relocate.text",
        "__relocate_new_kernel_start __relocate_new_kernel_end",
        cls=TEXT,
        freed=False,
        ro=True,
        arches=ARM64,
        where=ARM64_SCRIPT,
        kernels="6.0-",
    ),
    _row("proc.info", "__proc_info_begin __proc_info_end", arches=ARM, where="arch/arm/include/asm/vmlinux.lds.h"),
    _row("text_itcm", "__sitcm_text __eitcm_text", cls=TEXT, arches=ARM, where=ARM_SCRIPT, outside=True),
    _row("data_dtcm", "__sdtcm_data __edtcm_data", cls=DATA, arches=ARM, where=ARM_SCRIPT, outside=True),
    _row("xiprom", "_xiprom _exiprom", arches=ARM | RISCV, where=ARM_SCRIPT, outside=True),
    _row("amode31", "_samode31 _eamode31", arches=S390, where=S390_SCRIPT, kernels="5.15-"),
    _row("amode31.text", "_stext_amode31 _etext_amode31", arches=S390, where=S390_SCRIPT, kernels="5.15-"),
    _row(
        "amode31.ex_table",
        "_start_amode31_ex_table _stop_amode31_ex_table",
        arches=S390,
        where=S390_SCRIPT,
        kernels="5.15-",
    ),
    _row("amode31.refs", "_start_amode31_refs _end_amode31_refs", arches=S390, where=S390_SCRIPT, kernels="5.15-"),
)

_FIXUPS = "barrier_nospec rfi_flush entry_flush uaccess_flush scv_entry_flush stf_entry_barrier stf_exit_barrier"

RODATA_ROWS: tuple[BoundaryRow, ...] = (
    _row("rodata", "__start_rodata __end_rodata", cls=RODATA, freed=False, ro=True),
    _row(
        "sched_classes",
        "__sched_class_highest __sched_class_lowest",
        "__begin_sched_classes __end_sched_classes",
        kernels="5.10-",
    ),
    _row("ro_after_init", "__start_ro_after_init __end_ro_after_init", ro=True),
    _bounded("jump_table"),  # in .data up to 4.19
    _bounded("static_call_sites", "static_call_sites", "5.10-"),
    _bounded("static_call_tramp_key", "static_call_tramp_key", "5.10-"),
    _bounded("tracepoints_ptrs"),
    *(
        _row(f"pci_fixup_{phase}", f"__start_pci_fixups_{phase} __end_pci_fixups_{phase}")
        for phase in ("early", "header", "final", "enable", "resume", "suspend", "resume_early", "suspend_late")
    ),
    _row("builtin_fw", "__start_builtin_fw __end_builtin_fw"),
    _row("tracedata", "__tracedata_start __tracedata_end"),
    _bounded("printk_index", "printk_index", "5.15-"),
    _bounded("ksymtab"),
    _bounded("ksymtab_gpl", kernels="4.19-6.18"),
    *(_bounded(f"ksymtab_{kind}", kernels="4.19-5.10") for kind in ("gpl_future", "unused", "unused_gpl")),
    _bounded("kcrctab"),
    _bounded("kcrctab_gpl", kernels="4.19-6.18"),
    *(_bounded(f"kcrctab_{kind}", kernels="4.19-5.10") for kind in ("gpl_future", "unused", "unused_gpl")),
    _bounded("kflagstab", kernels="7.2-"),
    _bounded("param"),
    _bounded("modver"),
    _bounded("kcfi_traps", kernels="6.1-"),
    # Outside rodata on arm, and up to 5.4 on x86 and arm64.
    _row("ex_table", "__start___ex_table __stop___ex_table", cls=RODATA, freed=False, ro=True),
    _row("notes", "__start_notes __stop_notes", cls=RODATA, freed=False, ro=True),
    _bounded("BTF", "BTF", "5.4-"),
    _row("opd", "__start_opd __end_opd", cls=RODATA, freed=False, ro=True, where=POWERPC_SCRIPT),
    *(
        _row(
            f"{name}",
            f"__start___{name} __stop___{name}",
            cls=RODATA,
            freed=False,
            ro=True,
            arches=POWERPC,
            where=POWERPC_SCRIPT,
        )
        for name in ("soft_mask_table", "restart_table", *(f"{fixup}_fixup" for fixup in _FIXUPS.split()))
    ),
    _row(
        "btb_flush_fixup",
        "__start__btb_flush_fixup __stop__btb_flush_fixup",
        cls=RODATA,
        freed=False,
        ro=True,
        arches=POWERPC,
        where=POWERPC_SCRIPT,
    ),
    *(
        _row(
            f"ARM.unwind_{part}",
            f"__start_unwind_{part} __stop_unwind_{part}",
            cls=RODATA,
            freed=False,
            ro=True,
            arches=ARM,
            where="arch/arm/include/asm/vmlinux.lds.h",
        )
        for part in ("idx", "tab")
    ),
    _row(
        "hyp.rodata",
        "__hyp_rodata_start __hyp_rodata_end",
        cls=RODATA,
        freed=False,
        ro=True,
        arches=ARM64,
        where=ARM64_SCRIPT,
        kernels="5.15-",
    ),
    _row(
        "hyp_event_ids",
        "__hyp_event_ids_start __hyp_event_ids_end",
        arches=ARM64,
        where=ARM64_SCRIPT,
        kernels="7.2-",
    ),
    *_arm64_page_tables(),
    _row("got", "__got_start __got_end", arches=S390, where=S390_SCRIPT, kernels="5.10-"),
    _row("skey_region", "__skey_region_start __skey_region_end", arches=S390, where=S390_SCRIPT, kernels="6.18-"),
)

INIT_ROWS: tuple[BoundaryRow, ...] = (
    _row("init", "__init_begin __init_end", cls=INIT, freed=True, where=EVERY_SCRIPT),
    # The whole of the init text where the script brackets it, else the section .init.text alone.
    _row(
        "init.text",
        "__inittext_begin __inittext_end",  # arm64, loongarch
        "__init_text_begin __init_text_end",  # riscv
        "_sinittext _einittext",
        where=EVERY_SCRIPT,
    ),
    _row("inittext", "_sinittext _einittext"),
    _row(
        "init.data",
        "__initdata_begin __initdata_end",  # arm64, loongarch
        "__init_data_begin __init_data_end",  # riscv
        where=EVERY_SCRIPT,
    ),
    _row("altinstr_aux", "_einittext __inittext_end", arches=X86, where=X86_SCRIPT, kernels="6.18-"),
    _row("exit.text", "__exittext_begin __exittext_end", where=EVERY_SCRIPT),
    _row("altinstructions", "__alt_instructions __alt_instructions_end", where=EVERY_SCRIPT),
    _row("alternative", "__alt_start __alt_end", arches=RISCV, where=RISCV_SCRIPT, kernels="5.15-"),
    *(
        _row(name, f"__{name} __{name}_end", arches=X86, where=X86_SCRIPT, kernels=kernels)
        for name, kernels in (
            ("retpoline_sites", "5.10-"),
            ("return_sites", "5.10-"),
            ("call_sites", "6.5-"),
            ("cfi_sites", "6.5-"),
            ("ibt_endbr_seal", "6.0-"),
            ("parainstructions", "4.19-6.6"),
            ("iommu_table", "4.19-5.15"),
            ("apicdrivers", "all"),
        )
    ),
    *(
        _row(f"{name}.init", f"__{name}_start __{name}_end", arches=X86, where=X86_SCRIPT)
        for name in ("x86_cpu_dev", "x86_intel_mid_dev")
    ),
    *(
        _row(name, f"__start___{name} __stop___{name}", arches=POWERPC, where=POWERPC_SCRIPT)
        for name in ("ftr_fixup", "mmu_ftr_fixup", "lwsync_fixup", "fw_ftr_fixup")
    ),
    _row("machine.desc", "__machine_desc_start __machine_desc_end", arches=POWERPC, where=POWERPC_SCRIPT),
    *(
        _row(f"init.{name}", f"__{stem}_begin __{stem}_end", arches=ARM, where=ARM_SCRIPT)
        for name, stem in (
            ("arch.info", "arch_info"),
            ("tagtable", "tagtable"),
            ("smpalt", "smpalt"),
            ("pv_table", "pv_table"),
        )
    ),
    _row("vectors", "__vectors_start __vectors_end", arches=ARM, where=ARM_SCRIPT),
    _row("stubs", "__stubs_start __stubs_end", arches=ARM, where=ARM_SCRIPT),
    _row("ctors", "__ctors_start __ctors_end"),
    _bounded("mcount_loc", "mcount_loc"),
    _bounded("ftrace_events", "ftrace_events"),
    _bounded("ftrace_eval_map", "ftrace_eval_maps"),
    _bounded("syscalls_metadata", "syscalls_metadata"),
    _bounded("kprobe_blacklist", "kprobe_blacklist"),
    _bounded("error_injection_whitelist", "error_injection_whitelist"),
    *_of_tables(),
    _row("dtb", "__dtb_start __dtb_end"),
    *(
        _row(name, f"__{name} __{name}_end")
        for name in (
            "irqchip_acpi_probe_table",
            "timer_acpi_probe_table",
            "governor_thermal_table",
            "dtpm_table",
            "earlycon_table",
        )
    ),
    _row("lsm_info", "__start_lsm_info __end_lsm_info", kernels="5.4-"),
    _row("early_lsm_info", "__start_early_lsm_info __end_early_lsm_info", kernels="5.4-"),
    _row("kunit_init_test_suites", "__kunit_init_suites_start __kunit_init_suites_end", kernels="6.8-"),
    _row("init.setup", "__setup_start __setup_end"),
    *_initcalls(),
    _row("con_initcall", "__con_initcall_start __con_initcall_end"),
    _row("security_initcall", "__security_initcall_start __security_initcall_end", kernels="4.19"),
    _row("init.ramfs", "__initramfs_start __initramfs_size", where="usr/initramfs_data.S"),
    # Local labels, which only these rows tell from any other in a list without types.
    _row("irf", "__irf_start __irf_end", where="usr/initramfs_data.S"),
    _row("cert_list", "__cert_list_start __cert_list_end", where="certs/system_certificates.S"),
    _row(
        "rela.dyn",
        "__pi_rela_start __pi_rela_end",
        "__rela_start __rela_end",
        "__rela_dyn_start __rela_dyn_end",
        "__rela_dyn_begin __rela_dyn_end",
        where=EVERY_SCRIPT,
    ),
    _row(
        "relr.dyn",
        "__pi_relr_start __pi_relr_end",
        "__relr_start __relr_end",
        "__relr_dyn_begin __relr_dyn_end",
        where=EVERY_SCRIPT,
    ),
    _row(
        "eh_frame",
        "__pi___eh_frame_start __pi___eh_frame_end",
        "__eh_frame_start __eh_frame_end",
        arches=ARM64,
        where=ARM64_SCRIPT,
        kernels="6.5-",
    ),
    _row("hyp.reloc", "__hyp_reloc_begin __hyp_reloc_end", arches=ARM64, where=ARM64_SCRIPT, kernels="5.15-"),
    _row(
        "hyp.data..percpu",
        "__kvm_nvhe___per_cpu_start __kvm_nvhe___per_cpu_end",
        arches=ARM64,
        where="arch/arm64/kvm/hyp/nvhe/hyp.lds.S",
        kernels="5.10-",
    ),
    _row(
        "init_idmap_pg_dir",
        "init_idmap_pg_dir init_idmap_pg_end",
        "__pi_init_idmap_pg_dir __pi_init_idmap_pg_end",  # the only name since 6.18
        arches=ARM64,
        where=ARM64_SCRIPT,
        kernels="6.0-",
    ),
    *(
        _row(name, f"__{stem}_start __{stem}_end", arches=S390, where=S390_SCRIPT)
        for name, stem in (
            ("nospec_call_table", "nospec_call"),
            ("nospec_return_table", "nospec_return"),
            ("dynsym", "dynsym"),
            ("stack_prot", "stack_prot"),
            ("boot.data", "boot_data"),
            ("boot.preserved.data", "boot_data_preserved"),
        )
    ),
    _row("s390dbf_info", "__s390dbf_info __s390dbf_info_end", arches=S390, where=S390_SCRIPT, kernels="7.2-"),
    *(
        _row(name, f"__{name}_start __{name}_end", arches=RISCV, where=RISCV_SCRIPT, kernels="5.10-")
        for name in ("soc_early_init_table", "soc_builtin_dtb_table")
    ),
    # SME's work area lies behind _end: nothing reserves it, so it is ordinary free memory soon after.
    _row(
        "init.scratch",
        "__init_scratch_begin __init_scratch_end",
        cls=INIT,
        freed=True,
        arches=X86_64,
        where=X86_SCRIPT,
        kernels="5.4-",
        outside=True,
    ),
)

DATA_ROWS: tuple[BoundaryRow, ...] = (
    _row("data", "_sdata _edata", cls=DATA, freed=False, ro=False, where=EVERY_SCRIPT),
    # riscv's [_sdata, _edata) holds rodata too; what is written to starts here.
    _row("data.rw", "_data _edata", arches=RISCV, where=RISCV_SCRIPT, kernels="5.10-"),
    _row(
        "init_stack",
        "__start_init_stack __end_init_stack",
        "__start_init_task __end_init_task",  # 4.19-6.8
    ),
    _row("data_nosave", "__nosave_begin __nosave_end", cls=DATA, freed=False, ro=False),
    _row("data..once", "__start_once __end_once"),
    _bounded("dyndbg", kernels="5.10-"),
    _bounded("verbose", kernels="4.19-5.4"),
    _bounded("dyndbg_classes", kernels="6.1-"),
    _bounded("alloc_tags", "alloc_tags", "6.12-"),
    _bounded("annotated_branch_profile", "annotated_branch_profile"),
    _bounded("branch_profile", "branch_profile"),
    # BOUNDED_SECTION_BY(__trace_printk_fmt, ___trace_bprintk_fmt): the section's word is not the symbols'.
    _row("trace_printk_fmt", "__start___trace_bprintk_fmt __stop___trace_bprintk_fmt"),
    _bounded("tracepoint_str"),
    _bounded("bpf_raw_tp_map", "_bpf_raw_tp"),
    _row("kunit_test_suites", "__kunit_suites_start __kunit_suites_end", kernels="5.10-"),
    # On x86 these follow _edata; the memory is written to, whatever the section's flags say.
    _bounded("bug_table", writable=True),
    _bounded("orc_header", "orc_header", "6.5-", writable=True),
    _bounded("orc_unwind_ip", "orc_unwind_ip", writable=True),
    _bounded("orc_unwind", "orc_unwind", writable=True),
    _row("orc_lookup", "orc_lookup orc_lookup_end", cls=BSS, freed=False, ro=False),
    _row(
        "vvar",
        "__vvar_page __init_begin",
        cls=DATA,
        freed=False,
        ro=False,
        arches=X86,
        where=X86_SCRIPT,
        kernels="4.19-6.12",
    ),
    # Freed or not as the CPUs at hand ask for (alternative_instructions()): not known from the image.
    _row(
        "smp_locks",
        "__smp_locks __smp_locks_end",
        cls=DATA,
        ro=False,
        arches=X86,
        where=X86_SCRIPT,
        kernels="4.19-7.2",
    ),
    _row("mmuoff.data", "__mmuoff_data_start __mmuoff_data_end", arches=ARM64, where=ARM64_SCRIPT),
    _row("hyp.data", "__hyp_data_start __hyp_data_end", arches=ARM64, where=ARM64_SCRIPT, kernels="6.18-"),
    _row("hyp_events", "__hyp_events_start __hyp_events_end", arches=ARM64, where=ARM64_SCRIPT, kernels="7.2-"),
)

BSS_ROWS: tuple[BoundaryRow, ...] = (
    _row("bss", "__bss_start __bss_stop", cls=BSS, freed=False, ro=False),
    _row("hyp.bss", "__hyp_bss_start __hyp_bss_end", arches=ARM64, where=ARM64_SCRIPT, kernels="5.15-"),
    _row("bss..decrypted", "__start_bss_decrypted __end_bss_decrypted", arches=X86_64, where=X86_SCRIPT),
    _row(
        "bss..decrypted.unused",
        "__start_bss_decrypted_unused __end_bss_decrypted",
        freed=True,
        arches=X86_64,
        where=X86_SCRIPT,
        kernels="5.4-",
    ),
    _row(
        "init_pg_dir",
        "init_pg_dir init_pg_end",
        "__pi_init_pg_dir __pi_init_pg_end",  # the only name since 6.18
        cls=BSS,
        ro=False,
        arches=ARM64,
        where=ARM64_SCRIPT,
        kernels="5.4-",
    ),
    # The symbol is the stack's top.
    _row(
        "early_init_stack",
        "init_pg_end early_init_stack",
        "__pi_init_pg_end early_init_stack",
        cls=BSS,
        ro=False,
        arches=ARM64,
        where=ARM64_SCRIPT,
        kernels="6.12-",
    ),
    # What early boot took of it stays, the rest is given back: the variable _brk_end says where.
    _row("brk", "__brk_base __brk_limit", cls=BRK, ro=False, arches=X86, where=X86_SCRIPT),
)

PERCPU_ROWS: tuple[BoundaryRow, ...] = (
    _row("percpu", "__per_cpu_start __per_cpu_end", cls=PERCPU_CLASS, outside=True),  # x86_64 up to 6.14: at 0
    _row("percpu.hot", "__per_cpu_hot_start __per_cpu_hot_end", outside=True, kernels="6.18-"),
    # Where the link addresses count from 0, the bytes to copy for each CPU lie here.
    _row("percpu.load", "__per_cpu_load", length=("__per_cpu_start", "__per_cpu_end"), kernels="4.19-6.14"),
)

BOUNDARY_TABLE: tuple[BoundaryRow, ...] = TEXT_ROWS + RODATA_ROWS + INIT_ROWS + DATA_ROWS + BSS_ROWS + PERCPU_ROWS

TABLE_SYMBOLS: frozenset[str] = frozenset(
    name
    for row in BOUNDARY_TABLE
    for pair in row.pairs
    for name in (pair.start, *pair.ends, *(row.inside or ()), *(row.length or ()))
) | {ROOT_START, ROOT_END}
