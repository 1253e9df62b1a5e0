"""Pointer authentication: the bits above an address may be a signature."""

from __future__ import annotations

from kplug.arch.registry import named
from kplug.arch.types.memory_map import AddressSpaceFacts
from kplug.arch.types.word import WordFormat


def without_signature(value: int, machine: str, facts: AddressSpaceFacts, word: WordFormat) -> int:
    """The address in a saved program counter: arm64 kernels put a signature in the bits above it.

    (arch/arm64/include/asm/pointer_auth.h, ptrauth_strip_kernel_insn_pac)
    """
    if not named(machine).signed_pointers or not value >> 55 & 1:
        return value
    if facts.kernel_pac_mask is not None:
        return value | facts.kernel_pac_mask
    return value | word.mask & -(1 << facts.vabits_actual) if facts.vabits_actual is not None else value
