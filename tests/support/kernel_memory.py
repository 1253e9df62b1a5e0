"""A kernel of which there is no file, only memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from kplug.errors import TargetError
from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import moved_by
from kplug.image.symbols.symbol_list import SymbolList
from kplug.session import Session
from kplug.target import Target


class Memory(Target):
    """A target that has some bytes at an address, and nothing else."""

    def __init__(self, address: int, data: bytes) -> None:
        self.address, self.data = address, data

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        if not self.address <= address <= address + size <= self.address + len(self.data):
            raise TargetError("nothing there")
        return self.data[address - self.address :][:size]


def kernel_without_a_file(bounds: Sequence[int], memory: Memory) -> Session:
    names = [b"__start_notes", b"__stop_notes"]
    symbols = SymbolList(b"\0".join(names) + b"\0", array("I", [0, 14]), bounds, b"RR", "test")
    image = KernelImage(bare_elf("memory", "x86_64"), listed=symbols)
    return Session([PlacedImage(image, moved_by((), 0x1000000, "test"))], target=memory)  # type: ignore[arg-type]
