"""Special values. Expected figures: include/linux/poison.h, include/linux/errno.h, include/uapi/asm-generic/errno*.h,
include/uapi/linux/magic.h and the files named at the tests, of 6.12 unless a test says otherwise.

errno_table.NAMES and .INTERNAL were compared with every #define of the three errno headers of 6.1 and 6.12: no
difference."""

from __future__ import annotations

import errno
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplug.space import errno_table, poison
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space
from kplug.space.special import Special, specials

POISON_POINTER_DELTA = 0xDEAD000000000000  # CONFIG_ILLEGAL_POINTER_VALUE of x86_64 and arm64


def x86_64(**facts: object) -> AddressSpace:
    space = address_space("x86_64", AddressSpaceFacts(**{"pgtable_l5_enabled": False, **facts}))  # type: ignore[arg-type]
    assert space is not None
    return space


def arm64(**facts: object) -> AddressSpace:
    known = {"image_start": 0xFFFF800080000000, "va_bits": 48, "page_size": 4096, "has_early_init_stack": True}
    space = address_space("aarch64", AddressSpaceFacts(**{**known, **facts}))  # type: ignore[arg-type]
    assert space is not None
    return space


def read(address: int, space: AddressSpace | None = None) -> tuple[Special, ...]:
    space = space or x86_64()
    return specials(address, space.machine, space)


def first(address: int, space: AddressSpace | None = None) -> Special:
    return read(address, space)[0]


def err_ptr(code: int) -> int:
    return (1 << 64) - code


# Ordinary addresses.


@pytest.mark.parametrize(
    "address", [0xFFFFFFFF81000000, 0xFFFF888012345678, 0xFFFFC90000001000, 0xFFFFEA0000000040, 0xFFFFFFFFC0123456]
)
def test_an_ordinary_kernel_address_says_nothing(address: int) -> None:
    assert read(address) == ()


def test_a_user_address() -> None:
    assert [special.what for special in read(0x7FFDE0001234)] == ["user"]


@pytest.mark.parametrize("address", [-1, 1 << 64])
def test_more_than_64_bits_is_refused(address: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        read(address)


def test_no_value_of_the_tables_lies_among_ordinary_addresses() -> None:
    """They are answered without a look at the tables: from ff00000000000000 (5 levels) to the last 64 KiB."""
    tables = (poison.VALUES, poison.MAGICS)
    assert not [row for table in tables for row in table if 0xFF << 56 <= row.value < 0xFFFFFFFFFFFF0000]
    assert not [row for row in poison.FILLS if row.value == 0xFF]


# NULL.


def test_null() -> None:
    assert (first(0).what, first(0).name) == ("null", "NULL")


@pytest.mark.parametrize("offset", [1, 0x18, 0xFFF])
def test_a_small_offset_is_a_member_of_null(offset: int) -> None:
    special = first(offset)
    assert (special.what, special.name, special.base, special.guess) == ("null", f"NULL+{offset:#x}", 0, False)


def test_a_large_offset_from_null_is_a_guess_beside_the_user_address() -> None:
    assert [(special.what, special.guess) for special in read(0x2000)] == [("null", True), ("user", False)]


def test_zero_size_ptr_is_a_reading_of_0x10() -> None:
    """include/linux/slab.h."""
    assert [special.name for special in read(0x10)] == ["NULL+0x10", "ZERO_SIZE_PTR"]


def test_container_of_null_is_a_second_reading_of_a_small_negative() -> None:
    special = read(err_ptr(16))[1]
    assert (special.what, special.name, special.guess) == ("null", "NULL-0x10", True)


# Error pointers.


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1, "EPERM"),
        (11, "EAGAIN"),
        (12, "ENOMEM"),
        (22, "EINVAL"),
        (35, "EDEADLK"),
        (95, "EOPNOTSUPP"),
        (110, "ETIMEDOUT"),
        (133, "EHWPOISON"),
        (512, "ERESTARTSYS"),
        (516, "ERESTART_RESTARTBLOCK"),
        (517, "EPROBE_DEFER"),
        (524, "ENOTSUPP"),
        (530, "ERECALLCONFLICT"),
        (531, "ENOGRACE"),
    ],
)
def test_error_pointers_by_name(code: int, name: str) -> None:
    special = first(err_ptr(code))
    assert (special.what, special.name, special.base) == ("errptr", f"ERR_PTR(-{name})", err_ptr(code))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="numbers of Linux")
def test_the_codes_that_user_programs_see_are_pythons() -> None:
    same_number = {"ENOTSUP": "EOPNOTSUPP", "EDEADLOCK": "EDEADLK", "EWOULDBLOCK": "EAGAIN"}
    expected = {code: same_number.get(name, name) for code, name in errno.errorcode.items()}
    expected.update({133: "EHWPOISON", 134: "EFTYPE"})  # errno.h; Python knows what its headers had
    assert {code: name for code, name in errno_table.NAMES.items() if code < 512} == expected


