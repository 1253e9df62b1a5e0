"""Page tables, walked in memory made here. Real ones: tests/runtime/memory and tests/gdb."""

from __future__ import annotations

import pytest

from kplug.arch.aarch64 import page_tables as aarch64
from kplug.arch.aarch64.paging import cpu_tables
from kplug.arch.arm import page_tables as arm
from kplug.arch.i386 import page_tables as i386
from kplug.arch.types.page_tables import Translation
from kplug.arch.x86_64 import page_tables as x86_64

NX, PRESENT, WRITE, LARGE = 1 << 63, 1, 2, 0x80


@pytest.mark.parametrize("levels", [4, 5])
def test_x86_64(levels: int) -> None:
    address = 0xFFFFFFFF81234567 if levels == 4 else 0xFF11223344556677
    shifts = [12 + 9 * level for level in range(levels - 1, -1, -1)]

    def walk(
        leaf_shift: int, leaf: int, upper: int = PRESENT | WRITE, no_execute: bool = True, encryption: int = 0
    ) -> Translation | None:
        entries, table = {}, 0x1000
        for shift in shifts:
            slot = table + (address >> shift & 0x1FF) * 8
            if shift == leaf_shift:
                entries[slot] = leaf | encryption
                break
            table += 0x1000
            entries[slot] = table | upper | encryption
        tables = x86_64.Tables(0x1000, levels, no_execute, encryption)
        return tables.translate(lambda slot: entries.get(slot, 0), address)

    def rights(*args: int, no_execute: bool = True) -> str | None:
        found = walk(*args, no_execute=no_execute)
        return found.permissions if found else None

    in_page = address & 0xFFF
    expected = Translation(0x7654000 | in_page, 0x1000 - in_page, "r-x", 0x1000, 0)
    assert walk(12, 0x7654000 | PRESENT) == expected
    assert walk(12, 0x7654000 | PRESENT, encryption=1 << 47) == expected
    assert rights(12, 0x7654000 | PRESENT | WRITE | NX) == "rw-"
    assert rights(12, 0x7654000 | PRESENT | WRITE | NX, PRESENT) == "r--"
    assert rights(12, 0x7654000 | PRESENT | NX, no_execute=False) == "r-x"
    assert rights(12, 0x7654000 | PRESENT, PRESENT | NX) == "r--"
    for level, shift in ((1, 21), (2, 30)):
        size = 1 << shift
        found = walk(shift, 3 * size | PRESENT | LARGE | 1 << 12)  # bit 12 is PAT in a large page
        assert found == Translation(3 * size | address & size - 1, size - (address & size - 1), "r-x", size, level)
    assert walk(12, 0x7654000) is None
    assert walk(39, LARGE | PRESENT) is None  # no such large page: walked on, into nothing


@pytest.mark.parametrize("levels", [4, 5])
def test_x86_64_not_canonical(levels: int) -> None:
    """The bits above those that are translated repeat the highest one, or nothing is mapped: every access faults."""
    tables = x86_64.Tables(0x1000, levels)
    entry = 0x1000 | PRESENT  # each table is the table below itself
    asked: list[int] = []

    def read(place: int) -> int:
        asked.append(place)
        return entry

    bits = 12 + 9 * levels
    for address in (0x1000, (1 << bits - 1) - 1, (1 << 64) - (1 << bits - 1), 0xFFFFFFFFC03BF000):
        assert tables.translate(read, address) is not None, hex(address)
    asked.clear()
    for address in (1 << bits - 1, (1 << 64) - (1 << bits - 1) - 1, 0xFFFFFFFFC03BF000 ^ 1 << 58, 1 << 63):
        assert tables.translate(read, address) is None, hex(address)
    assert not asked


@pytest.mark.parametrize("address_bits", [39, 48, 52])
def test_arm64_of_the_other_half(address_bits: int) -> None:
    """The bits above choose the tables; an address whose bits above are mixed has none."""
    leaf, above = 0x7654000 | VALID | TABLE, (1 << 64) - (1 << address_bits)
    for user in (False, True):
        tables = aarch64.Tables(0x100000, address_bits, 12, user)
        own, other = (0, above) if user else (above, 0)
        assert tables.translate(lambda slot: leaf, own | 0x1234) is not None
        for wrong in (other, 1 << 63, 1 << address_bits, above ^ 1 << 58):
            assert tables.translate(lambda slot: leaf, wrong | 0x1234) is None, hex(wrong)


VALID, TABLE, PXN, UXN, READ_ONLY, DBM = 1, 2, 1 << 53, 1 << 54, 1 << 7, 1 << 51
ADDRESS_64 = 0xFFFF_8000_8123_4567


