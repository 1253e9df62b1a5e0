"""Answers as JSON and as text. The contract: design.md ("The answer, as data"), docs/json.md.

The JSON text is compared with what json.dumps makes of a dictionary that these tests build from the model themselves.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.elf_builder import BANNER, BASE_32, BASE_64, BUILD_ID, FUNC, Elf, Sym, small_vmlinux

from kplug import model
from kplug.frozen import replace
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked, moved_by
from kplug.model import Annotation, Layer, State
from kplug.outputs import Column, Hex, NamedFacts, Problem, Table
from kplug.render.json_lines import JsonLines
from kplug.render.safe import safe
from kplug.render.style import COLOURED, PLAIN, Style
from kplug.render.text import TextRenderer
from kplug.session import Session
from kplug.summary import summarize

CLASSES = {"text", "rodata", "init", "data", "bss", "percpu", "brk", "none"}
HEX = re.compile(r"0x(0|[1-9a-f][0-9a-f]*)")
DETAILS: dict[str, dict[str, type]] = {
    "section": {"type": str, "flags": str, "link_start": str},
    "segment": {"type": str, "flags": str, "index": int},
    "region": {"start_symbol": str, "end_symbol": str, "freed_after_boot": bool, "read_only_after_init": bool},
    "symbol": {"type": str, "binding": str, "size": int, "sizeless": bool, "aliases": list},
    "gap": {"after": str, "before": str, "why": str},
    "special": {"what": str, "meaning": str},
}
ORDER = ["area", "special", "image", "segment", "section", "region", "symbol", "line"]


def session_of(folder: Path, elf: Elf | None = None, kaslr_offset: int = 0) -> Session:
    path = folder / "vmlinux"
    path.write_bytes(bytes(elf or small_vmlinux()))
    image = open_vmlinux(str(path))
    placement = moved_by(image.sections, kaslr_offset, "--kaslr") if kaslr_offset else as_linked(image.sections)
    return Session([PlacedImage(image, placement)])


def as_json(annotation: Annotation) -> dict[str, Any]:
    """What the contract makes of the model, written down anew."""

    def number(value: int | None) -> str | None:
        return None if value is None else f"0x{value:x}"

    return {
        "schema": "kplug.where/1",
        "input": annotation.input,
        "address": number(annotation.address),
        "link_address": number(annotation.link_address),
        "summary": str(summarize(annotation)),
        "class": annotation.region_class,
        "layers": [
            {
                "kind": layer.kind,
                "name": layer.name,
                "start": number(layer.start),
                "end": number(layer.end),
                "offset": None if layer.start is None else number(annotation.address - layer.start),
                "details": dict(layer.details),
                "source": layer.source,
            }
            for layer in annotation.layers
        ],
        "state": {
            "mapped": annotation.state.mapped,
            "permissions": annotation.state.permissions,
            "freed": annotation.state.freed,
            "page_size": annotation.state.page_size,
            "kasan": annotation.state.kasan,
        },
        "warnings": list(annotation.warnings),
    }


def assert_contract(answer: dict[str, Any]) -> None:
    """The keys and types that scripts rely on, in every answer."""
    assert list(answer) == [
        "schema", "input", "address", "link_address", "summary", "class", "layers", "state", "warnings",
    ]  # fmt: skip
    assert answer["schema"] == "kplug.where/1"
    assert HEX.fullmatch(answer["address"])
    assert answer["link_address"] is None or HEX.fullmatch(answer["link_address"])
    assert answer["class"] in CLASSES
    assert answer["summary"]
    assert list(answer["state"]) == ["mapped", "permissions", "freed", "page_size", "kasan"]
    assert all(isinstance(warning, str) for warning in answer["warnings"])
    # A gap is between regions or between symbols, so it comes after the ones or after the others.
    kinds = [layer["kind"] for layer in answer["layers"] if layer["kind"] != "gap"]
    assert kinds == sorted(kinds, key=ORDER.index)
    address = int(answer["address"], 16)
    widths = []
    for layer in answer["layers"]:
        assert list(layer) == ["kind", "name", "start", "end", "offset", "details", "source"]
        assert layer["name"]
        assert layer["source"]
        for key in ("start", "end", "offset"):
            assert layer[key] is None or HEX.fullmatch(layer[key])
        if layer["start"] is not None and layer["end"] is not None:
            start, end = int(layer["start"], 16), int(layer["end"], 16)
            assert start <= address < end or (layer["kind"] == "symbol" and start == end == address)
            assert address - start == int(layer["offset"], 16)
            if layer["kind"] in ("segment", "section", "region"):
                widths.append((ORDER.index(layer["kind"]), start - end))
        for key, kind in DETAILS.get(layer["kind"], {}).items():
            assert layer["details"][key] is None or type(layer["details"][key]) is kind
    assert widths == sorted(widths)  # of one kind, the widest first


ADDRESSES = [
    0, 1, 0x10, 0xFFF, 0x12345678, 0x6B6B6B6B6B6B6B6B, 0xDEAD000000000100, 0x7FFFFFFFF000, 0x800000000000,
    0xFFFF888000000000, 0xFFFFFFFFFFFFFFF4, (1 << 64) - 1, BASE_64 - 1, BASE_32,
    *(BASE_64 + offset for offset in (0, 1, 0x10, 0x14, 0x2F, 0x30, 0x3F, 0x41, 0x65, 0xFF, 0x100, 0x1FF, 0x200)),
    *(BASE_64 + offset for offset in (0x1000, 0x1029, 0x102A, 0x1080, 0x10A4, 0x1FFF, 0x2000, 0x2008, 0x203F, 0x2040)),
    *(BASE_64 + offset for offset in (0x213F, 0x2140, 0x2FFF, 0x3000, 0x303F, 0x3040, 0x3FFF, 0x4000, 0x4001)),
]  # fmt: skip


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("kaslr_offset", [0, 0x8A00000, -0x200000])
def test_every_answer_keeps_the_contract_and_is_what_json_dumps_writes(
    tmp_path: Path, bits: int, kaslr_offset: int
) -> None:
    session = session_of(tmp_path, small_vmlinux(bits), kaslr_offset)
    renderer = JsonLines()
    for address in [
        *ADDRESSES,
        *(a - BASE_64 + BASE_32 for a in ADDRESSES if a >= BASE_64),
        *(a + kaslr_offset for a in ADDRESSES),
    ]:
        if not 0 <= address < 1 << 64:
            continue
        for annotation in session.where(hex(address)):
            line = renderer.annotation(annotation)
            assert line == json.dumps(as_json(annotation))
            assert_contract(json.loads(line))
            assert "\n" not in line


def test_the_layers_of_an_address_in_a_function(tmp_path: Path) -> None:
    """All figures are those that small_vmlinux was made with."""
    (annotation,) = session_of(tmp_path, kaslr_offset=0x8A00000).where("start_kernel+0x4")
    answer = json.loads(JsonLines().annotation(annotation))
    moved = BASE_64 + 0x8A00000
    assert (answer["input"], answer["address"], answer["link_address"]) == (
        "start_kernel+0x4", hex(moved + 0x14), hex(BASE_64 + 0x14),
    )  # fmt: skip
    assert answer["class"] == "text"
    by_kind = {layer["kind"]: layer for layer in answer["layers"]}
    assert list(by_kind) == ["area", "image", "segment", "section", "region", "symbol"]
    image = by_kind["image"]
    assert (image["name"], image["start"], image["end"]) == ("vmlinux", hex(moved), hex(moved + 0x4000))
    assert image["details"]["slide"] == "0x8a00000"
    assert image["details"]["build_id"] == BUILD_ID.hex()
    assert image["details"]["release"] == BANNER.decode().split()[2] == "6.99.0-test"
    assert by_kind["segment"]["details"] == {"type": "LOAD", "flags": "R E", "index": 0}
    section = by_kind["section"]
    assert (section["name"], section["start"], section["end"]) == (".text", hex(moved), hex(moved + 0x200))
    assert section["details"] == {"type": "PROGBITS", "flags": "AX", "link_start": hex(BASE_64)}
    region = by_kind["region"]
    assert (region["name"], region["start"], region["end"]) == ("text", hex(moved), hex(moved + 0x200))
    assert (region["details"]["start_symbol"], region["details"]["end_symbol"]) == ("_stext", "_etext")
    symbol = by_kind["symbol"]
    assert (symbol["name"], symbol["start"], symbol["end"], symbol["offset"]) == (
        "start_kernel", hex(moved + 0x10), hex(moved + 0x30), "0x4",
    )  # fmt: skip
    assert symbol["details"] == {"type": "T", "binding": "GLOBAL", "size": 0x20, "sizeless": False, "aliases": []}


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("start_kernel", "text"),
        ("linux_banner", "rodata"),
        ("jiffies", "data"),
        ("buffer", "bss"),
        ("setup", "init"),
        ("_end+0x100000", "none"),
        ("0xfffffffffffffff4", "none"),
    ],
)
def test_the_class_is_one_word(tmp_path: Path, expression: str, name: str) -> None:
    (annotation,) = session_of(tmp_path).where(expression)
    assert annotation.region_class == name


@pytest.mark.parametrize(
    ("expression", "summary"),
    [
        ("start_kernel+4", "start_kernel+0x4 .text [text]"),
        ("jiffies", "jiffies+0x0 .data [data]"),
        (".text+0x35", "padding after start_kernel .text [text]"),
        ("setup+1", "setup+0x1 .init.text [init > init.text]"),
        ("0", "NULL (user)"),
    ],
)
def test_the_summary_is_the_symbol_the_section_and_the_regions(tmp_path: Path, expression: str, summary: str) -> None:
    (annotation,) = session_of(tmp_path).where(expression)
    assert str(summarize(annotation)).startswith(summary.removesuffix(" (user)"))


def test_an_address_outside_any_area_and_image_is_unknown() -> None:
    assert str(summarize(Annotation("0x10", 0x10, None, "none", ()))) == "unknown"


_texts = st.text(max_size=12)
_numbers = st.one_of(st.none(), st.integers(0, (1 << 64) - 1))


_facts = st.one_of(st.none(), st.booleans(), st.integers(), _texts, st.lists(_texts))
_perhaps = st.one_of(st.none(), st.booleans())


@given(
    address=st.integers(0, (1 << 64) - 1),
    link=_numbers,
    name=_texts.filter(bool),
    source=_texts,
    start=st.integers(0, (1 << 64) - 1),
    details=st.dictionaries(
        _texts, st.one_of(st.none(), st.booleans(), st.integers(), _texts, st.lists(_texts)), max_size=4
    ),
    warnings=st.lists(_texts, max_size=3),
    state=st.builds(
        State, st.one_of(st.none(), st.booleans()), st.one_of(st.none(), _texts), st.one_of(st.none(), st.booleans())
    ),
)
def test_any_answer_is_what_json_dumps_writes(
    address: int,
    link: int | None,
    name: str,
    source: str,
    start: int,
    details: dict[str, Any],
    warnings: list[str],
    state: State,
) -> None:
    layers = (
        Layer(model.PERCPU, name, min(start, address), max(start, address) + 1, source, details),
        Layer(model.MODULE, name, None, None, source),
    )
    annotation = Annotation(name, address, link, "none", layers, state, tuple(warnings))
    renderer = JsonLines()
    assert renderer.annotation(annotation) == json.dumps(as_json(annotation))
    other = Annotation(name, address + 1, link, "none", layers, state, tuple(warnings))  # the layers come again
    assert renderer.annotation(other) == json.dumps(as_json(other))


def test_layers_are_told_apart_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of layers is bounded, and belongs to the layer, not to its place in memory."""
    monkeypatch.setattr("kplug.render.remembered.MAX_REMEMBERED", 5)
    lines, text = JsonLines(), TextRenderer(PLAIN)
    for number in range(100):
        layer = Layer(model.PERCPU, f"layer{number}", number, number + 1, "test")
        annotation = Annotation("", number, None, "none", (layer,))
        assert json.loads(lines.annotation(annotation))["layers"][0]["name"] == f"layer{number}"
        assert f"layer{number} " in text.annotation(annotation)