def test_every_internal_code_is_explained() -> None:
    assert set(errno_table.INTERNAL) == {code for code in errno_table.NAMES if code >= 512}


def test_a_number_that_no_error_has_is_a_guess() -> None:
    special = first(err_ptr(600))
    assert (special.what, special.name, special.guess) == ("errptr", "ERR_PTR(-600)", True)


def test_max_errno_bounds_the_error_pointers() -> None:
    """include/linux/err.h: MAX_ERRNO is 4095."""
    assert first(err_ptr(4095)).what == "errptr"
    assert read(err_ptr(4096)) == ()


def test_an_int_error_taken_for_a_pointer() -> None:
    special = first(0xFFFFFFF4)
    assert (special.what, special.name, special.guess) == ("errptr", "(u32)-ENOMEM", True)


# Poison pointers: poison.h.


@pytest.mark.parametrize("space", [x86_64(), arm64()], ids=["x86_64", "arm64"])
@pytest.mark.parametrize(
    ("offset", "name"),
    [
        (0x100, "LIST_POISON1"),
        (0x122, "LIST_POISON2"),
        (0x300, "TIMER_ENTRY_STATIC"),
        (0x400, "TAIL_MAPPING"),
        (0x500, "MUTEX_POISON_WW_CTX"),
        (0x40, "PP_SIGNATURE"),
        (0x800, "SKB_LIST_POISON_NEXT"),
        (0x801, "NET_PTR_POISON"),
        (0xEB9F, "BPF_PTR_POISON"),
        (0xF5, "VFS_PTR_POISON"),
        (0xD390, "STACK_DEPOT_POISON"),
    ],
)
def test_poison_pointers(space: AddressSpace, offset: int, name: str) -> None:
    special = first(POISON_POINTER_DELTA + offset, space)
    assert (special.what, special.name, special.base) == ("poison", name, POISON_POINTER_DELTA + offset)


def test_list_poison2_of_4_19_is_told_by_its_versions() -> None:
    """poison.h of 4.19: LIST_POISON2 was 0x200."""
    special = first(POISON_POINTER_DELTA + 0x200)
    assert (special.name, special.versions) == ("LIST_POISON2", "4.19")


@pytest.mark.parametrize(
    ("offset", "name", "base"),
    [
        (0x108, "LIST_POISON1+0x8", 0x100),  # ->prev of the poisoned next
        (0x12A, "LIST_POISON2+0x8", 0x122),
        (0x130, "LIST_POISON1+0x30", 0x100),  # 8-aligned from the first, not from the second
        (0xF8, "LIST_POISON1-0x8", 0x100),  # container_of() of the poisoned next
    ],
)
def test_an_access_near_list_poison_says_from_which(offset: int, name: str, base: int) -> None:
    special = first(POISON_POINTER_DELTA + offset)
    assert (special.name, special.base) == (name, POISON_POINTER_DELTA + base)


@pytest.mark.parametrize("machine", ["riscv64", "s390x"])
def test_machines_without_a_map_have_the_pointer_poison_too(machine: str) -> None:
    assert specials(POISON_POINTER_DELTA + 0x100, machine, None)[0].name == "LIST_POISON1"


def test_a_32_bit_error_pointer_is_one() -> None:
    [special] = specials(0xFFFFFFF3, "i386", None)
    assert (special.what, special.name, special.guess) == ("errptr", "ERR_PTR(-EACCES)", False)


def test_ppc64_has_its_own_delta() -> None:
    """arch/powerpc/Kconfig; a machine without a map still has its special values."""
    assert specials(0x5DEADBEEF0000100, "ppc64", None)[0].name == "LIST_POISON1"


def test_an_explained_value_is_not_guessed_at() -> None:
    assert [special.what for special in read(POISON_POINTER_DELTA + 0x100)] == ["poison", "non-canonical"]


def test_poison_is_not_taken_for_an_authentication_code() -> None:
    assert [special.what for special in read(POISON_POINTER_DELTA + 0xD390, arm64())] == ["poison", "non-canonical"]


def test_poison_with_a_plausible_flip_is_not_guessed_at() -> None:
    """0x6b6b... is text ("kkkkkkkk") as well, and no one should be told so."""
    assert not any("text" in special.name for special in read(0x6B6B6B6B6B6B6B6B))


# Memory filled with a byte: poison.h.


