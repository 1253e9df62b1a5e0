"""The forms in which logs have an address or a symbol: one row a form, with an example and its source.

A line is read from left to right: what a log's carriers put before it (PREFIXES), what says which register or frame it
is (BEFORE), the address or symbol itself (`CORE`), and what follows that (AFTER). The files named are the kernel's.
Each pattern is tried at one position and has no more than bounded repetitions, so that a line takes linear time.
"""

from __future__ import annotations

from kplug.named_tuples import NamedTuple


class Form(NamedTuple):
    """A form, by an example of it, its pattern, and who writes it.

    Its named groups are what the line states: `symbol`, `offset`, `size`, `module`, `address`; `program` is that of a
    user's frame, `module_file` the path of a module. `alone`: enough to know a line of a log by; a host's
    expression may begin or end like the others.
    """

    example: str
    pattern: str
    source: str
    alone: bool = True


HEX = r"(?:0x)?(?:[0-9a-fA-F]{16}|[0-9a-fA-F]{8})"
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_WORD = r"[^\W\d_]{1,12}\.?"  # of a day or month, in the language of whoever ran the tool
NAME = r"[A-Za-z_.][\w.$]*"
_NUMBER = r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}"
_IN_FILE = r"'?[\w.+-]{1,255}\.[A-Za-z]{1,4}'?::?"
# A file of the source and its line, as decode_stacktrace.sh and syzkaller write them.
PLACE = r"[^\s:()\[\]]{1,4096}\.[A-Za-z]{1,4}:\d{1,7}(?::\d{1,7})?"
_LEVELS = "emerg|alert|crit|err|warn|notice|info|debug"
_FACILITIES = "kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|res\\d{1,2}|local\\d"

# A symbol as %pS prints it, and the module that follows.
# Before 2.6.24 the module stood before the symbol.
_IN_MODULE = r"(?::(?P<module_before>[A-Za-z_][\w.-]{0,63}):)?"
SYMBOL = rf"{_IN_MODULE}(?P<symbol>(?:{_IN_FILE})?{NAME})\+(?P<offset>{_NUMBER})/(?P<size>{_NUMBER})(?![\w.$+/])"
MODULE = r"\s+\[(?P<module>[A-Za-z_][\w.-]{0,63})(?:\s+(?P<build_id>[0-9a-f]{8,64}))?\](?![^\s,;:)])"
# The same in a text, where decode_stacktrace.sh may have put a place for the offset.
SYMBOL_AND_MODULE = (
    rf"{_IN_MODULE}(?P<symbol>(?:{_IN_FILE})?{NAME})"
    rf"(?:\+(?P<offset>{_NUMBER})/(?P<size>{_NUMBER})(?![\w.$+/])|(?=\s\({PLACE}))"
    rf"(?:{MODULE})?"
)


def as_number(text: str | None) -> int | None:
    """An offset or a size, as a line states it."""
    if text is None:
        return None
    return int(text, 16) if text[:2] in ("0x", "0X") else int(text)


