"""Logs of guests in which the module `vm-images/specimens/mishaps` had something happen, and said before what is true
of it by its own source: `mishaps: WAY function=F access=A address=X cpu=N pid=N comm=C`.

What a way is called, as its event's type and title, is written here by hand, from what the kernel means.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kplug.log import events
from kplug.log.event import Event

_TRUTH = re.compile(
    r"mishaps: (\S+) function=(\S+) access=(\S+) address=(\S+) cpu=(\S+) pid=(\S+) comm=(\S+)$", re.MULTILINE
)
_NULL = "BUG: unable to handle kernel NULL pointer dereference in {function}"
_PAGING = "BUG: unable to handle kernel paging request in {function}"
_REFCOUNT = "WARNING: refcount bug in {function}"
_LIST = "BUG: corrupted list in {function}"


class Meant(NamedTuple):
    """What a way's events are called. `unsaid`: what the kernel's lines of such an event do not state."""

    type: str
    title: str
    unsaid: frozenset[str] = frozenset()


_OF_A_TASK = frozenset(("cpu", "pid", "comm"))
MEANT: dict[str, Meant] = {
    "warn": Meant("warning", "WARNING in {function}"),
    "warn-on": Meant("warning", "WARNING in {function}"),
    "refcount-add": Meant("refcount", _REFCOUNT),
    "refcount-underflow": Meant("refcount", _REFCOUNT),
    "refcount-saturate": Meant("refcount", _REFCOUNT),
    "atomic": Meant("atomic", "BUG: scheduling while atomic in {function}"),
    "alloc-pages": Meant("alloc-failure", "page allocation failure in {function}"),
    "vmalloc": Meant("alloc-failure", "vmalloc error in {function}"),
    "ubsan-index": Meant("ubsan", "UBSAN: array-index-out-of-bounds in {function}"),
    "ubsan-shift": Meant("ubsan", "UBSAN: shift-out-of-bounds in {function}"),
    "kfence-uaf-read": Meant("kfence", "KFENCE: use-after-free read in {function}"),
    "kfence-oob-write": Meant("kfence", "KFENCE: out-of-bounds write in {function}"),
    "kfence-double-free": Meant("kfence", "KFENCE: invalid free in {function}"),
    "kfence-corruption": Meant("kfence", "KFENCE: memory corruption in {function}"),
    "null-read": Meant("null-deref", _NULL),
    "null-write": Meant("null-deref", _NULL),
    "null-exec": Meant("null-deref", _NULL),
    "data-exec": Meant("page-fault", _PAGING),
    "unmapped-write": Meant("page-fault", _PAGING),
    "constant-write": Meant("page-fault", _PAGING),
    "non-canonical": Meant("gpf", "general protection fault in {function}", frozenset(("access",))),
    "bug": Meant("bug", "kernel BUG in {function}"),
    "divide": Meant("divide", "divide error in {function}"),
    "undefined": Meant("invalid-opcode", "invalid opcode in {function}"),
    "list-del": Meant("list-corruption", _LIST),
    "list-add": Meant("list-corruption", _LIST),
    "usercopy": Meant("usercopy", "BUG: bad usercopy in {function}"),
    "sysrq-l": Meant("sysrq", "sysrq: Show backtrace of all active CPUs"),
    "sysrq-m": Meant("sysrq", "sysrq: Show Memory", _OF_A_TASK),
    "sysrq-t": Meant("sysrq", "sysrq: Show State", _OF_A_TASK),
    "sysrq-w": Meant("sysrq", "sysrq: Show Blocked State", _OF_A_TASK),
    "oom": Meant("oom", "Out of memory: killed {comm}"),
    "netdev": Meant("netdev-watchdog", "NETDEV WATCHDOG: mishap0: transmit queue timed out"),
    "hung-task": Meant("hung-task", "INFO: task hung in {function}", frozenset(("cpu",))),
    "rcu-stall": Meant("rcu-stall", "INFO: rcu detected stall in {function}"),
    "soft-lockup": Meant("soft-lockup", "BUG: soft lockup in {function}"),
    "hard-lockup": Meant("hard-lockup", "BUG: hard lockup in {function}"),
    "smash": Meant("stack-corruption", "kernel panic: stack is corrupted in {function}"),
    "panic": Meant("panic", "kernel panic: mishaps: asked to panic"),
}
# Where an architecture has no such exception of its own.
MEANT_ELSEWHERE = {("arm64", "non-canonical"): Meant("page-fault", _PAGING)}


def truths(way: str, arch: str, log: str) -> list[dict[str, object]]:
    """What is true of each event of a way's log; None where its lines do not state it."""
    meant = MEANT_ELSEWHERE.get((arch, way), MEANT[way])
    found = []
    for _, function, access, address, cpu, pid, comm in _TRUTH.findall(log):
        truth: dict[str, object] = {
            "type": meant.type,
            "title": meant.title.format(function=function, comm=comm),
            "function": None if function == "none" else function,
            "access": None if access == "none" else access,
            "address": None if address == "none" else int(address, 16),
        }
        if pid != "none":  # else it is whoever the timer interrupted
            truth.update(cpu=int(cpu), pid=int(pid), comm=comm)
        found.append({key: None if key in meant.unsaid else value for key, value in truth.items()})
    return found


def answers(log: bytes, truths: list[dict[str, object]]) -> list[dict[str, object]]:
    """What kplug says, of the same keys, of the event that comes nearest to each: a log may have others beside it."""
    found: list[Event] = sorted(events(log.split(b"\n")), key=lambda event: event.first_line)
    said = [[{key: getattr(event, key) for key in truth} for event in found] for truth in truths]
    return [max(each, key=lambda one: _agreement(one, truth)) for each, truth in zip(said, truths) if each]


def _agreement(said: dict[str, object], truth: dict[str, object]) -> int:
    return sum(said[key] == value for key, value in truth.items())