# -- rows and facts ----------------------------------------------------------------------------------------------------


def test_a_row_is_one_object_with_addresses_in_hexadecimal() -> None:
    row = {"name": "a\x1b", "start": Hex(0xFFFFFFFF81000000), "index": 7, "none": None, "flag": True, "list": ["x"]}
    assert json.loads(JsonLines().record("kplug.test/1", row)) == {
        "schema": "kplug.test/1",
        "name": "a\x1b",
        "start": "0xffffffff81000000",
        "index": 7,
        "none": None,
        "flag": True,
        "list": ["x"],
    }


def test_a_table_has_headings_and_aligned_columns_and_leaves_out_empty_ones() -> None:
    columns = (Column("NAME", "name"), Column("SIZE", "size", right=True), Column("FILE", "file"))
    rows = [{"name": "a", "size": Hex(0x1000)}, {"name": "longer", "size": Hex(1), "file": None}]
    assert list(TextRenderer(PLAIN).table(Table("t", columns, rows))) == [
        "NAME      SIZE",
        "a       0x1000",
        "longer     0x1",
    ]


# -- text --------------------------------------------------------------------------------------------------------------

HOSTILE = "evil\x1b[2J\x07\r\n\u202e\u200b\x9b31m\x7f"


@given(text=st.text())
def test_safe_text_holds_nothing_that_moves_a_cursor_or_hides_text(text: str) -> None:
    shown = safe(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]", shown)
    if text.isascii() and text.isprintable():
        assert shown == text


