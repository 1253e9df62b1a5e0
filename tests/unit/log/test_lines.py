"""Lines of logs: each form that is declared, by its example; whole lines; anything at all."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplug.log.forms import AFTER, BEFORE, CORE, PREFIXES, REGISTERS, TITLES, Form
from kplug.log.lines import Mention, read_line

FRAME = "schedule+0x4/0xc7"
# What goes on after some forms.
REST = {
    "Krnl PSW : 0704d00180000000 ": "0000000000114f2a (schedule+0x4/0xc7)",
    "7f3c2b114f4 ": "schedule+0x4/0xc7 (/usr/bin/cat)",
    "<ffffffff8010f8b0>{": "schedule+4}",
    "[ffff80201c7800+  32]": "[<ffffff80091f0e2c>] schedule+0x4/0xc7",
}
FORMS = (*PREFIXES, *BEFORE, *CORE, *AFTER, *TITLES, *REGISTERS)


def one(line: str) -> Mention:
    read = read_line(line)
    assert read is not None
    (mention,) = read.mentions
    return mention


def names(line: str) -> tuple[str | None, int | None, int | None, str | None, int | None]:
    mention = one(line)
    return mention.symbol, mention.offset, mention.size, mention.module, mention.address


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.example.strip())
def test_each_form_is_declared_with_an_example_of_it_and_its_source(form: Form) -> None:
    text = form.example + ("" if form in (*AFTER, *CORE) else REST.get(form.example, FRAME))
    match = re.compile(form.pattern).match(text)
    assert match is not None
    assert match.end() > 0
    assert form.source


@pytest.mark.parametrize("form", [*PREFIXES, *BEFORE], ids=lambda form: form.example.strip())
def test_what_is_before_a_frame_does_not_hide_it(form: Form) -> None:
    assert names(form.example + REST.get(form.example, FRAME))[:2] == ("schedule", 4)


@pytest.mark.parametrize("form", AFTER, ids=lambda form: form.example.strip())
def test_what_is_after_a_frame_does_not_hide_it(form: Form) -> None:
    assert names(FRAME + form.example)[:3] == ("schedule", 4, 0xC7)


@pytest.mark.parametrize("first", PREFIXES, ids=lambda form: form.example.strip())
def test_prefixes_may_follow_each_other(first: Form) -> None:
    for second in PREFIXES:
        assert names(f"{first.example}{second.example} {FRAME} [ext4]\r")[:4] == ("schedule", 4, 0xC7, "ext4")


S, A = "schedule", 0xFFFFFFFF81A114F4
BPF = "bpf_prog_6deef7357e7b4530_f"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[   12.345678][  T123]  ? schedule+0x4/0xc7 [ext4 0123456789abcdef0123]", (S, 4, 0xC7, "ext4", None)),
        ("Nov 30 12:00:00 host kernel: [   12.345678] RIP: 0010:schedule+0x4/0xc7", (S, 4, 0xC7, None, None)),
        ("RIP: 0010:[<ffffffff81a114f4>]  [<ffffffff81a114f4>] schedule+0x4/0xc7", (S, 4, 0xC7, None, A)),
        ("EIP: 0060:[<c0123456>] EFLAGS: 00010246 CPU: 0", (None, None, None, None, 0xC0123456)),
        ("RIP: 0033:0x7f3c2b", (None, None, None, None, 0x7F3C2B)),
        ("[<0>] schedule+0x4/0xc7", (S, 4, 0xC7, None, None)),
        (" #3 [ffffc90000013e08] schedule at ffffffff81a114f4 [ext4]", (S, None, None, "ext4", A)),
        ("    [exception RIP: schedule+22]", (S, 22, None, None, None)),
        ("#0  0xffffffff81a114f4 in schedule (x=0x1) at kernel/a.c:12", (S, None, None, None, A)),
        ("\tffffffff81a114f4 schedule+0x4 ([kernel.kallsyms])", (S, 4, None, None, A)),
        ("\tffffffff81a114f4 schedule+0x4 (/lib/modules/6/a-b.ko.xz)", (S, 4, None, "a_b", A)),
        ("\tffffffff81a114f4 [unknown] ([kernel.kallsyms])", (None, None, None, None, A)),
        (" => schedule", (S, None, None, None, None)),
        ("[c000000003b7b9a0] [c0000000009b8c34] init+4 (unreliable)", ("init", 4, None, None, 0xC0000000009B8C34)),
        ("[<c0101234>] (init) from [<c0105678>] (schedule+0x4/0xc7)", (S, 4, 0xC7, None, 0xC0105678)),
        (" init+0x10/0x20 from schedule+0x4/0xc7", (S, 4, 0xC7, None, None)),
        (" #0: ffff888012345678 (&mm->mmap_lock){++++}-{4:4}, at: schedule+0x4/0xc7", (S, 4, 0xC7, None, None)),
        ("pc : schedule+0x4/0xc7 [ext4] (P)", (S, 4, 0xC7, "ext4", None)),
        ("WARNING: CPU: 1 PID: 7 at fs/a.c:12 schedule+0x4/0xc7 [ext4]", (S, 4, 0xC7, "ext4", None)),
        ("stack-protector: Kernel stack is corrupted in: schedule+0x4/0xc7", (S, 4, 0xC7, None, None)),
        ("RSP: 0018:ffffc90000013e08 EFLAGS: 00010246", (None, None, None, None, 0xFFFFC90000013E08)),
        ("CR2: 0000000000000018 CR3: 0000000103c5a000 CR4: 00000000001706e0", (None, None, None, None, 0x18)),
        ("status: 0000000200000120 badaddr: 0000000000000018 cause: 000000000000000d", (None, None, None, None, 0x18)),
        ("\x1b[33m\x00bpf_prog_6deef7357e7b4530_f+0x10/0x7c\x1b[0m", (BPF, 16, 0x7C, None, None)),
    ],
)  # fmt: skip
def test_whole_lines(line: str, expected: tuple[str | None, int | None, int | None, str | None, int | None]) -> None:
    assert names(line) == expected


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("schedule (kernel/sched/core.c:6654 (discriminator 3))", "no address"),
        ("#1  schedule (prev=0x0) at kernel/sched/core.c:6654", "no address"),
        (" context_switch kernel/sched/core.c:5327 [inline]", "inlined"),
        ("     7f3c2b114f4 main+0x10 (/usr/bin/cat)", "/usr/bin/cat"),
        ("BUG: unable to handle page fault for address: ffffffffc0401234", "ask about it"),
    ],
)
def test_what_has_no_place_says_why(line: str, why: str) -> None:
    assert why in (one(line).unplaced or "")


def test_what_a_worker_is_for_is_no_source_line() -> None:
    """kernel/workqueue.c, print_worker_info()."""
    assert one("Workqueue: writeback wb_workfn (flush-259:0)")[1:] == Mention("", "wb_workfn")[1:]


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("[    1.2] Call Trace:", []),
        ("[    1.2] schedule", []),
        ("[    1.2] usb (new device)", []),
        ("[    1.2] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033", []),
        ("[    1.2] DR3: 0000000000000000 DR6: 00000000fffe0ff0 DR7: 0000000000000400", []),
        ("[    1.2] ---[ end trace 4d7c2c9d4b3b6e6a ]---", []),
        ("[    1.2] task:init state:S stack:0 pid:1 ppid:0 flags:0x00000002", []),
        ("Code: 48 89 e5 <0f> 0b", []),
        ("a+0x1/0x2 went to b+0x3/0x4", ["a+0x1/0x2", "b+0x3/0x4"]),
        ("RAX: 0000000000000000 RBX: ffff8b226f739300", ["RAX: 0000000000000000", "RBX: ffff8b226f739300"]),
    ],
)
def test_a_line_may_name_none_or_several(line: str, texts: list[str]) -> None:
    read = read_line(line)
    assert read is not None
    assert [mention.text for mention in read.mentions] == texts


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "schedule", "schedule+0x4", "schedule + 4", "0x18 as struct page", "$rsp + 8", "$rsp+0x10/2"),
        *("*(void **)$sp", "(long)&init_task", 'prog["init_task"].stack', "find_task(1).mm", "[1]", "runqueues@1"),
        *("&init_task.comm", "ffffffff81a114f4", "<ffffffff81a114f4>", "a < b", "x ? y : z", "hello world", "a[3]"),
        *("'inode.c'::init_once", "phys:0x2cf7000 + 8", "> out.txt", "1 if x else 2", "(schedule)"),
        *("sizeof (int)", "prog.symbol (x)", "runqueues @ 1", "f (P)"),
    ],
)
def test_an_expression_is_no_line_of_a_log(text: str) -> None:
    assert read_line(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "schedule+0x4/0xc7 | less",
        "schedule+0x4/0xc7 as struct page",
        "jiffies schedule+0x4/0xc7",
        "ffffffff81a114f4 schedule+0x4/0xc7",
    ],
)
def test_words_around_a_symbol_leave_the_whole_to_others(text: str) -> None:
    read = read_line(text)
    assert read is not None
    assert not read.whole


PIECES = st.sampled_from([*(form.example for form in FORMS), FRAME, " ", "\t", "\n", "\x00", "[", "(", "é", "0x", "+"])


@given(st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=40).map("".join))
def test_anything_is_read_or_left(text: str) -> None:
    read = read_line(text)
    assert read is None or all(0 <= (mention.address or 0) < 1 << 64 for mention in read.mentions)


@pytest.mark.parametrize("piece", [form.example for form in FORMS] + ["(", "[", "a.", "f+0x1/0x2 ", "() ", "a:1 "])
def test_time_is_linear_in_the_length_of_a_line(piece: str) -> None:
    """4 times the length may take 4 times as long; one with its square, 16 times."""

    def seconds(times: int) -> float:
        best = 1.0
        for _ in range(3):
            start = time.process_time()
            read_line(piece * times)
            best = min(best, time.process_time() - start)
        return best

    seconds(1)  # compiles
    few, many = seconds(500), seconds(2000)
    assert many < 10 * few + 0.004
