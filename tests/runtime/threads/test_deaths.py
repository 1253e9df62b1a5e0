"""Kernels that died in different ways: bt and kstack are held against what the kernel itself said of its stack.

Its lines with "?" are its own guesses; of a jump into data it has nothing else.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("drgn")

from support.answers import rows
from support.open_dumps import session_in

from kplug import model
from kplug.commands.stacks_entered import stacks_entered
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.threads.frame import Frame

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# Kernel, way, whether the vmlinux is at hand. Each way is one boot, out of the cache from then on; make test-all has
# the others too, all with and without.
ALWAYS = [
    ("amd64-6.1", "call-slab", True),
    ("amd64-6.1", "irq", True),
    ("arm64-6.12", "sysrq-null", True),
    ("amd64-6.1", "irq", False),
]
_SAID = re.compile(r"^\[[ .\d]+\]  ?(\? |RIP: 0010:|pc : )?([\w.]+)\+0x([0-9a-f]+)/0x[0-9a-f]+", re.MULTILINE)
_RIP, _USER = r"^\[[ .\d]+\] RIP: 0010:", r"^\[[ .\d]+\] RIP: 0033:0x([0-9a-f]+)"
# What the CPU does after the kernel's last words.
_NOT_SAID = {"dump_stack", "dump_stack_lvl"}
WILD = ("call-null", "call-slab", "call-data", "sysrq-null", "sysrq-data")
_STACKS = {
    "irq": ("IRQ stack", "stack of"),
    "softirq": ("IRQ stack", "stack of"),
    "nmi": ("NMI stack", "stack of"),
    "overflow": ("double fault stack", "stack of"),
}
# The last that is the kernel's own report, in a trace that has it.
_MACHINERY = {"panic", "__bad_stack"}
_STACKS_OF_ARM64 = {"overflow": ("overflow stack", "stack of")}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from vmimages import ways

    found = list(ALWAYS)
    if metafunc.config.option.whole:
        # What sysrq does is another way to the same deaths, for where there is no compiler: once is enough.
        names = {"amd64-6.1": False, "amd64-6.12": False, "arm64-6.12": True}
        boots = [(name, way) for name in names for way in ways(name) if names[name] or not way.startswith("sysrq-")]
        found += [(name, way, vmlinux) for vmlinux in (True, False) for name, way in boots]
    params = list(dict.fromkeys(found))
    ids = [f"{name}-{way}{'' if vmlinux else '-without-vmlinux'}" for name, way, vmlinux in params]
    metafunc.parametrize("death", params, ids=ids, indirect=True, scope="module")


class Death:
    """A dump of a kernel that died, and its last words."""

    def __init__(self, dumps: DumpSet, way: str, vmlinux: bool) -> None:
        self.dumps, self.way, self.has_vmlinux = dumps, way, vmlinux
        self.session = session_in(dumps, vmlinux=vmlinux)
        assert isinstance(self.session.target, DrgnTarget)
        self.target = self.session.target
        self.console = dumps.truth.text("console")

    def is_gone(self, line: tuple[str, str, int]) -> bool:
        """Whether a line is of init code, freed since: no file is there that says whether a call returns to it."""
        truth, may = self.dumps.truth, places(self, line[1], line[2])
        init = range(truth.address("_sinittext"), truth.address("_einittext"))
        return not self.has_vmlinux and any(place in init for place in may or ())

    @property
    def frames(self) -> list[Frame]:
        self.target.selection.select_frame(0)
        return list(self.target.selection.frames())

    @property
    def functions(self) -> list[Frame]:
        """Without inlined functions, which the kernel does not tell."""
        return [frame for frame in self.frames if not frame.is_inline]

    @cached_property
    def died(self) -> list[Frame]:
        """The frames from where the exception came; of a panic those of its callers."""
        found = self.functions
        # An interrupt may have come since, while panic() waited.
        found = found[next(n for n, frame in enumerate(found) if frame.function == "panic") + 1 :]
        return found if self.way == "init" else found[next(n for n, frame in enumerate(found) if frame.interrupted) :]

    def said(self) -> list[tuple[str, str, int]]:
        """The kernel's lines: "?" or not, name, offset. From where it died, as its own trace has it."""
        start = re.search(r"Call [Tt]race:", self.console)
        assert start is not None
        before = [
            each.start() for each in re.finditer(_RIP, self.console, re.MULTILINE) if each.start() < start.start()
        ]
        text = re.split(r"</TASK>|\] Code: \?|end trace", self.console[before[-1] if before else start.end() :])[0]
        return [(mark.strip(), name, int(offset, 16)) for mark, name, offset in _SAID.findall(text)]


@pytest.fixture(scope="module")
def death(request: pytest.FixtureRequest) -> Death:
    from vmimages import death

    name, way, vmlinux = request.param
    return Death(death(name, way, quiet=True), way, vmlinux)


