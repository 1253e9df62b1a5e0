"""A log's page: whatever is in the log, its text is there and nothing of it is markup; and what it explains."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.elf_builder import BASE_64, small_vmlinux
from support.page_reader import PageReader, as_shown, meant

from kplug.annotate.answers import LogAnswers
from kplug.arch.types.memory_map import Area
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.log.pieces import LONGEST_LINE, pieces
from kplug.render import log_html
from kplug.render.html_text import as_text, attribute, log_text
from kplug.render.log_html import LogHtml, Page
from kplug.render.log_json import LogJson, Open
from kplug.session import Session

START = f"{BASE_64 + 0x10:016x}"
PLAIN = f"""\
at {START} and start_kernel+0x4/0x20
poison dead000000000100, hidden 0000000000000000
registers: RAX: {START} RBX: dead000000000100
"""
EVENT = f"""\
[    1.0] before
[    2.0] BUG: kernel NULL pointer dereference, address: 0000000000000018
[    2.0] #PF: supervisor read access in kernel mode
[    2.0] Oops: 0000 [#1] PREEMPT SMP NOPTI
[    2.0] CPU: 0 PID: 183 Comm: <sh> Tainted: G           OE      6.1.0-57-amd64 #1  Debian 6.1.192-3
[    2.0] RIP: 0010:start_kernel+0x5/0x20
[    2.0] RSP: 0018:{START} EFLAGS: 00000202
[    2.0] RAX: 0000000000000000 RBX: ffff888000001234 RCX: 0000000000000000
[    2.0] RDX: 0000000000000000 RSI: ffff888000001234 RDI: 0000000000000000
[    2.0] RBP: 0000000000000000 R08: ffff888000001234 R09: 0000000000000000
[    2.0] R10: 0000000000000000 R11: ffff888000001234 R12: 0000000000000000
[    2.0] Call Trace:
[    2.0]  <TASK>
[    2.0]  start_kernel+0x4/0x20
[    2.0]  one+0x4/0x20
[    2.0]  two+0x4/0x20
[    2.0]  three+0x4/0x20
[    2.0]  </TASK>
[    2.0] CR2: 0000000000000018
[    2.0] ---[ end trace 0000000000000000 ]---
[    3.0] after
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    path = tmp_path_factory.mktemp("log") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    image = open_vmlinux(str(path))
    return Session([PlacedImage(image, as_linked(image.sections))])


def page_of(session: Session, *logs: Sequence[bytes], notes: Sequence[str] = ()) -> str:
    """The page of some logs, each of what was read at once."""
    page = Page()
    areas: Sequence[Area] = () if session.space is None else session.space.areas
    form = LogHtml(LogAnswers(session), page, "a kernel", lambda: areas)
    parts = []
    for log in logs:
        parts.append(page.begin("log<1>"))
        number = 1
        for piece in pieces(iter([*log, b""]).__next__):
            parts.append(form.feed(piece, number))
            number += piece.data.count(b"\n")
        parts.append(form.close())
    return b"".join([*parts, *page.end(notes)]).decode()


# -- the text ----------------------------------------------------------------------------------------------------------

ODD = st.sampled_from([*"\0\x1b\r\n\t\x7f\x85\u202e\u200b\ufeff<>&\"'`", "\x1b[31m", "</div>", "&lt;", "\r\n"])


@given(st.lists(ODD | st.text(max_size=4), max_size=12))
def test_text_is_text(parts: list[str]) -> None:
    data = "".join(parts).encode("utf-8", "surrogatepass")
    page = PageReader(f'<div class="b">{log_text(as_text(data))}</div>')
    assert page.log == as_shown(data)
    assert {tag for tag, _ in page.tags} <= {"div", "i"}


@given(st.lists(ODD | st.text(max_size=4), max_size=12))
def test_an_attribute_is_one(parts: list[str]) -> None:
    page = PageReader(f'<p title="{attribute("".join(parts))}"></p>')
    ((tag, given),) = page.tags
    assert (tag, given.keys()) == ("p", {"title"})
    assert not {*given["title"]} & {*"\0\x1b\r\n\x85\u202e\u200b"}


def test_what_is_no_text_is_marked_as_such() -> None:
    assert log_text("a\0\x1bb\x1b[1;31m\u202e\r\n\t\r") == (
        "a<i>\\x00\\x1b</i>b<i>\\x1b[1;31m</i><i>\\u202e</i>&#13;\n\t<i>\\x0d</i>"
    ).replace("<i>\\u202e</i>&#13;", "<i>\\u202e\\x0d</i>")
    assert log_text(as_text(b"\xff\xc3\xa9")) == "<i>\\xff</i>é"
    assert meant("\\x1b[0m") == "\x1b[0m"


WORDS = st.sampled_from(
    [
        *(f"{START} ".encode(), b"start_kernel+0x4/0x20", b"RAX: dead000000000100", b"address: 0000000000000018"),
        *(b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xe2\x82", b"\xac", b"x" * 50, b"y" * LONGEST_LINE),
        *(b"<script>alert(1)</script>", b"</div>", b"<!--", b"&amp;", b'" onmouseover="', b"\xe2\x80\xae"),
        *(EVENT.encode(), EVENT.encode()[:600], EVENT.encode()[700:], b"BUG: Bad rss-counter state mm:1 val:1\n"),
    ]
)


@given(reads=st.lists(WORDS | st.binary(min_size=1, max_size=8), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_the_page_has_the_log(session: Session, reads: list[bytes]) -> None:
    page = PageReader(page_of(session, reads))
    is_same = page.log == as_shown(b"".join(reads))
    assert is_same  # the text itself is too much to show
    assert {tag for tag, _ in page.tags if tag in ("script", "iframe", "img", "link", "form")} == {"script"}
    assert not [name for _, given in page.tags for name in given if name.startswith("on") or name in ("src", "style")]
    assert len({*page.ids}) == len(page.ids)
    assert {href for href, _ in page.links} <= {f"#{each}" for each in page.ids}


def test_many_lines_and_one_event_without_end_are_written_as_they_come(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_html, "_MOST_HELD", 50)
    lines = [line.encode() for line in EVENT.splitlines(True)[:12]] + [b" f+0x1/0x2\n"] * 300
    form = LogHtml(LogAnswers(session), Page(), "", tuple)
    written = [form.feed(piece, number) for number, piece in enumerate(pieces(iter([*lines, b""]).__next__), 1)]
    assert b"".join(written).count(b" f+0x1/0x2\n") >= 250
    assert PageReader(page_of(session, lines)).log == b"".join(lines).decode()


# -- what it says ------------------------------------------------------------------------------------------------------


def test_what_is_explained_is_what_json_says(session: Session) -> None:
    found = LogJson(LogAnswers(session), Open())
    objects = [found.feed(piece, 1) for piece in pieces(iter([PLAIN.encode(), b""]).__next__)] + [found.close()]
    summaries = {each["text"]: each["where"]["summary"] for each in map(json.loads, b"".join(objects).splitlines())}
    page = PageReader(page_of(session, [PLAIN.encode()]))
    said = {text: page.entries[href[1:]] for href, text in page.links if href.startswith("#h")}
    del said[""]  # the map's
    assert {text: entry["p"] for text, entry in said.items()} == summaries
    assert {text: entry["h3"] for text, entry in said.items()} == {text: text for text in summaries}
    assert summaries.keys() == {START, "start_kernel+0x4/0x20", "dead000000000100"}
    assert "start_kernel" in said[START]["pre"]


def test_events_are_listed_with_where_they_begin(session: Session) -> None:
    text = page_of(session, [EVENT.encode()])
    page = PageReader(text)
    ((href, title),) = [link for link in page.links if link[0].startswith("#l1.")]
    assert (href, title) == ("#l1.2", "BUG: unable to handle kernel NULL pointer dereference in start_kernel")
    index = text[text.index('<nav id="events"') :]
    assert "log&lt;1&gt; · lines 2-20 · &lt;sh&gt; 183 · CPU 0 · 6.1.0-57-amd64 · complete" in index
    (block,) = [given for _, given in page.tags if given.get("id") == "l1.2"]
    assert block["aria-label"] == title


def test_an_event_in_the_list_says_what_happened_and_what_the_instruction_accessed(session: Session) -> None:
    pytest.importorskip("capstone")
    at = EVENT.index("[    2.0] RSP")
    text = page_of(session, [f"{EVENT[:at]}[    2.0] Code: 90 <48> 8b 40 18 c3\n{EVENT[at:]}".encode()])
    index = text[text.index('<nav id="events"') :]
    assert "<p>mov 0x18(%rax),%rax: RAX is NULL, so it reads NULL+0x18</p>" in index
    assert "<p>&lt;sh&gt; (pid 183) on CPU 0 read NULL+0x18 in start_kernel.</p>" in index


def test_an_event_that_is_cut_off_is_said_to_be(session: Session) -> None:
    assert '<span class="cut">cut off</span>' in page_of(session, [EVENT.encode()[:700]])


def test_traces_and_registers_fold(session: Session) -> None:
    text = page_of(session, [EVENT.encode()])
    folds = re.findall(r"<details open><summary data-n=.([^>]*).>(.*?)\n</summary>(.*?)</details>", text, re.S)
    assert [(words, re.sub("<.*?>", "", first), rest.count("\n")) for words, first, rest in folds] == [
        ("registers", f"[    2.0] RSP: 0018:{START} EFLAGS: 00000202", 4),
        ("5 lines", "[    2.0] Call Trace:", 5),
    ]


def test_a_page_explains_so_many_texts_and_says_so(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_html, "_MOST_OUTSIDE", 1)
    text = page_of(session, [PLAIN.encode(), EVENT.encode()])
    page = PageReader(text)
    assert len([href for href, text in page.links if href == "#h1" and text == START]) == 2
    texts = {text for href, text in page.links if href.startswith("#h") and text}
    assert texts == {START, "0000000000000018", "ffff888000001234", "start_kernel+0x4/0x20", "start_kernel+0x5/0x20"}
    assert "5 further places in the log were not looked up" in text


def test_nothing_but_the_pages_own_script_and_style_can_run(session: Session) -> None:
    page = PageReader(page_of(session, [PLAIN.encode()]))
    (policy,) = [given["content"] for tag, given in page.tags if given.get("http-equiv") == "Content-Security-Policy"]
    for kind, count in (("script", 1), ("style", 2)):
        texts = page.texts[kind].split("\0")[1:]
        assert len(texts) == count
        for text in texts:
            assert f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ")


def test_several_logs_and_notes(session: Session) -> None:
    page = page_of(session, [EVENT.encode()], [EVENT.encode()], notes=["a <note>"])
    reader = PageReader(page)
    assert reader.log == EVENT * 2
    assert [href for href, _ in reader.links if href.startswith("#l")] == ["#log1", "#l1.2", "#l2.2"]
    assert "<li>a &lt;note&gt;</li>" in page


def test_without_a_log(session: Session) -> None:
    page = page_of(session, [b""])
    assert PageReader(page).log == ""
    assert "There are none in this log." in page


def test_without_a_kernel(tmp_path: Path) -> None:
    page = PageReader(page_of(Session([]), [EVENT.encode()]))
    assert page.log == EVENT
    assert page.entries == {}
