"""A loaded module that is only known from kallsyms: its symbols, and the memory around them that is certainly its own.

A list has no sizes, and a module's memory is in pieces that need not be adjacent (since 6.4 text, data and read-only
data are allocated separately). So a symbol reaches to the next one only if both are certainly in one piece: on one
page, or both in text. Otherwise it reaches to the end of its page, since module memory is allocated in pages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from kplug import model
from kplug.arch import registry
from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.image.elf.header_only import bare_elf
from kplug.image.elf.section_flags import SHF_EXECINSTR, SHF_WRITE
from kplug.image.elf.sections import extent
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import Piece, PlacedImage
from kplug.image.symbols.listings import NO_MODULES
from kplug.image.symbols.symbol_list import SymbolList
from kplug.named_tuples import NamedTuple

# The smallest page of any architecture: with larger pages, less than possible is claimed.
_PAGE = 0x1000
_TEXT = frozenset(b"tT")
# bpf_get_kallsym() (kernel/bpf/core.c): programs of all sizes share pages, so nothing is known after their first byte.
BPF = "bpf"


def is_offset(address: int) -> bool:
    """Whether an address of a module's symbol is not a place but x86's offset of a per-CPU variable."""
    return not address >> (63 if address >> 32 else 31)


def listed_module(
    name: str, symbols: SymbolList, machine: str, path: str, *, starts: Iterable[int] = ()
) -> KernelImage:
    """The module of that name in its place, from its symbols in the list at `path`.

    `starts` are the start addresses of its sections, as far as they are known: no symbol reaches across one.
    """
    elf = bare_elf(path, machine, relocatable=True)
    held = held_ranges(symbols, starts, one_byte=name == BPF)
    extents = [extent(0, "", 0, 0, 0)]
    for number, part in enumerate(held, 1):
        extents.append(extent(number, "", part.start, part.end, SHF_EXECINSTR if part.is_text else SHF_WRITE))
    return KernelImage(elf, name=name, listed=_as_data(symbols), sections=(), extents=extents, on_disk=False)


def _as_data(symbols: SymbolList) -> SymbolList:
    """The symbols with per-CPU variables as data: kallsyms lists an offset of one as an absolute number."""
    if not any(map(is_offset, symbols.addresses)):
        return symbols
    letters = bytearray(symbols.letters)
    for number, address in enumerate(symbols.addresses):
        if is_offset(address) and letters[number] in b"aA":
            letters[number] = ord("d") if letters[number] == ord("a") else ord("D")
    return symbols.with_letters(bytes(letters))


class Held(NamedTuple):
    """A range `[start, end)` that certainly belongs to symbols, either all text or no text."""

    start: int
    end: int
    is_text: bool


def held_ranges(symbols: SymbolList, starts: Iterable[int] = (), *, one_byte: bool = False) -> list[Held]:
    """The ranges that certainly belong to symbols, sorted and cut at `starts`; with `one_byte`, only first bytes."""
    bounds = sorted(set(starts))
    text = {address for address, letter in zip(symbols.addresses, symbols.letters) if letter in _TEXT}
    addresses = sorted(set(symbols.addresses))
    ranges: list[Held] = []
    for address, following in zip(addresses, [*addresses[1:], BEYOND_ADDRESSES]):
        is_text = address in text
        end = min(following, (address // _PAGE + 1) * _PAGE)
        if is_text and following in text:
            end = following
        bound = bisect_right(bounds, address)
        if bound < len(bounds):
            end = min(end, bounds[bound])
        if one_byte or is_offset(address):
            end = address + 1
        last = ranges[-1] if ranges else None
        if last is not None and last.end == address and last.is_text == is_text:
            ranges[-1] = last._replace(end=end)
        else:
            ranges.append(Held(address, end, is_text))
    return ranges


class PlacedListing(PlacedImage):
    """A module that is only known from kallsyms. Ranges with text are known to be text, offsets to be per-CPU."""

    def knows_end(self, link_address: int) -> bool:
        return self.image.name != BPF and not is_offset(link_address)

    @property
    def is_packed(self) -> bool:
        return self.image.name not in NO_MODULES

    def _make_piece(self, number: int) -> Piece | None:
        piece = super()._make_piece(number)
        if piece is None:
            return None
        if registry.named(self.image.machine).percpu_at_zero and is_offset(piece.start):
            return piece._replace(region_class=model.PERCPU_CLASS)
        held = (extent for extent in self.image.extents if extent.address <= piece.start < extent.end)
        return piece._replace(region_class=model.TEXT) if any(extent.executable for extent in held) else piece