# What a carrier states is in the groups `time`, `caller` (T and a PID, or C and a CPU), `cpu` and `level`.
PREFIXES = (
    Form("> ", r"(?:[>|][ \t]?)+", "quoted mail", alone=False),
    Form("\x1b[33m", r"\x1b\[[0-9;]{0,20}m", "colours of dmesg and of terminals", alone=False),
    Form("[   12.345678] ", r"\[\s{0,12}(?P<time>\d{1,10}\.\d{1,9})\]", "kernel/printk/printk.c, print_time()"),
    Form(
        "[   12.345678,0] ",
        r"\[\s{0,12}(?P<time>\d{1,10}\.\d{1,9})(?:,(?P<cpu>\d{1,4})(?=\])|[\s,@|/<][^\]\[]{1,40})\]",
        "print_time() of vendors' kernels, with a CPU or a second clock; dmesg -d",
    ),
    Form("[  T123] ", r"\[\s{0,12}(?P<caller>[TC]\d{1,10})\]", "printk.c, print_caller(): CONFIG_PRINTK_CALLER"),
    Form(
        "-(0)[123:task] ",
        r"-?\((?P<cpu>\d{1,4})\)\[(?P<caller>\d{1,10}):[^\]\[]{1,40}\]",
        "print_prefix() of MediaTek's kernels",
    ),
    Form("<4>", r"<(?P<level>\d{1,3})>(?:1 )?", "printk.c, print_syslog(): /proc/kmsg, pstore, netconsole; RFC 5424"),
    Form(
        "[Mon Nov 30 12:00:00 2026] ",
        rf"\[(?P<time>{_WORD} {_WORD}\s{{1,2}}\d{{1,2}} {_CLOCK} \d{{4}})\]",
        "dmesg -T",
    ),
    Form("[Nov30 12:00] ", rf"\[{_WORD}\s?\d{{1,2}} \d\d:\d\d\]", "dmesg -H, dmesg -e"),
    Form("[  +0.000123] ", r"\[\s{0,12}[+<]\s{0,12}\d{1,10}\.\d{1,9}>?\]", "dmesg -H, dmesg -d"),
    Form(
        "2026-11-30T12:00:00,123456+00:00 ",
        rf"\[?(?P<time>\d{{4}}-\d\d-\d\d[T ]{_CLOCK}\s?(?:Z|[+-]\d\d:?\d\d)?)\]?",
        "dmesg --time-format iso, journalctl -o short-iso, RFC 3339, CI systems",
    ),
    Form("[12:00:00.123] ", rf"\[?{_CLOCK}\]?(?=\s)", "programs that save a serial console"),
    Form("kern  :warn  : ", rf"(?:{_FACILITIES})\s{{0,8}}:(?P<level>{_LEVELS})\s{{0,8}}:", "dmesg -x"),
    Form(
        "6,416,1799682,-;",
        r"(?P<level>\d{1,4}),\d{1,20},\d{1,20},[^;,\s]{1,20}(?:,caller=(?P<caller>[TC]\d{1,10}))?[^;\s]{0,200};",
        "printk.c, /dev/kmsg; netconsole's extended form",
    ),
    Form(
        "Nov 30 12:00:00 host kernel: ",
        rf"{_WORD}\s{{1,2}}\d{{1,2}}\s(?:\d{{4}}\s)?{_CLOCK}(?=\s)(?:\s[^\s:]{{1,255}})?"
        r"(?:\s(?:kernel|[\w.-]{1,64}\[\d{1,10}\]):)?",
        "syslog (RFC 3164), journalctl",
    ),
    Form("host kernel: ", r"(?:[\w.:-]{1,255}\s)?kernel(?:\[\d{1,10}\])?:(?=\s|\[|<)", "syslog, journalctl"),
    Form("console.log:12:", r"[\w./+-]{1,255}\.(?:log|txt|out)(?:\.\d{1,4})?:(?:\d{1,9}[:-])?", "grep"),
    Form(
        "host login: [   12.345678] ",
        r"[^\[\n]{1,120}(?=\[\s{0,12}\d{1,10}\.\d{6}\])",
        "what a program wrote to a serial console before the kernel did, without an end of line",
        alone=False,
    ),
)

CORE = (
    Form(
        "schedule+0x4/0xc7",
        rf"(?:&\s{{0,8}})?{SYMBOL}",
        "kernel/kallsyms.c, __sprint_symbol(): %pS, %pB",
    ),
    Form(
        "schedule+22",
        rf"(?P<symbol>(?:{_IN_FILE})?{NAME})\+(?P<offset>{_NUMBER})(?![\w.$+/])",
        "crash, bpftrace, perf; %ps of old kernels",
        alone=False,
    ),
    Form(
        "0xffffffff81a114f4",
        rf"(?P<address>0x[0-9a-fA-F]{{1,16}}|{HEX})(?![\w.$+])",
        "sprint_symbol() of an address without symbol",
        alone=False,
    ),
    Form(
        "schedule",
        rf"(?P<symbol>(?:{_IN_FILE})?{NAME})(?![\w.$+/:@=\"'*-])",
        "%ps; ftrace without the sym-offset option",
        alone=False,
    ),
    Form("[<c0123456>]", rf"\[<(?P<address>{HEX})>\]", "show_regs() of most kernels before 4.11", alone=False),
    Form("[unknown]", r"\[unknown\]", "perf script", alone=False),
)

