"""What must not sleep and did, or would have."""

from __future__ import annotations

from kplug.log.event_kinds.stalls import WAITING
from kplug.log.kinds import EventKind, Heading, Wording
from kplug.log.machinery import ALLOCATING

_CORE = "kernel/sched/core.c"
_CONTEXT = (
    Wording(
        r"in_atomic\(\): \d{1,10}, irqs_disabled\(\): \d{1,10},[^\n]{0,60}? pid: (?P<pid>\d{1,10}),"
        r" name: (?P<comm>[^\n]{1,64})",
        "in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 1422, name: sh",
        f"{_CORE}, __might_resched()",
    ),
    Wording(
        r"preempt_count: |RCU nest depth: |Thread overran stack",
        "preempt_count: 1, expected: 0",
        f"{_CORE}, __might_resched(): 5.17 and later",
    ),
)
_HEADINGS = (
    Heading(
        r"Preemption disabled at:",
        "preemption disabled",
        "Preemption disabled at:",
        f"{_CORE}, print_preempt_disable_ip()",
        main=False,
    ),
)

KINDS = (
    EventKind(
        "atomic",
        "BUG: scheduling while atomic[ in {function}]",
        "{who} scheduled while atomic[ in {function}].",
        (
            Wording(
                r"BUG: scheduling while atomic: (?P<comm>[^\n]{1,64})/(?P<pid>\d{1,10})/0x[0-9a-f]{1,8}",
                "BUG: scheduling while atomic: sh/812/0x00000002",
                f"{_CORE}, __schedule_bug()",
            ),
            Wording(
                r"BUG: scheduling in a non-blocking section: (?P<comm>[^\n]{1,64})/(?P<pid>\d{1,10})/",
                "BUG: scheduling in a non-blocking section: sh/812/1",
                f"{_CORE}, schedule_debug()",
                title="BUG: scheduling in a non-blocking section[ in {function}]",
                sentence="{who} scheduled in a section that must not block[ in {function}].",
            ),
            Wording(
                r"bad: scheduling from the idle thread!",
                "bad: scheduling from the idle thread!",
                "kernel/sched/idle.c, dequeue_task_idle()",
                title="bad: scheduling from the idle thread[ in {function}]",
                sentence="The idle thread scheduled[ in {function}][, {by}].",
            ),
        ),
        _CONTEXT,
        _HEADINGS,
        blames=("trace",),
        passed_over=WAITING,
    ),
    EventKind(
        "atomic",
        "BUG: sleeping function called from invalid context[ in {function}]",
        "{who} called a function that may sleep where nothing may sleep[, in {function}].",
        (
            Wording(
                r"BUG: sleeping function called from invalid context at (?P<place>\S{1,200}:\d{1,7})",
                "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580",
                f"{_CORE}, __might_resched()",
            ),
            Wording(
                r"BUG: assuming (?P<what>atomic|non migratable) context at (?P<place>\S{1,200}:\d{1,7})",
                "BUG: assuming atomic context at kernel/locking/mutex.c:580",
                f"{_CORE}, __cant_sleep(), __cant_migrate()",
                title="BUG: assuming {what} context[ in {function}]",
                sentence="{who} ran code for {what} context in another context[ in {function}].",
            ),
        ),
        _CONTEXT,
        _HEADINGS,
        blames=("trace",),
        passed_over=(*WAITING, *ALLOCATING),
    ),
)
