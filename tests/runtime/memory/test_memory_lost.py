"""A target that goes away in the middle of a question, and CPU masks that lie: an answer in words, whatever is asked.

Memory is a real dump's, served until it is lost.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Callable

import pytest
from support.open_dumps import kernel_in
from support.patched import patch, unmap

from kplug.errors import KplugError, TargetError
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.stacks import stacks_of
from kplug.runtime.opening.debugger_memory import open_over
from kplug.runtime.session import session_of
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


class Memory:
    """A dump's memory, until `reads` of it are over."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.reads: float = float("inf")
        self.error: Callable[[], Exception] = ConnectionError

    def read(self, address: int, size: int) -> bytes:
        return self._served(self._kernel.read, address, size)

    def read_physical(self, address: int, size: int) -> bytes:
        return self._served(self._kernel.read_physical, address, size)

    def _served(self, read: Callable[[int, int], bytes], address: int, size: int) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise self.error()
        return read(address, size)


@pytest.fixture(scope="module")
def lost(dumps_612: DumpSet) -> tuple[Memory, Session]:
    kernel = kernel_in(dumps_612)
    assert kernel.image is not None
    memory = Memory(kernel)
    return memory, session_of(open_over(memory, kernel.image, "a guest"))


@pytest.mark.parametrize(
    "error", [BrokenPipeError, TimeoutError, lambda: Exception("connection closed")], ids=["gone", "silent", "drgn's"]
)
@pytest.mark.parametrize("reads", [0, 1, 5, 20, 100, 500])
def test_a_target_that_is_lost(lost: tuple[Memory, Session], reads: int, error: Callable[[], Exception]) -> None:
    memory, session = lost
    target = session.target
    assert isinstance(target, DrgnTarget)
    memory.reads = float("inf")
    stack = stacks_of(target.kernel).stacks[0].start
    task = target.kernel.symbol("init_task")
    assert task is not None
    asked: tuple[Callable[[], object], ...] = (
        lambda: session.resolver.where(stack),
        lambda: session.resolver.where(task),
        lambda: session.modules.modules() if session.modules is not None else None,
        lambda: target.stack_bounds(stack),
        target.frames,
        target.registers,
    )
    for question in asked:
        target.kernel.resumed()
        memory.reads, memory.error = reads, error
        with suppress(KplugError):
            question()


def test_more_cpus_than_there_is_room_for(dumps_612: DumpSet) -> None:
    """Followed bit by bit it would take minutes."""
    kernel = kernel_in(dumps_612)
    place = kernel.symbol("nr_cpu_ids")
    assert place is not None
    patch(kernel, place, b"\xff\xff\xff\xff")
    with pytest.raises(TargetError, match="nr_cpu_ids is 4294967295"):
        possible_cpus(kernel)


def test_a_mask_of_cpus_that_is_not_in_the_dump(dumps_612: DumpSet) -> None:
    """The stacks that are told without it stand."""
    kernel = kernel_in(dumps_612)
    place = kernel.symbol("__cpu_possible_mask")
    assert place is not None
    unmap(kernel, place & -4096, 4096)
    stacks = stacks_of(kernel)
    assert {stack.owner for stack in stacks.stacks} >= {"task"}
    assert stacks.problem is not None
