"""kregs, kstack and kx over a target made by hand: broken, absent and hostile memory; words of every kind.

The call instructions are those of the Intel SDM and the Arm ARM, written as bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answers import outputs
from support.elf_builder import BASE_64, EM_AARCH64, Elf, X, small_vmlinux

from kplug.arch.registers import canonical, flag_names, is_register, ordered
from kplug.commands.annotated import text_of
from kplug.commands.return_addresses import frame_slots
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.expressions import Hints
from kplug.frozen import replace
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.memory.reading import FaultError
from kplug.outputs import Problem, Table
from kplug.render.json_lines import JsonLines
from kplug.render.style import COLOURED, PLAIN
from kplug.render.text import TextRenderer
from kplug.session import Session
from kplug.space.address_space import AddressSpaceFacts
from kplug.target import FramePlace, Register, StackBounds, Target

TEXT, DATA = BASE_64, BASE_64 + 0x2000
STACK = 0xFFFFC90000010000
MASK = (1 << 64) - 1


class FakeTarget(Target):
    """A kernel whose memory is a few stretches of bytes."""

    def __init__(
        self,
        memory: Mapping[int, bytes],
        registers: Mapping[str, int | None] | None = None,
        frames: Sequence[FramePlace] = (),
        bounds: StackBounds | None = None,
    ) -> None:
        self.memory = dict(memory)
        self._registers = registers
        self._frames = frames
        self.bounds = bounds

    def description(self) -> str:
        return "made by hand"

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        for start, data in self.memory.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise FaultError(f"nothing is mapped at {address:#x}")

    def evaluate(self, expression: str) -> int:
        raise ExpressionError(f"{expression}: not known")

    def registers(self) -> Sequence[Register]:
        if self._registers is None:
            raise TargetError("no registers: the kernel runs")
        return [Register(name, value) for name, value in self._registers.items()]

    def stack_pointer(self) -> int | None:
        return None if self._registers is None else self._registers.get("rsp")

    def frames(self) -> Sequence[FramePlace]:
        return self._frames

    def stack_bounds(self, address: int) -> StackBounds | None:
        return self.bounds


def session_of(folder: Path, target: Target | None, elf: Elf | None = None) -> Session:
    path = folder / "vmlinux"
    path.write_bytes(bytes(elf or small_vmlinux()))
    image = open_vmlinux(str(path))
    return Session([PlacedImage(image, as_linked(image.sections))], target=target, hints=Hints(memory="-c VMCORE"))


def rows(session: Session, name: str, *words: str) -> list[dict[str, Any]]:
    return [dict(row) for output in outputs(session, name, *words) if isinstance(output, Table) for row in output.rows]


def words_at(start: int, *words: int) -> dict[int, bytes]:
    return {start: struct.pack(f"<{len(words)}Q", *words)}


# -- without memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "words"), [("regs", ()), ("stack", ()), ("x", ("twin",))])
def test_files_alone_have_no_memory(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"needs memory, .* \(-c VMCORE\)"):
        outputs(session_of(tmp_path, None), name, *words)


@pytest.mark.parametrize("name", ["regs", "stack"])
def test_no_registers_says_why(tmp_path: Path, name: str) -> None:
    with pytest.raises(TargetError, match="the kernel runs"):
        outputs(session_of(tmp_path, FakeTarget({})), name)


# -- registers ---------------------------------------------------------------------------------------------------------


def test_registers_in_the_order_of_the_target(tmp_path: Path) -> None:
    registers = {"rax": 1, "rip": TEXT + 0x44, "rflags": 0x246, "rsp": None, "cs": 0x10, "rdx": 0xDEAD000000000100}
    found = rows(session_of(tmp_path, FakeTarget({}, registers)), "regs")
    assert [row["name"] for row in found] == list(registers)
    assert [row["annotation"] is not None for row in found] == [False, True, False, False, False, True]
    assert found[2]["flags"] == ["IF", "ZF", "PF"]
    assert found[3]["value"] is None
    assert found[1]["section"] == ".text"


@pytest.mark.parametrize(
    ("register", "value", "machine", "expected"),
    [
        ("eflags", 0x2, "x86_64", []),
        ("rflags", 0x246, "x86_64", ["IF", "ZF", "PF"]),
        ("eflags", 0x3202, "x86_64", ["IF", "IOPL=3"]),
        ("eflags", 0x80000002, "x86_64", ["bit 31"]),
        ("cr0", 0x80050033, "x86_64", ["PG", "AM", "WP", "NE", "ET", "MP", "PE"]),
        ("cr3", 0x230E001, "x86_64", ["page tables at physical 0x230e000", "low bits 0x1"]),
        ("efer", 0xD01, "x86_64", ["NXE", "LMA", "LME", "SCE"]),
        ("pstate", 0x600003C5, "aarch64", ["Z", "C", "D", "A", "I", "F", "EL1h"]),
        ("cpsr", 0x80001000, "aarch64", ["N", "SSBS", "EL0t"]),
        ("rax", 0x246, "x86_64", None),
        ("eflags", 0x246, "riscv64", None),
    ],
)
def test_flags(register: str, value: int, machine: str, expected: list[str] | None) -> None:
    assert flag_names(register, value, machine) == expected


def test_names_of_registers() -> None:
    assert canonical("PC", "x86_64") == ("rip", MASK)
    assert canonical("eax", "x86_64") == ("rax", 0xFFFFFFFF)
    assert canonical("r8d", "x86_64") == ("r8", 0xFFFFFFFF)
    assert canonical("w3", "aarch64") == ("x3", 0xFFFFFFFF)
    assert canonical("lr", "aarch64") == ("x30", MASK)
    assert is_register("gs.base", "x86_64")
    assert not is_register("x0", "x86_64")
    assert not is_register("rip", "riscv64")
    assert list(ordered({"rip": 1, "gs.base": 2, "odd": 3, "rax": 4}, "x86_64")) == ["rax", "rip", "gs_base", "odd"]


# -- stacks ------------------------------------------------------------------------------------------------------------

CALL = bytes.fromhex("e8 00 00 00 00")


def code(*calls: int) -> dict[int, bytes]:
    """The small kernel's text in memory: no-ops, and a call that ends at each of these offsets."""
    data = bytearray(b"\x90" * 0x200)
    for end in calls:
        data[end - 5 : end] = CALL
    return {TEXT: bytes(data)}


