"""`kplug annotate`: what stands below, beside, or as JSON; and the log comes back without it, byte for byte."""

from __future__ import annotations

import io
import json
from html import escape
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.elf_builder import BASE_64, small_vmlinux
from support.page_reader import PageReader

from kplug.annotate.answers import LogAnswers
from kplug.errors import KplugError
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.log.pieces import LONGEST_LINE, Kind, Piece, pieces
from kplug.opening import NothingKnownError
from kplug.render.log_json import LogJson, Open
from kplug.render.log_marks import MARK, without_annotations
from kplug.render.log_text import LogText
from kplug.session import Session
from kplug.shell import annotate, cli, log_input, log_jobs

VALUES = [b"#> 0000000000000018  NULL+0x18", b"#> dead000000000100  LIST_POISON1"]
START = f"{BASE_64 + 0x10:016x}"
OOPS = f"""\
[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000018
[    1.0] RIP: 0010:start_kernel+0x4/0x20
[    1.0] RAX: {START} RBX: dead000000000100 RCX: 0000000000000000
[    1.0]  nothing_here+0x4/0x20
"""


@pytest.fixture
def oops(tmp_path: Path) -> str:
    path = tmp_path / "oops"
    path.write_text(OOPS)
    return str(path)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    path = tmp_path_factory.mktemp("log") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    image = open_vmlinux(str(path))
    return Session([PlacedImage(image, as_linked(image.sections))])


def test_annotations_stand_below_the_lines(vmlinux: str, oops: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["annotate", "-s", vmlinux, oops]) == 1
    output, errors = capsysbinary.readouterr()
    notes = [line for line in output.decode().splitlines() if line.startswith("#> ")]
    assert notes[0].startswith("#> 0000000000000018  NULL+0x18")
    assert notes[1].startswith("#> start_kernel+0x4/0x20  ")
    assert notes[2].startswith(f"#> {START}  start_kernel+0x0  ")
    assert notes[3].startswith("#> dead000000000100  LIST_POISON1")
    assert len(notes) == 4
    assert errors.splitlines() == [
        b"kplug: the KASLR offset is not known: addresses are taken as linked (--kaslr OFFSET)",
        b"kplug: nothing_here+0x4/0x20: no such symbol or section",
    ]
    assert b"".join(without_annotations(io.BytesIO(output))) == OOPS.encode()


