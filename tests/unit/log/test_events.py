"""The events in a log: what a report states on each architecture, where it begins and ends, whom it blames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import crafted_reports as crafted

from kplug.log import events
from kplug.log.event import Event, Module


def one(text: str) -> Event:
    (event,) = events(text.splitlines(keepends=True))
    return event


def lines(text: str) -> int:
    return len(text.splitlines())


def test_an_oops_of_x86() -> None:
    event = one(crafted.X86)
    assert (event.first_line, event.last_line, event.complete) == (1, lines(crafted.X86), True)
    assert (event.type, event.function) == ("null-deref", "plant_grow")
    assert event.title == "BUG: unable to handle kernel NULL pointer dereference in plant_grow"
    assert event.signature == "null-deref:plant_grow:plant_water:vfs_write"
    assert (event.access, event.address, event.cpu, event.pid, event.comm) == ("write", 0x18, 1, 215, "my shell")
    assert (event.release, event.build) == ("6.12.1-cloud-amd64", "#1  Debian 6.12.1-1")
    assert [(taint.letter, bool(taint.words)) for taint in event.taint or ()] == [(each, True) for each in "GWOE"]
    assert event.hardware == "QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2 04/01/2014"
    assert event.modules == (Module("plant", "OE+"), Module("loop"), Module("qemu_fw_cfg"))
    assert event.unloaded == (Module("weed", "E"),)
    assert (event.panic, event.kaslr_offset) == ("Fatal exception", 0x29600000)


def test_the_registers_are_the_kernel_s() -> None:
    event = one(crafted.X86)
    names = ("RAX", "RBX", "RSP", "CR2", "FS", "EFLAGS")
    values = (1, 0xFFFF8CE681CCCB48, 0xFFFFCF3A404ABD68, 0x18, 0x19D13C0, 0x202)
    assert tuple(event.registers[name] for name in names) == values
    assert "ORIG_RAX" not in event.registers
    assert event.ip is not None
    assert (event.ip.function, event.ip.offset, event.ip.size, event.ip.module) == (
        "plant_grow.constprop.0",
        5,
        0x20,
        "plant",
    )
    assert event.code is not None
    assert (event.code.data.hex(), event.code.marked) == ("0f1f440000488b042518000000", 5)


def test_each_frame_has_its_context() -> None:
    (trace,) = one(crafted.X86).traces
    assert [(frame.function, frame.context, frame.questionable) for frame in trace.frames] == [
        ("plant_water", "irq", False),
        ("rest", "irq", True),
        ("vfs_write", "task", False),
    ]
    assert trace.frames[0].build_id == "0123456789abcdef0123456789abcdef01234567"
    assert trace.frames[0].line_number == 18
    (trace,) = one(crafted.ARM64).traces
    assert [frame.context for frame in trace.frames] == ["irq", "irq", "task", "task"]


def test_an_oops_of_arm64() -> None:
    event = one(crafted.ARM64)
    assert (event.type, event.access, event.address) == ("page-fault", "write", 0xFFFFABBF2EBAD058)
    assert (event.function, event.complete, event.taint) == ("plant_grow", True, ())
    assert (event.registers["x29"], event.registers["x8"]) == (0xFFFF80008064BA80, 0xC000000)
    assert event.code is not None
    assert (event.code.marked, event.code.unit) == (12, 4)


def test_an_oops_of_i386_of_long_ago() -> None:
    event = one(crafted.I386)
    assert (event.first_line, event.last_line, event.complete) == (1, lines(crafted.I386), True)
    assert (event.type, event.function, event.access, event.address) == ("null-deref", "plant_grow", "write", 0x10)
    assert (event.pid, event.comm, event.release, event.cpu) == (1234, "sh", "3.2.0-4-686-pae", 0)
    assert (event.registers["EBX"], event.registers["ESP"]) == (0xC1234567, 0xF6001EE0)
    assert event.stack == (0xC10B0000, 0xF6001F10, 2, 3, 0xF6001F14)
    assert event.signature == "null-deref:plant_grow:sys_write"


def test_an_oops_of_arm() -> None:
    event = one(crafted.ARM)
    assert (event.type, event.function, event.access, event.address) == (
        "page-fault",
        "plant_grow",
        "write",
        0xFFFFFFE0,
    )
    assert (event.registers["lr"], event.registers["r10"], event.registers["ip"]) == (0xC0105678, 0, 0)
    assert [frame.function for frame in event.frames] == ["plant_grow", "plant_water", "do_one_initcall"]
    assert event.stack == (0, 0xC0105678, 0xEE8A5EAC, 0xEE8A5E98)


def test_an_oops_of_riscv() -> None:
    event = one(crafted.RISCV)
    assert (event.type, event.function, event.address) == ("null-deref", "plant_grow", 8)
    assert (event.registers["sp"], event.registers["badaddr"]) == (0xFF2000000076BD60, 8)
    assert [frame.function for frame in event.frames] == ["plant_grow", "ret_from_syscall"]
    assert event.code is not None
    assert event.code.marked == 4


def test_registers_of_powerpc() -> None:
    event = one(crafted.POWERPC)
    assert (event.type, event.function, event.complete) == ("bug", "plant_grow", True)
    assert [event.registers[f"r{number}"] for number in (0, 4, 7)] == [0xC0080000003A0120, 4, 7]
    assert (event.registers["NIP"], event.registers["CTR"]) == (0xC0080000003A0128, 0xC0000000001E3D18)
    assert [(frame.function, frame.questionable) for frame in event.frames] == [
        ("plant_grow", True),
        ("vfs_write", False),
    ]
    assert event.code is not None
    assert (event.code.marked, len(event.code.data)) == (24, 32)


def test_a_warning_begins_at_its_border() -> None:
    event = one("a line\n" + crafted.WARNING + "another\n")
    assert (event.first_line, event.last_line, event.complete) == (2, 1 + lines(crafted.WARNING), True)
    assert (event.type, event.title, event.stated["place"]) == (
        "warning",
        "WARNING in plant_wilt",
        "drivers/plant.c:99",
    )
    assert event.workqueue == "events plant_work"


def test_a_panic() -> None:
    event = one(crafted.PANIC)
    assert (event.type, event.title, event.complete) == ("panic", "kernel panic: Attempted to kill init!", True)
    assert event.panic == "Attempted to kill init! exitcode=0x0000000b"


def test_a_warning_inside_an_oops_is_an_event_of_its_own() -> None:
    oops = crafted.X86.splitlines(keepends=True)
    warning, outer = events([*oops[:18], *crafted.WARNING.splitlines(keepends=True), *oops[18:]])
    assert (warning.type, warning.first_line, warning.last_line) == ("warning", 19, 18 + lines(crafted.WARNING))
    assert (outer.type, outer.first_line, outer.last_line) == ("null-deref", 1, lines(crafted.X86 + crafted.WARNING))
    assert outer == one(crafted.X86)._replace(
        last_line=outer.last_line, traces=outer.traces, code=outer.code, ip=outer.ip, stated=outer.stated
    )


def test_lines_of_two_callers_are_told_apart() -> None:
    def of(caller: str, text: str) -> list[str]:
        return [line.replace("] ", f"][{caller:>6}] ", 1) for line in text.splitlines(keepends=True)]

    first, second = of("T215", crafted.X86), of("C1", crafted.WARNING)
    mixed = [line for pair in zip(first, second) for line in pair] + first[len(second) :]
    found = {event.type: event for event in events(mixed)}
    assert found["warning"].title == "WARNING in plant_wilt"
    assert found["null-deref"].signature == one(crafted.X86).signature
    assert len(found["null-deref"].traces[0].frames) == 3


def test_lines_of_programs_and_of_others_are_in_no_event() -> None:
    text = crafted.ARM64.splitlines(keepends=True)
    text[14:14] = [f"a program's line {number}\n" for number in range(40)]
    text[20:20] = ["[   13.0] usb 1-1: new device\n"] * 3
    event = one("".join(text))
    assert (event.complete, event.signature) == (True, one(crafted.ARM64).signature)


@pytest.mark.parametrize("text", crafted.ALL, ids=lambda text: text[:40])
def test_what_is_cut_off_is_not_complete(text: str) -> None:
    half = text.splitlines(keepends=True)[: lines(text) // 2]
    for event in events(half):
        assert not event.complete


def test_wrapped_lines_are_read_as_one() -> None:
    wrapped = []
    for line in crafted.X86.splitlines():
        wrapped += [line[start : start + 80] for start in range(0, len(line), 80)]
    event = one("\n".join(wrapped))
    assert (event.first_line, event.last_line, event.complete) == (1, len(wrapped), True)
    assert event.build == "#1  Debian 6.12.1-1"
    assert event.traces[0].frames[0].function == "plant_water"
    assert event._replace(last_line=0, traces=(), ip=None, code=None) == one(crafted.X86)._replace(
        last_line=0, traces=(), ip=None, code=None
    )


@pytest.mark.parametrize(
    "before",
    [
        "<4>",
        "2026-11-30T12:00:00,123456+00:00 host kernel: ",
        "Nov 30 12:00:00 host kernel: ",
        "\x1b[31m",
        "> > ",
        "\0\0",
        "kern  :warn  : ",
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\x1b[0m\n", ""])
def test_what_carriers_add_changes_nothing(before: str, ending: str) -> None:
    carried = [before + line + ending for line in crafted.X86.splitlines()]
    as_bytes = [line.encode() for line in carried]
    assert [*events(carried)] == [*events(as_bytes)] == [one(crafted.X86)]


def test_each_event_comes_as_soon_as_its_end_is_seen() -> None:
    taken = []

    def some() -> Iterator[str]:
        for number, line in enumerate((crafted.WARNING + "[   41.0] other\n" * 100).splitlines(), 1):
            taken.append(number)
            yield line

    next(iter(events(some())))
    assert len(taken) < lines(crafted.WARNING) + 10