def stack_target(*words: int, **options: Any) -> FakeTarget:
    memory = {**code(0x48, 0x68, 0x100), **words_at(STACK, *words)}
    bounds = StackBounds(STACK & -0x4000, STACK + 8 * len(words), "a stack", "made by hand")
    return FakeTarget(memory, {"rsp": STACK, "rip": TEXT}, **{"bounds": bounds, **options})


def test_kinds_of_words(tmp_path: Path) -> None:
    target = stack_target(TEXT + 0x48, TEXT + 0x50, DATA + 8, 7, 0x0000646E616D6D6F, TEXT + 0x68)
    found = rows(session_of(tmp_path, target), "stack")
    assert [row["kind"] for row in found] == ["ret", "code?", "data", None, None, "ret"]
    assert [int(row["offset"]) for row in found] == [0, 8, 16, 24, 32, 40]
    assert found[4]["text"] == "'ommand'"
    assert [row["mark"] for row in found] == [None] * 6, "nothing is known of frames"


def test_a_call_that_goes_nowhere_is_none(tmp_path: Path) -> None:
    """Bytes that read as a call to where no code is: the end of another instruction."""
    target = stack_target(TEXT + 0x48)
    data = bytearray(target.memory[TEXT])
    data[0x43:0x48] = b"\xe8" + struct.pack("<i", 0x2000000)
    target.memory[TEXT] = bytes(data)
    assert [row["kind"] for row in rows(session_of(tmp_path, target), "stack")] == ["code?"]