def test_names_from_a_file_are_made_safe_wherever_they_are_shown(tmp_path: Path) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.sections[0].name = HOSTILE
    elf.segments[0].covers = (HOSTILE, ".rodata", ".notes")
    for symbol in elf.symbols:
        symbol.section = HOSTILE if symbol.section == ".text" else symbol.section
    elf.symbols += [
        Sym("f" + HOSTILE, BASE_64 + 0x180, 8, HOSTILE, FUNC),
        Sym("g" + HOSTILE, BASE_64 + 0x180, 8, HOSTILE, FUNC),
        Sym("__start_" + HOSTILE, BASE_64 + 0x1000, 0, ".rodata"),
        Sym("__stop_" + HOSTILE, BASE_64 + 0x1040, 0, ".rodata"),
    ]
    session = session_of(tmp_path, elf)
    text = TextRenderer(PLAIN)
    for offset in (0x184, 0x1A0, 0x1010, 0x90):
        for annotation in session.where(hex(BASE_64 + offset)):
            for shown in (text.annotation(annotation), text.brief(annotation)):
                for line in shown.split("\n"):
                    assert line == safe(line)
                assert "evil\\x1b[2J\\x07\\x0d\\x0a\\u202e" in shown
    table = Table("t", (Column("NAME", "name"),), [{"name": HOSTILE}], title=HOSTILE)
    facts = NamedFacts("t", {"a": HOSTILE, "b": [HOSTILE]})
    for line in (*text.table(table), *text.facts(facts), text.problem(Problem(HOSTILE))):
        assert line == safe(line)