def places(death: Death, name: str, offset: int) -> set[int] | None:
    """The addresses that a name and an offset may mean; None if the name was not known before the kernel died."""
    truth = death.dumps.truth
    return {symbol.address + offset for symbol in truth.symbols if symbol.name == name} or None


def agree(death: Death, frame: Frame, line: tuple[str, str, int]) -> bool:
    _, name, offset = line
    may = places(death, name, offset)
    return may is None or frame.pc in may


def test_the_trace_is_the_kernels_own(death: Death) -> None:
    said, found = death.said(), death.died
    sure = [line for line in said if line[0] != "?" and line[1] not in _NOT_SAID]
    # What comes after panic(), which went on, or the entry to the stack for an overflow.
    last = max((n for n, line in enumerate(sure) if line[1] in _MACHINERY), default=-1)
    sure = sure[last + 1 :]
    wild = death.way in WILD
    # Of arm64 the link register is among the registers, and its function is not in the trace. Nor is it in kplug's, if
    # the module's function that died made no frame.
    lr = re.search(r"lr : (\w+)\+0x([0-9a-f]+)", death.console)
    if wild and lr is not None:
        sure = [("", lr[1], int(lr[2], 16)), *(line for line in sure if line[1] != lr[1])]
    if not wild:
        kernels = [frame for frame in found if death.session.word.is_kernel(frame.pc)]
        sure = [line for line in sure if not death.is_gone(line)]
        assert len(kernels) == len(sure)
        assert [line for frame, line in zip(kernels, sure) if not agree(death, frame, line)] == []
        return
    said, sure = ([line for line in each if not agree(death, found[0], line)] for each in (said, sure))
    callers = [frame for frame in found[1:] if death.session.word.is_kernel(frame.pc)]
    lines = sure if death.way in ("call-null", "sysrq-null") or death.dumps.files.arch == "arm64" else said
    assert agree(death, callers[0], lines[0])  # who called is the first, whatever the kernel calls it
    left = iter(lines)
    assert [hex(each.pc) for each in callers if not any(agree(death, each, line) for line in left)] == []
    assert len(callers) >= len([line for line in sure if line[0] != "?"])


def test_no_frame_is_invented(death: Death) -> None:
    """After a jump to where no code is, the first of its callers is the next: all the others follow calls."""
    frames = death.functions
    guessed = frames[-1:] if any(death.is_gone(line) for line in death.said()) else []
    assert [frame for frame in frames if frame.guessed or frame.lost] == guessed
    assert [frame.number for frame in death.frames] == list(range(len(death.frames)))
    last = frames[-1]
    user = re.findall(_USER, death.console, re.MULTILINE)
    if user:
        assert last.pc == int(user[0], 16)


def test_where_the_walk_changes_stacks(death: Death) -> None:
    panic = next(frame.number for frame in death.functions if frame.function == "panic")
    entered = stacks_entered(death.frames, death.target.stack_bounds)
    last = max(number for number in entered if number <= panic)  # an interrupt may have come since
    found = [bounds.owner for number, bounds in entered.items() if number >= last]
    stacks = {**_STACKS, **_STACKS_OF_ARM64} if death.dumps.files.arch == "arm64" else _STACKS
    expected = stacks.get(death.way, ("stack of",))
    assert len(found) == len(expected)
    assert [owner.startswith(start) for owner, start in zip(found, expected)] == [True] * len(expected)


def test_kstack_shows_each_frame_where_it_is_saved(death: Death) -> None:
    shown = {row["frame"]: row for row in rows(death.session, "stack") if row["frame"] is not None}
    first = death.functions[0]
    expected = {frame.number: frame for frame in death.functions if (frame.pc, frame.sp) != (first.pc, first.sp)}
    missing = set(expected) - set(shown)
    if death.dumps.files.arch == "arm64":
        # What is inlined there may have the record's row; the link register's caller has none.
        rows_of = {frame.pc for frame in death.frames if frame.number in shown}
        assert len([number for number in missing if expected[number].pc not in rows_of]) <= 1
    else:
        assert missing == set()
    for number, row in shown.items():
        assert row["kind"] == ("ip" if expected[number].interrupted else "ret"), number


def test_a_caller_is_told_by_its_call(death: Death) -> None:
    selection = death.target.selection
    for frame in death.functions:
        selection.select_frame(frame.number)
        (answer,) = death.session.where("$pc")
        assert answer.address == frame.pc
        call = death.session.resolver.where(frame.pc if frame.interrupted else frame.pc - 1)
        if frame.pc >= 0x1000:
            assert answer.last(model.SYMBOL) == call.last(model.SYMBOL)
        else:
            assert [layer.name for layer in answer.layers][-1] == "NULL"
    selection.select_frame(0)