BEFORE = (
    Form("? ", r"\?\s+", "arch/x86/kernel/dumpstack.c, printk_stack_address(): not certain to be a frame"),
    Form("~ [<ffffffff81a114f4>] ", r"[~!]\s+(?=\[|\w+\+)", "out-of-tree unwinders", alone=False),
    Form(
        "RIP: 0010:",
        r"[RE]?IP\s*:\s*(?:[0-9a-fA-F]{4}:)?\s*",
        "arch/x86/kernel/dumpstack.c, show_ip(); IP: and EIP: before 4.11",
    ),
    Form("RIP  [<ffffffff81a114f4>] ", r"[RE]IP\s+(?=\[)", "arch/x86/kernel/dumpstack.c, __die() before 4.11"),
    Form("EIP is at ", r"(?:EIP|PC|LR)\s+is\s+at\s+", "arch/x86/kernel/process_32.c, arch/arm/kernel/process.c"),
    Form("pc : ", r"(?:pc|lr)\s*:\s*", "arch/arm64/kernel/process.c, __show_regs(); arch/arm too"),
    Form("epc : ", r"(?:epc|ra)\s*:\s*", "arch/riscv and arch/mips, show_regs()"),
    Form("ra: ", r"(?:era|ERA|ra|pc)\s*:\s*", "arch/loongarch/kernel/process.c, show_regs()"),
    Form("NIP [c0000000009b8c34] ", r"(?:NIP|LR)\s+(?=\[)", "arch/powerpc/kernel/process.c, show_regs()"),
    Form(
        "Krnl PSW : 0704d00180000000 ",
        r"(?:Krnl|User) PSW : [0-9a-f]{16}\s+(?=[0-9a-f]{16})",
        "arch/s390/kernel/dumpstack.c, show_registers()",
    ),
    Form("=> ", r"=>\s*", "kernel/trace/trace_output.c, trace_stack_print()"),
    Form("#3 [ffffc90000013e08] ", r"#\d{1,4}\s+\[[0-9a-f]{8,16}\]\s+", "crash's bt, with the stack pointer"),
    Form(
        "[c000000003b7b9a0] [c0000000009b8c34] ",
        rf"\[{HEX}\]\s+(?=\[{HEX}\])",
        "arch/powerpc/kernel/process.c, show_stack(): the stack pointer first",
    ),
    Form("#3 ", r"#\d{1,4}:?\s+", "frames of crash, gdb and drgn; kernel/locking/lockdep.c"),
    Form(
        "(&mm->mmap_lock){++++}-{4:4}, at: ",
        r"(?:[0-9a-f]{8,16}\s+)?\([^\n]{1,200}?\)\s{0,4}\{[^}]{1,20}\}(?:-\{\d{1,3}:\d{1,3}\})?,?\s+at:\s+",
        "kernel/locking/lockdep.c, print_lock()",
    ),
    Form(
        "{....}, at: ",
        r"(?:\{[^}]{1,20}\}(?:-\{\d{1,3}:\d{1,3}\})?,?\s+)?at:?\s+",
        "lockdep.c, print_usage_bug() and others",
    ),
    Form(
        "hardirqs last  enabled at (1234): ",
        r"(?:hard|soft)irqs last\s{1,2}(?:en|dis)abled at \(\d{1,20}\):\s+",
        "kernel/locking/lockdep.c, print_irqtrace_events()",
    ),
    Form("[exception RIP: ", r"\[exception [RE]IP:\s+", "crash's bt"),
    Form(
        "[<c0101234>] (unwind_backtrace) from ",
        rf"(?:\[<{HEX}>\]\s+)?\(?{NAME}(?:\+0x[0-9a-f]{{1,16}}/0x[0-9a-f]{{1,16}})?\)?"
        r"\s+from\s+(?=\(?[\w.$]{1,512}\+|\[<)",
        "arch/arm/kernel/traps.c, dump_backtrace_entry(): the frame, and where it was called",
    ),
    Form(
        "[ffff80201c7800+  32]",
        r"\[[0-9a-fA-F]{8,16}\+\s{0,4}\d{1,6}\](?=\[)",
        "dump_backtrace() of Qualcomm's and Amlogic's kernels",
    ),
    Form(
        "[<ffffffff81a114f4>] ",
        rf"\(?\[<\s?(?P<address>{HEX}|0)>\]\s*\(?",
        "show_stack() of most kernels before 4.11; s390, arm, mips",
    ),
    Form("[c0000000009b8c34] ", rf"\(?\[(?P<address>{HEX})\]\s+", "arch/powerpc and arch/sparc, show_stack()"),
    Form("<ffffffff8010f8b0>{", rf"<(?P<address>{HEX})>\{{", "arch/x86_64/kernel/traps.c of 2.6"),
    Form(
        "ffffffff81a114f4 ",
        rf"(?P<address>{HEX})\s+(?:in\s+)?\(?(?=[A-Za-z_.$\[])",
        "perf script, gdb; arch/mips and arch/s390",
        alone=False,
    ),
    Form("7f3c2b114f4 ", r"[0-9a-f]{5,16}\s+(?=\S{1,512}\s\()", "perf script: a program's frame", alone=False),
    Form(
        "WARNING: CPU: 0 PID: 1 at kernel/fork.c:12 ",
        rf"WARNING:(?: CPU: \d{{1,5}} PID: \d{{1,10}})? at {PLACE},?\s+",
        "kernel/panic.c, __warn()",
    ),
    Form(
        "BUG: KASAN: slab-use-after-free in ",
        r"(?:BUG: )?(?:KASAN|KFENCE|KMSAN|KCSAN): [\w -]{1,80} in\s+",
        "mm/kasan/report.c, mm/kfence/report.c, kernel/kcsan/report.c",
    ),
    Form("Workqueue: events ", r"Workqueue: \S{1,200}\s+", "kernel/workqueue.c, print_worker_info()"),
    Form("calling  ", r"(?:calling|initcall)\s{1,2}", "init/main.c, trace_initcall_start()", alone=False),
)

