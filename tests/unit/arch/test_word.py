"""Words of every width and byte order: what is told of them, and who tells it."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplug.arch.registry import declared, named
from kplug.arch.types.word import WordFormat, signed
from kplug.image.elf.file import ElfFile
from kplug.image.elf.header_only import bare_elf
from kplug.image.elf.writer import SHT_PROGBITS, Form, relocatable
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import moved_by

FORMATS = [WordFormat(bits, little, True) for bits in (32, 64) for little in (True, False)]


def _form(word: WordFormat) -> str:
    return ("<" if word.little_endian else ">") + ("Q" if word.bits == 64 else "I")


@pytest.mark.parametrize("word", FORMATS, ids=_form)
@given(data=st.binary(min_size=64, max_size=64))
def test_numbers_are_as_struct_has_them(word: WordFormat, data: bytes) -> None:
    form = _form(word)
    numbers = [number for (number,) in struct.iter_unpack(form, data)]
    assert list(word.numbers(data)) == numbers
    assert word.at(data, 16) == struct.unpack_from(form, data, 16)[0]
    assert word.packed(numbers) == data
    assert word.unsigned(data, 4, 4) == struct.unpack_from(form[0] + "I", data, 4)[0]
    assert word.signed(data, 4, 4) == struct.unpack_from(form[0] + "i", data, 4)[0]
    assert list(word.numbers(data, 2)) == list(struct.unpack(form[0] + "32H", data))


@pytest.mark.parametrize("word", FORMATS, ids=_form)
@given(bits=st.sets(st.integers(0, 255)))
def test_a_bitmap_is_words_of_bits(word: WordFormat, bits: set[int]) -> None:
    """As set_bit() does it (include/linux/bitops.h): bit n is bit n % BITS_PER_LONG of word n / BITS_PER_LONG."""
    words = [0] * (256 // word.bits)
    for bit in bits:
        words[bit // word.bits] |= 1 << bit % word.bits
    found = word.bitmap(word.packed(words))
    assert {bit for bit in range(256) if found >> bit & 1} == bits


@pytest.mark.parametrize("word", FORMATS, ids=_form)
def test_the_upper_half_is_the_kernels(word: WordFormat) -> None:
    half = 1 << word.bits - 1
    assert [word.is_kernel(address) for address in (0, half - 1, half, 2 * half - 1, 2 * half)] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert word.swapped(0x12) == 0x12 << word.bits - 8


def test_where_no_half_is_the_kernels_alone_any_address_may_be_its() -> None:
    """s390x has an address space for the kernel, from 0 on; i386's PAGE_OFFSET may be 1 GiB (CONFIG_VMSPLIT_1G)."""
    for machine, address in (("s390x", 0x100000), ("i386", 0x40100000), ("sparc64", 0x404000)):
        word = named(machine).word()
        assert word.is_kernel(address)
        assert not word.is_only_kernel(address)


def test_records_tell_the_machines_words() -> None:
    assert {record.word().bits for record in declared()} == {32, 64}
    big = named("ppc64").word(little_endian=False)
    assert (big.size, big.order, big.kernel_start) == (8, "big", 1 << 63)
    assert named("riscv32").word().kernel_start == 1 << 31


@pytest.mark.parametrize(("machine", "bits"), [("arm", 32), ("aarch64", 64), ("s390x", 64)])
def test_an_elf_file_tells_its_own(machine: str, bits: int) -> None:
    word = bare_elf("x", machine).word
    assert (word.bits, word.order) == (bits, "big" if machine == "s390x" else "little")


def test_a_narrow_kernel_that_runs_below_its_link_address() -> None:
    placed = PlacedImage(KernelImage(bare_elf("x", "arm")), moved_by((), -0x10000000, ""))
    assert placed.placement.kaslr_offset_text == "-0x10000000"
    assert placed.placement.runtime(0xC0000000) == 0xB0000000
    assert placed.placement.link(0xB0000000) == 0xC0000000
    assert signed(0xFFFFFFFF, placed.placement.mask) == -1


@pytest.mark.parametrize("word", FORMATS, ids=_form)
def test_symbols_in_a_modules_memory(word: WordFormat) -> None:
    """struct mod_kallsyms has Elf_Sym of the kernel's own class; what is made of them is a file of that class."""
    form = Form(word.bits, word.little_endian)
    table = b"".join(
        form.symbol.pack(*form.symbol_fields(*each)) for each in ((1, 0x12, 3, 0x1000, 8), (5, 1, 2, 4, 0))
    )
    assert form.symbols_in(table) == [(1, 0x12, 3, 0x1000, 8), (5, 1, 2, 4, 0)]
    machine = "aarch64" if word.bits == 64 else "arm"
    elf = ElfFile("m", io.BytesIO(relocatable(machine, word, [(".text", SHT_PROGBITS, 6, 16)], [(b"f", 2, 1, 0, 16)])))
    assert (elf.word.bits, elf.word.order, elf.machine, elf.relocatable) == (word.bits, word.order, machine, True)
    image = KernelImage(elf, bases={1: 1 << word.bits - 1})
    [symbol] = image.symbols.exact("f")
    assert (symbol.address, symbol.size) == (1 << word.bits - 1, 16)
