"""What the machine code of an event comes to: its instructions, and what the faulting one accessed, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kplug import model
from kplug.log.event import address_words
from kplug.log.faulting import Faulting, faulting_instruction
from kplug.log.finding import Role
from kplug.log.machine_code import Instruction, architecture_of, has_disassembler, instructions
from kplug.named_tuples import NamedTuple
from kplug.summary import summarize

if TYPE_CHECKING:
    from kplug.annotate.answers import LogAnswers
    from kplug.log.event import Event

NO_DISASSEMBLER = "the machine code in the log is not disassembled: that needs capstone (pip install 'kplug[log]')"
_VERBS = {"read": "reads", "write": "writes", "read and write": "reads and writes"}


class CodeAnswer(NamedTuple):
    """`into_function`: how far the marked instruction is in the function at the instruction pointer. `words` say what
    the faulting instruction accessed; None where that is not known, or is not what the log says."""

    machine: str
    instructions: Sequence[Instruction]
    function: str | None
    into_function: int | None
    faulting: Faulting | None
    words: str | None

    def around(self, before: int, after: int) -> Sequence[Instruction]:
        """The marked instruction with so many before, in its function if that is known to begin there, and after it."""
        begin = None if self.into_function is None else -self.into_function
        shown = [each for each in self.instructions if each.text and (begin is None or each.offset >= begin)]
        marked = next((at for at, each in enumerate(shown) if not each.offset), len(shown))
        return shown[max(0, marked - before) : marked + after + 1]

    def place(self, instruction: Instruction) -> str:
        """Where an instruction is in the function; where that is not known, from the marked one on."""
        if self.function is None or self.into_function is None:
            return f"{instruction.offset:+#x}"
        return f"{self.function}{self.into_function + instruction.offset:+#x}"


def code_answer(event: Event, answers: LogAnswers) -> CodeAnswer | None:
    """None if the event has no machine code that is marked, or nothing tells whose it is."""
    if event.code is None or event.code.marked is None:
        return None
    architecture = architecture_of(event, answers.machine)
    if architecture is None or architecture.machine_code is None:
        return None
    if not has_disassembler():
        answers.assumed[NO_DISASSEMBLER] = None
        return None
    into = event.ip.offset if event.ip is not None else None
    faulting = faulting_instruction(event, answers.machine)
    return CodeAnswer(
        architecture.name,
        instructions(event.code, architecture.machine_code(), into),
        event.ip.function if event.ip is not None else None,
        into,
        faulting,
        None if faulting is None else _words(faulting, answers),
    )


def _words(faulting: Faulting, answers: LogAnswers) -> str | None:
    """`mov 0x18(%rax),%rdx: RAX is NULL, so it reads NULL+0x18`."""
    operand = faulting.operand
    if operand is None or operand.address is None or faulting.agrees is False:
        return None
    values = [(operand.base, operand.base_value), (operand.index, operand.index_value)]
    said = [f"{name} is {_value(value, answers)}" for name, value in values if name is not None and value is not None]
    verb = _VERBS.get(operand.access or "", "accesses")
    what = f"it {verb} {address_words(operand.address)}"
    return f"{faulting.text}: {', '.join(said)}, so {what}" if said else f"{faulting.text}: {what}"


def _value(value: int, answers: LogAnswers) -> str:
    """A register's value, and what it means as one."""
    if not value:
        return "NULL"
    annotation = answers.of_address(value, Role.REGISTER)
    if annotation is None or annotation.first(model.SPECIAL) is None:
        return f"{value:#x}"
    return f"{value:#x}, {summarize(annotation).head}"
