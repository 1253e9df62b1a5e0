"""Page tables of s390x, ppc64 and riscv64, over crafted entries: their layouts are in the architectures' manuals."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import pytest

from kplug.arch.ppc64.page_tables import Tables as Ppc64
from kplug.arch.ppc64.page_tables import paging as ppc64_paging
from kplug.arch.riscv64.page_tables import Tables as Riscv64
from kplug.arch.s390x.page_tables import Tables as S390x
from kplug.arch.s390x.page_tables import absolute
from kplug.arch.s390x.page_tables import cpu_tables as s390x_cpu_tables
from kplug.arch.types.memory_map import AddressSpaceFacts
from kplug.arch.types.page_tables import Tables, Translation


def translated(tables: Tables, memory: Mapping[int, int], address: int) -> Translation | None:
    return tables.translate(lambda place: memory.get(place, 0), address)


def swapped(entry: int) -> int:
    return int.from_bytes(entry.to_bytes(8, "little"), "big")


class Sources:
    """A kernel of which the size of its pages alone is known (`PagingSources`)."""

    facts, numbers, others = AddressSpaceFacts(), MappingProxyType({}), MappingProxyType({})
    ram_start = image = None
    little_endian, has_image = True, False

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size

    def symbol(self, *names: str) -> int | None:
        return None

    def has_symbol(self, name: str) -> bool:
        return False

    def variable(self, name: str, image_offset: int | None = None) -> int | None:
        return None


class TestS390x:
    INVALID = 0x20
    TABLES = S390x(0x10000, 3)
    MEMORY: ClassVar = {
        0x10000 + 8 * 0x7FF: 0x20007,  # region 3
        0x10000 + 8 * 0x7FE: 0x80000407 | 1 << 9,  # 2 GiB, protected
        0x10000 + 8 * 0x7FD: 0x20027,  # invalid
        0x20000 + 8 * 0x7FF: 0x30800,  # a page table, of 2 KiB
        0x20000 + 8 * 0x7FE: 0x500500,  # 1 MiB, no execution
        0x20000 + 8 * 0x7FD: INVALID,
        0x30800 + 8 * 0xFF: 0x7000 | 1 << 9,  # a page, protected
        0x30800 + 8 * 0xFE: 0x400,  # invalid
    }

    @pytest.mark.parametrize(
        ("address", "physical", "rights", "size"),
        [
            (0x3FFFFFFF123, 0x7123, "r-x", 0x1000),
            (0x3FFFFE12345, 0x512345, "rw-", 1 << 20),
            (0x3FF00001234, 0x80001234, "r-x", 1 << 31),
        ],
    )
    def test_a_page(self, address: int, physical: int, rights: str, size: int) -> None:
        found = translated(self.TABLES, self.MEMORY, address)
        assert found is not None
        assert (found.physical, found.permissions, found.page_size) == (physical, rights, size)
        assert found.room == size - address % size

    @pytest.mark.parametrize("address", [0x3FFFFFFE000, 0x3FFFFD00000, 0x3FE80000000, 1 << 42])
    def test_nothing(self, address: int) -> None:
        memory = {place: self.MEMORY.get(place, self.INVALID | 0x400) for place in range(0x10000, 0x40000, 8)}
        assert translated(self.TABLES, memory, address) is None


class TestPpc64:
    @pytest.mark.parametrize("shift", [12, 16])
    @pytest.mark.parametrize("little_endian", [True, False])
    def test_a_page(self, shift: int, little_endian: bool) -> None:
        stored = swapped if little_endian else int
        address = 0xC008000000236308
        low = address >> shift & (1 << 21 - shift) - 1
        memory = {
            0x10000 + 8 * 0x1000: stored(1 << 63 | 0x20009),
            0x20000: stored(1 << 63 | 0x30009),
            0x30000 + 8: stored(1 << 63 | 0x40009),
            0x40000 + 8 * low: stored(3 << 62 | 0x70000 | 0x8 | 0x5),
            0x30000 + 16: stored(3 << 62 | 0x200000 | 0x8 | 0x6),
        }
        tables = Ppc64(0x10000, shift, little_endian)
        found = translated(tables, memory, address)
        assert found is not None
        assert (found.physical, found.permissions) == (0x70000 + address % (1 << shift), "r-x")
        large = translated(tables, memory, 0xC008000000412345)
        assert large is not None
        assert (large.physical, large.permissions, large.page_size) == (0x212345, "rw-", 2 << 20)
        assert translated(tables, memory, 0xC000000000000000) is None

    @pytest.mark.parametrize(("page_size", "lowest_bits"), [(4 << 10, 9), (64 << 10, 5)])
    def test_the_bits_of_each_level(self, page_size: int, lowest_bits: int) -> None:
        """RADIX_PTE_INDEX_SIZE, RADIX_PMD_INDEX_SIZE and so on: arch/powerpc/include/asm/book3s/64/radix-{4k,64k}.h."""
        paging = ppc64_paging(Sources(page_size))
        tables = paging.tables(0, False)
        bits = [lowest_bits, 9, 9, 13]
        assert [1 << each for each in bits] == [paging.length(tables, level) for level in range(4)]
        shift = page_size.bit_length() - 1
        assert [paging.shift(level) for level in range(4)] == [shift + sum(bits[:level]) for level in range(4)]


class TestRiscv64:
    @pytest.mark.parametrize("levels", [3, 4, 5])
    def test_pages_of_each_size(self, levels: int) -> None:
        memory = {0x1000 * level + 8 * 511: 0x1000 * (level - 1) >> 2 | 1 for level in range(2, levels + 1)}
        memory[0x1000 + 8 * 511] = 0x87654000 >> 2 | 0xCB
        memory[0x1000 + 8 * 496] = (0x87650000 | 0x8000) >> 2 | 1 << 63 | 0xC7  # one of 16: 64 KiB
        memory[0x2000 + 8 * 510] = 0x87600000 >> 2 | 0xCF
        tables = Riscv64(0x1000 * levels, levels)
        for address, physical, rights, size in (
            (0xFFFFFFFFFFFFF123, 0x87654123, "r-x", 0x1000),
            (0xFFFFFFFFFFFF0123, 0x87650123, "rw-", 0x10000),
            (0xFFFFFFFFFFC12345, 0x87612345, "rwx", 2 << 20),
        ):
            found = translated(tables, memory, address)
            assert found is not None
            assert (found.physical, found.permissions, found.page_size) == (physical, rights, size)
        assert translated(tables, memory, 0x7FFFFFFFFFFFF123) is None


@pytest.mark.parametrize(
    ("mask", "root"),
    [
        (0x0705000180000000, 0x1_0000),  # a program: problem state, primary space
        (0x0704800180000000, 0x2_0000),  # secondary space
        (0x0706C00180000000, 0x3_0000),  # the kernel, as QEMU shows it: home space
        (0x0704400180000000, None),  # by access registers
        (None, 0x1_0000),
    ],
)
def test_s390x_by_the_address_space_that_the_psw_selects(mask: int | None, root: int | None) -> None:
    """An ASCE: 7 are a region-third table (DT 01) of full length."""
    registers = {"cr1": 0x1_0007, "cr7": 0x2_0007, "cr13": 0x3_0007, **({} if mask is None else {"pswm": mask})}
    assert s390x_cpu_tables(registers.get, False) == (None if root is None else S390x(root, 3))
    assert s390x_cpu_tables(registers.get, True) == S390x(0x3_0000, 3)


@pytest.mark.parametrize(
    ("prefix", "real", "found"),
    [
        (0, 0x10, (0x10, 0x4000)),
        (0x6000, 0x10, (0x6010, 0x1FF0)),
        (0x6000, 0x1FF8, (0x7FF8, 8)),
        (0x6000, 0x2000, (0x2000, 0x2000)),
        (0x6000, 0x7FF0, (0x1FF0, 0x10)),
    ],
)
def test_s390x_has_each_cpus_lowcore_at_0(prefix: int, real: int, found: tuple[int, int]) -> None:
    assert absolute(prefix, real, 0x4000) == found
