"""How a kernel maps its memory: its page tables, the image, and the direct map."""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.aarch64.page_tables import Tables
from kplug.arch.types.page_tables import Paging, PagingSources, ReadEntry, Translation
from kplug.frozen import Frozen


def paging(sources: PagingSources) -> Paging:
    numbers = sources.numbers
    page_size = sources.page_size or 4096
    shift = page_size.bit_length() - 1
    va_bits = numbers.get("VA_BITS", 48)
    # What the CPU was set up for: a kernel built for 52 bits runs with 48 on a CPU that has no more.
    t1sz = numbers.get("TCR_EL1_T1SZ")
    bits = 64 - t1sz if t1sz is not None else min(va_bits, 48) if shift < 16 else va_bits
    offset = numbers.get("kimage_voffset")  # printed as unsigned
    physical_start = numbers.get("PHYS_OFFSET")
    if physical_start is not None and physical_start >> 63:
        physical_start -= 1 << 64  # negative if a 52-bit kernel runs with 48 bits
    linear = (1 << 64) - (1 << va_bits)
    linear_end = (1 << 64) - (1 << min(va_bits, 47 if shift == 14 else 48) - 1)  # _PAGE_END(VA_BITS_MIN)
    max_pfn = sources.facts.max_pfn or sources.variable("max_pfn", image_offset=offset)
    direct_map = direct_offset = None
    if physical_start is not None:
        direct_offset = linear - physical_start
        end = min(linear_end, (max_pfn << shift) + direct_offset) if max_pfn else linear_end
        direct_map = range(max(linear, direct_offset), max(end, linear))
    top = sources.symbol("swapper_pg_dir")
    return Paging(
        page_shift=shift,
        address_bits=bits,
        image=sources.image,
        image_offset=offset,
        direct_map=direct_map,
        direct_offset=direct_offset,
        root=None if top is None or offset is None else top - offset,
        tables=lambda root, user: Tables(root, bits, shift, user),
        upper_half=(1 << 64) - (1 << bits),
    )


class BothTables(Frozen):
    """A CPU's two sets of page tables, between which bit 55 of an address chooses; None where walks are disabled. The
    top byte of an address is no part of it where the CPU ignores it.
    """

    lower: Tables | None
    upper: Tables | None
    ignores_top: tuple[bool, bool] = (False, False)

    entry_size = Tables.entry_size

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        is_upper = bool(address & _UPPER)
        if self.ignores_top[is_upper]:
            address = address | _TOP_BYTE if is_upper else address & ~_TOP_BYTE
        tables = self.upper if is_upper else self.lower
        return tables.translate(read, address) if tables is not None else None


_UPPER, _TOP_BYTE = 1 << 55, 0xFF << 56
# Arm Architecture Reference Manual, D19.2: SCTLR_EL1.M, HCR_EL2.TGE; C5.2.19 "SPSR_EL1": M.
_SCTLR_MMU, _HCR_HOST = 1 << 0, 1 << 27
_MODE, _USER_MODES, _EL1_MODES = 0x1F, (0b00000, 0b10000), (0b00100, 0b00101)
# "TCR_EL1": DS; for each half the lowest bit of TxSZ, EPDx, the lowest bit of TGx and what it says, TBIx.
_TCR_WIDE = 1 << 59
_LOWER = (0, 1 << 7, 14, {0: 12, 1: 16, 2: 14}, 1 << 37)
_HIGHER = (16, 1 << 23, 30, {1: 14, 2: 12, 3: 16}, 1 << 38)


def cpu_tables(register: Callable[[str], int | None], kernel: bool) -> BothTables | None:
    """See `Architecture.cpu_tables`. A CPU in user mode does not show the kernel's: it may use a table that maps hardly
    any of it (CONFIG_UNMAP_KERNEL_AT_EL0), and where the whole one is, the registers do not tell.
    """
    names = ("cpsr", "SCTLR", "TCR_EL1", "TTBR0_EL1", "TTBR1_EL1")  # QEMU's names
    status, system, control, low, high = (register(name) for name in names)
    if status is None or system is None or control is None or low is None or high is None:
        return None
    if status & _MODE in _USER_MODES:
        if kernel or (register("HCR_EL2") or 0) & _HCR_HOST:
            return None
    elif status & _MODE not in _EL1_MODES:
        return None  # the hypervisor's registers, or the firmware's, are others
    if not system & _SCTLR_MMU:
        return None
    halves: list[Tables | None] = []
    for user, base, (size_bit, disabled, page_bit, page_shifts, _) in ((True, low, _LOWER), (False, high, _HIGHER)):
        if control & disabled:
            halves.append(None)
            continue
        page_shift, bits = page_shifts.get(control >> page_bit & 3), 64 - (control >> size_bit & 0x3F)
        if page_shift is None or not page_shift < bits <= 52:
            return None
        tables = Tables(_base(base, page_shift, bits), bits, page_shift, user)
        if page_shift < 16 and tables.wide != bool(control & _TCR_WIDE):
            return None
        halves.append(tables)
    return BothTables(halves[0], halves[1], (bool(control & _LOWER[-1]), bool(control & _HIGHER[-1])))


def _base(register: int, page_shift: int, bits: int) -> int:
    """The physical address in a TTBRx_EL1. With 52-bit ones, bits 5:2 are their highest."""
    if page_shift == 16 or bits > 48:
        return register & (1 << 48) - (1 << 6) | (register >> 2 & 0xF) << 48
    return register & (1 << 48) - 2
