"""The events in a log: what a report states on each architecture, where it begins and ends, whom it blames."""

from __future__ import annotations

import itertools
import textwrap
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


@pytest.mark.parametrize(
    ("reason", "types"),
    [
        ("panic_on_warn set ...", ["warning"]),
        ("KASAN: panic_on_warn set ...", ["warning"]),
        ("Fatal exception in interrupt", ["warning"]),
        ("Attempted to kill init! exitcode=0x00000009", ["warning"]),
        ("VFS: Unable to mount root fs on unknown-block(0,0)", ["warning", "panic"]),
        ("sysrq triggered crash", ["warning", "panic"]),
    ],
)
def test_a_panic_is_of_the_report_before_it_if_that_led_to_it(reason: str, types: list[str]) -> None:
    found = list(events(f"{crafted.WARNING}[ 40.1] Kernel panic - not syncing: {reason}\n".splitlines()))
    assert ([event.type for event in found], found[-1].panic) == (types, reason)
    assert len(types) == 1 or found[0].panic is None


def test_a_warning_inside_an_oops_is_an_event_of_its_own() -> None:
    oops = crafted.X86.splitlines(keepends=True)
    by_the_same = crafted.WARNING.replace("PID: 7", "PID: 215")
    warning, outer = events([*oops[:18], *by_the_same.splitlines(keepends=True), *oops[18:]])
    assert (warning.type, warning.first_line, warning.last_line) == ("warning", 19, 18 + lines(crafted.WARNING))
    assert (outer.type, outer.first_line, outer.last_line) == ("null-deref", 1, lines(crafted.X86 + crafted.WARNING))
    assert outer == one(crafted.X86)._replace(
        last_line=outer.last_line, traces=outer.traces, code=outer.code, ip=outer.ip, stated=outer.stated
    )


@pytest.mark.parametrize("ahead", range(20))
def test_of_two_reports_that_nothing_tells_apart_none_is_complete(ahead: int) -> None:
    """Where lines of both are in one, or one is in the other."""
    first = crafted.X86.splitlines(keepends=True)[:-3]
    second = [line.replace("PID: 215", "PID: 300").replace("plant", "weed") for line in first]
    mixed = [line for pair in itertools.zip_longest(first[ahead:], second, fillvalue="") for line in pair]
    found = list(events([*first[:ahead], *filter(None, mixed)]))
    assert len(found) > 1
    assert not any(event.complete for event in found)


def test_an_event_of_one_line_does_not_end_the_report_that_it_is_in() -> None:
    lines = crafted.X86.splitlines(keepends=True)
    lines[20:20] = ["[   20.0] unregister_netdevice: waiting for eth0 to become free. Usage count = 1\n"]
    short, whole = events(lines)
    assert (short.type, short.first_line, short.last_line) == ("other", 21, 21)
    assert (whole.first_line, whole.last_line, whole.signature) == (1, len(lines), one(crafted.X86).signature)


def test_lines_of_two_callers_are_told_apart() -> None:
    def of(caller: str, text: str) -> list[str]:
        return [line.replace("] ", f"][{caller:>6}] ", 1) for line in text.splitlines(keepends=True)]

    first, second = of("T215", crafted.X86), of("C1", crafted.WARNING)
    mixed = [line for pair in zip(first, second) for line in pair] + first[len(second) :]
    found = {event.type: event for event in events(mixed)}
    assert found["warning"].title == "WARNING in plant_wilt"
    assert found["null-deref"].signature == one(crafted.X86).signature
    assert len(found["null-deref"].traces[0].frames) == 3


def test_a_report_whose_caller_is_silent_is_over() -> None:
    report = [line.replace("] ", "][  T215] ", 1) for line in crafted.ARM64.splitlines(keepends=True)]
    taken = []

    def some() -> Iterator[str]:
        for number, line in enumerate([*report, *["[   14.0][    C1] other\n"] * 500]):
            taken.append(number)
            yield line

    assert next(iter(events(some()))).complete
    assert len(taken) < len(report) + 100


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


def test_what_a_mail_program_wrapped_is_read_too() -> None:
    mail = []
    for line in crafted.X86.replace(" 0123456789abcdef0123456789abcdef01234567", "").splitlines():
        message = line.partition("] ")[2]
        mail += [f"> | {part}" for part in textwrap.wrap(message, 60, break_long_words=False) or [""]]
    event, whole = one("\n".join(mail)), one(crafted.X86)
    assert (event.title, event.signature, event.complete) == (whole.title, whole.signature, True)
    assert event.registers == whole.registers
    assert (event.code, event.modules, event.unloaded) == (whole.code, whole.modules, whole.unloaded)


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


