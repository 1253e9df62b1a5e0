"""`kplug annotate` on machine code: the instructions below it, and what the faulting one accessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("capstone")

from kplug.annotate.answers import LogAnswers
from kplug.annotate.machine_code import NO_DISASSEMBLER
from kplug.log import machine_code
from kplug.log.pieces import Kind, Piece
from kplug.render.log_json import LogJson, Open
from kplug.render.log_marks import MARK
from kplug.render.log_text import LogText
from kplug.session import Session
from kplug.shell import cli, log_jobs

LOGS = Path(__file__).parents[2] / "data" / "logs"
GUEST = (LOGS / "guest-amd64-6.1-null.log").read_bytes()
# The same report with another instruction: mov 0x17(%rax),%rdx (as of binutils), where RAX is 1 and CR2 0x18.
BASED = GUEST.replace(b"<48> 8b 04 25 18 00 00 00", b"<48> 8b 50 17 90 90 90 90")
WORDS = b"#> mov 0x17(%rax),%rdx: RAX is 0x1, so it reads NULL+0x18\n"


def notes_after(data: bytes, word: bytes, margin: bool = False) -> Sequence[str]:
    """The annotations below the first line that has a word."""
    text = LogText(LogAnswers(Session([])), margin=margin)
    lines = (text.feed(Piece(Kind.LINES, data), 1) + text.close()).splitlines()
    at = next(number for number, line in enumerate(lines) if word in line) + 1
    end = next(number for number, line in enumerate(lines[at:], at) if not line.startswith(MARK))
    return [line.decode() for line in lines[at:end]]


def test_the_instructions_stand_below_their_code() -> None:
    assert notes_after(GUEST, b"Code: ")[:3] == [
        "#>    deaths_read_null.constprop.0+0x0  nopl (%rax,%rax,1)",
        "#> => deaths_read_null.constprop.0+0x5  mov 0x18,%rax",
        "#>    deaths_read_null.constprop.0+0xd  ret",
    ]
    assert notes_after(GUEST, b"Code: ")[-1] == "#> mov 0x18,%rax: it reads NULL+0x18"


def test_what_was_accessed_stands_where_the_registers_end() -> None:
    assert not any("RAX is" in note for note in notes_after(BASED, b"Code: "))
    assert notes_after(BASED, b"CR2: ") == [WORDS.decode().strip()]


def test_an_address_that_is_not_the_faults_is_not_said() -> None:
    text = LogText(LogAnswers(Session([])))
    shown = text.feed(Piece(Kind.LINES, BASED.replace(b"RAX: 0000000000000001", b"RAX: 0000000000000002")), 1)
    assert b"=> deaths_read_null.constprop.0+0x5  mov 0x17(%rax),%rdx" in shown
    assert b"so it reads" not in shown


def test_below_another_line_the_instructions_are_not_said() -> None:
    coloured = GUEST.replace(b"<48> 8b 04 25 18", b"\x1b[1m<48>\x1b[0m 8b 04 25 18", 1)
    # The line in colours is none that annotate knows; the next one is the user program's.
    assert not any("=>" in note for note in notes_after(coloured, b"Code: 40 00 48 c7"))
    assert "#> => deaths_read_null.constprop.0+0x5  mov 0x18,%rax" in notes_after(
        GUEST.replace(b" 66 66 2e 0f 1f 84 00 00 00\n", b" c3\x1b[0m\n", 1), b"Code: "
    )


def test_where_the_marked_bytes_are_no_instruction_the_margin_has_none() -> None:
    cut = GUEST.replace(b"<48> 8b 04 25 18 00 00 00 c3 cc cc cc cc 66 66 2e 0f 1f 84 00 00 00", b"<48>")
    assert notes_after(cut, b"Code: ")[-1] == "#>    deaths_read_null.constprop.0+0x0  nopl (%rax,%rax,1)"
    text = LogText(LogAnswers(Session([])), margin=True)
    assert b"nopl" not in text.feed(Piece(Kind.LINES, cut), 1) + text.close()


def test_what_may_begin_elsewhere_is_a_guess() -> None:
    moved = GUEST.replace(b"deaths_read_null.constprop.0+0x5/", b"deaths_read_null.constprop.0+0x105/")
    marks = [note[3:5] for note in notes_after(moved, b"Code: ") if "deaths_read_null" in note]
    assert marks[:8] == [" ?"] * 6 + ["=>", "  "]


def test_registers_before_the_code_tell_at_once() -> None:
    arm = (LOGS / "guest-arm64-6.12-null.log").read_bytes()
    assert notes_after(arm, b"Code: ")[-2:] == [
        "#> => deaths_read_null.constprop.0+0xc  ldr x0, [x0, #0x18]",
        "#> ldr x0, [x0, #0x18]: x0 is NULL, so it reads NULL+0x18",
    ]


def test_the_log_tells_the_architecture_and_not_the_vmlinux(vmlinux: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["annotate", "-s", vmlinux, str(LOGS / "null-i386-4.19.log")])
    assert "#> => osprey_head+0x8  mov 0x4(%eax),%eax\n" in capsys.readouterr().out


def test_lines_one_by_one_give_the_same() -> None:
    whole, single = LogText(LogAnswers(Session([]))), LogText(LogAnswers(Session([])))
    lines = (BASED * 3).splitlines(keepends=True)
    expected = whole.feed(Piece(Kind.LINES, BASED * 3), 1)
    assert expected.count(WORDS) == 3
    assert b"".join(single.feed(Piece(Kind.LINES, line), 1) for line in lines) == expected


def test_processes_give_the_same(
    vmlinux: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_jobs, "_PART_BYTES", 20_000)
    log = tmp_path / "log"
    log.write_bytes((BASED + b"[    1.0] nothing\n" * 4000) * 3)
    found = []
    for jobs in ("1", "3"):
        cli.main(["annotate", "-s", vmlinux, "-j", jobs, str(log)])
        found.append(capfdbinary.readouterr().out)
    assert found[0].count(WORDS) == 3
    assert found[1] == found[0]


def test_beside_a_line_stands_the_marked_one_alone() -> None:
    text = LogText(LogAnswers(Session([])), margin=True)
    shown = text.feed(Piece(Kind.LINES, GUEST), 1)
    beside = next(line for line in shown.splitlines() if b"Code: be 00" in line).decode().partition("  #> ")[2]
    assert beside == "=> deaths_read_null.constprop.0+0x5  mov 0x18,%rax; mov 0x18,%rax: it reads NULL+0x18"


def test_json() -> None:
    form = LogJson(LogAnswers(Session([])), Open())
    objects = map(json.loads, (form.feed(Piece(Kind.LINES, BASED), 1) + form.close()).splitlines())
    code = next(each for each in objects if each["schema"] == "kplug.event/1")["code"]
    assert (code["machine"], code["marked"], code["unit"]) == ("x86_64", 42, 1)
    nop = {"offset": -5, "bytes": "0f1f440000", "text": "nopl (%rax,%rax,1)", "guess": False}
    assert code["instructions"][5] == nop
    assert code["faulting"]["operand"]["base"] == "RAX"
    assert code["faulting"]["operand"]["base_value"] == "0x1"
    assert code["faulting"]["operand"]["address"] == "0x18"
    assert code["faulting"]["agrees"] is True
    assert code["words"] == "mov 0x17(%rax),%rdx: RAX is 0x1, so it reads NULL+0x18"


def test_without_capstone_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "_capstone", lambda: None)
    answers = LogAnswers(Session([]))
    text = LogText(answers)
    assert b"=>" not in text.feed(Piece(Kind.LINES, GUEST * 2), 1)
    assert list(answers.assumed) == [NO_DISASSEMBLER]
    silent = LogAnswers(Session([]))
    LogText(silent).feed(Piece(Kind.LINES, b"[    1.0] exit Code: 05\n"), 1)
    assert not silent.assumed
