"""Every layer of a dump's answers has a kind that is declared, with the details that the declaration names."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.pid import for_each_task
from support.open_dumps import open_dump

from kplug.kinds import all_kinds, kind_of
from kplug.runtime.session import session_of
from kplug.space.locators import AREA

if TYPE_CHECKING:
    import drgn
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# What of an area its table adds (docs/json.md), and what a special value has of `percpu`.
_FREE = {AREA.name}
# Others have tests of their own: no mapping without a program, no KFENCE where it is not switched on, no shadow without
# KASAN, no member without a type in the question, and few compound blocks.
_NOT_HERE = {"vma", "kfence", "shadow", "member", "block"}


def addresses(dumped: DumpSet, prog: drgn.Program) -> Iterator[int]:
    """Some of everything that there is."""
    some = random.Random(9)
    for symbol in some.sample(dumped.truth.symbols, 2000):
        yield symbol.address + some.randrange(64)
    base, frames = prog["page_offset_base"].value_(), prog["max_pfn"].value_()
    vmemmap = prog["vmemmap_base"].value_()
    for _ in range(1500):
        yield base + some.randrange(frames * 4096)
        yield vmemmap + some.randrange(frames * 64)
    for line in dumped.truth.text("vmallocinfo").splitlines():
        start, _, end = line.split()[0].partition("-")
        yield from (int(start, 16) + 8, int(end, 16) - 8, int(end, 16) + 8)
    for task in for_each_task(prog):
        yield from (task.value_() + 8, task.stack.value_() + 64, task.stack.value_() - 64)
        if task.mm:
            yield task.mm.pgd.value_()
    runqueues = prog["runqueues"]
    for cpu in (0, 1):
        yield per_cpu(runqueues, cpu).address_ + 8
    yield from (0, 0x18, 0x1000, runqueues.address_, (1 << 64) - 12, 0xDEAD000000000100, 1 << 60)
    for memory in prog["init_net"].loopback_dev.pcpu_refcnt, prog["init_net"].loopback_dev.lstats:
        yield from (memory.value_(), per_cpu_pointer(prog, memory.value_()))


def per_cpu_pointer(prog: drgn.Program, pointer: int) -> int:
    """Where CPU 1 has what a __percpu pointer points to."""
    return int(prog["__per_cpu_offset"][1].value_()) + pointer & (1 << 64) - 1


def test_kinds_and_details_are_those_declared(dumps_612: DumpSet) -> None:
    kernel = open_dump(dumps_612)
    session = session_of(kernel)
    declared = {kind.name for kind in all_kinds()}
    seen = set()
    for address in addresses(dumps_612, kernel.prog):
        for layer in session.resolver.where(address).layers:
            assert layer.kind in declared
            seen.add(layer.kind)
            if layer.kind not in _FREE:
                assert set(layer.details) <= set(kind_of(layer).details), (hex(address), layer)
    assert declared - _NOT_HERE <= seen
