"""The search for the KASLR offset, in made-up memory. The truth is the KASLR offset that the memory was made with."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from support.elf_builder import BASE_32, small_vmlinux

from kplug.errors import MismatchError, TargetError
from kplug.image.elf.file import ElfFile, Note
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_vmlinux
from kplug.memory import kaslr_ways as ways
from kplug.memory.kaslr_offset import Checker, find_kaslr_offset
from kplug.memory.reading import FaultError

MASK = (1 << 64) - 1
KASLR_OFFSET = 0x2A4F_2E00_0000


class Memory:
    """A kernel's file, at a KASLR offset from its link addresses."""

    def __init__(self, image: KernelImage, kaslr_offset: int) -> None:
        self.image, self.kaslr_offset = image, kaslr_offset
        self.reads: list[int] = []
        self.changed: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        self.reads.append(address)
        if address in self.changed:
            return self.changed[address].ljust(size, b"\0")[:size]
        data = self.image.elf.read_address(address - self.kaslr_offset & MASK, size)
        if data is None or len(data) < size:
            raise FaultError(f"nothing at {address:#x}")
        return data


@pytest.fixture(scope="module")
def arm64() -> Iterator[KernelImage]:
    from vmimages import fetch

    image = open_vmlinux(str(fetch("arm64-6.12", quiet=True).vmlinux))
    yield image
    image.elf.close()


def linked(image: KernelImage, name: str) -> int:
    return image.symbols.exact(name)[0].address


@pytest.mark.kernel
class TestArm64:
    def test_vector_table(self, arm64: KernelImage) -> None:
        memory = Memory(arm64, KASLR_OFFSET)
        way = ways.by_vector_table(arm64, memory.read, "VBAR_EL1", [linked(arm64, "vectors") + KASLR_OFFSET & MASK])
        found = find_kaslr_offset(Checker(arm64), memory.read, [ways.not_moved(), way])
        assert found.placement is not None
        assert found.placement.kaslr_offset == KASLR_OFFSET
        assert found.placement.source == "VBAR_EL1"
        assert found.checked
        assert [attempt.way for attempt in found.trail] == ["not moved", "VBAR_EL1"]
        assert len(memory.reads) < 6

    def test_wrong_vector_table(self, arm64: KernelImage) -> None:
        """The trampoline's vectors, in user mode with page-table isolation, lead nowhere: then the code's own place."""
        memory = Memory(arm64, KASLR_OFFSET)
        pc = linked(arm64, "schedule") + KASLR_OFFSET & MASK
        found = find_kaslr_offset(
            Checker(arm64), memory.read,
            [ways.by_vector_table(arm64, memory.read, "VBAR_EL1", [0xFFFFFBFFFDE00800]), ways.search(arm64, pc)],
        )  # fmt: skip
        assert found.placement is not None
        assert found.placement.kaslr_offset == KASLR_OFFSET

    def test_nothing_there(self, arm64: KernelImage) -> None:
        memory = Memory(arm64, KASLR_OFFSET)
        found = find_kaslr_offset(
            Checker(arm64), memory.read, [ways.not_moved(), ways.given(0x200000), ways.search(arm64, None)]
        )
        assert found.placement is None
        assert [attempt.outcome for attempt in found.trail][-1] == "no candidate"

    def test_unchecked(self, arm64: KernelImage) -> None:
        memory = Memory(arm64, KASLR_OFFSET)
        found = find_kaslr_offset(Checker(arm64), memory.read, [ways.not_moved(), ways.given(0x200000)], check=False)
        assert found.placement is not None
        assert (found.placement.kaslr_offset, found.checked) == (0x200000, False)
        assert "not checked" in found.placement.source

    def test_other_builds(self, arm64: KernelImage) -> None:
        checker = Checker(arm64)
        by_name = {proof.what: proof for proof in checker.proofs}
        banner, build_id = by_name["banner"], by_name["build ID"]
        other = b"Linux version 6.99.1-other (gcc) #1 SMP"
        memory = Memory(arm64, KASLR_OFFSET)
        memory.changed[banner.address + KASLR_OFFSET & MASK] = other
        with pytest.raises(MismatchError, match=r"6\.99\.1-other"):
            find_kaslr_offset(checker, memory.read, [ways.given(KASLR_OFFSET)])
        # The same banner, and yet another build: the build ID tells.
        memory = Memory(arm64, KASLR_OFFSET)
        memory.changed[build_id.address + KASLR_OFFSET & MASK] = bytes(20)
        with pytest.raises(MismatchError, match="0" * 40):
            find_kaslr_offset(checker, memory.read, [ways.given(KASLR_OFFSET)])
        assert not checker.still_matches(memory.read, KASLR_OFFSET)

    def test_identity(self, arm64: KernelImage) -> None:
        start = linked(arm64, "_text")
        kaslr_offset = 0x4020_0000 - start & MASK
        memory = Memory(arm64, kaslr_offset)
        checker = Checker(arm64)
        entry = linked(arm64, "primary_entry") + kaslr_offset & MASK
        (found,) = ways.identity(arm64, memory.read, entry, checker).candidates()
        assert found == kaslr_offset
        # A kernel that a reset left in memory: its banner is there, but other code runs.
        memory.changed[entry] = bytes(64)
        assert list(ways.identity(arm64, memory.read, entry, checker).candidates()) == []

    def test_target_fails(self, arm64: KernelImage) -> None:
        def read(address: int, size: int) -> bytes:
            raise TargetError("the connection to the target was closed")

        with pytest.raises(TargetError, match="closed"):
            find_kaslr_offset(Checker(arm64), read, [ways.not_moved()])


def test_kernel_offset() -> None:
    def offset(text: bytes, owner: str = "VMCOREINFO") -> int | None:
        return ways.kernel_offset([Note("CORE", 1, b"KERNELOFFSET=1"), Note(owner, 0, text)])

    assert offset(b"OSRELEASE=6.1\nKERNELOFFSET=30a00000\nSIZE(page)=64\n") == 0x30A00000
    assert offset(b"KERNELOFFSET=0\n") == 0
    assert offset(b"KERNELOFFSET=-1000\n") == MASK - 0xFFF
    for text in (
        b"KERNELOFFSET=\n",
        b"KERNELOFFSET=xyz\n",
        b"XKERNELOFFSET=1\n",
        b"KERNELOFFSET=11112222333344445\n",
        b"",
    ):
        assert offset(text) is None
    assert offset(b"KERNELOFFSET=1\n", "CORE ") is None


def test_a_banner_that_no_symbol_names() -> None:
    """Kallsyms of functions alone (without CONFIG_KALLSYMS_ALL) do not name it; the file has it all the same."""
    elf = small_vmlinux(32)
    elf.symbols = [each for each in elf.symbols if each.name != "linux_banner"]
    image = KernelImage(ElfFile("vmlinux", io.BytesIO(bytes(elf))))
    assert image.release == "6.99.0-test"
    assert {each.what: each.address for each in Checker(image).proofs}["banner"] == BASE_32 + 0x1000