def test_the_lines_of_an_answer(tmp_path: Path) -> None:
    """The form that design.md shows: the one-line answer, then a line for each layer, labelled with its kind."""
    (annotation,) = session_of(tmp_path, kaslr_offset=0x8A00000).where("start_kernel+4")
    first, *others = TextRenderer(PLAIN).annotation(annotation).split("\n")
    assert first == "0xffffffff89a00014  start_kernel+0x4  .text  [text]"
    assert [line.split()[0] for line in others] == ["area", "image", "segment", "section", "region", "symbol"]
    assert re.search(r"image +vmlinux 6\.99\.0-test +KASLR \+0x8a00000, link 0xffffffff81000014$", others[1])
    assert re.search(r"segment +LOAD\[0\] +R E +0xffffffff89a00000-0xffffffff89a010a4 +\+0x14$", others[2])
    assert re.search(r"section +\.text +PROGBITS AX +0xffffffff89a00000-0xffffffff89a00200 +\+0x14$", others[3])
    assert re.search(r"region +text +_stext \.\. _etext$", others[4])
    assert re.search(r"symbol +start_kernel +T +\+0x4 of 0x20$", others[5])


def test_the_one_line_answer_ends_with_the_place_in_the_source(tmp_path: Path) -> None:
    (annotation,) = session_of(tmp_path).where("start_kernel+4")
    inlined = [{"function": "inner", "file": "include/a.h", "line": 3}, {"function": "f", "file": "a.c", "line": 7}]
    details = {"file": "include/a.h", "line": 3, "inlined": inlined}
    told = replace(annotation, layers=(*annotation.layers, Layer("line", "include/a.h:3", None, None, "test", details)))
    render = TextRenderer(PLAIN)
    assert render.brief(told) == render.brief(annotation)
    assert render.brief(told, place=True) == f"{render.brief(annotation)}  include/a.h:3"
    assert render.annotation(told, brief=True, place=True) == render.brief(told, place=True)
    # Among all lines it has one of its own.
    assert render.annotation(told, place=True) == render.annotation(told)
    # Where the place is not known nothing is said of it.
    assert render.brief(annotation, place=True) == render.brief(annotation)


