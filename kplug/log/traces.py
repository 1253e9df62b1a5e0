"""Call traces as text: their headings, their frames in the form of each architecture, and in what context they were."""

from __future__ import annotations

import re
from functools import cache

from kplug.log.event import Frame, Trace
from kplug.log.forms import HEX, MODULE, NAME, PLACE, SYMBOL, Form, as_number
from kplug.log.kinds import Heading

# A report has fewer; a log without end may have as many as it likes.
_MOST_FRAMES = 2000
_ADDRESS = rf"\(?\[<?\s?(?P<address>{HEX}|0{{1,16}})>?\]\s*"
_AFTER = r"(?P<unreliable>\s+\(unreliable\))?(?:\s+\([A-Z]{1,8}\))?"

FRAMES = (
    Form(
        "? schedule+0x4/0xc7 [ext4] kernel/sched/core.c:12",
        rf"(?:\[{HEX}\]\s+(?=\[{HEX}\]))?(?:{_ADDRESS})?(?P<questionable>\?\s+)?\(?{SYMBOL}(?:{MODULE})?\)?{_AFTER}"
        rf"(?:\s+\(?(?P<place>{PLACE})[^\n]{{0,400}})?\s*$",
        "printk_stack_address() of arch/x86, dump_backtrace_entry() of arch/arm64, show_stack() of others; a"
        " place by tools",
    ),
    Form(
        "[<c0101234>] (dump_backtrace) from [<c0105678>] (show_stack+0x18/0x1c)",
        rf"(?:\[<(?P<callee_address>{HEX})>\]\s+)?\(?(?P<callee>{NAME})(?:\+0x[0-9a-f]{{1,16}}/0x[0-9a-f]{{1,16}})?"
        rf"(?:\s\[[\w-]{{1,64}}\])?\)?\s+from\s+(?:\[<(?P<address>{HEX})>\]\s*)?"
        rf"\(?(?:{SYMBOL}(?:{MODULE})?|0x[0-9a-f]{{1,8}})\)?\s*$",
        "arch/arm/kernel/traps.c, dump_backtrace_entry()",
    ),
    Form(
        "schedule (kernel/sched/core.c:6654)",
        rf"(?P<questionable>\?\s+)?(?P<symbol>{NAME})\s+\((?P<place>{PLACE})[^\n]{{0,400}}\)"
        r"(?:\s+\[?(?P<module>[A-Za-z_][\w-]{0,63})\]?)?\s*$",
        "scripts/decode_stacktrace.sh",
    ),
    Form(
        "context_switch kernel/sched/core.c:5282 [inline]",
        rf"(?:\[<\s{{1,8}}inline\s{{1,8}}>\]\s+)?(?P<symbol>{NAME})\s+(?P<place>{PLACE})"
        r"(?P<inlined>\s+\[inline\])?\s*$",
        "syzkaller",
    ),
    Form(
        "[<ffffffff81a114f4>] 0xffffffff81a114f4",
        rf"(?:\[{HEX}\]\s+(?=\[{HEX}\]))?(?:{_ADDRESS}(?P<questionable>\?\s+)?(?:0x[0-9a-f]{{1,16}})?"
        rf"|(?P<doubted>\?\s+)?0x(?P<bare>[0-9a-fA-F]{{8,16}}))\)?{_AFTER}\s*$",
        "sprint_symbol() of an address without symbol",
    ),
)

HEADINGS = (
    Heading(r"Call [Tt]race:", "task", "Call Trace:", "show_stack() of most architectures"),
    Heading(r"Backtrace:", "task", "Backtrace: ", "arch/arm/kernel/traps.c, dump_backtrace()"),
    Heading(r"Trace:", "task", "Trace:", "arch/alpha, arch/sparc"),
    Heading(r"stack backtrace:", "task", "stack backtrace:", "kernel/locking/lockdep.c"),
    Heading(
        r"NMI backtrace for cpu (?P<cpu>\d{1,5})",
        "task",
        "NMI backtrace for cpu 1",
        "lib/nmi_backtrace.c, nmi_cpu_backtrace()",
    ),
)
# Marks in the traces of arch/x86, show_trace_log_lvl(); EOI and EOE end what they follow in kernels before 4.9.
_MARK = re.compile(r"<{1,2}(?P<end>/?)(?P<name>#?[A-Z][A-Z0-9_]{1,20})>{1,2}\s*")
_CONTEXTS = {"TASK": "task", "IRQ": "irq", "SOFTIRQ": "softirq", "NMI": "nmi"}
_ENDS = ("EOI", "EOE")
# What is below everything: entries from programs, and where threads and CPUs begin.
_BOTTOM = re.compile(
    r"ret_from_|entry_|el0|ret_fast_syscall|ret_slow_syscall|(?:ia32_)?sys(?:tem_call|enter|call)_?|secondary_startup"
    r"|start_kernel|x86_64_start|kernel_thread|__secondary_switched|start_secondary|common_interrupt_return"
    r"|handle_syscall|do_SYSENTER"
)
# Below these the CPU was interrupted: what is above them was not the task's own. arch/arm64/kernel/entry.S, and older.
_BORDERS = {
    re.compile(r"el[01]h?t?_(?:64_|32_)?irq\b|__irq_svc$|__irq_usr$"): "irq",
    re.compile(r"el1(?:[ht]_64)?_(?:sync|da|ia|undef|dbg|error)$|__dabt_svc$|__pabt_svc$|__und_svc$"): "exception",
}


