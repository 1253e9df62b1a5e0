"""The expressions of every front end; their grammar is in the head of kplug/expressions.py."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.elf_builder import BASE_32, BASE_64, FILE, FUNC, LOCAL, OBJECT, SHN_ABS, Elf, Sym, small_vmlinux

from kplug.errors import ExpressionError, UnplacedError
from kplug.expressions import MAX_LENGTH, parse_number, places
from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked, moved_by
from kplug.image.symbols.symbol_list import SymbolList

KASLR_OFFSET = 0x8A00000


def placed(folder: Path, elf: Elf | None = None, kaslr_offset: int = 0) -> PlacedImage:
    path = folder / "vmlinux"
    path.write_bytes(bytes(elf or small_vmlinux()))
    image = open_vmlinux(str(path))
    return PlacedImage(image, moved_by(image.sections, kaslr_offset, "") if kaslr_offset else as_linked(image.sections))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> list[PlacedImage]:
    return [placed(tmp_path_factory.mktemp("expressions"))]


def addresses(text: str, images: list[PlacedImage]) -> list[int]:
    return [place.address for place in places(text, images)]


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("0xffffffff81000014", 0x14),
        ("0xFFFFFFFF81000014", 0x14),
        ("0Xffffffff81000014", 0x14),
        ("ffffffff81000014", 0x14),
        ("FFFFFFFF81000014", 0x14),
        ("<ffffffff81000014>", 0x14),
        ("[<ffffffff81000014>]", 0x14),
        (f"{BASE_64 + 0x14}", 0x14),
        ("  0xffffffff81000014\t", 0x14),
        ("start_kernel", 0x10),
        ("&start_kernel", 0x10),
        ("& start_kernel", 0x10),
        ("start_kernel+0x10", 0x20),
        ("start_kernel+0X1a", 0x2A),
        ("start_kernel+16", 0x20),
        ("start_kernel-8", 0x8),
        ("start_kernel - 0x8", 0x8),
        ("start_kernel + 4", 0x14),
        ("start_kernel+0x4/0x20", 0x14),
        ("start_kernel+4/32", 0x14),
        ("&jiffies+0x4", 0x2004),
        (".rodata", 0x1000),
        (".rodata+0x10", 0x1010),
        (".init.text+0", 0x3000),
        ("a.c:twin", 0x40),
        ("b.c:twin+1", 0x61),
        ("'b.c'::twin", 0x60),
        ("b.c::twin", 0x60),
    ],
)
def test_each_form_has_its_address(kernel: list[PlacedImage], text: str, offset: int) -> None:
    assert addresses(text, kernel) == [BASE_64 + offset]


@pytest.mark.parametrize(
    ("text", "address"),
    [("0", 0), ("0x0", 0), ("4096", 4096), ("0x" + "f" * 16, (1 << 64) - 1), (str((1 << 64) - 1), (1 << 64) - 1)],
)
def test_numbers_need_no_vmlinux(text: str, address: int) -> None:
    assert addresses(text, []) == [address]


@pytest.mark.parametrize("text", ["0x" + "0" * 40 + "10", "0" * 40 + "16", "0x10", "16"])
def test_leading_zeros_say_nothing(text: str) -> None:
    assert parse_number(text) == 16


@pytest.mark.parametrize("text", ["0x1" + "0" * 16, str(1 << 64), "9" * 40, "0x" + "f" * 4000, "9" * 4090])
def test_more_than_64_bits_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match="more than 64 bits"):
        places(text, [])


@pytest.mark.parametrize(
    "text", ["start_kernel+0x1" + "0" * 16, "start_kernel+" + "9" * 4000, "start_kernel+1/" + "9" * 99]
)
def test_an_offset_of_more_than_64_bits_is_refused(kernel: list[PlacedImage], text: str) -> None:
    with pytest.raises(ExpressionError, match="more than 64 bits"):
        places(text, kernel)


@pytest.mark.parametrize(
    "text",
    [
        "nothing_of_that_name",
        "start_kerne",
        "art_kernel",
        "START_KERNEL",
        "start_kernel+",
        "start_kernel+0x",
        "start_kernel+zz",
        "start_kernel+1+1",
        "start_kernel+-1",
        "+5",
        "-5",
        "-",
        "+",
        "&",
        "",
        " ",
        "0x",
        "0xg",
        "0x 10",
        "1_000",
        "１２",  # digits, but not ASCII
        ".",
        ".nothing",
        ".symtab",  # not in memory
        "c.c:twin",
        ":twin",
        "a.c:",
        "a.c:start_kernel",  # a global one is of no file
        "undefined",
        "a.c",
        "$pc",
        "*",
        "'",
        "\x00",
        "start_kernel\x00",
        "\udcff",
        "[<ffffffff8100001>]",
        "0x10;0x20",
    ],
)
def test_what_has_no_address_is_refused_in_one_line(kernel: list[PlacedImage], text: str) -> None:
    with pytest.raises(ExpressionError) as refusal:
        places(text, kernel)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


def test_a_missing_vmlinux_is_named_as_the_reason() -> None:
    with pytest.raises(ExpressionError, match="no vmlinux"):
        places("schedule", [])


@given(text=st.text(max_size=60))
def test_any_text_is_a_place_or_refused(kernel: list[PlacedImage], text: str) -> None:
    try:
        found = places(text, kernel)
    except ExpressionError:
        return
    assert found
    assert all(0 <= place.address < 1 << 64 for place in found)


_PARTS = [
    "start_kernel",
    "twin",
    "a.c",
    ":",
    "+",
    "-",
    "/",
    "0x",
    "10",
    "f",
    " ",
    "&",
    "'",
    ".",
    "[",
    "]",
    "<",
    ">",
    "?",
]


@given(text=st.lists(st.sampled_from(_PARTS), max_size=9).map("".join))
def test_any_mixture_of_the_forms_is_a_place_or_refused(kernel: list[PlacedImage], text: str) -> None:
    test_any_text_is_a_place_or_refused.hypothesis.inner_test(kernel, text)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * (MAX_LENGTH - 10) + "b",
        "a+" * (MAX_LENGTH // 2),
        "a.a" * (MAX_LENGTH // 3),
        "a:" * (MAX_LENGTH // 2),
        "1" * MAX_LENGTH,
        "+" * MAX_LENGTH,
        "'" * MAX_LENGTH,
        "," * MAX_LENGTH,
        "a" + ",;:)" * (MAX_LENGTH // 4 - 1) + "b",
        "? " * (MAX_LENGTH // 2),
        "RIP:" * (MAX_LENGTH // 4),
        "x [" * (MAX_LENGTH // 3),
        "a" * (1 << 24),
        " " * (1 << 24),
    ],
)
def test_no_text_takes_long(kernel: list[PlacedImage], text: str) -> None:
    started = time.process_time()
    with pytest.raises(ExpressionError):
        places(text, kernel)
    assert time.process_time() - started < 5  # measured: at most 0.1 s; one with the square takes minutes


# -- names that several things have ------------------------------------------------------------------------------------


def test_static_symbols_of_one_name_are_all_meant(kernel: list[PlacedImage]) -> None:
    assert sorted(addresses("twin", kernel)) == [BASE_64 + 0x40, BASE_64 + 0x60]
    assert sorted(addresses("twin+4", kernel)) == [BASE_64 + 0x44, BASE_64 + 0x64]


def test_the_size_in_an_oops_tells_them_apart(kernel: list[PlacedImage]) -> None:
    """By their ELF sizes 0x10 and 0x18; or as kallsyms sees them, up to the next symbol: 0x20 and 0xa0."""
    assert addresses("twin+4/0x10", kernel) == [BASE_64 + 0x44]
    assert addresses("twin+4/0x18", kernel) == [BASE_64 + 0x64]
    assert addresses("twin+4/0x20", kernel) == [BASE_64 + 0x44]
    assert addresses("twin+4/0xa0", kernel) == [BASE_64 + 0x64]


def test_a_size_that_fits_none_is_answered_with_a_note(kernel: list[PlacedImage]) -> None:
    found = places("start_kernel+4/0x99", kernel)
    assert [place.address for place in found] == [BASE_64 + 0x14]
    assert found[0].note is not None
    assert "0x20" in found[0].note
    assert "0x99" in found[0].note


def test_a_size_that_fits_needs_no_note(kernel: list[PlacedImage]) -> None:
    assert places("start_kernel+4/0x20", kernel)[0].note is None


def test_several_symbols_of_one_name_at_one_address_are_one_place(tmp_path: Path) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols += [Sym("twice", BASE_64, 4, ".text", FUNC, LOCAL), Sym("twice", BASE_64, 4, ".text", FUNC, LOCAL)]
    assert addresses("twice", [placed(tmp_path, elf)]) == [BASE_64]


def test_a_symbol_named_like_bare_hexadecimal_is_that_symbol(tmp_path: Path) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols += [Sym("deadbeef", BASE_64 + 0x20, 4, ".text", FUNC)]
    assert addresses("deadbeef", [placed(tmp_path, elf)]) == [BASE_64 + 0x20]
    assert addresses("deadbeef", []) == [0xDEADBEEF]


def test_a_symbol_named_like_a_section_comes_before_it(tmp_path: Path) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols += [Sym(".data", BASE_64 + 0x30, 4, ".text", FUNC)]
    assert addresses(".data", [placed(tmp_path, elf)]) == [BASE_64 + 0x30]


def test_a_symbol_with_a_sign_in_its_name_is_found(tmp_path: Path) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols += [Sym("a-1", BASE_64 + 0x30, 4, ".text", FUNC)]
    assert addresses("a-1", [placed(tmp_path, elf)]) == [BASE_64 + 0x30]


# -- where things are --------------------------------------------------------------------------------------------------


def test_names_have_runtime_addresses(tmp_path: Path) -> None:
    images = [placed(tmp_path, kaslr_offset=KASLR_OFFSET)]
    assert addresses("start_kernel+1", images) == [BASE_64 + KASLR_OFFSET + 0x11]
    assert addresses(".data", images) == [BASE_64 + KASLR_OFFSET + 0x2000]


def test_numbers_are_what_they_are_whatever_the_kaslr_offset(tmp_path: Path) -> None:
    assert addresses("0xffffffff81000010", [placed(tmp_path, kaslr_offset=KASLR_OFFSET)]) == [BASE_64 + 0x10]


def test_absolute_numbers_do_not_move(tmp_path: Path) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols += [Sym("a_constant", 0x1234, 0, SHN_ABS, OBJECT), Sym("f.c", 0, 0, SHN_ABS, FILE, LOCAL)]
    assert addresses("a_constant", [placed(tmp_path, elf, KASLR_OFFSET)]) == [0x1234]


def test_addresses_wrap_at_64_bits(kernel: list[PlacedImage]) -> None:
    assert addresses("start_kernel+0xffffffffffffffff", kernel) == [BASE_64 + 0xF]


def test_an_offset_wider_than_addresses_is_refused(tmp_path: Path) -> None:
    images = [placed(tmp_path, small_vmlinux(32))]
    assert addresses("start_kernel+0xffffffff", images) == [BASE_32 + 0xF]
    for sign in "+-":
        with pytest.raises(UnplacedError, match="more than 32 bits"):
            addresses(f"start_kernel{sign}0x100000000", images)


def test_bare_hexadecimal_has_eight_digits_on_a_32_bit_machine(tmp_path: Path) -> None:
    images = [placed(tmp_path, small_vmlinux(32))]
    assert addresses("c1000014", images) == [BASE_32 + 0x14]
    assert addresses("start_kernel", images) == [BASE_32 + 0x10]


# -- a list of symbols, which states no sizes, files and sections ------------------------------------------------------


@pytest.fixture(scope="module")
def listed() -> list[PlacedImage]:
    at = {b"_text": -0x10, b"_stext": -0x10, b"schedule": 0, b"yield": 0xD0, b"_etext": 0x1000, b"_end": 0x2000}
    names = b"\0" + b"".join(name + b"\0" for name in at)
    starts = array("I", [names.index(b"\0" + name + b"\0") + 1 for name in at])
    symbols = SymbolList(names, starts, [BASE_64 + offset for offset in at.values()], b"TTTTTB", "System.map")
    return [PlacedImage(KernelImage(bare_elf("System.map", "x86_64"), listed=symbols), as_linked(()))]


@pytest.mark.parametrize("size", [0xD0, 0xC7])
def test_a_size_that_leaves_room_for_padding_is_the_symbols(listed: list[PlacedImage], size: int) -> None:
    [place] = places(f"schedule+0x10/{size:#x}", listed)
    assert (place.address, place.note) == (BASE_64 + 0x10, None)


@pytest.mark.parametrize("size", [0xD1, 0x90, 0x10])
def test_a_size_that_does_not_is_another_builds(listed: list[PlacedImage], size: int) -> None:
    [place] = places(f"schedule+0x10/{size:#x}", listed)
    assert place.note is not None
    assert "0xd0" in place.note


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("core.c:schedule", "System.map does not have the symbols' source files"),
        ("core.c:schedule+0x4", "System.map does not have the symbols' source files"),
        (".text+0x10", "System.map has no sections"),
    ],
)
def test_what_a_list_cannot_tell_is_said(listed: list[PlacedImage], text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        places(text, listed)
