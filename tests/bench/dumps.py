"""A vmcore: how soon kplug is ready, and how fast it answers, beside drgn and crash on the same dump and vmlinux.

Both kplug and drgn have the vmlinux alone, no debug information of modules; crash likewise.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench_terminal import seconds_until_ready
from whole_commands import Runs, measure

if TYPE_CHECKING:
    import drgn
    from run import Report
    from vmimages import DumpSet

OF_EACH_KIND = 40
# How often crash is asked about each address: what it takes must show beside its start.
CRASH_REPEATS = 10
# What kplug takes for one answer at most, in milliseconds.
WITHOUT_WALK, WITH_WALK = 2.0, 5.0


def bench_start(report: Report, dumped: DumpSet, kplug: str, rounds: int, environment: dict[str, str]) -> None:
    """From the command line to a session: an empty command, the first answer, and the prompt."""
    core, vmlinux = str(dumped.paths["elf"]), str(dumped.files.vmlinux)
    drgn = [os.path.join(os.path.dirname(kplug), "drgn"), "-q", "--no-default-symbols", "-c", core, "-s", vmlinux]
    ours = [kplug, "-c", core, "-s", vmlinux]
    print(f"a session on a vmcore of {os.path.getsize(core) / 1e6:.0f} MB")
    commands = {
        "kplug -e pass": [*ours, "-e", "pass"],
        "drgn -e pass": [*drgn, "-e", "pass"],
        "kplug -e 'kwhere schedule'": [*ours, "-e", "kwhere schedule"],
        "drgn -e 'identify_address(...)'": [*drgn, "-e", 'print(identify_address(prog["schedule"].address_))'],
    }
    runs = measure(commands, rounds, environment=environment)
    for name, measured in runs.items():
        report.runs(name, measured)
    report.ratio("kplug / drgn, start", runs["kplug -e pass"].median / runs["drgn -e pass"].median, 1.2)
    first = runs["kplug -e 'kwhere schedule'"].median / runs["drgn -e 'identify_address(...)'"].median
    print(f"    {'kplug / drgn, start and first answer (kplug loads for it)':<58} {first:9.2f}")
    _bench_prompt(report, ours, drgn, rounds, environment)


# What stands last on the screen when each waits for a line; drgn's greeting has ">>> " in it too.
_PROMPTS = {"kplug": b"kplug>", "drgn": b"import *\r\n>>> "}


def _bench_prompt(
    report: Report, ours: Sequence[str], drgn: Sequence[str], rounds: int, environment: Mapping[str, str]
) -> None:
    shown: dict[str, Runs] = {"kplug": Runs(), "drgn": Runs()}
    ready: dict[str, Runs] = {"kplug": Runs(), "drgn": Runs()}
    with tempfile.TemporaryDirectory() as home:
        for number in range(rounds + 1):
            for name, command in (("kplug", ours), ("drgn", drgn)):
                seen, answered = seconds_until_ready(
                    command, _PROMPTS[name], b"print(6*7)", b"42\r", {**environment, "HOME": home}
                )
                if number:
                    shown[name].seconds.append(seen)
                    ready[name].seconds.append(answered)
    for name in shown:
        what = f"{name}: its prompt; what is typed at it done"
        print(f"    {what:<44} {shown[name].median:6.3f} s  {ready[name].median:6.3f} s")
    report.ratio("kplug / drgn, until the prompt", shown["kplug"].median / shown["drgn"].median, 1.2)
    done = ready["kplug"].median / ready["drgn"].median
    print(f"    {'kplug / drgn, until what is typed there is done':<58} {done:9.2f}")


def bench_where(report: Report, dumped: DumpSet, crash: bool = True) -> None:
    """One kwhere after another in a session, for each kind of address, beside drgn's identify_address and crash."""
    from kplug.resolver import Resolver
    from kplug.runtime.drgn_target import DrgnTarget
    from kplug.runtime.opening.request import Request
    from kplug.runtime.session import open_session

    core, vmlinux = str(dumped.paths["elf"]), str(dumped.files.vmlinux)
    session = open_session(Request(core=core, symbols=(vmlinux,)))
    assert isinstance(session.target, DrgnTarget)
    prog = session.target.kernel.prog
    addresses = addresses_of_each_kind(prog, dumped)
    walking, standing = session.resolver.where, _without_states(session.resolver)
    cache: dict[Any, Any] = {}
    identify = prog_identify(prog, cache)
    everything = [address for some in addresses.values() for address in some]
    print(f"one answer in a session, {OF_EACH_KIND} addresses of each kind: median (slowest), milliseconds")
    print(f"    {'':<10} {'kwhere, no walk':>20} {'kwhere':>20} {'drgn identify_address':>24}")
    medians: dict[str, list[float]] = {"standing": [], "walking": []}
    for answer in (standing, walking, identify):  # the first of each kind finds lists and types; the next have them
        for some in addresses.values():
            answer(some[0])
    for kind, some in addresses.items():
        # Each of the two has addresses of its own: what one has read the other would find remembered.
        half = len(some) // 2
        times = [_milliseconds(standing, some[1:half]), _milliseconds(walking, some[half:])]
        times.append(_milliseconds(identify, some[1:]))
        medians["standing"].append(statistics.median(times[0]))
        medians["walking"].append(statistics.median(times[1]))
        cells = [f"{statistics.median(each):9.3f} ({max(each):8.3f})" for each in times]
        print(f"    {kind:<10} {cells[0]:>20} {cells[1]:>20} {cells[2]:>24}")
    if crash:
        _bench_crash(core, vmlinux, everything)
    report.ratio("kwhere without the page-table walk, slowest kind, ms", max(medians["standing"]), WITHOUT_WALK)
    report.ratio("kwhere with the page-table walk, slowest kind, ms", max(medians["walking"]), WITH_WALK)
    assert isinstance(session.resolver, Resolver)


