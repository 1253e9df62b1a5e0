"""Facts about a kernel's address space, from its vmlinux and from the memory of a running or crashed kernel."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from kplug.arch.registry import named
from kplug.errors import TargetError
from kplug.frozen import replace
from kplug.image.placed import PlacedImage
from kplug.memory.reading import Read, try_read
from kplug.space.address_space import AddressSpaceFacts

if TYPE_CHECKING:
    from kplug.image.kernel_image import KernelImage

_SHADOW_PAGES = ("kasan_early_shadow_page", "kasan_zero_page")  # the second is its name before 5.0
_LEVEL, _COMMAND_LINE = "__pgtable_l5_enabled", "saved_command_line"
_COMMAND_LINE_PIECE, _COMMAND_LINE_MAX = 256, 4096


def static_facts(placed: PlacedImage) -> AddressSpaceFacts:
    """The facts in the vmlinux alone. A module, or a file without boundary symbols, has none."""
    image = placed.image
    root = image.regions.root

    @cache
    def has(symbol: str) -> bool:
        return bool(image.symbols.indexes_of(symbol))

    if root is None:
        return AddressSpaceFacts()
    linked = placed.placement.link_known
    told: dict[str, Any] = {
        fact: there if has(symbol) else missing for symbol, fact, there, missing in named(image.machine).symbol_facts
    }
    return AddressSpaceFacts(
        image_start=root.start if linked else None,
        image_end=root.end if linked else None,
        runtime_image_start=placed.placement.runtime(root.start),
        runtime_image_end=placed.placement.runtime(root.end),
        kasan_shadow=any(map(has, _SHADOW_PAGES)),
        **told,
    )


def look_up_names(image: KernelImage, others: Iterable[str] = ()) -> None:
    """Have the image find the symbols that `memory_facts` asks for, and these, and its regions, so that it has them."""
    architecture = named(image.machine)
    facts = (*(row[0] for row in architecture.symbol_facts), *(row[0] for row in architecture.variables))
    image.symbols.look_up((*facts, *_SHADOW_PAGES, _LEVEL, _COMMAND_LINE, *others))
    _ = image.index  # which has the regions made


def begins_to_boot(placed: PlacedImage, read: Read) -> bool:
    """Whether the kernel has not reached SYSTEM_SCHEDULING (enum system_states): then its records mislead."""
    address = _address(placed, "system_state")
    try:
        return address is not None and not any(read(address, 4))
    except TargetError:
        return False


def memory_facts(placed: PlacedImage, read: Read) -> AddressSpaceFacts:
    """The facts in the vmlinux and in the kernel's variables in memory; `read` is a Target's. Takes a few small reads.

    A variable that cannot be read, or is not set yet early in boot (zero), leaves the vmlinux's fact.
    """
    facts = static_facts(placed)
    known: dict[str, Any] = {}
    architecture = named(placed.image.machine)
    for name, field, size, *within in architecture.variables:
        value = _variable(placed, read, name, size, *within)
        if value or (value is not None and field == "phys_base"):  # which is 0 where the image was not moved
            known.setdefault(field, value)
    if facts.pgtable_l5_enabled is None and "page_offset_base" in known:  # set after the level is
        level = _variable(placed, read, _LEVEL, 4)
        if level is not None:
            known["pgtable_l5_enabled"] = bool(level)
    known["kaslr_disabled"] = _kaslr_disabled(placed, read)
    return replace(facts, **known)


def _kaslr_disabled(placed: PlacedImage, read: Read) -> bool | None:
    """Whether this boot had no KASLR although the kernel may be built for it; None if not known."""
    boot_kaslr = named(placed.image.machine).boot_kaslr
    if boot_kaslr is not None:
        moved = boot_kaslr(lambda name: _address(placed, name), lambda address, size: try_read(read, address, size))
        if moved is not None:
            return not moved
    line = _command_line(placed, read)
    return True if line is not None and b"nokaslr" in line.split() else None


def _command_line(placed: PlacedImage, read: Read) -> bytes | None:
    """The kernel's command line, or its first 4 KiB."""
    address = _variable(placed, read, _COMMAND_LINE, placed.image.elf.word.size)
    text = b""
    while address and b"\0" not in text and len(text) < _COMMAND_LINE_MAX:
        at = address + len(text)
        piece = try_read(read, at, _COMMAND_LINE_PIECE - at % _COMMAND_LINE_PIECE)  # never past the end of a page
        if piece is None:
            return None
        text += piece
    return text.partition(b"\0")[0] or None


def _variable(placed: PlacedImage, read: Read, name: str, size: int, within: int = 0) -> int | None:
    """The value of a variable of the image in memory, or of what is `within` it, signed if `size` is negative; None if
    it cannot be read.
    """
    address = _address(placed, name)
    data = try_read(read, address + within, abs(size)) if address is not None else None
    return None if data is None else int.from_bytes(data, placed.image.elf.word.order, signed=size < 0)


def _address(placed: PlacedImage, name: str) -> int | None:
    symbols = placed.image.symbols.exact(name)
    return placed.symbol_address(symbols[0]) if symbols else None
