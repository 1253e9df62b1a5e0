"""Addresses of code in the kernel's own words."""

from __future__ import annotations

from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.images import symbol_extent


def symbol_words(kernel: Kernel, address: int) -> str | None:
    """`function+0x9a/0x440` as the kernel prints it (%pS), followed by the module's name; None if no symbol is known to
    hold the address."""
    if not address:
        return None
    # A call that never returns may be a function's last instruction: then the return address is after the function.
    found = symbol_extent(kernel, address) or symbol_extent(kernel, address - 1)
    if found is None:
        return None
    placed, extent = found
    link_address = placed.placement.link(address)
    words = f"{extent.symbol.name}+{link_address - extent.start:#x}/{extent.end - extent.start:#x}"
    return f"{words} [{placed.image.name}]" if placed.image.is_module else words
