"""What the lines of a report have besides traces: registers, machine code, stack words, modules."""

from __future__ import annotations

from collections.abc import Sequence

from kplug.log import registers as regs
from kplug.log.event import Code, Frame, Module
from kplug.log.headers import MODULES, read_modules
from kplug.log.text import LogText

_MOST_WORDS = 4096
_MOST_REGISTERS = 200
_MOST_MODULES = 10000
_MOST_CODE = 1024
# A line of modules shorter than this was not wrapped.
_NARROWEST = 60


class ReportData:
    """The data of a report as its lines come. Of several lines that state something, the first counts."""

    def __init__(self) -> None:
        self.registers: dict[str, int] = {}
        # What called last, where a register has it.
        self.link: Frame | None = None
        self.stack: list[int] = []
        self.code: Code | None = None
        self.modules: list[Module] | None = None
        self.unloaded: list[Module] = []
        # Whether the registers that are being printed are a program's.
        self._of_a_program = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """A line of another sort came: what goes over several lines is over."""
        self._next_in_list: int | None = None
        self._in_stack, self._in_code, self._in_modules = False, False, False

    def turn_to_program(self, message: str) -> bool:
        """Whether the registers from this line on are a program's, by the segment in it."""
        self._of_a_program = regs.has_user_segment(message)
        return self._of_a_program

    def take(self, line: LogText, in_trace: bool) -> bool:
        """Whether the line has data; `in_trace`: in a trace, registers are of what was interrupted."""
        message = line.message
        modules = MODULES.match(message)
        if modules is not None:
            self.begin_anew()
            self._take_modules(modules.group("modules"))
            self._in_modules = len(line.raw) >= _NARROWEST or ("[last" in message and "]" not in message)
            return True
        return (
            self._take_code(message)
            or self._take_words(message, in_trace)
            or self.take_registers(message, in_trace)
            or (self._in_modules and line.time is None and self._take_modules(message))
        )

    def _take_code(self, message: str) -> bool:
        text = regs.code_text(message)
        if text is not None:
            self.begin_anew()
            self._in_code = True
            if not self._of_a_program and self.code is None:
                self.code = regs.read_code(text)
            return True
        if not self._in_code or not (regs.is_code_row(message) or regs.is_dump_row(message)):
            return False
        more, code = regs.read_code(message), self.code or Code(b"", None)
        if more is not None and not self._of_a_program and len(code.data) < _MOST_CODE:
            marked = code.marked
            if marked is None and more.marked is not None:
                marked = len(code.data) + more.marked
            self.code = Code(code.data + more.data, marked, more.unit)
        return True

    def _take_words(self, message: str, in_trace: bool) -> bool:
        """Words of the stack, or further registers of a list."""
        if message.startswith(("Stack:", "Exception stack(")):
            self.begin_anew()
            self._in_stack = message.startswith("Stack:")
            if self._in_stack:
                self._keep_stack(regs.read_words(message[len("Stack:") :].strip()))
            return True
        words = regs.read_words(message)
        if words and self._next_in_list is not None:
            self._keep_registers({f"r{self._next_in_list + at}": word for at, word in enumerate(words)}, in_trace)
            self._next_in_list += len(words)
            return True
        # dump_stack() before 4.9 has them without a heading.
        if words and (self._in_stack or (len(words) > 2 and not in_trace)):
            self._keep_stack(words)
            return True
        return False

    def take_registers(self, message: str, in_trace: bool) -> bool:
        """Whether the line has registers."""
        found = regs.read_registers(message)
        if not found and not regs.is_registers(message):
            return False
        self.begin_anew()
        self._of_a_program = self._of_a_program or regs.has_user_segment(message)
        self._keep_registers(found, in_trace)
        if self.link is None and not in_trace:
            self.link = regs.link_frame(message)
        # s390 has them in lists, of which the further lines have no names.
        self._next_in_list = 4 if message.startswith("Krnl GPRS") else None
        return True

    def _keep_registers(self, found: dict[str, int], in_trace: bool) -> None:
        if self._of_a_program or in_trace or len(self.registers) >= _MOST_REGISTERS:
            return
        for name, value in found.items():
            self.registers.setdefault(name, value)

    def _keep_stack(self, words: Sequence[int]) -> None:
        self.stack.extend(words[: max(_MOST_WORDS - len(self.stack), 0)])

    def _take_modules(self, text: str) -> bool:
        found = read_modules(text)
        if found is None:
            return False
        self.modules = self.modules or []
        self.modules.extend(found[0][: max(_MOST_MODULES - len(self.modules), 0)])
        self.unloaded.extend(found[1][: max(_MOST_MODULES - len(self.unloaded), 0)])
        return True