@pytest.mark.parametrize(
    ("header", "release", "letters"),
    [
        ("CPU: 0 PID: 1 Comm: a b Not tainted 6.1.0 #1", "6.1.0", ""),
        ("CPU: 0 UID: 0 PID: 1 Comm: a b Tainted: G    B D W  OE      6.12.1 #2 PREEMPT", "6.12.1", "GBDWOE"),
        (
            "CPU: 0 PID: 1 Comm: a b Kdump: loaded Tainted: G  OE  ------------ T 3.10.0-957.el7 #1",
            "3.10.0-957.el7",
            "GOET",
        ),
        (
            "Pid: 1, comm: a b Tainted: P           O 2.6.32-431.el6.x86_64 #1 HP ProLiant",
            "2.6.32-431.el6.x86_64",
            "PO",
        ),
        ("Pid: 1, comm: a b Not tainted (2.6.24 #1)", "2.6.24", ""),
        ("CPU: 0 PID: 1 Comm: a b Not tainted 7.2.13 #1 PREEMPT(lazy) ", "7.2.13", ""),
        ("CPU: 0 PID: 1 Comm: a b Not tainted syzkaller #0", "syzkaller", ""),
    ],
)
def test_headers_of_all_ages(header: str, release: str, letters: str) -> None:
    event = one(f"kernel BUG at mm/slab.c:12!\n{header}\n")
    assert (event.pid, event.comm, event.release) == (1, "a b", release)
    assert event.build is not None
    assert event.build.count("(") == event.build.count(")")
    assert "".join(taint.letter for taint in event.taint or ()) == letters


@pytest.mark.parametrize(
    ("first", "title", "access"),
    [
        ("Unable to handle kernel NULL pointer dereference at virtual address 0018 when write", "null-deref", "write"),
        ("BUG: unable to handle kernel NULL pointer dereference at           (null)", "null-deref", None),
        (
            "CPU 1 Unable to handle kernel paging request at virtual address 00c0, epc == 8012, ra == 8013",
            "page-fault",
            None,
        ),
        ("Oops: 0010 [#1] SMP", "page-fault", "execute"),
        ("Internal error: Oops: 8600000f [#1] SMP", "page-fault", "execute"),
        ("general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]", "gpf", None),
        ("Oops: general protection fault, maybe for address 0x18: 0000 [#1] SMP", "gpf", None),
        ("Oops: stack segment: 0000 [#1] SMP", "gpf", None),
        ("Oops: invalid opcode: 0000 [#1] SMP", "invalid-opcode", None),
        ("traps: PANIC: double fault, error_code: 0x0", "double-fault", None),
        ("BUG: TASK stack guard page was hit at 0000 (stack is 0000..0000)", "stack-overflow", None),
        ("WARNING: kernel/fork.c:12 at copy_process+0x4/0xc7, CPU#0: sh/215", "warning", None),
        ("WARNING: at kernel/fork.c:12 copy_process()", "warning", None),
        (
            "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: f+0x1/0x2",
            "stack-corruption",
            None,
        ),
        ("Kernel panic - not syncing: Fatal exception in interrupt", "panic", None),
    ],
)
def test_first_lines_of_all_ages(first: str, title: str, access: str | None) -> None:
    event = one(first + "\n")
    assert (event.type, event.access) == (title, access)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("foo.isra.0.cold", "foo"),
        ("foo.constprop.12.part.3", "foo"),
        ("foo.llvm.1234567890123456789", "foo"),
        ("__pfx_foo", "foo"),
        ("__cfi_foo.llvm.12", "foo"),
        ("slab.c:foo", "foo"),
        ("_RNvMs_NtCs1234_11rust_binder7processNtB4_7Process10update_ref", "rust_binder::process::Process::update_ref"),
        ("_ZN6kernel5print5print17h0123456789abcdefE", "kernel::print::print"),
    ],
)
def test_a_function_is_named_as_in_the_source(name: str, function: str) -> None:
    event = one(f"general protection fault: 0000 [#1] SMP\nRIP: 0010:{name}+0x1/0x20\n")
    assert (event.function, event.signature) == (function, f"gpf:{function}")


@pytest.mark.parametrize(("offset", "number"), [("0x1f", 0x1F), ("0X1F", 0x1F), ("31", 31), ("031", 31)])
def test_an_offset_is_read_however_it_is_written(offset: str, number: int) -> None:
    place = f"foo+{offset}/{offset}"
    event = one(f"general protection fault: 0000 [#1] SMP\nRIP: 0010:{place}\nCall Trace:\n {place}\n")
    assert event.ip is not None
    assert [(frame.offset, frame.size) for frame in (event.ip, *event.frames)] == [(number, number)] * 2


def test_helpers_are_blamed_only_if_there_is_nobody_else() -> None:
    report = "general protection fault: 0000 [#1] SMP\nRIP: 0010:__list_del_entry_valid+0x1/0x20\nCall Trace:\n"
    assert one(report).function == "__list_del_entry_valid"
    assert one(f"{report} rb_erase+0x1/0x2\n guilty+0x1/0x2\n").function == "guilty"


def test_a_special_line_above_a_bug_says_what_it_is() -> None:
    event = one("PANIC: double fault, error_code: 0x0\nkernel BUG at mm/slab.c:1!\ninvalid opcode: 0000 [#1] SMP\n")
    assert event.type == "double-fault"


def test_what_decode_stacktrace_made_of_it() -> None:
    places = crafted.X86.replace("+0x5/0x20 [plant]", " (drivers/plant.c:12 (discriminator 3)) plant").replace(
        "+0x28f/0x450", " (fs/read_write.c:588)"
    )
    event = one(places)
    assert (event.function, event.signature) == ("plant_grow", one(crafted.X86).signature)
    assert event.traces[0].frames[-1].place == "fs/read_write.c:588"
