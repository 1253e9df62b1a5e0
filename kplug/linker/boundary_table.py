"""The boundary symbols that the kernel's linker scripts are known to define, as data.

One row for each region. Rows hold names only: whether a kernel has the region, and where, is in its symbol table. A
region needs a row if its name, its class or what happens to it after boot does not follow from the two symbols' names.
`kplug.linker.boundary_names` finds conventionally named pairs without a row.

`kernels` names the first and the last of the kernels read that have the row's first pair. It is documentation: kernels
are probed for the symbols, and their version is never checked.
"""

from __future__ import annotations

from functools import cache

from kplug.arch import registry
from kplug.arch.types.boundaries import EMPTY, GENERIC_SCRIPT, BoundaryRow
from kplug.arch.types.boundaries import row as _row
from kplug.model import BSS, DATA, INIT, PERCPU_CLASS, RODATA, TEXT

ARM64_SCRIPT = "arch/arm64/kernel/vmlinux.lds.S"
POWERPC_SCRIPT = "arch/powerpc/kernel/vmlinux.lds.S"
EVERY_SCRIPT = "arch/*/kernel/vmlinux.lds.S"


def _text(name: str, stem: str, kernels: str = "all", where: str = GENERIC_SCRIPT) -> BoundaryRow:
    return _row(name, f"__{stem}_text_start __{stem}_text_end", kernels=kernels, where=where)


def _bounded(name: str, label: str = "", kernels: str = "all", writable: bool = False) -> BoundaryRow:
    """A section bounded by `__start_X` and `__stop_X`, as the macros of the generic script write them.

    `writable` is for sections that some script leaves outside [_sdata, _edata) although they are plain data.
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


_METHODS = ("__cpu_method_of_table", "__cpuidle_method_of_table")


def _of_tables(cpu_methods: bool) -> tuple[BoundaryRow, ...]:
    rows = []
    for position, start in enumerate(_INIT_TABLES):
        if start.endswith("_of_table"):
            # Even an unused table holds a closing entry of two pointers, if its subsystem is built in. Those of methods
            # have none where no entries are made for them: padding follows, and then the device tree blobs.
            least = 16 if start not in _METHODS else 8 if cpu_methods else EMPTY
            rows.append(_row(start.strip("_"), " ".join((start, *_INIT_TABLES[position + 1 :])), least=least))
    return tuple(rows)


ROOT_START = "_text"
ROOT_END = "_end"

TEXT_ROWS: tuple[BoundaryRow, ...] = (
    _row("text", "_stext _etext", cls=TEXT, freed=False, ro=True, where=EVERY_SCRIPT),
    _text("entry.text", "entry"),
    _text("irqentry.text", "irqentry"),  # x86 since 5.10: arch/x86/entry/entry_64.S, inside .entry.text
    _text("softirqentry.text", "softirqentry"),
    _text("exception.text", "exception", "4.19-5.4", ARM64_SCRIPT),
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
    _text("hyp.idmap.text", "hyp_idmap", where=ARM64_SCRIPT),
    _text("hyp.text", "hyp", where=ARM64_SCRIPT),
    # In .text up to 6.1, then in .rodata.text, after __end_rodata: code that is not run at its kernel address.
    _row("idmap.text", "__idmap_text_start __idmap_text_end", cls=TEXT, freed=False, ro=True, where=ARM64_SCRIPT),
)

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
)

INIT_ROWS: tuple[BoundaryRow, ...] = (
    _row("init", "__init_begin __init_end", cls=INIT, freed=True, where=EVERY_SCRIPT),
    # The whole of the init text where the script brackets it, else the section .init.text alone.
    _row(
        "init.text",
        "__inittext_begin __inittext_end",  # arm64, loongarch
        "__init_text_begin __init_text_end",  # riscv
        "_sinittext _einittext",
        cls=INIT,  # its own: kallsyms of code alone have no bounds of init around it
        freed=True,
        where=EVERY_SCRIPT,
    ),
    _row("inittext", "_sinittext _einittext", cls=INIT, freed=True),  # arm64's kallsyms of code lack __inittext_end
    _row(
        "init.data",
        "__initdata_begin __initdata_end",  # arm64, loongarch
        "__init_data_begin __init_data_end",  # riscv
        where=EVERY_SCRIPT,
    ),
    _row("exit.text", "__exittext_begin __exittext_end", where=EVERY_SCRIPT),
    _row("altinstructions", "__alt_instructions __alt_instructions_end", where=EVERY_SCRIPT),
    _row("ctors", "__ctors_start __ctors_end"),
    _bounded("mcount_loc", "mcount_loc"),
    _bounded("ftrace_events", "ftrace_events"),
    _bounded("ftrace_eval_map", "ftrace_eval_maps"),
    _bounded("syscalls_metadata", "syscalls_metadata"),
    _bounded("kprobe_blacklist", "kprobe_blacklist"),
    _bounded("error_injection_whitelist", "error_injection_whitelist"),
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
    # Local labels: in a list without types, only these rows distinguish them from other labels.
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
)

DATA_ROWS: tuple[BoundaryRow, ...] = (
    _row("data", "_sdata _edata", cls=DATA, freed=False, ro=False, where=EVERY_SCRIPT),
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
    # BOUNDED_SECTION_BY(__trace_printk_fmt, ___trace_bprintk_fmt): the symbols are not named after the section.
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
)

BSS_ROWS: tuple[BoundaryRow, ...] = (_row("bss", "__bss_start __bss_stop", cls=BSS, freed=False, ro=False),)

PERCPU_ROWS: tuple[BoundaryRow, ...] = (
    _row("percpu", "__per_cpu_start __per_cpu_end", cls=PERCPU_CLASS, outside=True),  # x86_64 up to 6.14: at 0
    _row("percpu.hot", "__per_cpu_hot_start __per_cpu_hot_end", outside=True, kernels="6.18-"),
    # Where the link addresses count from 0, the template to copy for each CPU lies here.
    _row("percpu.load", "__per_cpu_load", length=("__per_cpu_start", "__per_cpu_end"), kernels="4.19-6.14"),
)

_PARTS = {"text": TEXT_ROWS, "rodata": RODATA_ROWS, "init": INIT_ROWS, "data": DATA_ROWS, "bss": BSS_ROWS}


@cache
def boundary_table(machine: str) -> tuple[BoundaryRow, ...]:
    """The rows that a kernel of that architecture may have: the generic ones, and in each part the architecture's."""
    declared = registry.named(machine).boundaries
    own = {} if declared is None else declared()
    parts = (each for part, rows in _PARTS.items() for each in (*rows, *own.get(part, ())))
    return (*parts, *_of_tables(registry.named(machine).cpu_methods), *PERCPU_ROWS)


@cache
def table_symbols(machine: str = "") -> frozenset[str]:
    """The names in the rows of an architecture; of all, which loads all, where the architecture is not known."""
    machines = (machine,) if machine else (architecture.name for architecture in registry.declared())
    tables = map(boundary_table, machines)
    return frozenset((ROOT_START, ROOT_END)).union(
        name
        for row in {row for table in tables for row in table}
        for pair in row.pairs
        for name in (pair.start, *pair.ends, *(row.inside or ()), *(row.length or ()))
    )
