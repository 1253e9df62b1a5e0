"""The reader of linker scripts. What is expected is read off the scripts' text."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kplug.errors import InputError
from kplug.linker import script_parser
from kplug.linker.script import Assignment, Input, OutputSection
from kplug.linker.script_brackets import Bracket, brackets
from kplug.linker.script_parser import parse_linker_script

# In the manner of arch/x86/kernel/vmlinux.lds, shortened.
KERNEL = """\
OUTPUT_ARCH(i386:x86-64)
ENTRY(phys_startup_64)
jiffies = jiffies_64;
PHDRS {
 text PT_LOAD FLAGS(5);
 note PT_NOTE FLAGS(0);
}
SECTIONS
{
 . = (0xffffffff80000000 + ((0x1000000 + (0x200000 - 1)) & ~(0x200000 - 1)));
 phys_startup_64 = ABSOLUTE(startup_64 - 0xffffffff80000000);
 .text : AT(ADDR(.text) - 0xffffffff80000000) {
  _text = .;
  _stext = .;
  KEEP(*(.head.text))
  . = ALIGN(16); *(.text.hot .text.hot.*) *(.text)
  . = ALIGN(16); __noinstr_text_start = .; *(.noinstr.text) __cpuidle_text_start = .;
  *(.cpuidle.text) __cpuidle_text_end = .; __noinstr_text_end = .;
  . = ALIGN(16); __new_text_start = .; *(.new.text) __new_text_end = .;
 } :text = 0xcccccccc
 _etext = .;
 .notes : AT(ADDR(.notes) - 0x10) { __start_notes = .; KEEP(*(.note.*)) __stop_notes = .; } :text :note
 __restore_ph : { *(.__restore_ph) } :text
 /DISCARD/ : { *(.note.GNU-stack) }
 orders_first = .;
 .orders : { KEEP(*(SORT(.ctors.*))) *(EXCLUDE_FILE(*crtend.o *crt0.o) .ctors) BYTE(0) QUAD(_text) }
 orders_last = .;
 .data..percpu 0 : AT(__per_cpu_load - 0x10) { __per_cpu_start = .; *(.data..percpu) __per_cpu_end = .; } :percpu
 . = __per_cpu_load + SIZEOF(.data..percpu);
 ASSERT(SIZEOF(.data..percpu) < 0x1000000,
        "per-CPU data too large; { it is }")
 .got.plt (INFO) : { *(.got.plt) }
 .comment 0 : { *(.comment) }
 _end = .;
}
PROVIDE(__ref_stack_chk_guard = __stack_chk_guard);
. = ASSERT((_end - 0xffffffff80000000 <= (1024 * 1024 * 1024)), "kernel image bigger than KERNEL_IMAGE_SIZE");
"""


def assigned(text: str) -> list[str]:
    return [assignment.symbol for assignment in parse_linker_script(text, "some.lds").assignments()]


def wrap(body: str) -> str:
    return "SECTIONS {\n" + body + "\n}\n"


def test_the_output_sections_in_their_order() -> None:
    sections = [section.name for section in parse_linker_script(KERNEL, "vmlinux.lds").sections]
    expected = [".text", ".notes", "__restore_ph", ".orders", ".data..percpu", ".got.plt", ".comment"]
    assert sections == expected


def test_every_symbol_that_the_script_assigns_in_its_order() -> None:
    expected = (
        "jiffies phys_startup_64 _text _stext __noinstr_text_start __cpuidle_text_start __cpuidle_text_end"
        " __noinstr_text_end __new_text_start __new_text_end _etext __start_notes __stop_notes orders_first orders_last"
        " __per_cpu_start __per_cpu_end _end __ref_stack_chk_guard"
    )
    assert assigned(KERNEL) == expected.split()


def test_what_a_section_holds_with_its_lines() -> None:
    notes = next(item for item in parse_linker_script(KERNEL, "vmlinux.lds").sections if item.name == ".notes")
    assert notes == OutputSection(
        ".notes",
        22,
        (
            Assignment("__start_notes", ".", 22, True),
            Input((".note.*",), 22),
            Assignment("__stop_notes", ".", 22, True),
        ),
    )


def test_patterns_within_keep_sort_and_exclude_file() -> None:
    orders = next(item for item in parse_linker_script(KERNEL, "vmlinux.lds").sections if item.name == ".orders")
    inputs = [item.patterns for item in orders.statements if isinstance(item, Input)]
    assert inputs == [(".ctors.*",), (".ctors",)]


@pytest.mark.parametrize(
    "statement",
    [
        "symbol = .;",
        "symbol=.;",
        "symbol = ABSOLUTE(.);",
        "PROVIDE(symbol = .);",
        "PROVIDE_HIDDEN(symbol = .);",
        "HIDDEN(symbol = .);",
        '"symbol" = .;',
        "/* a = b; */ symbol /* , */ = . /* ; */ ;",
        '# 1 "arch/x86/kernel/vmlinux.lds.S"\nsymbol = .;',
    ],
)
def test_the_ways_to_give_a_symbol_the_location_counter(statement: str) -> None:
    found = list(parse_linker_script(wrap(statement), "some.lds").assignments())
    assert [(assignment.symbol, assignment.here) for assignment in found] == [("symbol", True)]


@pytest.mark.parametrize("statement", ["symbol = other;", "symbol = . + 4;", "symbol += 1;", "symbol = ALIGN(8);"])
def test_other_values_are_not_the_location_counter(statement: str) -> None:
    found = list(parse_linker_script(wrap(statement), "some.lds").assignments())
    assert [(assignment.symbol, assignment.here) for assignment in found] == [("symbol", False)]


def test_the_sections_of_an_overlay() -> None:
    text = wrap(
        "OVERLAY 0xffff0000 : NOCROSSREFS AT(__vectors_lma) { .vectors { KEEP(*(.vectors)) } .bhb { *(.bhb) } }\n"
        "__stubs = .;"
    )
    parsed = parse_linker_script(text, "some.lds")
    assert [section.name for section in parsed.sections] == [".vectors", ".bhb"]
    assert [assignment.symbol for assignment in parsed.assignments()] == ["__stubs"]


def test_a_section_with_an_address_expression_a_region_and_a_fill() -> None:
    text = wrap(
        ".stubs ADDR(.vectors) + 0x1000 : AT(__stubs_lma) ALIGN(8) { *(.stubs) } >ram AT>rom :text =0x0700\nx = .;"
    )
    parsed = parse_linker_script(text, "some.lds")
    assert [section.name for section in parsed.sections] == [".stubs"]
    assert [assignment.symbol for assignment in parsed.assignments()] == ["x"]


def test_the_pairs_and_the_scripts_word_for_each() -> None:
    found = brackets(parse_linker_script(KERNEL, "vmlinux.lds"), known={"_text", "_end"})
    assert found == [
        Bracket("text", "_stext", "_etext"),
        Bracket("noinstr_text", "__noinstr_text_start", "__noinstr_text_end"),  # two patterns: the names' stem
        Bracket("cpuidle.text", "__cpuidle_text_start", "__cpuidle_text_end"),
        Bracket("new.text", "__new_text_start", "__new_text_end"),
        Bracket("notes", "__start_notes", "__stop_notes"),
        Bracket("orders", "orders_first", "orders_last"),  # no naming convention: they stand around one section
        Bracket("data..percpu", "__per_cpu_start", "__per_cpu_end"),
    ]


def test_two_marks_with_nothing_between_them_bracket_nothing() -> None:
    parsed = parse_linker_script(wrap(".a : { one = .; . = ALIGN(8); two = .; *(.a) }"), "some.lds")
    assert brackets(parsed) == []


def test_two_marks_with_the_end_of_a_known_pair_between_them_do_not_pair_up() -> None:
    text = wrap(".a : { here = .; x_start = .; *(.a) x_end = .; *(.b) there = .; }")
    assert brackets(parse_linker_script(text, "some.lds")) == [Bracket("a", "x_start", "x_end")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "some.lds: not a linker script: it has no SECTIONS"),
        ("ENTRY(_start)", "some.lds: not a linker script: it has no SECTIONS"),
        ("int main(void);", "some.lds: line 1: expected a statement, found 'int'"),
        ("SECTIONS {\n .text : {\n", "some.lds: line 2: '{' without a closing '}'"),
        ("SECTIONS {\n\n", "some.lds: line 1: 'SECTIONS {' without a closing '}'"),
        ("SECTIONS {\n\n x = .\n}", "some.lds: line 3: the assignment to 'x' has no end"),
        ("SECTIONS {\n .text {\n}\n}", "some.lds: line 2: the output section '.text' has no ':'"),
        ("SECTIONS {\n .text : ;\n}", "some.lds: line 2: the output section '.text' has no '{'"),
        ("SECTIONS {\n ASSERT(1, (2;\n}", "some.lds: line 2: '(' without a closing ')'"),
        ("SECTIONS {\n .a : { KEEP(*(.a) }\n}", "some.lds: line 2: '(' without a closing ')'"),
        ("SECTIONS {\n /* never\n", "some.lds: line 2: unterminated comment"),
        ('SECTIONS {\n\n "never\n', "some.lds: line 3: unterminated string"),
        ("SECTIONS {\n \x7fELF\n}", "some.lds: line 2: unexpected character '\\x7f'"),
        ("SECTIONS {\n PROVIDE(x)\n}", "some.lds: line 2: expected an assignment, found 'x'"),
        ("}", "some.lds: line 1: expected a statement, found '}'"),
        ("INCLUDE", "some.lds: not a linker script: it has no SECTIONS"),
    ],
)
def test_a_broken_script_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_linker_script(text, "some.lds")
    assert str(caught.value) == message


def test_a_script_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_parser, "LARGEST_SCRIPT", 100)
    with pytest.raises(InputError, match="larger than"):
        parse_linker_script(" " * 101, "some.lds")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 300_000,
        "SECTIONS {" + "{" * 300_000,
        "SECTIONS { .a : {" + "KEEP(" * 100_000,
        "SECTIONS { x = " + "(" * 300_000,
        "A(" * 150_000,
        "/*" * 150_000,
        '"' * 300_001,
        "SECTIONS { .a : {" + "".join(f"a{i}_start = .; *(.x)" for i in range(15_000)) + "} }",
        "SECTIONS { .a : {"
        + "".join(f"a{i}_start = .; *(.x)" for i in range(8_000))
        + "".join(f"a{i}_end = .;" for i in reversed(range(8_000)))
        + "} }",
    ],
)
def test_a_hostile_script_costs_no_more_than_its_length(text: str) -> None:
    before = time.process_time()
    with contextlib.suppress(InputError):
        brackets(parse_linker_script(text, "some.lds"))
    assert time.process_time() - before < 5  # about a second on a slow machine; a quadratic reader takes minutes


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_script_is_read_or_refused(data: st.DataObject) -> None:
    text = list(KERNEL)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(text) - 1))
        text[position] = data.draw(st.sampled_from(list('{}();:=,"*/.ax \n')))
    damaged = "".join(text[: data.draw(st.integers(0, len(text)))])
    with contextlib.suppress(InputError):  # any other error fails the test
        brackets(parse_linker_script(damaged, "some.lds"))
