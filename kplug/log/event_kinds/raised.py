"""What the kernel raises itself: BUG(), WARN(), panic()."""

from __future__ import annotations

from kplug.log.common_lines import PANIC
from kplug.log.event_kinds._oopses import ENDS, FAULT, oops
from kplug.log.forms import MODULE, PLACE, SYMBOL, SYMBOL_AND_MODULE
from kplug.log.kinds import EventKind, Wording

_BUG = oops(
    "bug",
    "kernel BUG[ in {function}]",
    "{who} hit a BUG()[ in {function}][ at {file}:{source_line}].",
    Wording(
        r"[Kk]ernel BUG at (?P<file>[^\s!:]{1,200}):(?P<source_line>\d{1,7})!?",
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

_STACK_CORRUPTION = EventKind(
    "stack-corruption",
    "kernel panic: stack is corrupted[ in {function}]",
    "The kernel stack was found corrupted[ in {function}][, {by}].",
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
            f"{FAULT}, before 4.9",
            title="kernel panic: stack is corrupted[ in {function}]",
        ),
    ),
    passed_over=(r"(?:__)?schedule(?:_.*)?|_{0,3}preempt_schedule.*|_?_?cond_resched|retint_kernel",),
)

_WARNING = EventKind(
    "warning",
    "WARNING[ in {function}]",
    "{who} hit a warning[ in {function}][ at {place}][: {condition}].",
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
        Wording(
            rf"WARNING: at (?P<place>{PLACE})\s+(?P<symbol>\w{{1,200}})\(\)",
            "WARNING: at kernel/fork.c:12 copy_process()",
            "include/asm-generic/bug.h, WARN_ON() before 2.6.27",
        ),
    ),
    ends=ENDS,
    general=True,
)

_PANIC = EventKind(
    "panic",
    "kernel panic: {panic}",
    'The kernel panicked[ in {function}][, {by}][: "{panic}"].',
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

KINDS = (_BUG, _STACK_CORRUPTION, _WARNING, _PANIC)
