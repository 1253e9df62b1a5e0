"""Runs in a Python of its own: one kwhere after another in a session on a vmcore, for each kind of address, as JSON.

Milliseconds for an answer, kplug's own ones of the processor as well; drgn's identify_address is asked about the same
addresses in turn.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import drgn
    from vmimages import DumpSet

OF_EACH_KIND = 40


def main(kernel: str) -> None:
    from drgn.helpers.common.memory import identify_address
    from vmimages import dumps

    from kplug.runtime.drgn_target import DrgnTarget
    from kplug.runtime.opening.request import Request
    from kplug.runtime.session import open_session

    dumped = dumps(kernel, ("elf",), quiet=True)
    session = open_session(Request(core=str(dumped.paths["elf"]), symbols=(str(dumped.files.vmlinux),)))
    assert isinstance(session.target, DrgnTarget)
    prog = session.target.kernel.prog
    cache: dict[Any, Any] = {}
    tools: dict[str, Callable[[int], object]] = {
        "ours": session.resolver.where,
        "peer": lambda address: identify_address(prog, address, cache=cache),
    }
    kinds = addresses_of_each_kind(prog, dumped)
    for answer in tools.values():  # the first of each kind finds lists and types; the next have them
        for some in kinds.values():
            answer(some[0])
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in (*tools, "processor")} for kind in kinds}
    for kind, some in kinds.items():
        for address in some[1:]:
            for name, answer in tools.items():
                begin, began = time.perf_counter(), time.thread_time()
                answer(address)
                spent = (time.thread_time() - began) * 1e3
                found[kind][name].append((time.perf_counter() - begin) * 1e3)
                if name == "ours":
                    found[kind]["processor"].append(spent)
    print(json.dumps(found))


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


if __name__ == "__main__":
    main(sys.argv[1])
