"""The kinds of events: each is declared once, in `kplug.log.event_kinds`, and all that reads events iterates over them.

A file there is a family of kinds; it is found by itself. A kind is a row of data: how its first line begins, what its
further lines state, what its traces are headed by, and how bug trackers title it.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module

from kplug.named_tuples import NamedTuple


class Wording(NamedTuple):
    """One way to word a line: a pattern for how its message begins, an example, and its source in the kernel.

    Named groups are what it states: `address`, `access` (a word for it), `bytes`, `cpu`, `pid`, `comm`, `file`,
    `source_line`, `panic`; `symbol`, `offset`, `size`, `module` (SYMBOL in `forms`) are the function blamed; any
    other one can be used in titles. Repetitions are bounded. `title` and `sentence` are the event's, where the wording
    has its own.
    `states`: facts that the wording has by itself, such as access="write". `has`: one of these is in the message; for
    first lines that may begin with anything, so that not every line of a log is matched with the pattern.
    """

    pattern: str
    example: str
    source: str
    title: str | None = None
    sentence: str | None = None
    states: tuple[tuple[str, str], ...] = ()
    has: tuple[str, ...] = ()


class Heading(NamedTuple):
    """What is above a trace. `context` is as in `kplug.log.event.Trace`; `main`: the trace is the event's own."""

    pattern: str
    context: str
    example: str
    source: str
    main: bool = True


class EventKind(NamedTuple):
    """A kind of event.

    `type` is the word for it in docs/json.md. `title`: names in braces are what the lines state: `function`,
    `access`, any named group; with a capital, as in `{Access}`, its first letter is one too. What is in square brackets
    goes if it has a name that is not stated; where it has several parts with `|` between them, the first one that has
    none such stays.
    `sentence`: what happened, in plain English, in the same way. Names besides, in words: `task`; `who` (task and CPU,
    a subject) and `by` (the same, after a comma); `did` and `target` (the access, and of what address); `how` (who
    accessed how much); `object` (who allocated and freed it), `allocated` (who did); `callee` (what the function
    called).
    `begins`: the first line of a report. `details`: further lines of it, without those that reports have in common
    (`common_lines`): registers, headers, frames, modules.
    `ends`: its last line; a kind without is at its end after its trace.
    `general`: another kind in the lines before its first header or trace says more, and the event is of that one.
    `blames`: where the guilty function is looked for, in this order.
    `passed_over`: patterns of functions that are never guilty of this kind, besides the machinery (`machinery`).
    `joined_by`: lines by which other CPUs' reports become part of this one.
    `resumes`: after its end the registers come once more. `accesses`: CR2 is what it accessed.
    `alone`: the report is its first line, and may be in the middle of another. `again`: it is one only where a kernel
    spoke before, as a boot is. `incomplete`: what it begins with is no report's first line; that was lost. `outside`:
    in a report it begins none, where others have such lines too.
    """

    type: str
    title: str
    sentence: str
    begins: tuple[Wording, ...]
    details: tuple[Wording, ...] = ()
    headings: tuple[Heading, ...] = ()
    ends: tuple[Wording, ...] = ()
    general: bool = False
    blames: tuple[str, ...] = ("stated", "ip", "trace")
    passed_over: tuple[str, ...] = ()
    joined_by: tuple[Wording, ...] = ()
    resumes: bool = False
    accesses: bool = False
    alone: bool = False
    again: bool = False
    incomplete: bool = False
    outside: bool = False


# The types of docs/json.md.
TYPES = (
    *("null-deref", "page-fault", "gpf", "invalid-opcode", "bug", "divide", "double-fault", "stack-overflow"),
    *("stack-corruption", "warning", "panic", "kasan", "kfence", "kmsan", "kcsan", "ubsan", "lockdep", "rcu-stall"),
    *("rcu-usage", "soft-lockup", "hard-lockup", "hung-task", "workqueue-stall", "atomic", "refcount", "odebug"),
    *("list-corruption", "bad-page", "usercopy", "leak", "oom", "machine-check", "alloc-failure", "netdev-watchdog"),
    *("reboot", "sysrq", "other"),
)


@cache
def kinds() -> tuple[EventKind, ...]:
    """All declared kinds: those in KINDS of each file in `event_kinds`, by the files' names."""
    # They are found by their place alone: declarations import what declares, and not the other way round.
    folder = os.path.join(os.path.dirname(__file__), "event_kinds")
    files = sorted({name.partition(".")[0] for name in os.listdir(folder) if not name.startswith(("_", "."))})
    modules = (import_module(f"{__package__}.event_kinds.{name}") for name in files)
    return tuple(kind for module in modules for kind in module.KINDS)