@pytest.mark.parametrize(
    ("byte", "name"),
    [
        (0x6B, "POISON_FREE"),
        (0x5A, "POISON_INUSE"),
        (0xBB, "SLUB_RED_INACTIVE"),
        (0xCC, "SLUB_RED_ACTIVE"),
        (0xCC, "POISON_FREE_INITMEM"),
        (0xAA, "PAGE_POISON"),
        (0xA7, "POOL_POISON_FREED"),
        (0xA9, "POOL_POISON_ALLOCATED"),
        (0x5B, "JBD_POISON_FREE"),
        (0x5C, "JBD2_POISON_FREE"),
        (0x11, "MUTEX_DEBUG_INIT"),
        (0x22, "MUTEX_DEBUG_FREE"),
        (0xBD, "KEY_DESTROY"),
    ],
)
def test_fills(byte: int, name: str) -> None:
    readings = read(int.from_bytes(bytes([byte] * 8), "little"))
    assert ("poison", name, False) in [(special.what, special.name, special.guess) for special in readings]


def test_a_member_of_a_freed_object() -> None:
    special = first(0x6B6B6B6B6B6B6B7B)
    assert (special.name, special.base) == ("POISON_FREE+0x10", 0x6B6B6B6B6B6B6B6B)


def test_the_container_of_a_freed_pointer() -> None:
    assert first(0x6B6B6B6B6B6B6B5B).name == "POISON_FREE-0x10"


def test_the_last_word_of_a_freed_object_ends_in_poison_end() -> None:
    """mm/slub.c: the last byte is POISON_END, the highest one of a little-endian word."""
    assert first(0xA56B6B6B6B6B6B6B).name == "POISON_FREE ... POISON_END"


def test_the_last_word_as_a_hex_dump_shows_it() -> None:
    assert ("POISON_FREE ... POISON_END", True) in [(s.name, s.guess) for s in read(0x6B6B6B6B6B6B6BA5)]


def test_a_32_bit_fill_is_a_guess_beside_the_user_address() -> None:
    readings = read(0x6B6B6B6B)
    assert [(special.what, special.name, special.guess) for special in readings] == [
        ("poison", "POISON_FREE (32 bits)", True),
        ("user", "user address", False),
    ]


def test_a_fill_in_the_upper_half_is_a_guess() -> None:
    special = first(0x6B6B6B6B00000001)
    assert (special.name, special.guess) == ("POISON_FREE in the upper half", True)


def test_a_sign_extended_fill_is_a_guess() -> None:
    assert all(special.guess for special in read(0xFFFFFFFFCCCCCCCC))


def test_int3_is_the_padding_of_x86_only() -> None:
    assert "int3" not in [special.name for special in read(0xCCCCCCCCCCCCCCCC, arm64())]


# Whole words and magics.


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0xFFFFFFFFFFFF4111, "STACKLEAK_POISON"),  # mm.rst; stackleak.h: -0xBEEF
        (0x09F911029D74E35B, "RED_INACTIVE"),  # poison.h of 6.1
        (0xD84156C5635688C0, "RED_ACTIVE"),  # poison.h of 6.1
        (0xAAAAAAAAAAAAAAAA ^ 0x0706050403020100, "KFENCE_CANARY_PATTERN_U64"),  # mm/kfence/kfence.h
        (0x57AC6E9D, "STACK_END_MAGIC"),  # magic.h
        (0xDEAD4EAD, "SPINLOCK_MAGIC"),  # spinlock_types_raw.h
        (0xDEAF1EED, "RWLOCK_MAGIC"),  # rwlock_types.h
        (0x41B58AB3, "KASAN stack frame magic"),  # mm/kasan/kasan.h
    ],
)
def test_words(value: int, name: str) -> None:
    assert (first(value).what, first(value).name) == ("poison", name)


def test_minus_one_has_three_readings() -> None:
    """err.h, page-flags.h (PAGE_POISON_PATTERN), spinlock_types_raw.h (SPINLOCK_OWNER_INIT)."""
    assert [special.name for special in read((1 << 64) - 1)] == [
        "ERR_PTR(-EPERM)",
        "PAGE_POISON_PATTERN",
        "SPINLOCK_OWNER_INIT",
    ]


def test_a_magic_after_the_lock_word() -> None:
    special = first(0xDEAD4EAD00000000)
    assert (special.name, special.guess) == ("SPINLOCK_MAGIC in the upper half", False)


# Non-canonical addresses.


def test_non_canonical() -> None:
    assert (first(0x8000000000000000).what, first(0x8000000000000000).guess) == ("non-canonical", False)


def test_what_5_levels_would_make_of_it_is_said_if_the_level_is_not_known() -> None:
    special = first(0xFF11000000000000, x86_64(pgtable_l5_enabled=None))
    assert "direct map" in special.meaning
    assert special.guess


