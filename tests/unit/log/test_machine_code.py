"""Instructions in the machine code of a report: as objdump has them, and what the faulting one accessed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("capstone")

from kplug.arch.registry import named
from kplug.log import events
from kplug.log.event import Code, Event
from kplug.log.faulting import Faulting, Operand, faulting_instruction
from kplug.log.machine_code import Instruction, architecture_of, instructions

LOGS = Path(__file__).parents[2] / "data" / "logs"


def event_in(name: str) -> Event:
    with (LOGS / f"{name}.log").open("rb") as log:
        return next(iter(events(log)))


def objdump(data: bytes, path: Path, *words: str) -> Sequence[tuple[int, str]]:
    """Where each instruction begins, and its text, of binutils'."""
    path.write_bytes(data)
    command = ["objdump", "-D", "-b", "binary", *words, str(path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"(?m)^ +([0-9a-f]+):\t[0-9a-f ]+\t(.+)$", listing)
    return [(int(offset, 16), _from_here(int(offset, 16), text.split("#")[0])) for offset, text in rows]


def _from_here(offset: int, text: str) -> str:
    """The instruction with the target of a branch as the assembler has it, counted from the instruction."""
    text = re.sub(r"\s+", " ", text).strip()
    branch = re.fullmatch(r"((?:j\w+|call) )0x([0-9a-f]+)", text)
    return text if branch is None else f"{branch.group(1)}.{int(branch.group(2), 16) - offset:+#x}"


def fault(base: str | None, value: int | None, displacement: int, address: int, access: str) -> Operand:
    return Operand(base, value, None, None, 1, displacement, None, address, access)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("guest-amd64-6.1-null", Faulting("mov 0x18,%rax", fault(None, None, 0x18, 0x18, "read"), True)),
        ("guest-arm64-6.12-null", Faulting("ldr x0, [x0, #0x18]", fault("x0", 0, 0x18, 0x18, "read"), True)),
        ("null-i386-4.19", Faulting("mov 0x4(%eax),%eax", fault("EAX", 0, 4, 4, "read"), True)),
        ("null-powerpc-6.6", Faulting("ld r3, 8(r3)", fault("r3", 0, 8, 8, "read"), True)),
        (
            "paging-arm-5.10",
            Faulting("ldr r2, [r3, #0x10]", fault("r3", 0x6B6B6B6B, 0x10, 0x6B6B6B7B, "read"), True),
        ),
    ],
)
def test_what_the_faulting_instruction_accessed(name: str, expected: Faulting) -> None:
    assert faulting_instruction(event_in(name)) == expected


def test_an_operand_that_is_not_at_the_fault_address_disagrees() -> None:
    event = event_in("guest-arm64-6.12-null")
    found = faulting_instruction(event._replace(address=0x20))
    assert found is not None
    assert found.agrees is False
    assert found.operand == fault("x0", 0, 0x18, 0x18, "read")


def test_a_register_that_the_log_lacks_resolves_nothing() -> None:
    event = event_in("guest-arm64-6.12-null")
    left = {name: value for name, value in event.registers.items() if name != "x0"}
    found = faulting_instruction(event._replace(registers=left))
    assert found is not None
    assert found.agrees is None
    assert found.operand is not None
    assert (found.operand.base, found.operand.address) == ("x0", None)


def test_in_units_of_another_architecture_there_is_none() -> None:
    event = event_in("guest-amd64-6.1-null")
    assert event.code is not None
    assert faulting_instruction(event._replace(code=event.code._replace(unit=4))) is None


def test_what_is_no_fault_has_an_instruction_alone() -> None:
    assert faulting_instruction(event_in("ubsan-trap-arm64-6.12")) == Faulting("brk #0x5512")
    jump = event_in("guest-amd64-6.12-call-slab")  # what was at the address is no access of its own
    assert jump.access == "execute"
    assert faulting_instruction(jump) == Faulting("add %al,(%rax)")


def test_without_a_code_line_there_is_none() -> None:
    assert faulting_instruction(event_in("guest-amd64-6.1-call-null")) is None