def test_code_that_cannot_be_read_is_the_images(tmp_path: Path) -> None:
    target = stack_target(TEXT + 0x48)
    del target.memory[TEXT]
    assert [row["kind"] for row in rows(session_of(tmp_path, target), "stack")] == ["code?"], "no-ops in the file"


def test_frames_are_marked_and_the_others_stale(tmp_path: Path) -> None:
    frames = [
        FramePlace(0, TEXT, STACK, "inner", interrupted=True),
        FramePlace(1, TEXT + 0x48, STACK + 16, "inlined", is_inline=True),
        FramePlace(2, TEXT + 0x48, STACK + 16, "caller"),
    ]
    target = stack_target(TEXT + 0x68, TEXT + 0x48, TEXT + 0x68, frames=frames)
    found = rows(session_of(tmp_path, target), "stack")
    assert [row["mark"] for row in found] == ["?", "#2", "?"]
    assert [row["stale"] for row in found] == [True, False, True]
    assert found[1]["function"] == "caller"


def test_the_last_instruction_of_a_function_is_a_call(tmp_path: Path) -> None:
    """The address behind it is the next function's, and yet the answer is the caller."""
    found = rows(session_of(tmp_path, stack_target(TEXT + 0x100)), "stack")
    layers = found[0]["annotation"].layers
    assert all(layer.start is None or layer.start <= TEXT + 0xFF for layer in layers)
    assert found[0]["annotation"].address == TEXT + 0x100


def test_interrupted_frames_slot_is_the_exception_frame() -> None:
    frames = [
        FramePlace(0, 0x1111111, 0x1000, None, interrupted=True),
        FramePlace(1, 0x2222222, 0x9000, None, interrupted=True),
    ]
    words = [0x2222222, 0, 0x2222222, 0x10, 0x246, 0x9000, 0x18]
    assert {at: frame.number for at, frame in frame_slots(frames, 0x1000, words, 8).items()} == {0x1010: 1}


def test_arm64_saves_the_program_counter_after_the_stack_pointer() -> None:
    frames = [FramePlace(0, 0x1111111, 0x1000, None), FramePlace(1, 0x2222222, 0x9000, None, interrupted=True)]
    words = [0x9000, 0x2222222, 0x1_00000000, 0x9000, 0x2222222, 0x80000005, 0x9000, 0x2222222]
    assert {at: frame.number for at, frame in frame_slots(frames, 0x1000, words, 8).items()} == {0x1020: 1}


@given(st.lists(st.tuples(st.integers(0, MASK), st.integers(0, MASK), st.booleans(), st.booleans()), max_size=6))
def test_any_frames(places: list[tuple[int, int, bool, bool]]) -> None:
    frames = [FramePlace(number, pc, sp, None, inline, odd) for number, (pc, sp, inline, odd) in enumerate(places)]
    slots = frame_slots(frames, STACK, [pc for pc, *_ in places], 8)
    assert all(STACK <= at < STACK + 8 * len(places) for at in slots)


class TwoStacks(FakeTarget):
    """An interrupt's stack, and the one that was interrupted."""

    bounds_of = (
        StackBounds(STACK, STACK + 0x20, "an IRQ stack", "made by hand"),
        StackBounds(STACK + 0x8000, STACK + 0x8040, "the task's", "made by hand"),
    )

    def stack_bounds(self, address: int) -> StackBounds | None:
        return next((each for each in self.bounds_of if each.start <= address < each.end), None)