@cache
def _frames() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(form.pattern) for form in FRAMES)


def read_frames(message: str, number: int, context: str, *, loose: bool = False) -> tuple[Frame, ...]:
    """The frame in a line; of arm's form also the one that was called there, first. `loose`: in the middle of a trace,
    where a bare address is one too."""
    for index, pattern in enumerate(_frames()):
        if index == len(FRAMES) - 1 and not loose:
            break
        match = pattern.match(message)
        if match is not None:
            return _found(match.groupdict(), number, context)
    return ()


def _found(stated: dict[str, str | None], number: int, context: str) -> tuple[Frame, ...]:
    questionable = any(stated.get(name) for name in ("questionable", "doubted", "unreliable"))
    address = stated.get("address") or stated.get("bare")
    frame = Frame(
        stated.get("symbol"),
        as_number(stated.get("offset")),
        as_number(stated.get("size")),
        stated.get("module") or stated.get("module_before"),
        stated.get("build_id"),
        (int(address, 16) or None) if address else None,
        questionable,
        number,
        context,
        stated.get("place"),
        bool(stated.get("inlined")),
    )
    callee = stated.get("callee")
    return (Frame(callee, line_number=number, context=context), frame) if callee else (frame,)


class TraceReader:
    """A trace as its lines come."""

    def __init__(
        self, heading: Heading | None, text: str | None, cpu: int | None = None, pid: int | None = None
    ) -> None:
        self._context = heading.context if heading is not None else "task"
        self.main = heading is None or heading.main
        self._heading = text
        self.cpu = cpu
        self._pid = pid
        self._current = [self._context]
        self._closed = False
        self.frames: list[Frame] = []

    def mark(self, message: str) -> str | None:
        """What follows a mark that the line begins with; None if it begins with none."""
        match = _MARK.match(message)
        if match is None:
            return None
        name = match.group("name")
        if match.group("end") or name in _ENDS:
            self._current = self._current[:-1] or [self._context]
            self._closed = name not in _ENDS
        else:
            self._current = [*self._current[-4:], _CONTEXTS.get(name, "exception")]
        return message[match.end() :]

    def take(self, message: str, number: int) -> bool:
        """Whether the line is of the trace."""
        if len(self.frames) >= _MOST_FRAMES:
            return bool(read_frames(message, number, self._current[-1], loose=True))
        rest = self.mark(message)
        if rest == "":
            return True
        found = read_frames(message if rest is None else rest, number, self._current[-1], loose=True)
        if len(found) == 2 and self.frames:
            last = self.frames[-1]
            if last.function != found[0].function and last.offset == 0:
                # A return address after a call that does not return is in the next function: this line knows better.
                self.frames[-1] = last._replace(function=found[0].function, offset=None, size=None)
            if self.frames[-1].function == found[0].function:
                found = found[1:]  # what was called there is the frame before
        self.frames.extend(found)
        return bool(found) or rest is not None

    def set_aside(self) -> None:
        """It is not what the event is about."""
        self.main = False

    def add(self, frame: Frame) -> None:
        if len(self.frames) < _MOST_FRAMES:
            self.frames.append(frame._replace(context=self._current[-1]))

    @property
    def is_whole(self) -> bool:
        """Whether its end was seen: a mark, or the frame below everything."""
        last = next((frame.function for frame in reversed(self.frames) if not frame.questionable), None)
        return bool(self.frames) and (self._closed or (last is not None and _BOTTOM.match(last) is not None))

    @property
    def trace(self) -> Trace:
        return Trace(self._context, self._heading, _with_borders(self.frames), self.cpu, self._pid, self.main)


def _with_borders(frames: list[Frame]) -> tuple[Frame, ...]:
    """The frames, those above an entry from an interrupt in its context, where no marks say it."""
    context = "task"
    done: list[Frame] = []
    for frame in reversed(frames):
        found = next(
            (words for pattern, words in _BORDERS.items() if frame.function and pattern.match(frame.function)), None
        )
        done.append(frame._replace(context=context) if frame.context == "task" and context != "task" else frame)
        context = found or context
    return tuple(reversed(done))