@pytest.mark.parametrize("style", [PLAIN, COLOURED])
def test_addresses_have_the_digits_of_the_machine(style: Style) -> None:
    layer = Layer("section", ".text", 0xC1000000, 0xC1001000, "test", {"type": "PROGBITS", "flags": "AX"})
    annotation = Annotation("schedule", 0xC1000010, None, "text", (layer,), bits=32)
    render = TextRenderer(style)
    words = re.sub(r"\x1b\[[0-9;]*m", "", render.annotation(annotation))
    assert re.findall("0x[0-9a-f]+", words) == ["0xc1000010", "0x10", "0xc1000000", "0xc1001000", "0x10"]
    assert "0xc1000010 " in re.sub(r"\x1b\[[0-9;]*m", "", render.brief(annotation))
    # An address that the machine does not have keeps its digits.
    assert "0x00000001c1000010" in render.brief(Annotation("", 0x1C1000010, None, "none", (), bits=32))
    assert "0x00000000c1000010" in render.brief(Annotation("", 0xC1000010, None, "none", ()))


def test_what_memory_says_is_the_last_line() -> None:
    annotation = Annotation("0", 0, None, "none", (), State(True, "r-x", False), ("mind",))
    lines = TextRenderer(PLAIN).annotation(annotation).split("\n")
    assert [line.split(None, 1) for line in lines[1:]] == [["state", "mapped r-x; not freed"], ["warning", "mind"]]


def test_unknown_state_takes_no_line() -> None:
    assert "state" not in TextRenderer(PLAIN).annotation(Annotation("0", 0, None, "none", ()))


def test_colours_change_no_character_of_the_text(tmp_path: Path) -> None:
    for annotation in session_of(tmp_path).where("twin+1"):
        coloured = TextRenderer(COLOURED).annotation(annotation)
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == TextRenderer(PLAIN).annotation(annotation)
