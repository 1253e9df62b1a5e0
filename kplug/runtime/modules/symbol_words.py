"""Addresses of code in the kernel's own words."""

from __future__ import annotations

from kplug.errors import TargetError
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.images import images_of


def symbol_words(kernel: Kernel, address: int) -> str | None:
    """`function+0x9a/0x440` as the kernel prints it (%pS), followed by the module's name; None if no symbol is known to
    hold the address."""
    if not address:
        return None
    # A call that never returns may be a function's last instruction: then the return address is after the function.
    for place in (address, address - 1):
        try:
            found = images_of(kernel).holding(place)
        except TargetError:  # the modules cannot be read; the answer does without the symbol
            return None
        chain = found[0].image.index.chain(found[0].placement.link(place)) if found is not None else ()
        if found is not None and chain:
            break
    else:
        return None
    placed, extent = found[0], chain[-1]
    link_address = placed.placement.link(address)
    words = f"{extent.symbol.name}+{link_address - extent.start:#x}/{extent.end - extent.start:#x}"
    return f"{words} [{placed.image.name}]" if placed.image.is_module else words
