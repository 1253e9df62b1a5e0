"""Exceptions of the CPU, and what the kernel raises itself: oopses, BUG(), WARN(), panic()."""

from __future__ import annotations

from kplug.log.common_lines import END_OF_TRACE, PANIC
from kplug.log.forms import MODULE, PLACE, SYMBOL, SYMBOL_AND_MODULE
from kplug.log.kinds import EventKind, Wording

_ADDRESS = r"(?:0x)?(?P<address>[0-9a-fA-F]{1,16})"
_FAULT = "arch/x86/mm/fault.c, show_fault_oops()"
_TRAPS = "arch/x86/kernel/traps.c"
_ARM64 = "arch/arm64/mm/fault.c, die_kernel_fault()"
_READ, _WRITE, _EXECUTE = ((("access", each),) for each in ("read", "write", "execute"))

# What die() prints before its own words since 5.0 or so: Oops, in 6.9 and later before the exception's name too.
_OOPS = r"(?:Oops: )?"
# The error code and how many oopses there were.
_NUMBER = r"[^\n]{0,120}?\[#\d{1,6}\]"

# Further lines that say what was done: of the page-fault handlers of several architectures.
_ACCESS = (
    Wording(
        r"#PF: (?:supervisor|user) read access", "#PF: supervisor read access in kernel mode", _FAULT, states=_READ
    ),
    Wording(
        r"#PF: (?:supervisor|user) write access", "#PF: supervisor write access in kernel mode", _FAULT, states=_WRITE
    ),
    Wording(
        r"#PF: (?:supervisor|user) instruction fetch",
        "#PF: supervisor instruction fetch in kernel mode",
        _FAULT,
        states=_EXECUTE,
    ),
    Wording(
        r"#PF: error_code\((?P<error_code>0x[0-9a-f]{1,8})\)", "#PF: error_code(0x0000) - not-present page", _FAULT
    ),
    Wording(
        r"\[(?:normal kernel |normal user )?(?:read|kernel) ", "[normal kernel read fault]", "4.20's show_fault_oops()"
    ),
    Wording(
        rf"Oops: (?:Oops: )?(?P<error_code>[0-9a-f]{{4}}) {_NUMBER}",
        "Oops: 0002 [#1] SMP PTI",
        "arch/x86/kernel/dumpstack.c, __die(): the error code of a page fault",
    ),
    Wording(
        rf"Internal error: Oops(?: - [^:\n]{{1,60}})?: (?P<esr>[0-9a-f]{{8,16}}) {_NUMBER}",
        "Internal error: Oops: 0000000096000006 [#1] SMP",
        "arch/arm64/kernel/traps.c, die(): ESR_EL1",
    ),
    Wording(
        rf"Internal error: Oops: (?P<fsr>[0-9a-f]{{1,3}}) {_NUMBER}",
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

_ENDS = (END_OF_TRACE,)
_OOPSED = rf"(?:traps: |kasan: GPF could be caused by NULL-ptr deref or user memory access)?{_OOPS}"


def _oops(
    type: str,
    title: str,
    *begins: Wording,
    details: tuple[Wording, ...] = _ACCESS,
    general: bool = False,
    accesses: bool = False,
) -> EventKind:
    """What ends in die(), which all architectures have."""
    return EventKind(type, title, begins, details, ends=_ENDS, general=general, resumes=True, accesses=accesses)


_NULL_DEREF = _oops(
    "null-deref",
    "BUG: unable to handle kernel NULL pointer dereference[ in {function}]",
    Wording(
        rf"BUG: kernel NULL pointer dereference, address: {_ADDRESS}",
        "BUG: kernel NULL pointer dereference, address: 0000000000000018",
        f"{_FAULT}, 5.1 and later",
    ),
    Wording(
        rf"(?:BUG: )?[Uu]nable to handle kernel NULL pointer dereference(?: at)?(?: virtual address)?(?:"
        rf" {_ADDRESS}| +\(null\))?",
        "BUG: unable to handle kernel NULL pointer dereference at 0000000000000018",
        f"{_FAULT}, before 5.1; {_ARM64}; arch/arm/mm/fault.c; arch/riscv/mm/fault.c",
    ),
    accesses=True,
)
_PAGE_FAULT = _oops(
    "page-fault",
    "BUG: unable to handle kernel paging request[ in {function}]",
    Wording(
        rf"BUG: unable to handle page fault for address: {_ADDRESS}",
        "BUG: unable to handle page fault for address: ffffc90000a00000",
        f"{_FAULT}, 5.1 and later",
    ),
    Wording(
        rf"(?:BUG: )?[Uu]nable to handle kernel paging request at(?: virtual address)? {_ADDRESS}",
        "Unable to handle kernel paging request at virtual address ffff800080000000",
        f"{_FAULT}, before 5.1; {_ARM64}",
    ),
    Wording(
        rf"Unable to handle kernel access to user memory (?:without|outside|with) [\w= -]{{2,40}}? at"
        rf" virtual address {_ADDRESS}",
        "Unable to handle kernel access to user memory outside uaccess routines at virtual address 0000000020000000",
        f"{_ARM64}; arch/riscv/mm/fault.c",
        title="BUG: unable to handle kernel access to user memory[ in {function}]",
    ),
    Wording(
        rf"Unable to handle kernel write to read-only memory at virtual address {_ADDRESS}",
        "Unable to handle kernel write to read-only memory at virtual address ffff800080000000",
        _ARM64,
        states=_WRITE,
    ),
    Wording(
        rf"Unable to handle kernel execut(?:e from|ion of) (?:non-executable|user|unaligned) memory at virtual"
        rf" address {_ADDRESS}",
        "Unable to handle kernel execute from non-executable memory at virtual address ffff800080000000",
        _ARM64,
        states=_EXECUTE,
    ),
    Wording(
        rf"Unhandled (?:prefetch abort|fault): [\w ,()/-]{{1,80}} \(0x(?P<fsr>[0-9a-f]{{1,8}})\) at {_ADDRESS}",
        "Unhandled fault: page domain fault (0x81b) at 0x00000e30",
        "arch/arm/mm/fault.c, do_DataAbort(); arch/arm64/mm/fault.c before 4.20",
        title="Unhandled fault[ in {function}]",
    ),
    Wording(
        rf"Unable to handle kernel [\w -]{{1,60}} at virtual address {_ADDRESS}",
        "Unable to handle kernel read from unreadable memory at virtual address ffff800080000000",
        _ARM64,
    ),
    accesses=True,
)
_OOPS_ALONE = _oops(
    "page-fault",
    "BUG: unable to handle kernel paging request[ in {function}]",
    Wording(
        rf"Oops: (?:Oops: )?(?P<error_code>[0-9a-f]{{4}}) {_NUMBER}",
        "Oops: 0002 [#1] SMP PTI",
        "arch/x86/kernel/dumpstack.c, __die(): a page fault whose first line is lost",
    ),
    Wording(
        rf"Internal error: Oops: (?P<esr>[0-9a-f]{{8,16}}) {_NUMBER}",
        "Internal error: Oops: 0000000096000006 [#1] SMP",
        "arch/arm64/kernel/traps.c, die(): its first line is lost",
    ),
    Wording(
        rf"Internal error: Oops: (?P<fsr>[0-9a-f]{{1,3}}) {_NUMBER}",
        "Internal error: Oops: 805 [#1] SMP ARM",
        "arch/arm/kernel/traps.c, die(): its first line is lost",
    ),
    Wording(
        r"kernel tried to execute NX-protected page|unable to execute userspace code",
        "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
        f"{_FAULT}, above the first line",
        states=_EXECUTE,
    ),
    general=True,
    accesses=True,
)
_GPF = _oops(
    "gpf",
    "general protection fault[ in {function}]",
    Wording(
        rf"{_OOPSED}general protection fault,? ?(?P<hint>(?:probably )?for non-canonical address|maybe for address)"
        rf" {_ADDRESS}",
        "general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1] PREEMPT SMP KASAN",
        f"{_TRAPS}, exc_general_protection(): 5.6 and later",
    ),
    Wording(
        rf"{_OOPSED}(?:segment-related )?general protection(?: fault)?(?:,|:) ",
        "general protection fault: 0000 [#1] SMP",
        _TRAPS,
    ),
    Wording(
        rf"{_OOPSED}stack segment(?: fault)?: [0-9a-f]{{4}} {_NUMBER}",
        "stack segment: 0000 [#1] SMP",
        f"{_TRAPS}, exc_stack_segment()",
        title="stack segment fault[ in {function}]",
    ),
)
_INVALID_OPCODE = _oops(
    "invalid-opcode",
    "invalid opcode[ in {function}]",
    Wording(
        rf"{_OOPSED}invalid opcode: [0-9a-f]{{4}} {_NUMBER}",
        "invalid opcode: 0000 [#1] SMP",
        f"{_TRAPS}, exc_invalid_op()",
    ),
    Wording(
        r"Internal error: (?:Oops - )?[Uu]ndefined instruction: [0-9a-f]",
        "Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP",
        "arch/arm64/kernel/traps.c, do_el1_undef(); arch/arm/kernel/traps.c, do_undefinstr()",
    ),
    general=True,
)
_BUG = _oops(
    "bug",
    "kernel BUG[ in {function}]",
    Wording(
        r"kernel BUG at (?P<file>[^\s!:]{1,200}):(?P<source_line>\d{1,7})!?",
        "kernel BUG at fs/ext4/inode.c:2721!",
        "lib/bug.c, report_bug()",
    ),
    Wording(
        r"[Kk]ernel BUG (?:at [0-9a-f]{8,16} )?\[verbose debug info unavailable\]",
        "kernel BUG at 0000000000000012 [verbose debug info unavailable]",
        "lib/bug.c, report_bug()",
    ),
    Wording(
        r"BUG: failure at (?P<file>[^\s!:]{1,200}):(?P<source_line>\d{1,7})/(?P<symbol>\w{1,200})\(\)!",
        "BUG: failure at mm/slab.c:12/kmem_cache_free()!",
        "include/asm-generic/bug.h, BUG()",
    ),
    Wording(
        r"Internal error: Oops - BUG: [0-9a-f]",
        "Internal error: Oops - BUG: 00000000f2000800 [#1] SMP",
        "arch/arm64/kernel/traps.c, bug_brk_handler()",
    ),
    general=True,
)
_DIVIDE = _oops(
    "divide",
    "divide error[ in {function}]",
    Wording(
        rf"{_OOPSED}divide[ _]error: [0-9a-f]{{4}} {_NUMBER}",
        "divide error: 0000 [#1] SMP",
        f"{_TRAPS}, exc_divide_error()",
    ),
    Wording(r"Division by zero in kernel\.", "Division by zero in kernel.", "arch/arm/kernel/traps.c, __div0()"),
)
_DOUBLE_FAULT = _oops(
    "double-fault",
    "double fault[ in {function}]",
    Wording(
        r"(?:traps: )?PANIC: double fault(?:,|:) (?:gs_base|error_code)",
        "traps: PANIC: double fault, error_code: 0x0",
        f"{_TRAPS}, exc_double_fault()",
        title="PANIC: double fault[ in {function}]",
    ),
    Wording(rf"{_OOPSED}double fault: [0-9a-f]{{4}} {_NUMBER}", "double fault: 0000 [#1] SMP", _TRAPS),
)
_DOUBLE_FAULTED = Wording(
    rf"{_OOPSED}kernel stack overflow \((?:double-fault|page fault)\): [0-9a-f]{{4}} {_NUMBER}",
    "kernel stack overflow (double-fault): 0000 [#1] SMP",
    f"{_TRAPS}, handle_stack_overflow(), its first line lost",
    title="kernel stack overflow[ in {function}]",
)
_STACK_OVERFLOW = _oops(
    "stack-overflow",
    "BUG: stack guard page was hit[ in {function}]",
    Wording(
        rf"BUG: (?:(?P<stack>[A-Z#0-9]{{2,20}}) )?stack guard page was hit at (?:{_ADDRESS}|\()",
        "BUG: stack guard page was hit at 00000000d38d0adc (stack is 00000000ad8df8f5..00000000e1bbd4f3)",
        f"{_TRAPS}, handle_stack_overflow(); with the stack's name in 5.17 and later",
    ),
    _DOUBLE_FAULTED,
    Wording(
        r"Insufficient stack space to handle exception!",
        "Insufficient stack space to handle exception!",
        "arch/arm64/kernel/traps.c, panic_bad_stack(); arch/riscv, handle_bad_stack()",
        title="kernel stack overflow[ in {function}]",
    ),
    Wording(
        r"Kernel panic - not syncing: (?P<panic>kernel stack overflow)",
        "Kernel panic - not syncing: kernel stack overflow",
        "arch/arm64/kernel/traps.c, panic_bad_stack(), its first line lost",
        title="kernel stack overflow[ in {function}]",
    ),
    details=(_DOUBLE_FAULTED, *_ACCESS),
)
_STACK_CORRUPTION = EventKind(
    "stack-corruption",
    "kernel panic: stack is corrupted[ in {function}]",
    (
        Wording(
            rf"Kernel panic - not syncing: (?P<panic>stack-protector: Kernel stack is corrupted in: "
            rf"(?:{SYMBOL_AND_MODULE}|[0-9a-f]{{8,16}})?)",
            "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: schedule+0x4/0xc7",
            "kernel/panic.c, __stack_chk_fail()",
        ),
        Wording(
            r"Kernel panic - not syncing: (?P<panic>corrupted stack end detected inside scheduler)",
            "Kernel panic - not syncing: corrupted stack end detected inside scheduler",
            "kernel/sched/core.c, schedule_debug()",
            title="kernel panic: corrupted stack end[ in {function}]",
        ),
        Wording(
            r"Thread overran stack, or stack corrupted",
            "Thread overran stack, or stack corrupted",
            f"{_FAULT}, before 4.9",
            title="kernel panic: stack is corrupted[ in {function}]",
        ),
    ),
    passed_over=(
        r"(?:__)?schedule(?:_.*)?|preempt_schedule.*|schedule_debug|_?_?_?preempt_schedule.*|_?_?cond_resched|retint_kernel",
    ),
)
_WARNING = EventKind(
    "warning",
    "WARNING[ in {function}]",
    (
        Wording(
            rf"WARNING: CPU: (?P<cpu>\d{{1,5}}) PID: (?P<pid>\d{{1,10}}) at (?:(?P<place>{PLACE})\s+)?"
            rf"(?:{SYMBOL_AND_MODULE})?",
            "WARNING: CPU: 0 PID: 1 at kernel/fork.c:12 copy_process+0x4/0xc7 [ext4]",
            "kernel/panic.c, __warn(), 3.13 to 6.18",
        ),
        Wording(
            rf"WARNING: (?:\[(?P<condition>[^\n]{{1,200}}?)\] )?(?:(?P<place>{PLACE}) )?at "
            rf"(?:{SYMBOL_AND_MODULE}|0x[0-9a-f]{{1,16}}), CPU#(?P<cpu>\d{{1,5}}): "
            rf"(?P<comm>[^\n]{{1,64}})/(?P<pid>\d{{1,10}})",
            "WARNING: kernel/fork.c:12 at copy_process+0x4/0xc7, CPU#0: sh/215",
            "kernel/panic.c, __warn(): 6.19 and later",
        ),
        Wording(
            rf"WARNING: at (?P<place>{PLACE})\s+{SYMBOL}(?:{MODULE})?",
            "WARNING: at kernel/fork.c:12 copy_process+0x4/0xc7()",
            "kernel/panic.c, warn_slowpath_common() before 3.13",
        ),
    ),
    ends=_ENDS,
    general=True,
)
_PANIC = EventKind(
    "panic",
    "kernel panic: {panic}",
    (
        Wording(
            r"Kernel panic - not syncing: (?P<panic>(?P<reason>Attempted to kill (?:init|the idle task)!)[^\n]{0,80})",
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
            "kernel/exit.c, do_exit()",
            title="kernel panic: {reason}",
        ),
        Wording(
            r"(?:Kernel panic - not syncing|kernel panic): (?P<panic>(?P<reason>[^\n]{1,400}?)(?: ?\.\.\.)?)\s*$",
            PANIC.example,
            PANIC.source,
            title="kernel panic: {reason}",
        ),
        PANIC,
    ),
    general=True,
)
_TRAP = _oops(
    "other",
    "{trap}[ in {function}]",
    Wording(
        rf"{_OOPSED}(?P<trap>int3|overflow|bounds|alignment check|invalid TSS|segment not present|SIMD exception"
        rf"|coprocessor [\w ]{{1,30}}|simd exception|control protection[\w -]{{0,30}}|iret exception|debug): "
        rf"[0-9a-f]{{4}} {_NUMBER}",
        "int3: 0000 [#1] SMP",
        f"{_TRAPS}, do_trap()",
    ),
    Wording(
        r"Internal error: (?P<trap>(?:Oops - )?[\w ()/,-]{0,80}): [0-9a-f]{1,16} \[#",
        "Internal error: synchronous external abort: 0000000096000210 [#1] SMP",
        "arch/arm64/kernel/traps.c, die()",
        title="Internal error[ in {function}]",
    ),
    Wording(
        rf"(?P<trap>unchecked MSR access error): .{{1,120}}?\({SYMBOL_AND_MODULE}\)",
        "unchecked MSR access error: WRMSR to 0x122 (tried to write 0x3) at rIP: 0xffffffff8106a2f4 "
        "(write_msr+0x4/0x20)",
        "arch/x86/mm/extable.c, ex_handler_msr()",
    ),
    Wording(
        rf"(?P<trap>CFI failure) at {SYMBOL_AND_MODULE}",
        "CFI failure at call_it+0x1c/0x40 (target: not_this+0x0/0x10; expected type: 0xa540670c)",
        "kernel/cfi.c, report_cfi_failure()",
    ),
    general=True,
)
KINDS = (
    _NULL_DEREF,
    _PAGE_FAULT,
    _GPF,
    _DIVIDE,
    _DOUBLE_FAULT,
    _STACK_OVERFLOW,
    _STACK_CORRUPTION,
    _OOPS_ALONE,
    _BUG,
    _INVALID_OPCODE,
    _WARNING,
    _PANIC,
    _TRAP,
)
