"""Exceptions of the CPU: page faults and others, as they end in an oops."""

from __future__ import annotations

from kplug.log.event_kinds._oopses import (
    ACCESS,
    ADDRESS,
    ARM64,
    EXECUTE,
    FAULT,
    NUMBER,
    OOPSED,
    PROGRAM_CHECK,
    RISCV,
    S390_TRAPS,
    TRAPS,
    WRITE,
    oops,
)
from kplug.log.forms import SYMBOL_AND_MODULE
from kplug.log.kinds import EventKind, Wording

_NULL_DEREF = oops(
    "null-deref",
    "BUG: unable to handle kernel NULL pointer dereference[ in {function}]",
    "{who} {did} {target}[ in {function}].",
    Wording(
        rf"BUG: kernel NULL pointer dereference(?:, address: {ADDRESS})?",
        "BUG: kernel NULL pointer dereference, address: 0000000000000018",
        f"{FAULT}, 5.1 and later",
    ),
    Wording(
        r"BUG: unable to handle kernel NULL pointer dereference at {1,16}\(null\)",
        "BUG: unable to handle kernel NULL pointer dereference at           (null)",
        f"{FAULT}, before 4.15: %p of 0",
        states=(("address", "0"),),
    ),
    Wording(
        rf"(?:BUG: |CPU \d{{1,5}} )?[Uu]nable to handle kernel NULL pointer dereference(?: at)?(?: virtual address)?"
        rf"(?: {ADDRESS})?(?: when (?P<access>read|write|execute))?",
        "BUG: unable to handle kernel NULL pointer dereference at 0000000000000018",
        f"{FAULT}, before 5.1; {ARM64}; arch/arm/mm/fault.c; arch/riscv/mm/fault.c",
    ),
    accesses=True,
)
_PAGE_FAULT = oops(
    "page-fault",
    "BUG: unable to handle kernel paging request[ in {function}]",
    "{who} faulted[ in {function}] as it {did} {target}.",
    Wording(
        rf"BUG: unable to handle page fault(?: for address: {ADDRESS})?",
        "BUG: unable to handle page fault for address: ffffc90000a00000",
        f"{FAULT}, 5.1 and later",
    ),
    Wording(
        rf"(?:BUG: |CPU \d{{1,5}} )?[Uu]nable to handle kernel paging request at(?: virtual address)?(?: {ADDRESS})?"
        r"(?: when (?P<access>read|write|execute))?",
        "Unable to handle kernel paging request at virtual address ffff800080000000",
        f"{FAULT}, before 5.1; {ARM64}",
    ),
    Wording(
        rf"Unable to handle kernel access to user memory (?:without|outside|with) [\w= -]{{2,40}}? at"
        rf" virtual address {ADDRESS}",
        "Unable to handle kernel access to user memory outside uaccess routines at virtual address 0000000020000000",
        f"{ARM64}; arch/riscv/mm/fault.c",
        title="BUG: unable to handle kernel access to user memory[ in {function}]",
    ),
    Wording(
        rf"Unable to handle kernel write to read-only memory at virtual address {ADDRESS}",
        "Unable to handle kernel write to read-only memory at virtual address ffff800080000000",
        ARM64,
        states=WRITE,
    ),
    Wording(
        rf"Unable to handle kernel execut(?:e from|ion of) (?:non-executable|user|unaligned) memory at virtual"
        rf" address {ADDRESS}",
        "Unable to handle kernel execute from non-executable memory at virtual address ffff800080000000",
        ARM64,
        states=EXECUTE,
    ),
    Wording(
        rf"Unhandled (?:prefetch abort|fault): [\w ,()/-]{{1,80}} \(0x(?P<fsr>[0-9a-f]{{1,8}})\) at {ADDRESS}",
        "Unhandled fault: page domain fault (0x81b) at 0x00000e30",
        "arch/arm/mm/fault.c, do_DataAbort(); arch/arm64/mm/fault.c before 4.20",
        title="Unhandled fault[ in {function}]",
    ),
    Wording(
        rf"Unable to handle kernel [\w -]{{1,60}} at virtual address {ADDRESS}",
        "Unable to handle kernel read from unreadable memory at virtual address ffff800080000000",
        ARM64,
    ),
    accesses=True,
)
_OOPS_ALONE = oops(
    "page-fault",
    "BUG: unable to handle kernel paging request[ in {function}]",
    "{who} faulted[ in {function}] as it {did} {target}.",
    Wording(
        rf"Oops: (?:Oops: )?(?P<error_code>[0-9a-f]{{4}}) {NUMBER}",
        "Oops: 0002 [#1] SMP PTI",
        "arch/x86/kernel/dumpstack.c, __die(): a page fault whose first line is lost",
    ),
    Wording(
        rf"Internal error: Oops: (?P<esr>[0-9a-f]{{8,16}}) {NUMBER}",
        "Internal error: Oops: 0000000096000006 [#1] SMP",
        "arch/arm64/kernel/traps.c, die(): its first line is lost",
    ),
    Wording(
        rf"Internal error: Oops: (?P<fsr>[0-9a-f]{{1,3}}) {NUMBER}",
        "Internal error: Oops: 805 [#1] SMP ARM",
        "arch/arm/kernel/traps.c, die(): its first line is lost",
    ),
    Wording(
        r"kernel tried to execute NX-protected page|unable to execute userspace code",
        "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
        f"{FAULT}, above the first line",
        states=EXECUTE,
    ),
    general=True,
    accesses=True,
    incomplete=True,
)
_GPF = oops(
    "gpf",
    "general protection fault[ in {function}]",
    "{who} took a general protection fault[ in {function}][, {hint} {target}][; KASAN says {kasan} from {near} on].",
    Wording(
        rf"{OOPSED}general protection fault,? ?(?P<hint>(?:probably )?for non-canonical address|maybe for address)"
        rf" {ADDRESS}",
        "general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1] PREEMPT SMP KASAN",
        f"{TRAPS}, exc_general_protection(): 5.6 and later",
    ),
    Wording(
        rf"{OOPSED}(?:segment-related )?general protection(?: fault)?(?:,|:) ",
        "general protection fault: 0000 [#1] SMP",
        TRAPS,
    ),
    Wording(
        rf"{OOPSED}stack segment(?: fault)?: [0-9a-f]{{4}} {NUMBER}",
        "stack segment: 0000 [#1] SMP",
        f"{TRAPS}, exc_stack_segment()",
        title="stack segment fault[ in {function}]",
        sentence="{who} took a stack segment fault[ in {function}].",
    ),
)
_INVALID_OPCODE = oops(
    "invalid-opcode",
    "invalid opcode[ in {function}]",
    "{who} ran an invalid instruction[ in {function}].",
    Wording(
        rf"{OOPSED}invalid (?:opcode|operand): [0-9a-f]{{4}} {NUMBER}",
        "invalid opcode: 0000 [#1] SMP",
        f"{TRAPS}, exc_invalid_op()",
    ),
    Wording(
        r"Internal error: (?:Oops - )?[Uu]ndefined instruction: [0-9a-f]",
        "Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP",
        "arch/arm64/kernel/traps.c, do_el1_undef(); arch/arm/kernel/traps.c, do_undefinstr()",
    ),
    Wording(r"Oops - illegal instruction \[#", "Oops - illegal instruction [#1]", f"{RISCV}: do_trap_insn_illegal()"),
    Wording(rf"illegal operation: {PROGRAM_CHECK}", "illegal operation: 0001 ilc:1 [#1] SMP", S390_TRAPS),
    general=True,
)
_DIVIDE = oops(
    "divide",
    "divide error[ in {function}]",
    "{who} took a divide error[ in {function}]: a division by zero, or a result that is too large.",
    Wording(
        rf"{OOPSED}divide[ _]error: [0-9a-f]{{4}} {NUMBER}",
        "divide error: 0000 [#1] SMP",
        f"{TRAPS}, exc_divide_error()",
    ),
    Wording(
        r"Division by zero in kernel\.",
        "Division by zero in kernel.",
        "arch/arm/kernel/traps.c, __div0()",
        sentence="{who} divided by zero[ in {function}].",
    ),
    Wording(
        rf"fixpoint divide exception: {PROGRAM_CHECK}", "fixpoint divide exception: 0009 ilc:2 [#1] SMP", S390_TRAPS
    ),
)
_DIED_OF_IT = Wording(rf"{OOPSED}double fault: [0-9a-f]{{4}} {NUMBER}", "double fault: 0000 [#1] SMP", TRAPS)
_DOUBLE_FAULT = oops(
    "double-fault",
    "double fault[ in {function}]",
    "{who} took a double fault[ in {function}].",
    Wording(
        r"(?:traps: )?PANIC: double fault(?:,|:) (?:gs_base|error_code)",
        "traps: PANIC: double fault, error_code: 0x0",
        f"{TRAPS}, exc_double_fault()",
        title="PANIC: double fault[ in {function}]",
    ),
    _DIED_OF_IT,
    details=(_DIED_OF_IT, *ACCESS),
)
_DOUBLE_FAULTED = Wording(
    rf"{OOPSED}kernel stack overflow \((?:double-fault|page fault)\): [0-9a-f]{{4}} {NUMBER}",
    "kernel stack overflow (double-fault): 0000 [#1] SMP",
    f"{TRAPS}, handle_stack_overflow(), its first line lost",
    title="kernel stack overflow[ in {function}]",
)
_STACK_OVERFLOW = oops(
    "stack-overflow",
    "BUG: stack guard page was hit[ in {function}]",
    "{who} ran over the end of a kernel stack[ in {function}].",
    Wording(
        rf"BUG: (?:(?P<stack>[A-Z#0-9]{{2,20}}) )?stack guard page was hit at (?:{ADDRESS}|\()",
        "BUG: stack guard page was hit at 00000000d38d0adc (stack is 00000000ad8df8f5..00000000e1bbd4f3)",
        f"{TRAPS}, handle_stack_overflow(); with the stack's name in 5.17 and later",
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
    details=(_DOUBLE_FAULTED, *ACCESS),
)
_TRAP = oops(
    "other",
    "{trap}[ in {function}]",
    'The kernel reported "{trap}"[ in {function}][, {by}].',
    Wording(
        rf"{OOPSED}(?P<trap>int3|overflow|bounds|alignment check|invalid TSS|segment not present|SIMD exception"
        rf"|coprocessor [\w ]{{1,30}}|simd exception|control protection[\w -]{{0,30}}|iret exception|debug): "
        rf"[0-9a-f]{{4}} {NUMBER}",
        "int3: 0000 [#1] SMP",
        f"{TRAPS}, do_trap()",
    ),
    Wording(
        r"Internal error: (?!Oops - BUG)(?P<trap>(?:Oops - )?[\w ()/,-]{0,80}): [0-9a-f]{1,16} \[#",
        "Internal error: synchronous external abort: 0000000096000210 [#1] SMP",
        "arch/arm64/kernel/traps.c, die()",
        title="Internal error[ in {function}]",
    ),
    Wording(
        r"Oops - (?P<trap>[\w ()-]{1,60}) \[#",
        "Oops - load access fault [#1]",
        f"{RISCV}: do_trap_error()",
    ),
    Wording(
        rf"(?!monitor event)(?P<trap>[a-zA-Z][\w -]{{2,60}}): {PROGRAM_CHECK}",
        "addressing exception: 0005 ilc:3 [#1] SMP",
        S390_TRAPS,
        has=(" ilc:",),
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
_SERROR = EventKind(
    "machine-check",
    "SError Interrupt[ in {function}]",
    "{who} took an SError interrupt[ in {function}].",
    (
        Wording(
            r"SError Interrupt on CPU ?(?P<cpu>\d{1,5}), code (?P<esr>0x[0-9a-f]{8,16})",
            "SError Interrupt on CPU1, code 0x00000000bf000002 -- SError",
            "arch/arm64/kernel/traps.c, arm64_serror_panic()",
        ),
        Wording(
            r"Kernel panic - not syncing: (?P<panic>Asynchronous SError Interrupt)",
            "Kernel panic - not syncing: Asynchronous SError Interrupt",
            "arch/arm64/kernel/traps.c, arm64_serror_panic(), its first line lost",
        ),
    ),
)
KINDS = (
    _SERROR,
    _NULL_DEREF,
    _PAGE_FAULT,
    _GPF,
    _DIVIDE,
    _DOUBLE_FAULT,
    _STACK_OVERFLOW,
    _OOPS_ALONE,
    _INVALID_OPCODE,
    _TRAP,
)