def walk_arm64(
    page_shift: int, address_bits: int, leaf_level: int, leaf: int, *, upper: int = 0, user: bool = False
) -> Translation | None:
    """A walk for an address of the kernel's or the user's half through tables that lead to one leaf entry."""
    tables = aarch64.Tables(0x100000, address_bits, page_shift, user)
    address, per_level = ADDRESS_64 & (1 << address_bits) - 1, page_shift - 3
    entries, table = {}, 0x100000
    for level in range(tables.levels - 1, -1, -1):
        slot = table + (address >> page_shift + per_level * level & (1 << per_level) - 1) * 8
        if level == leaf_level:
            entries[slot] = leaf
            break
        table += 1 << page_shift
        entries[slot] = table | VALID | TABLE | upper
    half = 0 if user else (1 << 64) - (1 << address_bits)
    return tables.translate(lambda slot: entries.get(slot, 0), address | half)


@pytest.mark.parametrize(
    ("page_shift", "address_bits", "levels", "top"),
    [
        (12, 39, 3, 512),
        (12, 48, 4, 512),
        (12, 52, 5, 16),
        (14, 36, 2, 2048),
        (14, 47, 3, 2048),
        (14, 48, 4, 2),
        (14, 52, 4, 32),
        (16, 42, 2, 8192),
        (16, 52, 3, 1024),
    ],
)
def test_arm64_geometries(page_shift: int, address_bits: int, levels: int, top: int) -> None:
    """Documentation/arch/arm64/memory.rst has these: as many levels, pages of that size, blocks one level up."""
    tables = aarch64.Tables(0, address_bits, page_shift)
    assert (tables.levels, tables.top_entries) == (levels, top)
    size = 1 << page_shift
    found = walk_arm64(page_shift, address_bits, 0, 7 * size | VALID | TABLE | UXN)
    in_page = ADDRESS_64 & size - 1
    assert found == Translation(7 * size | in_page, size - in_page, "rwx", size, 0)
    block = 1 << page_shift + page_shift - 3
    found = walk_arm64(page_shift, address_bits, 1, 3 * block | VALID | PXN)
    in_block = ADDRESS_64 & block - 1
    assert found == Translation(3 * block | in_block, block - in_block, "rw-", block, 1)


@pytest.mark.parametrize(
    ("leaf", "upper", "user", "expected"),
    [
        (0, 0, False, "rwx"),
        (PXN, 0, False, "rw-"),
        (UXN, 0, False, "rwx"),
        (UXN, 0, True, "rw-"),
        (READ_ONLY, 0, False, "r-x"),
        (READ_ONLY | DBM | PXN, 0, False, "rw-"),  # clean, and the hardware makes it dirty at the first write
        (0, 1 << 62, False, "r-x"),
        (0, 1 << 59, False, "rw-"),
        (0, 1 << 60, False, "rwx"),
        (0, 1 << 60, True, "rw-"),
    ],
)
def test_arm64_rights(leaf: int, upper: int, user: bool, expected: str) -> None:
    found = walk_arm64(12, 48, 0, 0x7654000 | VALID | TABLE | leaf, upper=upper, user=user)
    assert found is not None
    assert found.permissions == expected


def test_arm64_wide_physical_addresses() -> None:
    found = walk_arm64(12, 52, 0, 0x7654000 | 0b10 << 8 | VALID | TABLE)  # FEAT_LPA2: bits 9:8 are 51:50
    assert found is not None
    assert found.physical == 2 << 50 | 0x7654567
    found = walk_arm64(12, 48, 0, 0x7654000 | 0b11 << 8 | VALID | TABLE)  # without it, shareability
    assert found is not None
    assert found.physical == 0x7654567
    found = walk_arm64(16, 48, 0, 0x7650000 | 0xA << 12 | VALID | TABLE)  # 64 KiB: bits 15:12 are 51:48
    assert found is not None
    assert found.physical == 0xA << 48 | 0x7654567


def test_arm64_entries_that_map_nothing() -> None:
    assert walk_arm64(12, 48, 0, 0x7654000 | TABLE) is None
    assert walk_arm64(12, 48, 0, 0x7654000 | VALID) is None  # reserved at the lowest level
    assert walk_arm64(12, 48, 3, 0x7654000 | VALID) is None  # no block at the top


