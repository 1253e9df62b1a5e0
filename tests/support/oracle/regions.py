"""The boundary symbols of the kernel's linker scripts, typed from the documentation.

Sources: a list of regions made from fifteen kernel trees (kernel-facts 1.1 and 1.2), and the linker scripts that it
names: include/asm-generic/vmlinux.lds.h, arch/{x86,arm64,riscv,s390,powerpc,arm}/kernel/vmlinux.lds.S. Not from kplug.

A name is the linker script's own word for what it brackets: the input section's, without leading dots and underscores
(`*(.spinlock.text)` stands between `__lock_text_start` and `__lock_text_end`), else the stem of the two symbols.
"""

from __future__ import annotations

from typing import NamedTuple

X86 = ("x86_64",)
ARM64 = ("aarch64",)
RISCV = ("riscv64",)
S390 = ("s390x",)
PPC = ("ppc64",)
ARM = ("arm",)
I386 = ("i386",)
ALL = (*X86, *ARM64, *RISCV, *S390, *PPC, *ARM, *I386)


class Pair(NamedTuple):
    """One region: two symbols, its name, and the class it gives to what it holds (None: that of what is around it)."""

    start: str
    end: str
    name: str
    region_class: str | None = None
    machines: tuple[str, ...] = ALL


IMAGE = ("_text", "_end")

