"""The selected CPU's registers, as far as the stub gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import gdb
from kplug.arch.registers import ordered, registers_of
from kplug_gdb import machine

# Groups of registers that hold no addresses.
_OTHER_GROUPS = {"float", "vector", "sse", "mmx"}
# What gdb calls registers that the core calls otherwise.
_GDBS_NAMES = ("cpsr",)

# Control register bits (Intel SDM vol. 3, 2.5 "Control Registers"; EFER: 2.2.1).
CR0_PAGING = 1 << 31
SCTLR_MMU = 1 << 0  # Arm ARM, "SCTLR, System Control Register": M
# z/Architecture Principles of Operation, "Program-Status-Word Format": bit 5, DAT mode, and bit 15, problem state.
PSW_TRANSLATION, PSW_PROBLEM = 1 << 58, 1 << 48
MSR_PROBLEM = 1 << 14  # Power ISA, Book III, "Machine State Register": PR
CR4_LA57 = 1 << 12
EFER_NO_EXECUTE = 1 << 11
# arch/x86/include/asm/processor-flags.h: X86_CR3_PTI_PCID_USER_BIT's neighbour; the user's page tables are the page
# after the kernel's (PTI_USER_PGTABLE_BIT, arch/x86/entry/calling.h).
CR3_USER_TABLES = 1 << 12


def _innermost() -> gdb.Frame:
    try:
        return gdb.newest_frame()
    except gdb.error:  # gdb 13 on s390x, once after its caches were emptied: "PC not saved"
        return gdb.newest_frame()


def register(*names: str) -> int | None:
    """The value of the first of these registers that exists, in the innermost frame; None if none does."""
    try:
        frame = _innermost()
    except gdb.error:
        return None
    for name in names:
        try:
            return number(frame.read_register(name))
        except (gdb.error, ValueError):
            continue
    return None


def number(value: gdb.Value) -> int:
    """A register's value as an unsigned number: pointers of some machines are signed ones to gdb."""
    return int(value) & (1 << 8 * value.type.sizeof) - 1


def counter(frame: gdb.Frame) -> int:
    """Where a frame is: its program counter."""
    return int(frame.pc()) & machine.mask()


def program_counter() -> int | None:
    """The selected CPU's program counter, whichever frame is selected."""
    try:
        return counter(_innermost())
    except gdb.error:
        return None


def privileged() -> bool | None:
    """Whether the selected CPU runs in kernel mode; None if its registers don't show it."""
    selector = register("cs")
    if selector is not None:
        in_protected_mode = (register("cr0") or 1) & 1
        return not in_protected_mode or selector & 3 == 0
    status = register("cpsr")
    if status is not None:
        # Arm ARM, "Saved Program Status Register": M[4] is set in AArch32, whose user mode is 0b10000; else M[3:2] is
        # the exception level. A program in AArch32 on a 64-bit kernel is in that user mode too.
        return bool(status & (0xF if status & 0x10 else 0xC))
    mode = register("priv")  # QEMU's for RISC-V: 0 is user mode
    if mode is not None:
        return mode != 0
    for name, bit in (("pswm", PSW_PROBLEM), ("msr", MSR_PROBLEM)):
        mask = register(name)
        if mask is not None:
            return not mask & bit
    return None


def paging() -> bool:
    """Whether the selected CPU translates addresses; true if its registers don't show it."""
    # s390x has a cr0 too, which means something else.
    for name, bit in (("pswm", PSW_TRANSLATION), ("cr0", CR0_PAGING), ("SCTLR", SCTLR_MMU)):
        control = register(name)
        if control is not None:
            return bool(control & bit)
    return True


def in_startup() -> bool:
    """Whether the selected CPU is in firmware or in the kernel's startup code: privileged, and at an address that is
    not the kernel's, or without translation.
    """
    pc = program_counter()
    return bool(privileged()) and pc is not None and not (machine.is_kernel(pc) and paging())


def forget() -> None:
    """Make gdb read the registers again: a reset through QEMU's monitor changes them without gdb knowing."""
    try:
        gdb.execute("maintenance flush register-cache", to_string=True)
    except gdb.error:
        gdb.execute("flushregs", to_string=True)  # its name up to gdb 10


def of_selected_frame() -> Iterator[tuple[str, int | None]]:
    """Name and value of each register that holds a number; None if it was not saved.

    gdb.error if there is no frame.
    """
    frame = gdb.selected_frame()
    architecture = frame.architecture()
    known = {group.name for group in architecture.register_groups()}
    others = {each.name for group in known & _OTHER_GROUPS for each in architecture.registers(group)}
    names = (each.name for group in ("general", "system") for each in architecture.registers(group))
    for name in dict.fromkeys(names):
        if name in others:
            continue
        try:
            value = frame.read_register(name)
            found = None if value.is_optimized_out else number(value)
        except (gdb.error, ValueError, TypeError):
            continue  # the stub does not have it
        yield name, found


def in_pt_regs(of_machine: str) -> dict[str, int]:
    """The selected CPU's registers that a struct pt_regs has, by the core's names; gdb has others for some."""
    names = registers_of(of_machine).pt_regs
    found = ordered(_of_innermost_frame((*names, *_GDBS_NAMES)), of_machine)
    return {name: found[name] for name in names if name in found}


def _of_innermost_frame(names: Iterable[str]) -> dict[str, int]:
    """The registers of the selected CPU, of those names; empty if there is no frame."""
    found = {}
    for name in names:
        value = register(name)
        if value is not None:
            found[name] = value
    return found


def follows_call_of(frame: gdb.Frame) -> bool:
    """Whether a frame made a call, by gdb's own unwinding; it may have been interrupted, or be the innermost."""
    inner = frame.newer()
    while inner is not None and inner.type() == gdb.INLINE_FRAME and inner.pc() == frame.pc():
        inner = inner.newer()  # inlined in it, at the same place
    return inner is not None and inner.type() != gdb.SIGTRAMP_FRAME


def frames(limit: int = 1024) -> Iterator[tuple[gdb.Frame, int]]:
    """gdb's frames with their numbers, innermost first, as far as gdb can unwind."""
    try:
        frame: gdb.Frame | None = gdb.newest_frame()
        for number in range(limit):
            if frame is None:
                return
            yield frame, number
            frame = frame.older()
    except gdb.error:
        return