@pytest.mark.parametrize("pae", [True, False])
def test_i386(pae: bool) -> None:
    """PAE's top entries have no permissions, and only PAE's others forbid execution."""
    address = 0xC1234567
    tables = i386.Tables(0x1000, pae)
    shifts = (30, 21, 12) if pae else (22, 12)

    def walk(leaf_shift: int, leaf: int, upper: int = PRESENT | WRITE) -> Translation | None:
        entries, table = {}, 0x1000
        for shift in shifts:
            slot = table + (address >> shift & tables.entries - 1) * tables.entry_size
            if shift == leaf_shift:
                entries[slot] = leaf
                break
            table += 0x1000
            entries[slot] = table | (PRESENT if shift == 30 else upper)
        return tables.translate(lambda slot: entries.get(slot, 0), address)

    in_page = address & 0xFFF
    assert walk(12, 0x7654000 | PRESENT | WRITE) == Translation(0x7654000 | in_page, 0x1000 - in_page, "rwx", 0x1000, 0)
    assert walk(12, 0x7654000 | PRESENT, PRESENT) == Translation(
        0x7654000 | in_page, 0x1000 - in_page, "r-x", 0x1000, 0
    )
    size = 1 << shifts[-2]
    large = walk(shifts[-2], 3 * size | PRESENT | LARGE | 1 << 12)  # bit 12 is PAT in a large page
    assert large == Translation(3 * size | address & size - 1, size - (address & size - 1), "r-x", size, 1)
    assert walk(12, 0x7654000) is None
    found = walk(12, 0x7654000 | PRESENT | WRITE | NX)
    assert found is not None
    assert found.permissions == ("rw-" if pae else "rwx")
    assert tables.translate(lambda slot: PRESENT, 1 << 32) is None
    if not pae:
        assert walk(22, 5 << 13 | PRESENT | LARGE) == Translation(
            5 << 32 | address & size - 1, size - (address & size - 1), "r-x", size, 1
        )


def test_the_tables_of_a_cpu_of_32_bits() -> None:
    """Under isolation the kernel's are the page before the user's. Without EFER there is PAE without NX or none."""
    registers = {"cr0": 1 << 31, "cr3": 0x1CB3020, "cr4": 1 << 5, "efer": 1 << 11}
    assert i386.cpu_tables(registers.get, False) == i386.Tables(0x1CB3020, True)
    assert i386.cpu_tables(registers.get, True) == i386.Tables(0x1CB2020, True)
    assert i386.cpu_tables({**registers, "cr4": 0}.get, False) == i386.Tables(0x1CB3000, False)
    assert i386.cpu_tables({**registers, "cr0": 1}.get, False) is None


def test_arm() -> None:
    """The short descriptors: sections and supersections, small and large pages, two tables where TTBCR.N is set."""
    address, table = 0xC0D33610, 0x4020_4000
    slot = table + (address >> 20) * 4

    def walk(first: int, second: int = 0) -> Translation | None:
        entries = {slot: first, (first & 0xFFFFFC00) + (address >> 12 & 0xFF) * 4: second}
        return arm.Tables(table).translate(lambda place: entries.get(place, 0), address)

    def expected(page: int, size: int, rights: str, level: int) -> Translation:
        within = address & size - 1
        return Translation(page + within, size - within, rights, size, level)

    section, coarse, small, large = 2, 1, 2, 1
    read_only, read_only_page = 1 << 15, 1 << 9
    assert walk(0x40D0_0000 | section | read_only) == expected(0x40D0_0000, 1 << 20, "r-x", 1)
    assert walk(0x40D0_0000 | section | 1 << 4) == expected(0x40D0_0000, 1 << 20, "rw-", 1)
    high = 1 << 18 | 3 << 20 | 1 << 5  # a supersection, with bits 32 and above of its address
    assert walk(0x4000_0000 | high | section) == expected(0x13_4000_0000, 16 << 20, "rwx", 1)
    assert walk(0x5000_0400 | coarse, 0x40D3_3000 | small | 1) == expected(0x40D3_3000, 4 << 10, "rw-", 0)
    assert walk(0x5000_0400 | coarse, 0x40D3_3000 | small | read_only_page) == expected(0x40D3_3000, 4 << 10, "r-x", 0)
    assert walk(0x5000_0400 | coarse, 0x40D3_0000 | large | 1 << 15) == expected(0x40D3_0000, 64 << 10, "rw-", 0)
    assert walk(0) is None
    assert walk(0x5000_0400 | coarse, 0) is None
    split = arm.Tables(0x1000, table, 1)
    assert split.translate({slot: 0x40D0_0000 | section}.get, address) is not None  # type: ignore[arg-type]
    registers = {"SCTLR": 1, "TTBR0": 0x4180_806A, "TTBR1": 0x4020_406A, "TTBCR": 0}
    assert arm.cpu_tables(registers.get, True) == arm.Tables(0x4180_8000, 0x4020_4000, 0)
    assert arm.cpu_tables({**registers, "TTBCR": 1 << 31}.get, True) is None  # the long descriptors
    assert arm.cpu_tables({**registers, "SCTLR": 0}.get, True) is None


