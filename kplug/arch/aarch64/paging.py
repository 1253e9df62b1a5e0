"""How a kernel maps its memory: its page tables, the image, and the direct map."""

from __future__ import annotations

from kplug.arch.aarch64.page_tables import Tables
from kplug.arch.types.page_tables import Paging, PagingSources


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
