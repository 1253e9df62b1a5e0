"""How an image is placed in memory: from link addresses to runtime addresses and back.

KASLR moves the whole image by one offset, with one exception: x86_64 up to 6.14 links the per-CPU section at address 0
(a variable's address is its offset in a CPU's area), and these do not move. 6.15 gave it ordinary addresses inside
init. The section's own address shows which it is; the version is not checked.
"""

from __future__ import annotations

from collections.abc import Sequence

from kplug.arch.types.word import WIDEST_MASK, signed
from kplug.frozen import Frozen
from kplug.image.elf.sections import PERCPU_SECTION, Section


def zero_based_percpu(sections: Sequence[Section]) -> range | None:
    """The link addresses of a per-CPU section that is linked at 0 as offsets, or None if it is an ordinary one."""
    for section in sections:
        if section.name == PERCPU_SECTION and section.allocated and section.address == 0 and section.size:
            return range(section.address, section.end)
    return None


class Placement(Frozen):
    """Where an image is: `runtime = link + kaslr_offset` (modulo the machine's width), but for `unmoved` addresses.

    `source` says how the KASLR offset is known, in words for the user; `known` is false if it is not known, and link
    addresses are used instead. `link_known` is false if the image was read from memory, or as it ran: its own addresses
    are runtime addresses, and those in the ELF file are not known. `mask` keeps addresses within the machine's width.
    """

    kaslr_offset: int
    source: str
    unmoved: range | None = None
    known: bool = True
    link_known: bool = True
    mask: int = WIDEST_MASK

    @property
    def signed_kaslr_offset(self) -> int:
        """The KASLR offset as a distance: negative for a kernel that runs below its link address."""
        return signed(self.kaslr_offset, self.mask)

    @property
    def kaslr_offset_text(self) -> str:
        """The signed KASLR offset in hex."""
        return hex(self.signed_kaslr_offset)

    def runtime(self, link_address: int) -> int:
        """The runtime address of a link address."""
        if self.unmoved is not None and link_address in self.unmoved:
            return link_address
        return link_address + self.kaslr_offset & self.mask

    def link(self, address: int) -> int:
        """The link address of a runtime address. Offsets in the unmoved per-CPU section are both.

        The addresses they would have if they moved hold nothing of the image, and are returned unchanged. So are those
        that the machine does not have.
        """
        if address > self.mask:
            return address
        link_address = address - self.kaslr_offset & self.mask
        if self.unmoved is not None and (address in self.unmoved or link_address in self.unmoved):
            return address
        return link_address


def as_linked(sections: Sequence[Section], source: str = "as linked", known: bool = True) -> Placement:
    """The placement of an image that has not been moved; or, if not `known`, of one whose KASLR offset is not known."""
    return Placement(0, source, zero_based_percpu(sections), known)


def as_it_runs(sections: Sequence[Section], source: str) -> Placement:
    """The placement of an image whose addresses are runtime addresses, while its link address is not known."""
    return Placement(0, source, zero_based_percpu(sections), known=False, link_known=False)


def moved_by(sections: Sequence[Section], kaslr_offset: int, source: str) -> Placement:
    """The placement of an image moved by `kaslr_offset` bytes."""
    return Placement(kaslr_offset & WIDEST_MASK, source, zero_based_percpu(sections))