# What QEMU 7.2 shows of a CPU in Debian's 6.12, by the gdb command `info registers system`.
ARM64_52 = {  # -cpu max
    "cpsr": 0x414000C5, "SCTLR": 0x2000018B474591D, "TCR_EL1": 0x95001F6B54C350C,
    "TTBR0_EL1": 0x4387E201, "TTBR1_EL1": 0x2000041A79001,
}  # fmt: skip
ARM64_48 = {  # -cpu cortex-a72
    "cpsr": 0x400000C5, "SCTLR": 0x200000034F4D91D, "TCR_EL1": 0x500074B5503510,
    "TTBR0_EL1": 0x4811E000, "TTBR1_EL1": 0x32000041A79000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("registers", "bits", "lower"), [(ARM64_52, 52, 0x4387E200), (ARM64_48, 48, 0x4811E000)], ids=["52", "48"]
)
def test_the_tables_of_an_arm64_cpu(registers: dict[str, int], bits: int, lower: int) -> None:
    tables = cpu_tables(registers.get, False)
    assert tables is not None
    assert (tables.lower, tables.upper) == (
        aarch64.Tables(lower, bits, 12, True), aarch64.Tables(0x41A79000, bits, 12),
    )  # fmt: skip
    assert cpu_tables(registers.get, True) == tables
    in_user_mode = {**registers, "cpsr": 0}
    assert cpu_tables(in_user_mode.get, False) == tables
    assert cpu_tables(in_user_mode.get, True) is None
    assert cpu_tables({**in_user_mode, "cpsr": 0x10}.get, False) == tables  # a 32-bit program
    for wrong in (
        {"cpsr": 0x9}, {"cpsr": 0xD}, {"cpsr": 0x13},  # EL2, EL3, a privileged mode of 32 bits
        {"cpsr": 0, "HCR_EL2": 1 << 27}, {"SCTLR": 0}, {"TCR_EL1": registers["TCR_EL1"] ^ 1 << 59},
        {"TCR_EL1": registers["TCR_EL1"] & ~(3 << 30)},
    ):  # fmt: skip
        assert cpu_tables({**registers, **wrong}.get, False) is None, wrong
    for name in registers:
        assert cpu_tables({key: value for key, value in registers.items() if key != name}.get, False) is None, name


def test_the_half_of_an_arm64_address() -> None:
    """Bit 55 chooses; the top byte is ignored where TCR_EL1.TBI0 or TBI1 is set; EPD0 and EPD1 disable walks."""
    leaf, control = 0x7654000 | VALID | TABLE, 16 | 16 << 16 | 2 << 30
    base = {**ARM64_48, "TTBR0_EL1": 0x10000, "TTBR1_EL1": 0x20000}

    def first_read(address: int, more: int = 0) -> int | None:
        tables, read = cpu_tables({**base, "TCR_EL1": control | more}.get, False), []
        assert tables is not None
        tables.translate(lambda slot: read.append(slot) or leaf, address)  # type: ignore[func-returns-value]
        return read[0] if read else None

    assert (first_read(0x1000), first_read(0xFFFF_0000_0000_1000)) == (0x10000, 0x20000)
    for tagged, bit, expected in ((0x12 << 56, 37, 0x10000), (0x12FF << 48, 38, 0x20000)):
        assert first_read(tagged) is None
        assert first_read(tagged, 1 << bit) == expected
    assert first_read(0x1000, 1 << 7) is None
    assert first_read(0xFFFF_0000_0000_1000, 1 << 23) is None


@pytest.mark.parametrize(("granules", "shift"), [(2 << 14 | 1 << 30, 14), (1 << 14 | 3 << 30, 16)])
def test_the_granules_of_an_arm64_cpu(granules: int, shift: int) -> None:
    """TG0 and TG1 have other values for one size. 52-bit physical addresses have their highest bits in 5:2."""
    high = 0xA << 2 if shift == 16 else 0
    tables = cpu_tables({**ARM64_48, "TCR_EL1": 17 | 17 << 16 | granules, "TTBR1_EL1": 0x40000 | high}.get, False)
    assert tables is not None
    assert tables.upper == aarch64.Tables(0x40000 | (0xA << 48 if high else 0), 47, shift)
    assert tables.lower == aarch64.Tables(0x4811E000, 47, shift, True)