# Of mem* and lists: forms of operands that kernels have in their code, with registers and the address that follows.
X86 = (
    ("48 8b 50 18", "mov 0x18(%rax),%rdx", {"RAX": 0x1000}, 0x1018, "read"),
    ("48 89 50 08", "mov %rdx,0x8(%rax)", {"RAX": 0xDEAD000000000100}, 0xDEAD000000000108, "write"),
    ("f0 ff 40 10", "lock incl 0x10(%rax)", {"RAX": 0}, 0x10, "read and write"),
    ("0f b6 04 02", "movzbl (%rdx,%rax,1),%eax", {"RAX": 5, "RDX": 0x2000}, 0x2005, "read"),
    ("80 3c 02 00", "cmpb $0x0,(%rdx,%rax,1)", {"RAX": 3, "RDX": 0xDFFFFC0000000000}, 0xDFFFFC0000000003, "read"),
    ("48 8b 3c c5 e0 ff ff ff", "mov -0x20(,%rax,8),%rdi", {"RAX": 5}, 8, "read"),
    ("45 8b 41 fc", "mov -0x4(%r9),%r8d", {"R09": 4}, 0, "read"),
    ("65 48 8b 04 25 28 00 00 00", "mov %gs:0x28,%rax", {"GS": 0xFFFF88813FC00000}, 0xFFFF88813FC00028, "read"),
    ("c7 00 05 00 00 00", "movl $0x5,(%rax)", {"RAX": 0}, 0, "write"),
    ("ff 50 18", "call *0x18(%rax)", {"RAX": 0}, 0x18, "read"),
    ("65 ff 08", "decl %gs:(%rax)", {"RAX": 8, "GS": 0x100}, 0x108, "read and write"),
    ("41 d3 7c 24 50", "sarl %cl,0x50(%r12)", {"R12": 0}, 0x50, None),
    ("ff 30", "push (%rax)", {"RAX": 0x2000}, 0x2000, "read"),
    ("48 0f b1 0a", "cmpxchg %rcx,(%rdx)", {"RDX": 8}, 8, None),  # capstone says that it reads
    ("0f 18 08", "prefetcht0 (%rax)", {"RAX": 0}, None, None),
    ("48 8d 40 08", "lea 0x8(%rax),%rax", {"RAX": 0}, None, None),
)


@pytest.mark.parametrize(("data", "text", "registers", "address", "access"), X86, ids=[each[1] for each in X86])
def test_x86(
    data: str, text: str, registers: dict[str, int], address: int | None, access: str | None, tmp_path: Path
) -> None:
    code = bytes.fromhex(data)
    assert objdump(code, tmp_path / "code", "-m", "i386:x86-64") == [(0, text)]
    event = event_in("guest-amd64-6.1-null")._replace(
        registers={"RSP": 0, **registers}, code=Code(code, 0), address=address, access=None
    )
    found = faulting_instruction(event)
    assert found is not None
    assert found.text == text
    assert (found.operand.address if found.operand is not None else None) == address
    assert (found.operand.access if found.operand is not None else None) == access


@pytest.mark.parametrize("name", ["guest-amd64-6.1-null", "guest-amd64-6.12-irq", "guest-amd64-6.12-overflow"])
def test_the_code_of_a_guest_as_objdump_has_it_from_the_marked_byte_on(name: str, tmp_path: Path) -> None:
    event = event_in(name)
    assert event.code is not None
    assert event.code.marked is not None
    expected = objdump(event.code.data[event.code.marked :], tmp_path / "code", "-m", "i386:x86-64")
    declared = named("x86_64").machine_code
    assert declared is not None
    found = [each for each in instructions(event.code, declared()) if each.offset >= 0]
    whole = [(each.offset, each.text) for each in found if each.text]
    assert len(whole) >= 3
    # Of strings objdump says the segments too.
    assert [(at, text.replace("%ds:", "").replace("%es:", "")) for at, text in expected][: len(whole)] == whole


def test_before_the_marked_byte_only_what_the_function_tells_is_no_guess() -> None:
    event = event_in("guest-amd64-6.1-null")
    assert event.code is not None
    assert event.ip is not None
    declared = named("x86_64").machine_code
    assert declared is not None
    # deaths_read_null() is five bytes of nop from its beginning, for ftrace; what is before it is another function.
    known = instructions(event.code, declared(), event.ip.offset)
    at = next(number for number, each in enumerate(known) if not each.offset)
    assert known[at - 1] == Instruction(-5, bytes.fromhex("0f1f440000"), "nopl (%rax,%rax,1)")
    assert all(each.guess for each in known[: at - 1])
    assert known[:at] != []
    guessed = instructions(event.code, declared())
    assert {each.guess for each in guessed if each.offset < 0} == {True}
    assert not any(each.guess for each in guessed if each.offset >= 0)


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("guest-amd64-6.1-null", "x86_64"),
        ("null-i386-4.19", "i386"),
        ("guest-arm64-6.12-null", "aarch64"),
        ("paging-arm-5.10", "arm"),
        ("null-riscv-6.6", "riscv64"),
        ("null-powerpc-6.6", "ppc64"),
        ("null-s390-6.1", "s390x"),
    ],
)
def test_the_registers_tell_the_architecture(name: str, machine: str) -> None:
    found = architecture_of(event_in(name))
    assert found is not None
    assert found.name == machine
