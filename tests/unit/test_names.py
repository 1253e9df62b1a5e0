"""Names as the source has them, in every form that expressions have; `sym` too."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.elf_builder import BASE_64, FILE, FUNC, LOCAL, SHN_ABS, Elf, Sym, small_vmlinux

from kplug.errors import ExpressionError
from kplug.expressions import is_of_kernel, places
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.log_places import is_log_line
from kplug.session import Session

# foo is two functions of different sizes; `twin` is in small_vmlinux, and another one by the name of its source.
ADDED = [
    Sym("c.c", section=SHN_ABS, type=FILE, binding=LOCAL),
    Sym("foo.isra.0", BASE_64 + 0x80, 0x10, ".text", FUNC, LOCAL),
    Sym("__pfx_foo.isra.0", BASE_64 + 0x78, 0x6, ".text", FUNC, LOCAL),
    Sym("foo.isra.0.cold", BASE_64 + 0xC0, 0x4, ".text", FUNC, LOCAL),
    Sym("d.c", section=SHN_ABS, type=FILE, binding=LOCAL),
    Sym("foo.constprop.0", BASE_64 + 0xA0, 0x18, ".text", FUNC, LOCAL),
    Sym("twin.llvm.123", BASE_64 + 0xD0, 0x2C, ".text", FUNC),
    Sym("only.isra.0", BASE_64 + 0xC8, 0x8, ".text", FUNC, LOCAL),
]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> list[PlacedImage]:
    elf: Elf = small_vmlinux()
    elf.symbols = [*ADDED, *(elf.symbols or ())]
    path: Path = tmp_path_factory.mktemp("names") / "vmlinux"
    path.write_bytes(bytes(elf))
    image = open_vmlinux(str(path))
    return [PlacedImage(image, as_linked(image.sections))]


def answers(text: str, kernel: list[PlacedImage]) -> dict[int, str | None]:
    return {place.address - BASE_64: place.note for place in Session(kernel).places(text)}


def test_a_function_is_found_by_the_name_in_its_source_and_a_note_says_so(kernel: list[PlacedImage]) -> None:
    note = "only is only.isra.0 in the symbol table"
    assert answers("only", kernel) == answers("&only", kernel) == {0xC8: note}
    assert answers("only+0x4", kernel) == answers("? only+0x4/0x8", kernel) == {0xCC: note}
    assert answers("only+4", kernel) == {0xCC: note}


def test_all_functions_of_that_name_are_shown(kernel: list[PlacedImage]) -> None:
    note = "foo is foo.isra.0, foo.constprop.0 in the symbol table, 2 symbols (foo+OFFSET/SIZE tells them apart)"
    assert answers("foo", kernel) == {0x80: note, 0xA0: note}
    assert answers("foo+0x2", kernel) == {0x82: note, 0xA2: note}


@pytest.mark.parametrize(
    ("size", "address", "name"),
    [
        (0x10, 0x82, "foo.isra.0"),
        (0x18, 0xA2, "foo.constprop.0"),
        (0x6, 0x7A, "__pfx_foo.isra.0"),
        (0x4, 0xC2, "foo.isra.0.cold"),
    ],
)
def test_the_size_tells_them_apart_and_their_parts(
    kernel: list[PlacedImage], size: int, address: int, name: str
) -> None:
    assert answers(f"foo+0x2/{size:#x}", kernel) == {address: f"foo is {name} in the symbol table"}


def test_a_source_file_tells_them_apart(kernel: list[PlacedImage]) -> None:
    assert list(answers("c.c:foo", kernel)) == [0x80]
    assert list(answers("'d.c'::foo+0x1", kernel)) == [0xA1]


def test_the_exact_name_comes_first(kernel: list[PlacedImage]) -> None:
    assert answers("twin", kernel) == {0x40: None, 0x60: None}
    assert answers("foo.isra.0", kernel) == {0x80: None}


def test_unless_the_size_is_that_of_another_function_with_the_name(kernel: list[PlacedImage]) -> None:
    """clang's LTO: the kernel prints twin.llvm.123 as twin."""
    assert answers("twin+0x2/0x18", kernel) == {0x62: None}
    assert answers("twin+0x2/0x2c", kernel) == {0xD2: "twin is twin.llvm.123 in the symbol table"}
    assert len(answers("twin+0x2/0x999", kernel)) == 2


@pytest.mark.parametrize("text", ["fo", "oo", "foo.isra", "c.c:only2", "a.c:only", "fo+0x2/0x10"])
def test_nothing_else_is_found(kernel: list[PlacedImage], text: str) -> None:
    with pytest.raises(ExpressionError, match="no such symbol"):
        places(text, kernel)


# -- what a debugger would compute -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "finish_task_switch+0x10/0x2c5",
        " foo+0x10/0x20 ",
        "foo + 0x10/0x20",
        "foo-16/32",
        "? foo+0x10/0x20 [ext4]",
        "RIP: 0010:foo+0x10/0x20",
        "&foo+0x10/0x20",
        "foo.isra.0.cold+0x1/0x2",
        "core.c:foo+0x1/0x2",
        "core::fmt::write+0x1/0x2",
    ],
)
def test_the_kernels_own_words_are_known_from_their_form(text: str) -> None:
    assert is_of_kernel(text) or is_log_line(text)


@pytest.mark.parametrize(
    "text",
    ["", "foo", "foo+0x10", "$rsp+0x10/0x20", "(foo+0x10)/0x20", "foo/0x20", "foo->bar+0x10/2", "a+b+0x1/2", "1+0x1/2"],
)
def test_and_others_are_left_to_the_debugger(text: str) -> None:
    assert not is_of_kernel(text)
