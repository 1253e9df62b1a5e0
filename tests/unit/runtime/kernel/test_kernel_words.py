"""Kernels of every width and byte order in made-up memory: their words, lists, values and per-CPU bitmaps."""

from __future__ import annotations

from typing import NamedTuple

import pytest

pytest.importorskip("drgn")

import drgn

from kplug.errors import ExpressionError, TargetError
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.lists import list_nodes
from kplug.runtime.kernel.values import address_of


class Machine(NamedTuple):
    """A machine as drgn has it, and an address of its kernel."""

    architecture: str
    wide: bool
    little: bool
    start: int

    @property
    def size(self) -> int:
        return 8 if self.wide else 4

    @property
    def order(self) -> str:
        return "little" if self.little else "big"


MACHINES = [
    Machine("X86_64", True, True, 0xFFFFFFFF81000000),
    Machine("AARCH64", True, False, 0xFFFF800080000000),
    Machine("PPC64", True, False, 0xC000000000100000),
    Machine("S390X", True, False, 0x100000),
    Machine("ARM", False, True, 0xC0100000),
    Machine("ARM", False, False, 0x80100000),
    Machine("I386", False, True, 0xC0100000),
]


def name_of(machine: Machine) -> str:
    return f"{machine.architecture}-{machine.order}"


def kernel_of(machine: Machine, words: list[int]) -> Kernel:
    """A kernel that has these words at `machine.start`."""
    memory = b"".join(word.to_bytes(machine.size, machine.order) for word in words)  # type: ignore[arg-type]
    flags = drgn.PlatformFlags(0)
    if machine.wide:
        flags |= drgn.PlatformFlags.IS_64_BIT
    if machine.little:
        flags |= drgn.PlatformFlags.IS_LITTLE_ENDIAN
    prog = drgn.Program(drgn.Platform(drgn.Architecture[machine.architecture], flags))

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        return memory[offset : offset + count]

    prog.add_memory_segment(machine.start, len(memory), read, False)
    return Kernel(prog, None)


@pytest.mark.parametrize("machine", MACHINES, ids=name_of)
def test_words_are_read_as_the_machine_has_them(machine: Machine) -> None:
    kernel = kernel_of(machine, [0x12, machine.start, 0x01020304])
    assert kernel.read_word(machine.start) == 0x12
    assert kernel.read_word(machine.start + machine.size) == machine.start
    last = machine.start + 2 * machine.size + (0 if machine.little or not machine.wide else 4)
    assert kernel.read_unsigned(last, 4) == 0x01020304
    assert (kernel.word.bits, kernel.word.order) == (8 * machine.size, machine.order)
    assert DrgnTarget(kernel, "made up").evaluate(f"*{machine.start + machine.size:#x} + 1") == machine.start + 1


@pytest.mark.parametrize("machine", MACHINES, ids=name_of)
def test_a_list_is_followed(machine: Machine) -> None:
    """Head, and two nodes: each a struct list_head of two words."""
    head, first, second = (machine.start + place * 2 * machine.size for place in range(3))
    kernel = kernel_of(machine, [first, second, second, head, head, first])
    assert list(list_nodes(kernel, head, 10)) == [first, second]


@pytest.mark.parametrize("machine", MACHINES, ids=name_of)
def test_a_list_that_leads_to_no_kernel_address(machine: Machine) -> None:
    kernel = kernel_of(machine, [0, machine.start])
    with pytest.raises(TargetError, match="it goes on at 0x0, which is not a kernel address"):
        list(list_nodes(kernel, machine.start, 10))


@pytest.mark.parametrize("machine", MACHINES, ids=name_of)
def test_values_are_as_wide_as_the_machine(machine: Machine) -> None:
    kernel = kernel_of(machine, [0])
    bits = 8 * machine.size
    assert address_of(-1, "-1", kernel) == (1 << bits) - 1
    for number in (1 << bits, -(1 << bits - 1) - 1):
        with pytest.raises(ExpressionError, match=f"more than {bits} bits"):
            address_of(number, "x", kernel)