def test_the_stack_that_was_interrupted_follows(tmp_path: Path) -> None:
    """From the word that the entry's call pushed; where the interrupt came is told as well."""
    back, interrupted = TEXT + 0x48, TEXT + 0x68
    frames = [
        FramePlace(0, TEXT, STACK, "inner", interrupted=True),
        FramePlace(1, back, STACK + 0x8010, "entry"),
        FramePlace(2, interrupted, STACK + 0x8030, "program", interrupted=True, guessed=True),
    ]
    memory = {
        **stack_target(back).memory,
        **words_at(STACK, 1, 2, 3, 4),
        **words_at(STACK + 0x8000, 0, back, interrupted, 0x10, 0x246, STACK + 0x8030, 0x18, 0),
    }
    session = session_of(tmp_path, TwoStacks(memory, {"rsp": STACK}, frames))
    first, second = (output for output in outputs(session, "stack") if isinstance(output, Table))
    assert (first.title.partition(":")[0], second.title.partition(":")[0]) == ("an IRQ stack", "the task's")
    assert [row["frame"] for row in first.rows] == [None] * 4
    marks = [(row["address"], row["mark"], row["kind"]) for row in second.rows if row["frame"] is not None]
    assert marks == [(STACK + 0x8008, "#1", "ret"), (STACK + 0x8010, "#2?", "ip")]
    (only,) = (output for output in outputs(session, "stack", "-n", "4") if isinstance(output, Table))
    assert len(only.rows) == 4


def test_a_stack_that_has_overflowed(tmp_path: Path) -> None:
    """It is shown from its first byte: below there is nothing to read."""
    bounds = StackBounds(STACK, STACK + 0x20, "a stack", "made by hand")
    target = FakeTarget(words_at(STACK, 1, 2, 3, 4), {"rsp": STACK - 0x28}, bounds=bounds)
    assert [row["address"] for row in rows(session_of(tmp_path, target), "stack")] == [
        STACK + n for n in (0, 8, 16, 24)
    ]


class CallerTarget(FakeTarget):
    """A frame is selected whose call is the last instruction of its function."""

    def evaluate(self, expression: str) -> int:
        return TEXT + 0x100

    def pc_returns(self) -> bool:
        return True


def test_a_program_counter_is_told_by_its_call(tmp_path: Path) -> None:
    session = session_of(tmp_path, CallerTarget({}))
    (call,), (answer,) = session.where(f"{TEXT + 0xFF:#x}"), session.where("$pc")
    assert answer.address == TEXT + 0x100
    assert answer.last("symbol") == call.last("symbol")
    (plain,) = session.where("$rax")
    assert plain.last("symbol") != call.last("symbol")


def test_a_stack_that_ends_in_nothing(tmp_path: Path) -> None:
    target = stack_target(1, 2, bounds=StackBounds(STACK, STACK + 0x4000, "a stack", "made by hand"))
    target.memory[STACK] = target.memory[STACK].ljust(0x1000, b"\0")
    table, problem = outputs(session_of(tmp_path, target), "stack")
    assert isinstance(table, Table)
    assert len(table.rows) == 0x200
    assert problem == Problem(
        f"the stack cannot be read from {STACK + 0x1000:#x} on: nothing is mapped at {STACK + 0x1000:#x}"
    )


def test_a_stack_pointer_into_nowhere(tmp_path: Path) -> None:
    target = FakeTarget({}, {"rsp": STACK})
    (problem,) = outputs(session_of(tmp_path, target), "stack")
    assert isinstance(problem, Problem)
    with pytest.raises(TargetError, match="user space"):
        outputs(session_of(tmp_path, FakeTarget({}, {"rsp": 0x7FFC0000})), "stack")


def test_no_return_addresses(tmp_path: Path) -> None:
    (problem,) = outputs(session_of(tmp_path, stack_target(1, 2, 3)), "stack", "-r")
    assert problem == Problem(f"no return address in 3 words from {STACK:#x}")


@pytest.mark.parametrize("count", ["0", "-1", "65537"])
def test_too_many_words(tmp_path: Path, count: str) -> None:
    with pytest.raises(UsageError):
        outputs(session_of(tmp_path, stack_target(1)), "stack", f"--words={count}")


# -- memory ------------------------------------------------------------------------------------------------------------