def test_the_margin_is_stripped(
    vmlinux: str, oops: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    cli.main(["annotate", "-s", vmlinux, "--margin", oops])
    annotated = tmp_path / "annotated"
    annotated.write_bytes(capsysbinary.readouterr().out)
    assert annotated.read_bytes().count(b"\n") == OOPS.count("\n")
    assert cli.main(["annotate", "--strip", "--margin", str(annotated)]) == 0
    assert capsysbinary.readouterr().out == OOPS.encode()


def test_objects(vmlinux: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    plain = OOPS.replace("BUG: kernel NULL pointer dereference, ", "no event: an ")
    log.write_text(plain.replace("RIP: 0010:", "at        "))
    assert cli.main(["annotate", "-s", vmlinux, "--json", str(log)]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["schema"] for each in found} == {"kplug.find/1"}
    assert [(each["line"], each["column"], each["text"]) for each in found] == [
        (1, 33, "0000000000000018"),
        (2, 21, "start_kernel+0x4/0x20"),
        (3, 16, START),
        (3, 38, "dead000000000100"),
        (4, 12, "nothing_here+0x4/0x20"),
    ]
    assert found[2]["where"]["schema"] == "kplug.where/1"
    assert found[4]["where"] is None


EVENT = """\
[    1.0] before start_kernel+0x4/0x20
[    2.0] BUG: kernel NULL pointer dereference, address: 0000000000000018
[    2.0] #PF: supervisor read access in kernel mode
[    2.0] Oops: 0000 [#1] PREEMPT SMP NOPTI
[    2.0] CPU: 0 PID: 183 Comm: sh Tainted: G           OE      6.1.0-57-amd64 #1  Debian 6.1.192-3
[    2.0] RIP: 0010:start_kernel+0x5/0x20
[    2.0] RAX: 0000000000000000 RBX: ffff888000001234 RCX: 0000000000000000
[    2.0] Call Trace:
[    2.0]  <TASK>
[    2.0]  start_kernel+0x4/0x20
[    2.0]  </TASK>
[    2.0] CR2: 0000000000000018
[    2.0] ---[ end trace 0000000000000000 ]---
[    3.0] after start_kernel+0x4/0x20
"""


def test_events_are_objects_and_their_lines_no_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, log = tmp_path / "vmlinux", tmp_path / "log"
    path.write_bytes(bytes(small_vmlinux()))
    log.write_text(EVENT.replace("6.1.0-57-amd64", open_vmlinux(str(path)).release or ""))
    assert cli.main(["annotate", "-s", str(path), "--json", str(log)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["schema"], each.get("line")) for each in found] == [
        ("kplug.find/1", 1),
        ("kplug.event/1", None),
        ("kplug.find/1", 14),
    ]
    event = found[1]
    assert (event["first_line"], event["last_line"], event["type"]) == (2, 13, "null-deref")
    assert (event["address"], event["access"], event["taint"]) == ("0x18", "read", "GOE")
    assert event["frames"][0]["function"] == "start_kernel"
    assert event["registers"]["RBX"] == "0xffff888000001234"


def test_an_event_is_one_whatever_becomes_known_in_it(session: Session) -> None:
    """A pipe may give a log line by line; its kernel is named in the middle of an oops."""
    found, is_open = [], Open()
    for number, line in enumerate(EVENT.encode().splitlines(True), 1):
        found.append(LogJson(LogAnswers(session), is_open).feed(Piece(Kind.LINES, line), number))
    found.append(LogJson(LogAnswers(session), is_open).close())
    objects = [json.loads(each) for each in b"".join(found).splitlines()]
    assert [each["schema"] for each in objects] == ["kplug.find/1", "kplug.event/1", "kplug.find/1"]
    assert (objects[1]["first_line"], objects[1]["last_line"]) == (2, 13)


def test_finds_in_and_between_events_of_one_line(session: Session) -> None:
    event = b"BUG: Bad rss-counter state mm:" + START.encode() + b" type:MM_FILEPAGES val:1\n"
    text = LogJson(LogAnswers(session), Open())
    output = text.feed(Piece(Kind.LINES, (event + b"of none: " + START.encode() + b"\n") * 3), 1) + text.close()
    objects = [json.loads(each) for each in output.splitlines()]
    assert [each.get("line", each.get("first_line")) for each in objects] == [1, 2, 3, 4, 5, 6]
    assert [each["schema"] for each in objects] == ["kplug.event/1", "kplug.find/1"] * 3


def test_a_line_for_each_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(EVENT)
    assert cli.main(["annotate", "--summary", str(log)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("2-13  BUG: ")
    assert line.endswith("  sh (pid 183) on CPU 0 read NULL+0x18 in start_kernel.")


def test_of_several_logs_it_is_said_which(
    vmlinux: str, oops: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text(EVENT)
    assert cli.main(["annotate", "--summary", oops, str(log)]) == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [f"{oops}:1-4", f"{log}:2-13"]
    cli.main(["annotate", "-s", vmlinux, "--json", oops, str(log)])
    files = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert files == sorted(files, reverse=True)
    assert {*files} == {oops, str(log)}


def test_a_page(vmlinux: str, oops: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["annotate", "-s", vmlinux, "--html", oops, oops]) == 1
    output, errors = capsys.readouterr()
    page = PageReader(output)
    assert page.log == OOPS * 2
    assert [text for href, text in page.links if href == "#h1" and text] == ["0000000000000018"] * 2
    assert "&gt; vmlinux" in output  # on the map
    for line in errors.splitlines():
        assert f"<li>{escape(line.removeprefix('kplug: '))}</li>" in output


@pytest.mark.parametrize("form", ["--summary", "--json"])
def test_the_first_boot_of_a_further_log_is_no_reboot(
    vmlinux: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    log = tmp_path / "log"
    log.write_text(f"[    0.0] Linux version {open_vmlinux(vmlinux).release or ''}-1 (a@b) #1 SMP\n[    1.0] up\n")
    cli.main(["annotate", "-s", vmlinux, form, str(log), str(log)])
    assert capsys.readouterr().out == ""


def test_the_log_says_where_the_kernel_is(
    vmlinux: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = tmp_path / "log"
    log.write_text(f"at {BASE_64 + 0x200010:016x}\nKernel Offset: 0x200000 from 0xffffffff81000000\n")
    assert cli.main(["annotate", "-s", vmlinux, str(log)]) == 0
    assert b"  start_kernel+0x0  " in capsysbinary.readouterr().out


def test_where_the_kernel_is_follows_from_an_address_with_its_symbol(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    vmlinux, log = tmp_path / "vmlinux", tmp_path / "log"
    vmlinux.write_bytes(bytes(small_vmlinux()))
    size = next(iter(open_vmlinux(str(vmlinux)).symbols.exact("start_kernel"))).size
    moved = BASE_64 + 0x200010
    log.write_text(f"at {moved:016x}\n [<{moved + 4:016x}>] ? start_kernel+0x4/{size:#x}\n")
    assert cli.main(["annotate", "-s", str(vmlinux), str(log)]) == 0
    assert f"\n#> {moved:016x}  start_kernel+0x0  ".encode() in capsysbinary.readouterr().out


def test_of_a_log_of_another_kernel_values_alone_are_told(
    vmlinux: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = tmp_path / "log"
    log.write_text("CPU: 0 PID: 1 Comm: sh Not tainted 3.2.1-other #7\n" + OOPS)
    assert cli.main(["annotate", "-s", vmlinux, str(log)]) == 1
    output, errors = capsysbinary.readouterr()
    assert b"".join(without_annotations(io.BytesIO(output))) == log.read_bytes()
    assert [line for line in output.splitlines() if line.startswith(MARK)] == VALUES
    assert errors.startswith(b"kplug: wrong vmlinux: the log is of kernel 3.2.1-other, and ")
    assert errors.count(b"\n") == 1


def test_without_a_kernel_values_are_told(
    oops: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def nothing(*_: object) -> None:
        raise NothingKnownError("nothing")

    monkeypatch.setattr(annotate, "open_session", nothing)
    assert cli.main(["annotate", oops]) == 0
    output, errors = capsysbinary.readouterr()
    assert [line for line in output.splitlines() if line.startswith(MARK)] == VALUES
    assert errors == b"kplug: no vmlinux (-s FILE): only what the log itself says is known\n"


@pytest.mark.parametrize(
    "words",
    [["/nonexistent"], ["/"], ["-f"], ["--json", "--margin"]]
    + [["--strip", option, "/dev/null"] for option in ("-f", "--json", "--summary", "--html")]
    + [["--html", option, "/dev/null"] for option in ("-f", "--json", "--summary", "--margin", "--inline")],
)
def test_what_cannot_be_done(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["annotate", *words]) == 2
    assert capsys.readouterr().err.startswith("kplug")


@pytest.mark.parametrize("form", ["--inline", "--margin"])
def test_processes_give_the_same(
    vmlinux: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(log_jobs, "_PART_BYTES", 1000)
    monkeypatch.setattr(log_jobs, "_MOST_KEPT", 70_000)
    log = tmp_path / "log"
    log.write_bytes(OOPS.encode() * 40 + b"x" * 80_000 + b"\n" + OOPS.encode() * 40 + b"no newline " + START.encode())
    found = []
    for jobs in ("1", "2", "3"):
        assert cli.main(["annotate", "-s", vmlinux, form, "-j", jobs, str(log)]) == 1
        found.append(capfdbinary.readouterr())
    assert found[0].out.count(b"LIST_POISON1") == 80
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_a_followed_log_says_later_where_the_kernel_is(
    vmlinux: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndError(KplugError):
        """Of what would never end."""

    def happen(_: float) -> None:
        if b"at" in log.read_bytes():
            raise EndError
        with log.open("a") as grown:
            grown.write(f"Kernel Offset: 0x200000 from 0xffffffff81000000\nat {BASE_64 + 0x200010:016x}\n")

    log = tmp_path / "log"
    log.write_text("[    0.0] begins\n")
    monkeypatch.setattr(log_input.time, "sleep", happen)
    assert cli.main(["annotate", "-s", vmlinux, "-f", str(log)]) == 2
    assert b"  start_kernel+0x0  " in capsysbinary.readouterr().out


# -- byte for byte -----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *(f"{START} ".encode(), b"start_kernel+0x4/0x20", b"RAX: dead000000000100", b"address: 0000000000000018"),
        *(b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"#> ", b"\n#> ", b"  #> ", b"; ", b"x" * 50, b"y" * LONGEST_LINE),
        *(b"#> the next line is the log's own\n", b"#> no newline at the end of the log\n"),
    ]
)


@pytest.mark.parametrize("margin", [False, True])
@given(reads=st.lists(WORDS | st.binary(min_size=1, max_size=8), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_without_annotations_it_is_the_log(session: Session, margin: bool, reads: list[bytes]) -> None:
    text = LogText(LogAnswers(session), margin=margin)
    annotated = b"".join(text.feed(piece, 1) for piece in pieces(iter([*reads, b""]).__next__)) + text.close()
    is_same = b"".join(without_annotations(io.BytesIO(annotated), margin)) == b"".join(reads)
    assert is_same  # the bytes themselves are too many to show


def test_bytes_read_one_by_one_give_the_same(session: Session) -> None:
    data = OOPS.encode()
    reads = iter([*(data[at : at + 1] for at in range(len(data))), b""])
    text = LogText(LogAnswers(session))
    one_by_one = b"".join(text.feed(piece, 1) for piece in pieces(reads.__next__))
    assert one_by_one == b"".join(text.feed(piece, 1) for piece in pieces(iter([data, b""]).__next__))
    assert one_by_one.count(MARK) == 4
