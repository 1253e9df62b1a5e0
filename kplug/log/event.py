"""What a log says of one event: an oops, a warning, a stall, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kplug.named_tuples import NamedTuple

# Where a NULL pointer's members are.
FIRST_PAGE = 4096


class Frame(NamedTuple):
    """A line of a trace. `questionable`: the kernel was not sure of it and put "? " before it or "(unreliable)" after.

    `context` is what the CPU was doing: task, irq, softirq, nmi, exception. `place` is FILE:LINE, if the line has it;
    `inlined`: the line says that it has no code of its own.
    """

    function: str | None
    offset: int | None = None
    size: int | None = None
    module: str | None = None
    build_id: str | None = None
    address: int | None = None
    questionable: bool = False
    line_number: int = 0
    context: str = "task"
    place: str | None = None
    inlined: bool = False


class Trace(NamedTuple):
    """Frames, innermost first. `context` is of what: that of the event itself is "task", "irq", "softirq", "nmi" or
    "exception"; others are "allocated", "freed", "related work" and what the kinds of events declare. `heading` is the
    line above it as it is, or None."""

    context: str
    heading: str | None
    frames: Sequence[Frame]
    cpu: int | None = None
    pid: int | None = None
    main: bool = True  # of the event itself, not of what came before it


class Taint(NamedTuple):
    letter: str
    words: str


class Module(NamedTuple):
    """A module in "Modules linked in": `flags` are its taints, and + or - while it is loaded or unloaded."""

    name: str
    flags: str = ""


class Code(NamedTuple):
    """The machine code in a `Code:` line: `data` as the log has it, units of `unit` bytes; `marked` is the index of the
    byte in `data` at the instruction pointer, None if none is marked."""

    data: bytes
    marked: int | None
    unit: int = 1


class Event(NamedTuple):
    """An event in a log; None, or empty, is what its lines do not state.

    `address` is what was accessed; `access` "read", "write" or "execute"; `bytes` how many. `ip` is the frame at the
    instruction pointer. `function` is the first that is not of the reporting machinery. `panic` is why the kernel
    panicked at the event's end. `sentence`: what happened, in plain English. `complete`: the end of the report was
    seen, and nothing shows that lines of another task's report are among its own.
    """

    first_line: int
    last_line: int
    type: str
    title: str
    function: str | None
    signature: str
    complete: bool
    access: str | None = None
    address: int | None = None
    bytes: int | None = None
    cpu: int | None = None
    pid: int | None = None
    comm: str | None = None
    release: str | None = None
    build: str | None = None
    taint: Sequence[Taint] | None = None
    hardware: str | None = None
    workqueue: str | None = None
    ip: Frame | None = None
    traces: Sequence[Trace] = ()
    registers: Mapping[str, int] = {}
    stack: Sequence[int] = ()
    code: Code | None = None
    modules: Sequence[Module] | None = None
    unloaded: Sequence[Module] = ()
    panic: str | None = None
    kaslr_offset: int | None = None
    stated: Mapping[str, str] = {}  # what the wordings of its kind name besides
    sentence: str = ""

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames of the event itself: those of its first trace that is not of something before it."""
        return next((trace.frames for trace in self.traces if trace.main and trace.frames), ())


def address_words(address: int) -> str:
    """An address that was accessed, from NULL on if it is near that."""
    if address < FIRST_PAGE:
        return f"NULL+{address:#x}" if address else "NULL"
    return f"{address:#x}"