def prog_identify(prog: drgn.Program, cache: dict[Any, Any]) -> Callable[[int], object]:
    from drgn.helpers.common.memory import identify_address

    return lambda address: identify_address(prog, address, cache=cache)


def _without_states(resolver: Any) -> Callable[[int], object]:
    """The resolver's answers without the state of the address, for which page tables are walked."""

    def where(address: int) -> object:
        states, resolver.states = resolver.states, None
        try:
            return resolver.where(address)
        finally:
            resolver.states = states

    return where


def _milliseconds(answer: Callable[[int], object], addresses: Sequence[int]) -> list[float]:
    times = []
    for address in addresses:
        begin = time.perf_counter()
        answer(address)
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def addresses_of_each_kind(prog: drgn.Program, dumped: DumpSet) -> dict[str, list[int]]:
    """Random addresses of every kind, from the guest's own lists and from drgn's helpers."""
    from drgn.helpers.linux.percpu import per_cpu_ptr
    from drgn.helpers.linux.pid import for_each_task
    from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_for_each_allocated_object

    truth, generator = dumped.truth, random.Random(4)

    def symbols(kinds: str, module: bool, part: str = "") -> list[int]:
        return [
            symbol.address + generator.randrange(16)
            for symbol in truth.symbols
            if symbol.kind in kinds and (symbol.module in truth.modules) is module and symbol.address >> 63
            and part in symbol.name
        ]  # fmt: skip

    def slab_objects() -> Iterator[int]:
        for cache in for_each_slab_cache(prog):
            if cache.name.string_() in (b"dentry", b"kmalloc-64", b"kmalloc-256", b"task_struct", b"vm_area_struct"):
                with contextlib.suppress(Exception):  # drgn stops where memory was being changed
                    for number, found in enumerate(slab_cache_for_each_allocated_object(cache, "void")):
                        if number == OF_EACH_KIND:
                            break
                        yield int(found.value_()) + 8

    tasks = list(for_each_task(prog))
    init_start, init_end = truth.address("__init_begin"), truth.address("__init_end")
    mappings = [
        [int(bound, 16) for bound in line.split()[0].split("-")] for line in truth.text("vmallocinfo").splitlines()
    ]
    user = [line.split("-")[0] for line in truth.text("init-maps").splitlines()]
    runqueues = [per_cpu_ptr(prog["runqueues"].address_of_(), cpu) for cpu in (0, 1)]
    kinds = {
        "text": symbols("tT", False),
        "data": symbols("dDbB", False),
        "per-CPU": [int(each) + generator.randrange(int(prog.type("struct rq").size)) for each in runqueues * 20],
        "slab": list(slab_objects()),
        "vmalloc": [start + generator.randrange(0x1000) for start, _ in mappings],
        "stack": [int(task.stack) + 0x3000 + generator.randrange(0x1000) for task in tasks for _ in (0, 1)],
        "module": symbols("tTdDbB", True),
        "init": [generator.randrange(init_start, init_end) for _ in range(OF_EACH_KIND)],
        "user": [int(start, 16) + generator.randrange(0x1000) for start in user for _ in range(4)],
    }
    return {kind: generator.sample(found, min(OF_EACH_KIND, len(found))) for kind, found in kinds.items()}


def _bench_crash(core: str, vmlinux: str, addresses: Sequence[int]) -> None:
    """crash's start, and its `sym` and `kmem` for the same addresses. It is no fault of kplug's if it cannot do it."""
    if shutil.which("crash") is None:
        print("    crash is not installed")
        return

    def seconds(commands: Sequence[str]) -> float:
        begin = time.perf_counter()
        done = subprocess.run(
            ["crash", "-s", vmlinux, core],
            input="".join(f"{command}\n" for command in (*commands, "quit")),
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode or "init_task" not in done.stdout:
            raise OSError((done.stderr or done.stdout).strip().splitlines()[-1:] or "no output")
        return time.perf_counter() - begin

    check = "sym init_task"
    try:
        # The best of three: its start takes seconds, and varies by more than the answers take.
        start = min(seconds([check]) for _ in range(3))
        each = {}
        for name in ("sym", "kmem"):
            commands = [f"{name} {address:x}" for address in addresses] * CRASH_REPEATS
            each[name] = (min(seconds([check, *commands]) for _ in range(2)) - start) / len(commands)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"    crash cannot open this dump: {error}")
        return
    answers = ", ".join(
        f"{name} {took * 1e3:.2f} ms" if took > 0 else f"{name} less than can be measured"
        for name, took in each.items()
    )
    print(f"    crash: {start:.2f} s to start; an address of the same ones: {answers}")
