"""What the kinds of events have in common that end in die(): oopses."""

from __future__ import annotations

from kplug.log.common_lines import END_OF_TRACE
from kplug.log.kinds import EventKind, Wording

ADDRESS = r"(?:0x)?(?P<address>[0-9a-fA-F]{1,16})"
FAULT = "arch/x86/mm/fault.c, show_fault_oops()"
TRAPS = "arch/x86/kernel/traps.c"
ARM64 = "arch/arm64/mm/fault.c, die_kernel_fault()"
RISCV = "arch/riscv/kernel/traps.c"
S390_TRAPS = "arch/s390/kernel/traps.c, do_trap()"
# What die() of s390 prints after its words.
PROGRAM_CHECK = r"[0-9a-f]{4} ilc:\d \[#"
READ, WRITE, EXECUTE = ((("access", each),) for each in ("read", "write", "execute"))

# What die() prints before its own words since 5.0 or so: Oops, in 6.9 and later before the exception's name too.
OOPS = r"(?:Oops: )?"
# The error code and how many oopses there were.
NUMBER = r"[^\n]{0,120}?\[#?\d{1,6}\]"

# Further lines that say what was done: of the page-fault handlers of several architectures.
ACCESS = (
    Wording(r"#PF: (?:supervisor|user) read access", "#PF: supervisor read access in kernel mode", FAULT, states=READ),
    Wording(
        r"#PF: (?:supervisor|user) write access", "#PF: supervisor write access in kernel mode", FAULT, states=WRITE
    ),
    Wording(
        r"#PF: (?:supervisor|user) instruction fetch",
        "#PF: supervisor instruction fetch in kernel mode",
        FAULT,
        states=EXECUTE,
    ),
    Wording(r"#PF: error_code\((?P<error_code>0x[0-9a-f]{1,8})\)", "#PF: error_code(0x0000) - not-present page", FAULT),
    Wording(
        r"\[(?:normal kernel |normal user )?(?:read|kernel) ", "[normal kernel read fault]", "4.20's show_fault_oops()"
    ),
    Wording(
        rf"Oops: (?:Oops: )?(?P<error_code>[0-9a-f]{{4}}) {NUMBER}",
        "Oops: 0002 [#1] SMP PTI",
        "arch/x86/kernel/dumpstack.c, __die(): the error code of a page fault",
    ),
    Wording(
        rf"Internal error: Oops(?: - [^:\n]{{1,60}})?: (?P<esr>[0-9a-f]{{8,16}}) {NUMBER}",
        "Internal error: Oops: 0000000096000006 [#1] SMP",
        "arch/arm64/kernel/traps.c, die(): ESR_EL1",
    ),
    Wording(
        rf"Internal error: Oops: (?P<fsr>[0-9a-f]{{1,3}}) {NUMBER}",
        "Internal error: Oops: 805 [#1] SMP ARM",
        "arch/arm/kernel/traps.c, die(): the fault status",
    ),
    Wording(
        r"ESR = (?P<esr>0x[0-9a-f]{8,16})", "ESR = 0x0000000096000006", "arch/arm64/mm/fault.c, mem_abort_decode()"
    ),
    Wording(
        r"CM = \d, WnR = (?P<wnr>\d)",
        "CM = 0, WnR = 0, TnD = 0, TagAccess = 0",
        "arch/arm64/mm/fault.c, data_abort_decode()",
    ),
    Wording(
        r"KASAN: (?P<kasan>[\w-]{1,40}) in range \[(?P<near>0x[0-9a-f]{1,16})-0x[0-9a-f]{1,16}\]",
        "KASAN: null-ptr-deref in range [0x0000000000000018-0x000000000000001f]",
        "mm/kasan/report.c, kasan_non_canonical_hook()",
    ),
)

ENDS = (END_OF_TRACE,)
OOPSED = rf"(?:traps: |kasan: GPF could be caused by NULL-ptr deref or user memory access)?{OOPS}"


def oops(
    type: str,
    title: str,
    sentence: str,
    *begins: Wording,
    details: tuple[Wording, ...] = ACCESS,
    general: bool = False,
    accesses: bool = False,
    incomplete: bool = False,
) -> EventKind:
    """What ends in die(), which all architectures have."""
    return EventKind(
        type,
        title,
        sentence,
        begins,
        details,
        ends=ENDS,
        general=general,
        resumes=True,
        accesses=accesses,
        incomplete=incomplete,
    )
