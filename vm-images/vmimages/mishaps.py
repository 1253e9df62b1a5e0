"""Logs of what kernels report, made in guests: oopses, stalls, lockups, hung tasks and the like.

The module `specimens/mishaps` has them happen, and says first in the log what is true of each by construction.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from . import building
from .errors import VMError
from .fetching import fetch
from .machine import VM, boot
from .planted import SPECIMENS

_CPU, _MASK = 1, 2
# A mishap that has not come by then is one that this kernel does not report.
_SECONDS, _POLL = 60.0, 1.0
_ANSWER_SECONDS = 300.0
_SAID = "mishaps: "
_PANIC_ENDS = "end Kernel panic"
_RCU = "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout"
_WATCHDOG, _HUNG = "/proc/sys/kernel/watchdog_thresh", "/proc/sys/kernel/hung_task_timeout_secs"
# Before each, so that a way that has its own limit for one of these is the only one that is reported.
_PATIENT = f"dmesg -c >/dev/null; echo 60 >{_RCU}; echo 60 >{_WATCHDOG}; echo 0 >{_HUNG}"


class Mishap(NamedTuple):
    """How the guest has it happen: by a word for the module, or by a command, after `before`; `ends` is in the log
    when it is over. The log of one that is fatal is the console's.
    """

    word: str = ""
    before: str = "true"
    command: str = ""
    ends: str = ""
    fatal: bool = False


def _say(way: str, comm: str) -> str:
    return f'echo "<4>mishaps: {way} function=none access=none address=none cpu={_CPU} pid=$$ comm={comm}" >/dev/kmsg'


def _sysrq(letter: str) -> Mishap:
    return Mishap(command=f"{_say(f'sysrq-{letter}', 'sh')}; echo {letter} >/proc/sysrq-trigger")


# KFENCE comes first, as its pool fills up; and what oopses last: no hung task is reported after that.
_GOES_ON = ("kfence-uaf-read", "kfence-oob-write", "kfence-double-free", "kfence-corruption", "vmalloc", "warn",
            "warn-on", "refcount-add", "refcount-underflow", "refcount-saturate", "atomic", "ubsan-index",
            "ubsan-shift")  # fmt: skip
_OOPSES = ("null-read", "null-write", "null-exec", "data-exec", "non-canonical", "unmapped-write", "constant-write",
           "bug", "divide", "undefined", "list-del", "list-add", "usercopy")  # fmt: skip
MISHAPS: dict[str, Mishap] = {
    **{word: Mishap(word) for word in _GOES_ON},
    # Lines of failed allocations are held back for some seconds after one.
    "alloc-pages": Mishap("alloc-pages", "sleep 6"),
    **{f"sysrq-{letter}": _sysrq(letter) for letter in "lmtw"},
    "oom": Mishap(command=f"{_say('oom', 'tail')}; exec tail /dev/zero"),
    "netdev": Mishap(command="echo netdev >/proc/mishaps; ip link set mishap0 up", ends="transmit queue 0 timed out"),
    "hung-task": Mishap("hung-task", f"echo 4 >{_HUNG}", ends="task mishaps_waiter:"),
    "rcu-stall": Mishap("spin", f"echo 3 >{_RCU}", ends="rcu: "),
    "soft-lockup": Mishap("spin", f"echo 1 >{_WATCHDOG}", ends="soft lockup"),
    "hard-lockup": Mishap("spin-irqs-off", f"echo 1 >{_WATCHDOG}", ends="hard LOCKUP"),
    **{word: Mishap(word) for word in _OOPSES},
    **{word: Mishap(word, ends=_PANIC_ENDS, fatal=True) for word in ("smash", "panic")},
}


def mishap_logs(name: str, ways: Iterable[str] = (), *, quiet: bool = False) -> Iterator[tuple[str, str]]:
    """Each of the ways, without any all, that the kernel `name` has, and what its log said then; in the order of
    MISHAPS. One boot has all that are not fatal."""
    asked = list(ways)
    unknown = [way for way in asked if way not in MISHAPS]
    if unknown:
        raise VMError(f"no mishap {unknown[0]!r}; there are: {', '.join(MISHAPS)}")
    wanted = [way for way in MISHAPS if not asked or way in asked]
    boots = [[way for way in wanted if not MISHAPS[way].fatal], *([way] for way in wanted if MISHAPS[way].fatal)]
    inside = (("mishaps.ko", building.module(fetch(name, quiet=quiet), SPECIMENS / "mishaps", quiet)),)
    for together in filter(None, boots):
        with boot(name, append=("kfence.sample_interval=1", "panic=0"), files=inside, quiet=quiet) as vm:
            vm.run("echo 8 >/proc/sys/kernel/printk; insmod /mishaps.ko")
            for way in together:
                log = _log(vm, MISHAPS[way])
                if log is not None:
                    yield way, log


def write(name: str, ways: Iterable[str], folder: Path, *, quiet: bool = False) -> Iterator[Path]:
    """The same as files NAME-WAY.log of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for way, log in mishap_logs(name, ways, quiet=quiet):
        path = folder / f"{name}-{way}.log"
        path.write_text(log)
        yield path


def _log(vm: VM, mishap: Mishap) -> str | None:
    """What the log says of it; None if this kernel does not have it."""
    vm.run(f"{_PATIENT}; {mishap.before}")
    command = mishap.command or f"echo {mishap.word} >/proc/mishaps"
    quoted = command.replace("'", "'\\''")
    if mishap.fatal:
        start = vm.console.stat().st_size
        with contextlib.suppress(VMError):  # the dead do not answer
            vm.run_bytes(f"taskset {_MASK:x} sh -c '{quoted}'", timeout=_POLL)
        return _settled(lambda: vm.console.read_bytes()[start:].decode(errors="replace").replace("\r", ""), mishap.ends)
    vm.run_bytes(f"taskset {_MASK:x} sh -c '{quoted}'", timeout=_ANSWER_SECONDS)
    if _SAID not in vm.run("dmesg"):
        return None
    return _settled(lambda: vm.run("dmesg"), mishap.ends)


def _settled(read: Callable[[], str], ends: str) -> str | None:
    """The log once it has what ends it, and grows no more."""
    deadline, before = time.monotonic() + _SECONDS, ""
    while time.monotonic() < deadline:
        log = read()
        if log == before and ends in log:
            return log
        before = log
        time.sleep(_POLL)
    return None