AFTER = (
    Form(" [inline]", r"\s+\[(?P<placeless>inline)\]", "syzkaller's reports: no code of its own"),
    Form(
        " [ext4]",
        MODULE,
        "kernel/kallsyms.c, __sprint_symbol(); %pSb adds the build ID",
    ),
    Form(" (unreliable)", r"\s+\(unreliable\)", "arch/powerpc/kernel/process.c, show_stack()"),
    Form(
        " (P)",
        r"\s+\([A-Z]{1,8}\)",
        "arch/arm64/kernel/stacktrace.c, dump_backtrace_entry(): how the frame was found",
        alone=False,
    ),
    Form(" at ffffffff81a114f4", rf"\s+at\s+(?P<address>{HEX})(?!\S)", "crash's bt"),
    Form(
        " <ffffffff81a114f4>", rf"\s+[<(](?P<address>{HEX})[>)]", "trace-cmd; trace_output.c with the sym-addr option"
    ),
    Form(
        " ([kernel.kallsyms])",
        r"\s+\((?:\[(?:guest\.)?kernel[\w.]{0,20}\][\w.]{0,20}|/\S{1,4000}vmlinux\S{0,200})\)",
        "perf script",
    ),
    Form(" ([ext4])", r"\s+\(\[(?P<module>[A-Za-z_][\w.-]{0,63})\]\)", "perf script"),
    Form(" (/lib/modules/6.1/ext4.ko.xz)", r"\s+\((?P<module_file>/\S{1,4000}\.ko(?:\.[a-z]{1,5})?)\)", "perf script"),
    Form(" (bpf_prog_6deef7357e7b4530_f)", r"\s+\(bpf_(?:prog|trampoline|dispatcher)_\w{1,200}\)", "perf script"),
    Form(
        " (/usr/bin/cat)",
        r"\s+\((?P<program>/[^\s)]{1,4000}|\[vdso\]|\[unknown\]|\[stack\])\)",
        "perf script: a program's frame",
    ),
    Form(" (inlined)", r"\s+\((?P<placeless>inlined)\)", "perf script"),
    Form(" kernel/sched/core.c:6654", rf"\s+(?P<place>{PLACE})(?!\S)", "syzkaller's reports, faddr2line"),
    Form(
        " (kernel/sched/core.c:6654)",
        rf"\s+\((?P<place>{PLACE})[^\n]{{0,400}}\)",
        "scripts/decode_stacktrace.sh, drgn",
    ),
    Form(" (discriminator 3)", r"\s+\(discriminator \d{1,6}\)", "addr2line"),
    Form(" () at kernel/sched/core.c:6654", rf"\s*\([^\n]{{0,2000}}?\)\s+at\s+(?P<place>{PLACE})", "gdb's bt"),
    Form(" () from vmlinux", r"\s+\([^\n]{0,2000}?\)(?:\s+from\s+\S{1,400})?", "gdb's bt", alone=False),
    Form("}", r"\}|\)|\]", "what closes the forms before it", alone=False),
    Form(
        " returned 0 after 12 usecs",
        r"\s+returned -?\d{1,10} after \d{1,20} usecs",
        "init/main.c, trace_initcall_finish()",
    ),
    Form(" @ 1", r"\s+@ \d{1,10}", "init/main.c, trace_initcall_start()", alone=False),
    Form(" EFLAGS: 00010246 CPU: 0", r"\s+EFLAGS: [0-9a-f]{8,16}(?:\s+CPU: \d{1,5})?", "arch/x86, show_regs()"),
    Form("\x1b[0m", r"\x1b\[[0-9;]{0,20}m", "colours", alone=False),
    Form(",", r"[,;:.!]", "punctuation", alone=False),
    Form("\r", r"\s+", "blanks", alone=False),
)