def test_an_expression_and_a_count(tmp_path: Path) -> None:
    target = FakeTarget(words_at(DATA, *range(9)))
    session = session_of(tmp_path, target)
    for words, expected in {
        (f"{DATA:#x}",): 8,
        (f"{DATA:#x}", "3"): 3,
        (".data", "0x2"): 2,
        (".data+8", "2"): 2,
        (".data", "+", "8"): 8,  # an operator makes the number a part of the expression
    }.items():
        assert len(rows(session, "x", *words)) == expected, words


def test_memory_with_a_hole(tmp_path: Path) -> None:
    page = 0xFFFFC90000020000
    target = FakeTarget({page: bytes(0x1000), page + 0x2000: bytes(0x1000)})
    found = outputs(session_of(tmp_path, target), "x", f"{page + 0xFF0:#x}", "520")
    assert [type(output) for output in found] == [Table, Problem, Table]
    assert f"{page + 0x1000:#x}-{page + 0x2000:#x} cannot be read" in str(found[1])
    tables = [output for output in found if isinstance(output, Table)]
    assert [int(table.rows[0]["offset"]) for table in tables] == [0, 0x1010]


def test_a_word_across_pages(tmp_path: Path) -> None:
    page = 0xFFFFC90000020000
    target = FakeTarget({page: bytes(range(256)) * 32})
    found = rows(session_of(tmp_path, target), "x", f"{page + 0xFFC:#x}", "3")
    expected = [struct.unpack("<Q", target.read(page + 0xFFC + 8 * number, 8))[0] for number in range(3)]
    assert [int(row["value"]) for row in found] == expected


def test_pointers_in_a_circle(tmp_path: Path) -> None:
    target = FakeTarget(words_at(DATA, DATA + 8, DATA + 16, DATA))
    found = rows(session_of(tmp_path, target), "x", f"{DATA:#x}", "1", "-ffffffff")
    assert [row["depth"] for row in found] == [0, 1, 2, 3]
    assert found[-1]["note"] == "points back to here"


def test_pointers_to_nowhere_end(tmp_path: Path) -> None:
    target = FakeTarget(words_at(DATA, 0xFFFFC90000020000, 5))
    assert [row["depth"] for row in rows(session_of(tmp_path, target), "x", f"{DATA:#x}", "2", "-ff")] == [0, 0]


def test_the_end_of_the_address_space(tmp_path: Path) -> None:
    target = FakeTarget({MASK - 15: bytes(16)})
    assert len(rows(session_of(tmp_path, target), "x", f"{MASK - 15:#x}", "100")) == 2


def test_a_big_endian_kernel_of_32_bits(tmp_path: Path) -> None:
    elf = small_vmlinux(32, little=False, machine=20)  # EM_PPC
    target = FakeTarget({0xC1002000: struct.pack(">4I", 1, 2, 0xC1000040, 4)})
    found = rows(session_of(tmp_path, target, elf), "x", "0xc1002000", "4")
    assert [int(row["value"]) for row in found] == [1, 2, 0xC1000040, 4]


def test_an_architecture_whose_calls_are_not_known(tmp_path: Path) -> None:
    target = stack_target(TEXT + 0x48)
    session = session_of(tmp_path, target, small_vmlinux(machine=243))  # EM_RISCV
    assert [row["kind"] for row in rows(session, "stack")] == ["code?"]


def test_data_in_a_section_that_is_marked_as_executable(tmp_path: Path) -> None:
    """x86_64's .data since 6.14."""
    elf = small_vmlinux()
    next(section for section in elf.sections if section.name == ".data").flags |= X
    session = session_of(tmp_path, stack_target(DATA + 8, TEXT + 1), elf)
    assert [row["kind"] for row in rows(session, "stack")] == ["data", "code?"]