def reasons(address: int, space: AddressSpace | None = None) -> list[tuple[str, int | None]]:
    return [(special.name, special.meant) for special in read(address, space) if special.guess]


def test_one_flipped_bit() -> None:
    assert reasons(0xFFFF7FFF81234567) == [("bit 47 flipped", 0xFFFFFFFF81234567)]


def test_a_flipped_bit_must_lead_into_the_image() -> None:
    space = x86_64(image_start=0xFFFFFFFF81000000, image_end=0xFFFFFFFF83C30000, runtime_image_start=0xFFFFFFFF81000000)
    assert reasons(0xFFFF7FFF91234567, space) == []


def test_a_flipped_bit_into_a_hole_is_no_reason() -> None:
    assert reasons(0xFFFF7FFF00001234) == []


def test_text() -> None:
    """The bytes of "hello wo", lowest first."""
    address = int.from_bytes(b"hello wo", "little")
    assert ('text "hello wo"', None) in reasons(address)


def test_control_characters_are_not_text() -> None:
    assert reasons(int.from_bytes(b"he\x1b[31mo", "little")) == []


def test_swapped_halves() -> None:
    assert reasons(0x81234567FFFFFFFF) == [("swapped halves", 0xFFFFFFFF81234567)]


def test_lost_upper_bits() -> None:
    assert ("upper bits lost", 0xFFFF888012345678) in reasons(0x0000888012345678)


# KASAN: mm/kasan/report.c, kasan_non_canonical_hook(); the offset from arch/x86/Kconfig, arch/arm64/Kconfig.


@pytest.mark.parametrize(
    ("space", "offset"), [(x86_64(), 0xDFFFFC0000000000), (arm64(), 0xDFFF800000000000)], ids=["x86_64", "arm64"]
)
def test_kasan_shadow_of_a_null_pointer(space: AddressSpace, offset: int) -> None:
    special = first(offset + 3, space)
    assert (special.what, special.name, special.meant) == ("non-canonical", "KASAN shadow of NULL+0x18", 0x18)


def test_kasan_shadow_of_poison_is_a_guess() -> None:
    special = first(0xDFFFFC0000000000 + (0xDEAD000000000100 >> 3))
    assert (special.name, special.guess) == ("KASAN shadow of LIST_POISON1", True)


def test_no_kasan_no_shadow() -> None:
    readings = read(0xDFFFFC0000000003, x86_64(kasan_shadow=False))
    assert not any("KASAN" in special.name for special in readings)


# arm64: tags and pointer authentication codes (memory.h: bit 55 chooses the half, the top byte can be a tag).


def test_a_tagged_kernel_address() -> None:
    special = first(0xF4FF000012345678, arm64())
    assert (special.name, special.meant, special.guess) == ("tag 0xf4", 0xFFFF000012345678, True)


def test_a_tagged_user_address() -> None:
    special = first(0x0B00AAAABBBB0000, arm64())
    assert (special.name, special.meant, special.guess) == ("tag 0x0b", 0x0000AAAABBBB0000, False)


def test_a_pointer_authentication_code() -> None:
    assert reasons(0xFEEF800080123456, arm64()) == [("pointer authentication code", 0xFFFF800080123456)]


def test_a_cpu_without_pointer_authentication_has_no_codes() -> None:
    """arch/arm64/kernel/vmcore_info.c: KERNELPACMASK is 0 there."""
    assert reasons(0xFEEF800080123456, arm64(kernel_pac_mask=0)) == []


def test_one_bit_above_the_address_is_wrong() -> None:
    """A code may look so too, but rarely."""
    flipped, code = reasons(0xFF7F000000123456, arm64())
    assert flipped == ("bit 55 flipped", 0xFFFF000000123456)
    assert code == ("pointer authentication code", 0x123456)
    assert reasons(0xFFFD000000123456, arm64(kernel_pac_mask=0)) == [("bit 49 flipped", 0xFFFF000000123456)]


def test_what_is_left_without_a_code_must_be_more_than_null() -> None:
    assert reasons(0xFF11000000000000, arm64()) == []


def test_x86_64_has_no_tags() -> None:
    assert reasons(0xF4FF000012345678) == []


# Any value at all.


@given(st.integers(0, (1 << 64) - 1), st.sampled_from([x86_64(), x86_64(pgtable_l5_enabled=True), arm64()]))
def test_every_value_is_read(address: int, space: AddressSpace) -> None:
    for special in read(address, space):
        assert special.name
        assert special.meaning.endswith(".")
        assert special.meant is None or 0 <= special.meant < 1 << 64


@given(st.integers(0, (1 << 64) - 1))
def test_without_a_map_every_value_is_read(address: int) -> None:
    assert all(special.what in ("null", "errptr", "poison") for special in specials(address, "vax", None))
