"""The boundary symbols that only arm64's linker script has."""

from __future__ import annotations

from kplug.arch.types.boundaries import BoundaryRow, BoundaryRows, row
from kplug.model import BSS, RODATA, TEXT

SCRIPT = "arch/arm64/kernel/vmlinux.lds.S"
_RODATA = ("__start_rodata", "__init_begin")


def _page_tables() -> tuple[BoundaryRow, ...]:
    """The page tables between rodata and init (4.19: after bss). They are in no section: the script only moves `.`."""
    following = "tramp_pg_dir reserved_pg_dir reserved_ttbr0 swapper_pg_dir"
    tables = (
        ("idmap_pg_dir", f"idmap_pg_dir idmap_pg_end {following}", None),
        ("tramp_pg_dir", "tramp_pg_dir reserved_pg_dir reserved_ttbr0 swapper_pg_dir", None),
        ("reserved_pg_dir", "reserved_pg_dir swapper_pg_dir", None),
        ("reserved_ttbr0", "reserved_ttbr0 swapper_pg_dir", None),
        ("swapper_pg_dir", "swapper_pg_dir swapper_pg_end", ("reserved_pg_dir", "swapper_pg_dir")),
    )
    return tuple(
        row(name, pair, cls=cls, freed=False, ro=ro, where=SCRIPT, inside=inside, length=length)
        for name, pair, length in tables
        for cls, ro, inside in ((RODATA, True, _RODATA), (BSS, False, ("__bss_stop", "_end")))
    )


ROWS: BoundaryRows = {
    "text": (
        row("head.text", "_text _stext", cls=TEXT, freed=False, ro=True, where=SCRIPT),
        row("kvm_ex_table", "__start___kvm_ex_table __stop___kvm_ex_table", where=SCRIPT),
        row(
            "entry.tramp.text",
            "__entry_tramp_text_start __entry_tramp_text_end",
            cls=TEXT,
            freed=False,
            ro=True,
            where=SCRIPT,
        ),
        row(
            "hibernate_exit.text",
            "__hibernate_exit_text_start __hibernate_exit_text_end",
            cls=TEXT,
            freed=False,
            ro=True,
            where=SCRIPT,
        ),
        row(
            "kexec_relocate.text",
            "__relocate_new_kernel_start __relocate_new_kernel_end",
            cls=TEXT,
            freed=False,
            ro=True,
            where=SCRIPT,
            kernels="6.0-",
        ),
    ),
    "rodata": (
        row(
            "hyp.rodata",
            "__hyp_rodata_start __hyp_rodata_end",
            cls=RODATA,
            freed=False,
            ro=True,
            where=SCRIPT,
            kernels="5.15-",
        ),
        row(
            "hyp_event_ids",
            "__hyp_event_ids_start __hyp_event_ids_end",
            where=SCRIPT,
            kernels="7.2-",
        ),
        *_page_tables(),
    ),
    "init": (
        row(
            "eh_frame",
            "__pi___eh_frame_start __pi___eh_frame_end",
            "__eh_frame_start __eh_frame_end",
            where=SCRIPT,
            kernels="6.5-",
        ),
        row("hyp.reloc", "__hyp_reloc_begin __hyp_reloc_end", where=SCRIPT, kernels="5.15-"),
        row(
            "hyp.data..percpu",
            "__kvm_nvhe___per_cpu_start __kvm_nvhe___per_cpu_end",
            where="arch/arm64/kvm/hyp/nvhe/hyp.lds.S",
            kernels="5.10-",
        ),
        row(
            "init_idmap_pg_dir",
            "init_idmap_pg_dir init_idmap_pg_end",
            "__pi_init_idmap_pg_dir __pi_init_idmap_pg_end",  # the only name since 6.18
            where=SCRIPT,
            kernels="6.0-",
        ),
    ),
    "data": (
        row("mmuoff.data", "__mmuoff_data_start __mmuoff_data_end", where=SCRIPT),
        row("hyp.data", "__hyp_data_start __hyp_data_end", where=SCRIPT, kernels="6.18-"),
        row("hyp_events", "__hyp_events_start __hyp_events_end", where=SCRIPT, kernels="7.2-"),
    ),
    "bss": (
        row("hyp.bss", "__hyp_bss_start __hyp_bss_end", where=SCRIPT, kernels="5.15-"),
        row(
            "init_pg_dir",
            "init_pg_dir init_pg_end",
            "__pi_init_pg_dir __pi_init_pg_end",  # the only name since 6.18
            cls=BSS,
            ro=False,
            where=SCRIPT,
            kernels="5.4-",
        ),
        # The symbol is the stack's top.
        row(
            "early_init_stack",
            "init_pg_end early_init_stack",
            "__pi_init_pg_end early_init_stack",
            cls=BSS,
            ro=False,
            where=SCRIPT,
            kernels="6.12-",
        ),
    ),
}
