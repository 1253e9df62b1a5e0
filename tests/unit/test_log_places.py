"""Lines of logs as questions: what their symbols and addresses are in a kernel, and what is said where that differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.elf_builder import BASE_64, FUNC, LOCAL, Sym, small_vmlinux

from kplug.errors import ExpressionError
from kplug.image.opening.files import open_module, open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.session import Session
from kplug.target import Target


class Host(Target):
    """A debugger whose expressions must not be asked for a line of a log."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def has_memory(self) -> bool:
        return False

    def evaluate(self, expression: str) -> int:
        self.asked.append(expression)
        raise ExpressionError(f"{expression}: the host was asked")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    path = tmp_path_factory.mktemp("lines") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    image = open_vmlinux(str(path))
    return Session([PlacedImage(image, as_linked(image.sections))], target=Host())


@pytest.fixture(scope="module")
def answers(session: Session) -> Callable[[str], tuple[list[int], list[str]]]:
    def ask(line: str) -> tuple[list[int], list[str]]:
        found = list(session.where(line))
        return [each.address - BASE_64 for each in found], [text for each in found for text in each.warnings]

    return ask


Answers = Callable[[str], "tuple[list[int], list[str]]"]


@pytest.mark.parametrize(
    ("line", "offsets"),
    [
        ("[   12.345678][    C0]  ? start_kernel+0x4/0x20", [0x14]),
        ("> IP: [<ffffffff81000014>] start_kernel+0x4/0x20", [0x14]),
        ("#3 [ffffc90000013e08] start_kernel at ffffffff81000014", [0x14]),
        ("    ffffffff81000014 start_kernel+0x4 ([kernel.kallsyms])", [0x14]),
        (" twin+0x4/0x18", [0x64]),
        ("ffffffff81000014 start_kernel+0x4/0x20", [0x14]),
        ("[<ffffffff81000044>] twin+0x4", [0x44]),
        ("[    1.000000] twin+0x4", [0x44, 0x64]),
        ("BUG: KASAN: use-after-free in start_kernel+0x4/0x20", [0x14]),
        ("[    1.000000] start_kernel+0x4/0x20 as it was at boot", [0x14]),
    ],
)
def test_the_place_in_a_line(answers: Answers, line: str, offsets: list[int]) -> None:
    assert answers(line) == (offsets, [])


@pytest.mark.parametrize(
    ("line", "offset", "warning"),
    [
        ("start_kernel+0x4/0x24", 0x14, "size here is 0x20, not 0x24"),
        ("start_kernel+0x24/0x20", 0x34, "not in the symbol, by the size in the line"),
        ("=> start_kernel", 0x10, "no offset"),
        ("[<ffffffff91000014>] start_kernel+0x4/0x20", 0x14, "the line has it at 0xffffffff91000014"),
        ("#3 [ffffc90000013e08] start_kernel at ffffffff81000044", 0x44, "start_kernel in the line is not at"),
        ("[<ffffffff81000014>] nothing+0x4/0x20", 0x14, "nothing+0x4/0x20: no such symbol"),
        ("[<ffffffff81000014>] start_kernel+0x4/0x20 [ext4]", 0x14, "module ext4 is not loaded here"),
    ],
)
def test_what_differs_is_said(answers: Answers, line: str, offset: int, warning: str) -> None:
    (found,), (said,) = answers(line)
    assert found == offset
    assert warning in said


@pytest.mark.parametrize(
    "text", ["? start_kernel+0x4/0x20", "RIP: 0010:start_kernel+0x4/0x20", "start_kernel+0x4/0x20,"]
)
def test_the_decorations_of_an_oops_do_not_matter(answers: Answers, text: str) -> None:
    """arch/x86/kernel/dumpstack.c: "? " before a frame that may be stale, the code segment before RIP."""
    assert answers(text) == ([0x14], [])


def test_a_size_below_0_tells_nothing(answers: Answers) -> None:
    """Linux 6.1 prints it of a symbol in a module's data, where no symbol follows."""
    assert answers("start_kernel+0x4/0xffffffffffffefd0") == ([0x14], [])


def test_a_module_in_brackets_means_its_own_symbols(tmp_path: Path, session: Session) -> None:
    """lib/vsprintf.c, %pS: "symbol+offset/size [module]"."""
    elf = small_vmlinux(type=1, segments=[])
    for section in elf.sections:
        section.address = 0
    elf.symbols = [Sym("start_kernel", 0x8, 0x20, ".text", FUNC, LOCAL)]
    path = tmp_path / "my-mod.ko"
    path.write_bytes(bytes(elf))
    module = open_module(f"{path}@0xffffffffc0000000")
    both = Session([*session.images, PlacedImage(module, as_linked(module.sections))])
    for line in ("start_kernel+0x4/0x20 [my_mod]", "start_kernel+0x4 [my_mod]", "[    1.2] start_kernel+0x4 [my_mod]"):
        assert [place.address for place in both.places(line)] == [0xFFFFFFFFC000000C]
    assert both.places("start_kernel [my_mod]") == ((0xFFFFFFFFC0000008, None, None),)
    assert len(both.places("start_kernel")) == 2
    with pytest.raises(ExpressionError, match="other"):
        both.places("start_kernel+0x4/0x20 [other]")


def test_a_hashed_address_is_no_difference(answers: Answers) -> None:
    """%p of a pointer since 4.15; in a stack trace of arm, for one."""
    assert answers("[<00000000c25f1d5f>] start_kernel+0x4/0x20") == ([0x14], [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[   12.345678] Call Trace:", "no address or symbol in it"),
        ("nothing+0x1/0x2", "nothing+0x1/0x2: no such symbol"),
        ("RAX: 0000000000000000 RBX: ffff8b226f739300", "it names RAX, RBX: ask about one"),
        ("a+0x1/0x2 after start_kernel+0x3/0x20", "it names a+0x1/0x2, start_kernel+0x3/0x20: ask about one"),
        ("start_kernel+0x4/0x20 [ext4]", "module ext4 is not loaded here"),
        ("7f3c2b114f4 main+0x10 (/usr/bin/cat)", "a frame of /usr/bin/cat"),
        ("start_kernel init/main.c:12 [inline]", "inlined"),
    ],
)
def test_what_has_no_place_is_one_line_and_the_host_is_not_asked(session: Session, line: str, why: str) -> None:
    assert isinstance(session.target, Host)
    with pytest.raises(ExpressionError, match=r"\S") as refusal:
        list(session.where(line))
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert session.target.asked == []
