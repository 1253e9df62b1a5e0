"""Modules in memory that is corrupted, hostile, or not in the dump: what can be told stands, the rest is said."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import drgn
import pytest
from support.open_dumps import module_of, session_in
from support.patched import patch, unmap

from kplug import model
from kplug.commands.mod import MOD
from kplug.errors import TargetError
from kplug.outputs import Problem
from kplug.render.text import TextRenderer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.executable_allocations import executable_allocations
from kplug.runtime.modules.images import LoadedImages, images_of
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.modules.struct_module import Module
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = pytest.mark.kernel


@pytest.fixture
def session(dumps: DumpSet) -> Session:
    """A dump to be patched, without the modules' debug files."""
    return session_in(dumps)


@pytest.fixture
def kernel(session: Session) -> Kernel:
    return session.target.kernel  # type: ignore[union-attr, no-any-return]


def _member(kernel: Kernel, module: Module, name: str) -> int:
    return module.address + drgn.offsetof(kernel.prog.type("struct module"), name)


def _problems(session: Session, *words: str) -> list[str]:
    arguments = MOD.parser("kmod").parse_args(words)
    return [output.message for output in MOD.run(session, arguments) if isinstance(output, Problem)]


def test_a_broken_list_keeps_what_was_read(session: Session, kernel: Kernel) -> None:
    names = [module.name for module in modules_of(kernel)]
    loop = module_of(kernel, "loop")
    address, last = loop.memory[0].start, modules_of(kernel).all[-1].memory[0].start
    node = _member(kernel, loop, "list")
    for pointer, said in (
        (node, "it loops"),
        (0x1234, "it goes on at 0x1234, which is not a kernel address"),
        (0, "it goes on at 0x0, which is not a kernel address"),
        (0xFFFFFFFFFF000000, "address is not mapped"),
    ):
        patch(kernel, node, struct.pack("<Q", pointer))
        assert [module.name for module in modules_of(kernel)] == names[: names.index("loop") + 1]
        problem = modules_of(kernel).problem
        assert problem is not None
        assert problem.startswith("the module list could not be read past loop: ")
        assert said in problem
        assert problem in _problems(session)
        # What was read is answered as before; of what was not it is said, and only in the modules' area.
        assert session.resolver.where(address).first(model.MODULE).name == "loop"  # type: ignore[union-attr]
        assert problem in session.resolver.where(last).warnings
        assert session.resolver.where(kernel.symbol("schedule") or 0).warnings == ()


def test_a_module_that_is_not_in_the_dump(session: Session, kernel: Kernel) -> None:
    loop = module_of(kernel, "loop")
    unmap(kernel, loop.address & -4096, 4096)
    assert (modules_of(kernel).problem or "").startswith("the module list could not be read past dummy: ")


def test_a_list_that_begins_nowhere(session: Session, kernel: Kernel) -> None:
    patch(kernel, kernel.symbol("modules") or 0, struct.pack("<Q", 0x10))
    assert list(modules_of(kernel)) == []
    assert (modules_of(kernel).problem or "").startswith("the module list could not be read at all: ")


def test_a_name_with_terminal_escapes(session: Session, kernel: Kernel) -> None:
    loop = module_of(kernel, "loop")
    address = loop.memory[0].start
    patch(kernel, _member(kernel, loop, "name"), b"\x1b[31mred\n\xff\0")
    annotation = session.resolver.where(address)
    assert annotation.first(model.MODULE).name == "\x1b[31mred\n\\xff"  # type: ignore[union-attr]
    text = TextRenderer().annotation(annotation)
    assert "\x1b" not in text
    assert "\\x1b[31mred\\x0a\\xff" in text


