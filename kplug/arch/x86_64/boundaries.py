"""The boundary symbols that only x86's linker script has."""

from __future__ import annotations

from kplug.arch.types.boundaries import BoundaryRows, row
from kplug.model import BRK, DATA, INIT

SCRIPT = "arch/x86/kernel/vmlinux.lds.S"

X86: BoundaryRows = {
    "text": (
        row(
            "entry_trampoline",
            "__entry_trampoline_start __entry_trampoline_end",
            where=SCRIPT,
            kernels="4.19",
        ),
        row(
            "indirect_thunk",
            "__indirect_thunk_start __indirect_thunk_end",
            where=SCRIPT,
            kernels="4.19-6.1",
        ),
        row(
            "relocate_kernel",
            "__relocate_kernel_start __relocate_kernel_end",
            where=SCRIPT,
            kernels="6.14-",
        ),
    ),
    "init": (
        row("altinstr_aux", "_einittext __inittext_end", where=SCRIPT, kernels="6.18-"),
        *(
            row(name, f"__{name} __{name}_end", where=SCRIPT, kernels=kernels)
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
            row(f"{name}.init", f"__{name}_start __{name}_end", where=SCRIPT)
            for name in ("x86_cpu_dev", "x86_intel_mid_dev")
        ),
    ),
    "data": (
        row(
            "vvar",
            "__vvar_page __init_begin",
            cls=DATA,
            freed=False,
            ro=False,
            where=SCRIPT,
            kernels="4.19-6.12",
        ),
        # Freed or not, depending on the CPUs (alternative_instructions()): not known from the image.
        row(
            "smp_locks",
            "__smp_locks __smp_locks_end",
            cls=DATA,
            ro=False,
            where=SCRIPT,
            kernels="4.19-7.2",
        ),
    ),
    "bss": (
        # What early boot used of it stays, the rest is freed: the variable _brk_end is the limit.
        row("brk", "__brk_base __brk_limit", cls=BRK, ro=False, where=SCRIPT),
    ),
}

_ONLY_64_BITS: BoundaryRows = {
    # The code that replaces kCFI's checks where the CPU has IBT: templates, in .rodata.
    "rodata": tuple(
        row(name, f"{name}_start {name}_end", where="arch/x86/kernel/alternative.c", kernels=kernels)
        for name, kernels in (
            ("fineibt_preamble", "6.2-"),
            ("fineibt_caller", "6.2-"),
            ("fineibt_paranoid", "6.15-"),
        )
    ),
    "init": (
        # SME's work area lies after _end. It is not reserved, so it soon becomes ordinary free memory.
        row(
            "init.scratch",
            "__init_scratch_begin __init_scratch_end",
            cls=INIT,
            freed=True,
            where=SCRIPT,
            kernels="5.4-",
            outside=True,
        ),
    ),
    "bss": (
        row("bss..decrypted", "__start_bss_decrypted __end_bss_decrypted", where=SCRIPT),
        row(
            "bss..decrypted.unused",
            "__start_bss_decrypted_unused __end_bss_decrypted",
            freed=True,
            where=SCRIPT,
            kernels="5.4-",
        ),
    ),
}

ROWS: BoundaryRows = {part: (*X86.get(part, ()), *_ONLY_64_BITS.get(part, ())) for part in (*X86, *_ONLY_64_BITS)}