# How messages begin that have an address in their text.
TITLES = (
    Form(
        "BUG: unable to handle page fault for address: ", r"BUG: ", "arch/x86/mm/fault.c, show_fault_oops(), and others"
    ),
    Form(
        "Unable to handle kernel paging request at ",
        r"Unable to handle kernel ",
        "arch/arm64/mm/fault.c, die_kernel_fault()",
    ),
    Form("general protection fault, ", r"general protection fault", "arch/x86/kernel/traps.c"),
    Form("kernel BUG at ", r"kernel BUG at ", "lib/bug.c, report_bug()"),
    Form("WARNING: ", r"WARNING: ", "kernel/panic.c, __warn()"),
    Form("Kernel panic - not syncing: ", r"Kernel panic - not syncing: ", "kernel/panic.c, panic()"),
    Form("Internal error: Oops: ", r"Internal error: ", "arch/arm64/kernel/traps.c, die()"),
    Form("Write of size 8 at addr ", r"(?:Read|Write) of size ", "mm/kasan/report.c"),
    Form("Modules linked in: ", r"Modules linked in:", "kernel/module/main.c, print_modules()"),
    Form("Code: ", r"Code: ", "arch/x86/kernel/dumpstack.c, show_opcodes()"),
    Form(
        "CPU: 0 PID: 1 Comm: init ",
        r"CPU: \d{1,5} (?:UID: \d{1,10} )?PID: \d",
        "lib/dump_stack.c, dump_stack_print_info()",
    ),
    Form("Call Trace:", r"Call [Tt]race:", "show_stack()"),
)

# Lines of registers begin with one of these.
REGISTERS = (
    Form(
        "RSP: 0018:ffffc90000013e08 EFLAGS: 00010246",
        r"(?:R[0-9A-Z]{2}|E[A-Z]{2}|CR2|DR\d|[FG]S|status|NIP|CTR|ORIG_RAX|epc|[a-z]{1,2}\d{0,2})"
        r"\s{0,4}:\s{0,4}(?:[0-9a-fA-F]{4}:)?(?:\[<)?[0-9a-fA-F]{8}",
        "show_regs() of each architecture",
    ),
    Form(
        "CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033",
        r"CS:\s{1,2}[0-9a-f]{4} DS: [0-9a-f]{4} ",
        "arch/x86/kernel/process_64.c, __show_regs()",
    ),
)

# Inside a text: what the forms above do not know.
IN_TEXT = (
    rf"(?<![\w.$])(?P<symbol>{NAME})\+(?P<offset>0x[0-9a-fA-F]{{1,16}})/(?P<size>0x[0-9a-fA-F]{{1,16}})(?![\w.$+/])"
    r"(?:\s{1,8}\[(?P<module>[A-Za-z_][\w.-]{0,63})(?:\s(?P<build_id>[0-9a-f]{8,64}))?\])?"
)
# Neither the ID of an oops (kernel/panic.c, print_oops_end_marker()) nor a task's flags (kernel/sched/core.c).
ADDRESS_IN_TEXT = rf"(?<![\w.$+])(?<!end trace )(?<!flags:)(?P<address>{HEX})(?![\w.$+])"
# A register and its value, after that of its segment.
REGISTER = (
    r"(?<![\w.$])(?P<register>[A-Za-z]\w{1,6}|[A-Za-z])\s{0,4}:\s{0,4}(?:[0-9a-fA-F]{4}:)?(?:\[<)?"
    r"(?P<address>[0-9a-fA-F]{16}|[0-9a-fA-F]{8})(?![\w.$+])"
)
# What is printed as registers are, and holds no address of the kernel's.
NO_ADDRESSES = frozenset(
    (
        *("EFLAGS", "RFLAGS", "pstate", "psr", "PSR", "MSR", "CR", "XER", "CPU", "PID", "status", "cause"),
        *("CS", "DS", "ES", "SS", "CR0", "CR3", "CR4", "CR8", "DR0", "DR1", "DR2", "DR3", "DR6", "DR7"),
    )
)