def test_kallsyms_that_lie(session: Session, kernel: Kernel) -> None:
    """Sections are answered all the same, and why there is no symbol is said."""
    loop = module_of(kernel, "loop")
    text = next(section for section in loop.sections if section.name == ".text")
    kind = kernel.prog.type("struct mod_kallsyms")
    for member in ("num_symtab", "symtab", "strtab", "typetab"):
        size = 4 if member == "num_symtab" else 8
        place = (loop.number("kallsyms") or 0) + drgn.offsetof(kind, member)
        right = kernel.read(place, size)
        for value in (0, 0x1234, 0x7FFFFFFF, 0xFFFFFFFFFFFFFFF0):
            patch(kernel, place, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
            images_of(kernel)._made.clear()  # type: ignore[attr-defined]
            (annotation,) = session.where(hex(text.start + 0x100))
            assert annotation.first(model.SECTION).name == ".text"  # type: ignore[union-attr]
            assert annotation.first(model.SYMBOL) is None
            assert annotation.warnings
            if value:
                assert any("the symbols of module loop could not be read: it" in each for each in annotation.warnings)
        patch(kernel, place, right)


def test_a_symbol_table_that_lies(session: Session, kernel: Kernel) -> None:
    """Every byte of the table wrong: names, addresses and sections."""
    loop = module_of(kernel, "loop")
    table = images_of(kernel).named("loop")._tables[0]  # type: ignore[union-attr]
    patch(kernel, table.start, b"\xa5" * (table.end - table.start))
    (annotation,) = session.where(hex(loop.memory[0].start + 0x100))
    assert annotation.first(model.SECTION).name == ".text"  # type: ignore[union-attr]


def test_more_sections_than_there_can_be(session: Session, kernel: Kernel) -> None:
    loop = module_of(kernel, "loop")
    attributes = loop.number("sect_attrs") or 0
    count = attributes + drgn.offsetof(kernel.prog.type("struct module_sect_attrs"), "nsections")
    patch(kernel, count, struct.pack("<I", 0x7FFFFFFF))
    with pytest.raises(TargetError, match="it claims 2147483647 sections"):
        _ = module_of(kernel, "loop").sections
    (annotation,) = session.where(hex(loop.memory[0].start + 0x100))
    assert annotation.first(model.MODULE).name == "loop"  # type: ignore[union-attr]
    assert annotation.first(model.SYMBOL) is not None
    assert any("it claims 2147483647 sections" in warning for warning in annotation.warnings)


def test_sections_elsewhere_are_not_claimed(session: Session, kernel: Kernel) -> None:
    """An address that is not in the module's memory is no section's, whatever sysfs would show."""
    loop = module_of(kernel, "loop")
    kind = kernel.prog.type("struct module_sect_attr")
    first = (loop.number("sect_attrs") or 0) + drgn.offsetof(kernel.prog.type("struct module_sect_attrs"), "attrs")
    schedule = kernel.symbol("schedule") or 0
    patch(kernel, first + drgn.offsetof(kind, "address"), struct.pack("<Q", schedule))
    moved = module_of(kernel, "loop")
    assert moved.all_sections[0].start == schedule
    assert moved.all_sections[0] not in moved.sections
    assert session.resolver.where(schedule).first(model.MODULE) is None


def test_memory_that_cannot_be(session: Session, kernel: Kernel) -> None:
    """A size of 4 GiB is none; the module is listed without that part."""
    loop = module_of(kernel, "loop")
    new = "mem" in {member.name for member in kernel.prog.type("struct module").members or ()}
    text = loop.memory[0]
    patch(kernel, _member(kernel, loop, "mem[0].size" if new else "core_layout.size"), b"\xff\xff\xff\xff")
    patch(kernel, _member(kernel, loop, "refcnt"), b"\xff\xff\xff\xff")
    broken = module_of(kernel, "loop")
    assert broken.refcount == 0
    assert new == (text.start not in {part.start for part in broken.memory})
    assert not any(part.end - part.start >= 1 << 31 for part in broken.memory)


def test_users_that_loop(session: Session, kernel: Kernel) -> None:
    llc = module_of(kernel, "llc")
    head = _member(kernel, llc, "source_list")
    node = int.from_bytes(kernel.read(head, 8), "little")
    patch(kernel, node, struct.pack("<Q", node))
    assert "the users of module llc could not be read: it loops" in _problems(session)


@pytest.mark.parametrize("name", ["bpf_kallsyms", "ftrace_ops_trampoline_list"])
def test_a_list_of_other_code_that_leads_nowhere(session: Session, kernel: Kernel, name: str) -> None:
    patch(kernel, kernel.symbol(name) or 0, struct.pack("<Q", 0xFFFFFFFFFF000000))
    (problem,) = executable_allocations(kernel).problems
    assert "could not be read to its end" in problem
    below = max(part.end for module in modules_of(kernel) for part in module.memory)
    gap = session.resolver.where(below + 0x100000).last(model.GAP)
    assert gap is not None
    assert problem in gap.details["why"]


@pytest.mark.parametrize("name", ["modules", "bpf_kallsyms", "last_unloaded_module", "kprobe_insn_slots"])
def test_a_page_of_the_kernels_data_that_is_not_in_the_dump(session: Session, kernel: Kernel, name: str) -> None:
    unmap(kernel, (kernel.symbol(name) or 0) & -4096, 4096)
    for address in (0xFFFFFFFFC0000000, 0xFFFFFFFFC0400100, 0xFFFFFFFFFE000000):
        assert session.resolver.where(address).layers
    list(MOD.run(session, MOD.parser("kmod").parse_args([])))


def test_section_names_that_are_not_in_the_dump(dumps: DumpSet, session: Session, kernel: Kernel) -> None:
    """The section is there without its name; a debug file of that build gives it back."""
    loop = module_of(kernel, "loop")
    text = next(number for number, section in enumerate(loop.all_sections) if section.name == ".text")
    kind = kernel.prog.type("struct module_sect_attr")
    first = (loop.number("sect_attrs") or 0) + drgn.offsetof(kernel.prog.type("struct module_sect_attrs"), "attrs")
    name = first + text * (kind.size or 0) + drgn.offsetof(kind, "battr.attr.name")
    patch(kernel, name, struct.pack("<Q", 0xFFFFFFFFFF000000))
    address = loop.memory[0].start + 0x10
    (annotation,) = session.where(hex(address))
    assert annotation.first(model.SECTION).name == "(name not in memory)"  # type: ignore[union-attr]
    assert annotation.first(model.GAP) is None
    assert any("not all names of the sections of module loop" in warning for warning in annotation.warnings)
    placed = LoadedImages(kernel, [str(dumps.files.debug_modules)]).placed(module_of(kernel, "loop"))
    piece = placed.piece(address)
    assert piece is not None
    assert piece.section is not None
    assert piece.section.name == ".text"