# Classes follow the chapters of kernel-facts 1.2 for regions that stand by themselves in the image. What lies inside
# one of those has its class.
PAIRS = [
    # The eight pairs of the article; x86 has six of them.
    Pair("_stext", "_etext", "text", "text"),
    Pair("__start_rodata", "__end_rodata", "rodata", "rodata"),
    Pair("__init_begin", "__init_end", "init", "init"),
    Pair("__inittext_begin", "__inittext_end", "init.text", None, ARM64),
    Pair("__initdata_begin", "__initdata_end", "init.data", None, ARM64),
    Pair("_sdata", "_edata", "data", "data"),
    Pair("__bss_start", "__bss_stop", "bss", "bss"),
    Pair("_sinittext", "_einittext", "init.text", None, (*X86, *I386, *S390, *PPC, *ARM)),
    Pair("_sinittext", "_einittext", "inittext", None, (*ARM64, *RISCV)),  # inside init.text there
    # kernel-facts 1.2: riscv brackets init's text and data so; its _sdata .. _edata has rodata in it.
    Pair("__init_text_begin", "__init_text_end", "init.text", None, RISCV),
    Pair("__init_data_begin", "__init_data_end", "init.data", None, RISCV),
    Pair("__alt_start", "__alt_end", "alternative", None, RISCV),
    Pair("__rela_dyn_start", "__rela_dyn_end", "rela.dyn", None, RISCV),
    Pair("__soc_builtin_dtb_table_start", "__soc_builtin_dtb_table_end", "soc_builtin_dtb_table", None, RISCV),
    Pair("__soc_early_init_table_start", "__soc_early_init_table_end", "soc_early_init_table", None, RISCV),
    Pair("_data", "_edata", "data.rw", None, RISCV),
    Pair("__end_rodata", "_data", "srodata", "rodata", RISCV),
    # Text.
    Pair("_text", "_stext", "head.text", "text", ARM64),
    Pair("_start", "_text", "head.text", "text", RISCV),
    Pair("__entry_text_start", "__entry_text_end", "entry.text"),
    Pair("__irqentry_text_start", "__irqentry_text_end", "irqentry.text"),
    Pair("__softirqentry_text_start", "__softirqentry_text_end", "softirqentry.text"),
    Pair("__exception_text_start", "__exception_text_end", "exception.text"),
    Pair("__sched_text_start", "__sched_text_end", "sched.text"),
    Pair("__cpuidle_text_start", "__cpuidle_text_end", "cpuidle.text"),
    Pair("__lock_text_start", "__lock_text_end", "spinlock.text"),
    Pair("__kprobes_text_start", "__kprobes_text_end", "kprobes.text"),
    *(Pair(f"__{part}_text_start", f"__{part}_text_end", f"text.{part}") for part in ("split", "unlikely", "hot")),
    Pair("__noinstr_text_start", "__noinstr_text_end", "noinstr.text"),
    Pair("__static_call_text_start", "__static_call_text_end", "static_call.text"),
    Pair("__indirect_thunk_start", "__indirect_thunk_end", "indirect_thunk"),
    Pair("__hyp_idmap_text_start", "__hyp_idmap_text_end", "hyp.idmap.text"),
    Pair("__hyp_text_start", "__hyp_text_end", "hyp.text"),
    Pair("__start___kvm_ex_table", "__stop___kvm_ex_table", "kvm_ex_table"),
    # arm64 puts these between rodata and init (.rodata.text): code, but for other mappings.
    Pair("__entry_tramp_text_start", "__entry_tramp_text_end", "entry.tramp.text", "text"),
    Pair("__hibernate_exit_text_start", "__hibernate_exit_text_end", "hibernate_exit.text", "text"),
    Pair("__relocate_new_kernel_start", "__relocate_new_kernel_end", "kexec_relocate.text", "text"),
    Pair("__idmap_text_start", "__idmap_text_end", "idmap.text", "text"),
    # Read-only data.
    Pair("__sched_class_highest", "__sched_class_lowest", "sched_classes"),
    Pair("__begin_sched_classes", "__end_sched_classes", "sched_classes"),  # up to 5.12
    Pair("__start_ro_after_init", "__end_ro_after_init", "ro_after_init"),
    Pair("__start___jump_table", "__stop___jump_table", "jump_table"),
    Pair("__start_static_call_sites", "__stop_static_call_sites", "static_call_sites"),
    Pair("__start_static_call_tramp_key", "__stop_static_call_tramp_key", "static_call_tramp_key"),
    Pair("__start___tracepoints_ptrs", "__stop___tracepoints_ptrs", "tracepoints_ptrs"),
    *(
        Pair(f"__start_pci_fixups_{when}", f"__end_pci_fixups_{when}", f"pci_fixup_{when}")
        for when in ("early", "header", "final", "enable", "resume", "suspend", "resume_early", "suspend_late")
    ),
    Pair("__start_builtin_fw", "__end_builtin_fw", "builtin_fw"),
    Pair("__tracedata_start", "__tracedata_end", "tracedata"),
    Pair("__start_printk_index", "__stop_printk_index", "printk_index"),
    Pair("__start___ksymtab", "__stop___ksymtab", "ksymtab"),
    Pair("__start___ksymtab_gpl", "__stop___ksymtab_gpl", "ksymtab_gpl"),
    Pair("__start___kcrctab", "__stop___kcrctab", "kcrctab"),
    Pair("__start___kcrctab_gpl", "__stop___kcrctab_gpl", "kcrctab_gpl"),
    *(
        Pair(f"__start___{table}_{kind}", f"__stop___{table}_{kind}", f"{table}_{kind}")
        for table in ("ksymtab", "kcrctab")
        for kind in ("gpl_future", "unused", "unused_gpl")  # up to 5.11
    ),
    Pair("__start___kflagstab", "__stop___kflagstab", "kflagstab"),
    Pair("__start___param", "__stop___param", "param"),
    Pair("__start___modver", "__stop___modver", "modver"),
    Pair("__start___kcfi_traps", "__stop___kcfi_traps", "kcfi_traps"),
    Pair("fineibt_preamble_start", "fineibt_preamble_end", "fineibt_preamble", None, X86),
    Pair("fineibt_caller_start", "fineibt_caller_end", "fineibt_caller", None, X86),
    Pair("fineibt_paranoid_start", "fineibt_paranoid_end", "fineibt_paranoid", None, X86),
    Pair("__start___ex_table", "__stop___ex_table", "ex_table", "rodata"),  # s390 up to 6.x: in data, protected
    Pair("__start_notes", "__stop_notes", "notes"),
    Pair("__start_BTF", "__stop_BTF", "BTF"),
    Pair("__hyp_rodata_start", "__hyp_rodata_end", "hyp.rodata", "rodata"),
    Pair("idmap_pg_dir", "idmap_pg_end", "idmap_pg_dir", "rodata", ARM64),  # 5.10
    Pair("idmap_pg_dir", "tramp_pg_dir", "idmap_pg_dir", "rodata", ARM64),
    Pair("tramp_pg_dir", "reserved_pg_dir", "tramp_pg_dir", "rodata", ARM64),
    Pair("reserved_pg_dir", "swapper_pg_dir", "reserved_pg_dir", "rodata", ARM64),
    # Init.
    Pair("__exittext_begin", "__exittext_end", "exit.text"),
    Pair("__alt_instructions", "__alt_instructions_end", "altinstructions"),
    Pair("init_idmap_pg_dir", "init_idmap_pg_end", "init_idmap_pg_dir", None, ARM64),
    Pair("__pi_init_idmap_pg_dir", "__pi_init_idmap_pg_end", "init_idmap_pg_dir", None, ARM64),
    Pair("__start_mcount_loc", "__stop_mcount_loc", "mcount_loc"),
    Pair("__start_ftrace_events", "__stop_ftrace_events", "ftrace_events"),
    Pair("__start_ftrace_eval_maps", "__stop_ftrace_eval_maps", "ftrace_eval_map"),
    Pair("__start_syscalls_metadata", "__stop_syscalls_metadata", "syscalls_metadata"),
    Pair("__start_kprobe_blacklist", "__stop_kprobe_blacklist", "kprobe_blacklist"),
    Pair("__start_error_injection_whitelist", "__stop_error_injection_whitelist", "error_injection_whitelist"),
    Pair("__dtb_start", "__dtb_end", "dtb"),
    Pair("__irqchip_acpi_probe_table", "__irqchip_acpi_probe_table_end", "irqchip_acpi_probe_table"),
    Pair("__timer_acpi_probe_table", "__timer_acpi_probe_table_end", "timer_acpi_probe_table"),
    Pair("__governor_thermal_table", "__governor_thermal_table_end", "governor_thermal_table"),
    Pair("__earlycon_table", "__earlycon_table_end", "earlycon_table"),
    Pair("__start_lsm_info", "__end_lsm_info", "lsm_info"),
    Pair("__start_early_lsm_info", "__end_early_lsm_info", "early_lsm_info"),
    Pair("__kunit_init_suites_start", "__kunit_init_suites_end", "kunit_init_test_suites"),
    Pair("__kunit_suites_start", "__kunit_suites_end", "kunit_test_suites"),
    Pair("__setup_start", "__setup_end", "init.setup"),
    Pair("__initcall_start", "__initcall_end", "initcall"),
    Pair("__initcall_start", "__initcall0_start", "initcallearly"),
    Pair("__initcall0_start", "__initcall1_start", "initcall0"),
    Pair("__initcall1_start", "__initcall2_start", "initcall1"),
    Pair("__initcall2_start", "__initcall3_start", "initcall2"),
    Pair("__initcall3_start", "__initcall4_start", "initcall3"),
    Pair("__initcall4_start", "__initcall5_start", "initcall4"),
    Pair("__initcall5_start", "__initcallrootfs_start", "initcall5"),
    Pair("__initcallrootfs_start", "__initcall6_start", "initcallrootfs"),
    Pair("__initcall6_start", "__initcall7_start", "initcall6"),
    Pair("__initcall7_start", "__initcall_end", "initcall7"),
    Pair("__con_initcall_start", "__con_initcall_end", "con_initcall"),
    Pair("__initramfs_start", "__initramfs_size", "init.ramfs"),
    Pair("__irf_start", "__irf_end", "irf"),
    Pair("__cert_list_start", "__cert_list_end", "cert_list"),
    Pair("__x86_cpu_dev_start", "__x86_cpu_dev_end", "x86_cpu_dev.init"),
    Pair("__parainstructions", "__parainstructions_end", "parainstructions"),
    Pair("__retpoline_sites", "__retpoline_sites_end", "retpoline_sites"),
    Pair("__return_sites", "__return_sites_end", "return_sites"),
    Pair("__call_sites", "__call_sites_end", "call_sites"),
    Pair("__cfi_sites", "__cfi_sites_end", "cfi_sites"),
    Pair("__ibt_endbr_seal", "__ibt_endbr_seal_end", "ibt_endbr_seal"),
    Pair("__apicdrivers", "__apicdrivers_end", "apicdrivers"),
    Pair("__iommu_table", "__iommu_table_end", "iommu_table", None, (*X86, *I386)),
    Pair("_einittext", "__inittext_end", "altinstr_aux", None, X86),
    Pair("__hyp_reloc_begin", "__hyp_reloc_end", "hyp.reloc"),
    Pair("__rela_start", "__rela_end", "rela.dyn", None, ARM64),
    Pair("__relr_start", "__relr_end", "relr.dyn", None, ARM64),
    Pair("__pi_rela_start", "__pi_rela_end", "rela.dyn", None, ARM64),
    Pair("__pi_relr_start", "__pi_relr_end", "relr.dyn", None, ARM64),
    Pair("__init_scratch_begin", "__init_scratch_end", "init.scratch", "init", (*X86, *I386)),  # beyond _end
    # Writable data and bss.
    Pair("__start_init_task", "__end_init_task", "init_stack"),
    Pair("__start_init_stack", "__end_init_stack", "init_stack"),
    Pair("__nosave_begin", "__nosave_end", "data_nosave", "data"),
    Pair("__start_once", "__end_once", "data..once"),
    Pair("__start___dyndbg", "__stop___dyndbg", "dyndbg"),
    Pair("__start___dyndbg_classes", "__stop___dyndbg_classes", "dyndbg_classes"),
    Pair("__start_alloc_tags", "__stop_alloc_tags", "alloc_tags"),
    Pair("__start___trace_bprintk_fmt", "__stop___trace_bprintk_fmt", "trace_printk_fmt"),
    Pair("__start__bpf_raw_tp", "__stop__bpf_raw_tp", "bpf_raw_tp_map"),
    Pair("__start___tracepoint_str", "__stop___tracepoint_str", "tracepoint_str"),
    Pair("__start___bug_table", "__stop___bug_table", "bug_table", "data"),
    Pair("__start_orc_header", "__stop_orc_header", "orc_header", "data"),
    Pair("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "orc_unwind_ip", "data"),
    Pair("__start_orc_unwind", "__stop_orc_unwind", "orc_unwind", "data"),
    Pair("orc_lookup", "orc_lookup_end", "orc_lookup", "bss"),  # NOBITS
    Pair("__vvar_page", "__init_begin", "vvar", "data", (*X86, *I386)),
    Pair("__mmuoff_data_start", "__mmuoff_data_end", "mmuoff.data"),
    Pair("__smp_locks", "__smp_locks_end", "smp_locks", "data"),
    Pair("__relocate_kernel_start", "__relocate_kernel_end", "relocate_kernel", None, X86),
    Pair("__hyp_data_start", "__hyp_data_end", "hyp.data", None, ARM64),
    Pair("__hyp_bss_start", "__hyp_bss_end", "hyp.bss"),
    Pair("__start_bss_decrypted", "__end_bss_decrypted", "bss..decrypted"),
    Pair("__start_bss_decrypted_unused", "__end_bss_decrypted", "bss..decrypted.unused"),
    Pair("init_pg_dir", "init_pg_end", "init_pg_dir", "bss", ARM64),
    Pair("init_pg_end", "early_init_stack", "early_init_stack", "bss", ARM64),
    Pair("__pi_init_pg_dir", "__pi_init_pg_end", "init_pg_dir", "bss", ARM64),
    Pair("__pi_init_pg_end", "early_init_stack", "early_init_stack", "bss", ARM64),
    Pair("__brk_base", "__brk_limit", "brk", "brk", (*X86, *I386)),
    # s390: code that stays below 2 GiB, what is patched there, and what the decompressor fills in.
    Pair(
        "__ftrace_hotpatch_trampolines_start",
        "__ftrace_hotpatch_trampolines_end",
        "ftrace_hotpatch_trampolines",
        None,
        S390,
    ),
    Pair("__got_start", "__got_end", "got", None, S390),
    Pair("__skey_region_start", "__skey_region_end", "skey_region", None, S390),
    Pair("__dynsym_start", "__dynsym_end", "dynsym", None, S390),
    Pair("__rela_dyn_start", "__rela_dyn_end", "rela.dyn", None, S390),
    Pair("__stack_prot_start", "__stack_prot_end", "stack_prot", None, S390),
    Pair("__s390dbf_info", "__s390dbf_info_end", "s390dbf_info", None, S390),
    Pair("_start_amode31_refs", "_end_amode31_refs", "amode31.refs", None, S390),
    Pair("_samode31", "_eamode31", "amode31", None, S390),
    Pair("_stext_amode31", "_etext_amode31", "amode31.text", None, S390),
    Pair("_start_amode31_ex_table", "_stop_amode31_ex_table", "amode31.ex_table", None, S390),
    Pair("__nospec_call_start", "__nospec_call_end", "nospec_call_table", None, S390),
    Pair("__nospec_return_start", "__nospec_return_end", "nospec_return_table", None, S390),
    Pair("__boot_data_start", "__boot_data_end", "boot.data", None, S390),
    Pair("__boot_data_preserved_start", "__boot_data_preserved_end", "boot.preserved.data", None, S390),
    # powerpc.
    Pair("_stext", "__head_end", "head.text", "text", PPC),
    Pair("__machine_desc_start", "__machine_desc_end", "machine.desc", None, PPC),
    *(
        Pair(f"__start_{name}", f"__stop_{name}", name.lstrip("_"), None, PPC)
        for name in (
            *("__soft_mask_table", "__restart_table", "__stf_entry_barrier_fixup", "__uaccess_flush_fixup"),
            *("__entry_flush_fixup", "__scv_entry_flush_fixup", "__stf_exit_barrier_fixup", "__rfi_flush_fixup"),
            *("__barrier_nospec_fixup", "_btb_flush_fixup", "__ftr_fixup", "__mmu_ftr_fixup", "__lwsync_fixup"),
            "__fw_ftr_fixup",
        )
    ),
    # arm; its output sections' words, where the input sections' are the architecture's own (*(.ARM.exidx*)).
    Pair("_text", "_stext", "head.text", "text", ARM),
    Pair("__start_unwind_idx", "__stop_unwind_idx", "ARM.unwind_idx", None, ARM),
    Pair("__start_unwind_tab", "__stop_unwind_tab", "ARM.unwind_tab", None, ARM),
    # Their bytes in the image, which start_kernel() copies to where .vectors and .stubs are linked.
    Pair("__vectors_start", "__vectors_end", "vectors", None, ARM),
    Pair("__stubs_start", "__stubs_end", "stubs", None, ARM),
    Pair("__proc_info_begin", "__proc_info_end", "proc.info", None, ARM),
    Pair("__arch_info_begin", "__arch_info_end", "arch.info.init", None, ARM),
    Pair("__tagtable_begin", "__tagtable_end", "taglist.init", None, ARM),
    Pair("__smpalt_begin", "__smpalt_end", "alt.smp.init", None, ARM),
    Pair("__pv_table_begin", "__pv_table_end", "pv_table", None, ARM),
    # Per-CPU.
    Pair("__per_cpu_start", "__per_cpu_end", "percpu", "percpu"),
    Pair("__per_cpu_hot_start", "__per_cpu_hot_end", "percpu.hot"),
    Pair("__kvm_nvhe___per_cpu_start", "__kvm_nvhe___per_cpu_end", "hyp.data..percpu"),
]

PAGE = 4096


class Computed(NamedTuple):
    """A region with a start symbol and a length known otherwise; `end` says how, in `oracle.rules`."""

    start: str
    name: str
    region_class: str | None
    machines: tuple[str, ...]


# One page (arm64: the page table that follows the other three), and the per-CPU template's bytes at its load address,
# where x86 up to 6.14 links the section itself at 0.
ONE_PAGE = Computed("swapper_pg_dir", "swapper_pg_dir", "rodata", ARM64)
TEMPLATE = Computed("__per_cpu_load", "percpu.load", None, X86)

# What mark_rodata_ro() (arch/arm64/mm/mmu.c) protects, the regions and what is between them.
READ_ONLY = {"aarch64": ("__start_rodata", "__init_begin")}

# INIT_DATA: tables by which drivers match firmware have no end symbol, each reaches to the next thing that there is.
INIT_DATA = (
    *("__clk_of_table", "__reservedmem_of_table", "__timer_of_table", "__cpu_method_of_table"),
    *("__cpuidle_method_of_table", "__dtb_start", "__irqchip_of_table", "__irqchip_acpi_probe_table"),
    *("__timer_acpi_probe_table", "__governor_thermal_table", "__earlycon_table", "__start_lsm_info", "__setup_start"),
)
# Only 32-bit arm makes entries for these (CPU_METHOD_OF_DECLARE, CPUIDLE_METHOD_OF_DECLARE); what follows elsewhere is
# the padding before the device tree blobs.
METHODS = ("__cpu_method_of_table", "__cpuidle_method_of_table")
