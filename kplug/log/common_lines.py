"""Lines that any report may have, whatever its kind: how it ends, what the kernel says of itself on the way down."""

from __future__ import annotations

from kplug.log.kinds import Wording

_PANIC = "kernel/panic.c"

# Above a report; the event begins there.
BORDERS = (
    Wording(r"8<--- cut here ---", "8<--- cut here ---", "arch/arm/mm/fault.c, die_kernel_fault()"),
    Wording(
        r"-{8,24}\[ cut here \]-{8,24}", "------------[ cut here ]------------", "include/asm-generic/bug.h, CUT_HERE"
    ),
    Wording(r"={20,80}\s*$", "==================================================================", "mm/kasan/report.c"),
)
PANIC = Wording(
    r"(?:Kernel panic - not syncing|kernel panic): (?P<panic>[^\n]{1,400})",
    "Kernel panic - not syncing: Fatal exception in interrupt",
    f"{_PANIC}, panic()",
)
# A reason to panic that a report before it has led to; any other one after its end is another event's.
PANIC_OVER_REPORT = Wording(
    r"(?:Kernel panic - not syncing|kernel panic): (?:(?:Oops: )?Fatal |Unrecoverable |Attempted to kill "
    r"|Aiee, killing |Machine halted|Oopsed too often|[^\n]{0,80}(?:panic_on_|=panic set|warned too often))",
    "Kernel panic - not syncing: KASAN: panic_on_warn set ...",
    f"{_PANIC}, check_panic_on_warn(); kernel/exit.c; mm/kasan/report.c; die() of each architecture",
)
END_OF_TRACE = Wording(
    r"-{2,4}\[ end trace ", "---[ end trace 0000000000000000 ]---", f"{_PANIC}, print_oops_end_marker()"
)
END_OF_PANIC = Wording(
    r"-{2,4}\[ end Kernel panic", "---[ end Kernel panic - not syncing: Fatal exception ]---", f"{_PANIC}, panic()"
)
# After the end of an oops, or of a panic.
AFTER_END = (
    Wording(
        r"Kernel Offset: (?:(?P<kaslr_offset>0x[0-9a-f]{1,16})|disabled)",
        "Kernel Offset: 0x29600000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)",
        "dump_kernel_offset() of arch/x86 and arch/arm64",
    ),
    Wording(r"PHYS_OFFSET: ", "PHYS_OFFSET: 0x40000000", "arch/arm64/kernel/setup.c, dump_kernel_offset()"),
    Wording(r"CPU features: ", "CPU features: 0x00,0000000f,0026793c,2607f73f", "arch/arm64/kernel/cpufeature.c"),
    Wording(r"Memory Limit: ", "Memory Limit: none", "arch/arm64/mm/init.c"),
    Wording(
        r"SMP: (?:failed to stop|stopping) secondary CPUs", "SMP: stopping secondary CPUs", "arch/arm64/kernel/smp.c"
    ),
    Wording(r"Rebooting in \d", "Rebooting in 10 seconds..", f"{_PANIC}, panic()"),
    Wording(r"Dumping ftrace buffer:", "Dumping ftrace buffer:", "kernel/trace/trace.c, ftrace_dump()"),
    Wording(r"\(ftrace buffer empty\)", "   (ftrace buffer empty)", "kernel/trace/trace.c, ftrace_dump()"),
    Wording(r"Shutting down cpus with NMI", "Shutting down cpus with NMI", "arch/x86/kernel/smp.c"),
    Wording(
        r"note: (?P<comm>[^\n]{1,64})\[(?P<pid>\d{1,10})\] exited with",
        "note: sh[215] exited with irqs disabled",
        "kernel/exit.c, make_task_dead()",
    ),
    Wording(
        r"Fixing recursive fault but reboot is needed!",
        "Fixing recursive fault but reboot is needed!",
        "kernel/exit.c, make_task_dead()",
    ),
)
# In its middle.
WITHIN = (
    Wording(
        r"PGD [0-9a-f]{1,16}", "PGD 271a067 P4D 271a067 PUD 2711067 PMD 0", "arch/x86/mm/fault.c, dump_pagetable()"
    ),
    Wording(r"\*p[dm]{1,2}[ept]{1,2} = ", "*pde = 00000000", "arch/x86/mm/fault.c, dump_pagetable() of 32 bits"),
    Wording(r"Oops\[#\d", "Oops[#1]:", "arch/mips and arch/loongarch, die()"),
    Wording(r"BAD$", "BAD", "arch/x86/mm/fault.c, dump_pagetable()"),
    Wording(r"pgd = [0-9a-f(]", "pgd = c0004000", "arch/arm/mm/fault.c, show_pte()"),
    Wording(
        r"\[[0-9a-f]{8,16}\] (?:\*pgd|pgd)=",
        "[0000000000000018] pgd=0800000043b5b003",
        "arch/arm64/mm/fault.c, show_pte()",
    ),
    Wording(r"(?:user|swapper) pgtable: ", "user pgtable: 4k pages, 52-bit VAs, pgdp=0000000043687180", "show_pte()"),
    Wording(r"(?:Mem|Data) abort info:", "Mem abort info:", "arch/arm64/mm/fault.c, mem_abort_decode()"),
    Wording(r"(?:EC|SET|EA|FSC|ISV|CM|GCS|IL|Exception class) = ", "SET = 0, FnV = 0", "mem_abort_decode()"),
    Wording(
        r"(?:(?:SMP|PREEMPT(?:_RT)?|DEBUG_PAGEALLOC|KASAN|NOPTI|PTI|NUMA|THUMB2|ARM) ?){1,6}$",
        "PREEMPT SMP ",
        "__die() before 3.x",
    ),
    Wording(r"last sysfs file: ", "last sysfs file: /sys/devices/pnp0/00:04/id", "arch/x86/kernel/dumpstack.c of 2.6"),
    Wording(r"irq event stamp: |(?:hard|soft)irqs last ", "irq event stamp: 1234", "kernel/locking/lockdep.c"),
    Wording(
        r"(?:no locks held by|\d{1,3} locks? held by|INFO: lockdep is turned off)",
        "2 locks held by sh/215:",
        "lockdep.c",
    ),
    Wording(
        r"#\d{1,3}: [0-9a-f]{8,16} \(", "#0: ffff888012345678 (&mm->mmap_lock){++++}-{4:4}, at: f+0x1/0x2", "lockdep.c"
    ),
    Wording(r"Preemption disabled at:", "Preemption disabled at:", "kernel/sched/core.c"),
    Wording(r"Stack:(?: |$)", "Stack:", "arch/x86/kernel/dumpstack.c, show_stack_log_lvl() before 4.11"),
    Wording(
        r"--- (?:interrupt|Exception|exception): ", "--- interrupt: c00 at 0x7fff12345678", "arch/powerpc, show_stack()"
    ),
    Wording(r"Code: (?:Bad|Unable)|Unable to access opcode bytes", "Code: Bad RIP value.", "arch/x86, show_opcodes()"),
    Wording(
        r"(?:Task|IRQ|Overflow) stack:\s{1,8}\[0x",
        "Task stack:     [0xffff800080fb0000..0xffff800080fb4000]",
        "panic_bad_stack()",
    ),
    Wording(r"ESR: (?P<esr>0x[0-9a-f]{8,16}) ", "ESR: 0x0000000096000047 -- DABT (current EL)", "panic_bad_stack()"),
    Wording(
        r"FAR: (?P<address>0x[0-9a-f]{8,16})", "FAR: 0xffff800080fafff0", "arch/arm64/kernel/traps.c, panic_bad_stack()"
    ),
    Wording(r"Last Breaking-Event-Address:", "Last Breaking-Event-Address:", "arch/s390/kernel/dumpstack.c"),
    Wording(r"Kernel (?:BUG|Oops) ", "Kernel BUG [#1]", "arch/riscv/kernel/traps.c, die()"),
    Wording(
        r"Unwind failed|WARNING: kernel stack (?:frame|regs) ",
        "WARNING: kernel stack regs at 00 in sh:1 has bad 'bp' value",
        "arch/x86/kernel/unwind_frame.c",
    ),
    Wording(r"Oops(?: - [^\n:]{1,40})?(?:: [0-9a-f]{4,16})? \[#\d", "Oops [#1]", "die() of several architectures"),
    Wording(
        r"LE (?:PAGE_SIZE|SMP)|BE (?:PAGE_SIZE|SMP)",
        "LE PAGE_SIZE=64K MMU=Radix SMP NR_CPUS=2048 NUMA pSeries",
        "arch/powerpc",
    ),
)