def test_arm64_stack(tmp_path: Path) -> None:
    target = stack_target(TEXT + 0x48, TEXT + 0x4C)
    data = bytearray(target.memory[TEXT])
    data[0x44:0x48] = struct.pack("<I", 0xD63F0100)
    target.memory[TEXT] = bytes(data)
    session = session_of(tmp_path, target, small_vmlinux(machine=EM_AARCH64))
    assert [row["kind"] for row in rows(session, "stack")] == ["ret", "code?"]


def test_arm64_signed_return_addresses(tmp_path: Path) -> None:
    """The kernel signs them above its addresses; the answer is for what was signed, the value what is there."""
    signed = (TEXT + 0x48) & (1 << 48) - 1 | 0x1234 << 48 | 1 << 55
    target = stack_target(signed, signed + 4)
    data = bytearray(target.memory[TEXT])
    data[0x44:0x48] = struct.pack("<I", 0xD63F0100)
    target.memory[TEXT] = bytes(data)
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux(machine=EM_AARCH64)))
    image = open_vmlinux(str(path))
    placed = [PlacedImage(image, as_linked(image.sections))]
    for facts in (AddressSpaceFacts(kernel_pac_mask=0xFFFF << 48), AddressSpaceFacts(vabits_actual=48)):
        found = rows(Session(placed, target=target, facts=facts), "stack")
        assert [row["kind"] for row in found] == ["ret", None]
        assert int(found[0]["value"]) == signed
        assert found[0]["annotation"].address == TEXT + 0x48
    assert [row["kind"] for row in rows(Session(placed, target=target, facts=AddressSpaceFacts()), "stack")] == [
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"Linux ve", "'Linux ve'"), (b"init\0\0\0\0", "'init'"), (b"abc\0", None), (b"a\x1b[31mbc", None), (b"", None)],
)
def test_text_of_bytes(data: bytes, expected: str | None) -> None:
    assert text_of(data) == expected


# -- how it is shown ---------------------------------------------------------------------------------------------------


def shown(session: Session, name: str, *words: str) -> Table:
    (table,) = (output for output in outputs(session, name, *words) if isinstance(output, Table))
    return table


def test_json_has_kwheres_object(tmp_path: Path) -> None:
    session = session_of(tmp_path, FakeTarget({}, {"rip": TEXT + 0x44, "rax": 3}))
    table = shown(session, "regs")
    first, second = (json.loads(JsonLines().record(table.schema, row)) for row in table.rows)
    assert first["schema"] == "kplug.regs/1"
    assert first["annotation"] == json.loads(JsonLines().annotation(session.resolver.where(TEXT + 0x44)))
    assert first["summary"] == first["annotation"]["summary"]
    assert (second["value"], second["annotation"], second["summary"]) == ("0x3", None, None)


def test_colours_do_not_move_columns(tmp_path: Path) -> None:
    session = session_of(tmp_path, stack_target(TEXT + 0x48, 7, DATA))
    table = shown(session, "stack")
    plain = list(TextRenderer(PLAIN).table(table))
    coloured = list(TextRenderer(COLOURED).table(table))
    assert coloured != plain
    for escape in filter(None, COLOURED):
        coloured = [line.replace(escape, "") for line in coloured]
    assert [line.rstrip() for line in coloured] == plain


@pytest.mark.parametrize("style", [PLAIN, COLOURED])
@pytest.mark.parametrize("width", [1, 20, 40, 61, 200])
def test_lines_end_where_the_terminal_does(tmp_path: Path, style: Any, width: int) -> None:
    session = session_of(tmp_path, stack_target(TEXT + 0x48, 7, DATA))
    table = replace(shown(session, "stack"), title="")
    whole = list(TextRenderer(PLAIN).table(table))
    for line, full in zip(TextRenderer(style).table(table, width), whole):
        assert line.count("\x1b[0m") == sum(line.count(escape) for escape in style[:-1] if escape)
        for escape in filter(None, style):
            line = line.replace(escape, "")
        assert line.rstrip() == full[:width].rstrip()
