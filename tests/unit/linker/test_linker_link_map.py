"""The link map: object files by address. The maps and what nm says of them: tests/linker_kernel/make_maps.sh."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import LINKER_DATA

from kplug.errors import InputError
from kplug.linker import link_map
from kplug.linker.link_map import MapEntry, parse_link_map

# Which of make_maps.sh's sources defines each symbol: to be read off the script.
OWNERS = {
    "first_": "drivers/one/first.o",
    "second_": "kernel/second.o",
    "_start": "kernel/second.o",
    "member_": "lib/lib.a(member.o)",
}
MAPS = ("gnu", "lld", "whole/vmlinux")


def defined_symbols(name: str) -> list[tuple[str, int, str]]:
    """(symbol, address, object file) of what nm lists and a source file defines."""
    found = []
    for line in (LINKER_DATA / f"{name}.nm").read_text().splitlines():
        address, _, symbol = line.split()
        found += [(symbol, int(address, 16), file) for prefix, file in OWNERS.items() if symbol.startswith(prefix)]
    assert len(found) >= 14
    return found


@pytest.mark.parametrize("name", MAPS)
def test_the_object_file_of_every_symbol_is_the_one_that_defines_it(name: str) -> None:
    link = parse_link_map(str(LINKER_DATA / f"{name}.map"))
    answers = {symbol: link.at(address) for symbol, address, _ in defined_symbols(name)}
    assert {symbol: entry and entry.object_file for symbol, entry in answers.items()} == {
        symbol: file for symbol, _, file in defined_symbols(name)
    }


@pytest.mark.parametrize("name", MAPS)
def test_an_entry_runs_to_the_end_of_its_input_section(name: str) -> None:
    # second.c aligns its function to 64 bytes; the map lists 0x21 bytes of .text for it.
    entry = parse_link_map(str(LINKER_DATA / f"{name}.map")).at(0xFFFFFFFF81000060)
    assert entry == MapEntry(".text", 0xFFFFFFFF81000040, 0xFFFFFFFF81000061, "kernel/second.o")


@pytest.mark.parametrize("name", ["gnu", "lld"])
def test_padding_belongs_to_no_file(name: str) -> None:
    assert parse_link_map(str(LINKER_DATA / f"{name}.map")).at(0xFFFFFFFF81000009) is None


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("address", [0xFFFFFFFF80FFFFFF, 0xFFFFFFFF810000F4, 0x8, 1 << 70, -1])
def test_an_address_outside_every_section_belongs_to_no_file(name: str, address: int) -> None:
    assert parse_link_map(str(LINKER_DATA / f"{name}.map")).at(address) is None


@pytest.mark.parametrize("name", MAPS)
def test_debug_information_at_address_0_does_not_hide_the_per_cpu_section(name: str) -> None:
    entry = parse_link_map(str(LINKER_DATA / f"{name}.map")).at(4)
    assert entry is not None
    assert entry.input_section == ".data..percpu"


def test_a_long_section_name_on_a_line_of_its_own() -> None:
    entry = parse_link_map(str(LINKER_DATA / "gnu.map")).at(0xFFFFFFFF810000C0)
    assert entry is not None
    assert entry.input_section == ".a_section_with_a_long_name"


def test_a_string_that_two_files_share_is_the_first_files() -> None:
    # "shared words" is merged: GNU ld still lists second.o's 13 bytes, behind the end of .rodata.
    link = parse_link_map(str(LINKER_DATA / "gnu.map"))
    first = link.at(0xFFFFFFFF8100006B)
    assert first is not None
    assert first.object_file == "drivers/one/first.o"
    assert link.at(0xFFFFFFFF8100008A) is None


def test_a_map_of_vmlinux_o_alone_says_so() -> None:
    assert parse_link_map(str(LINKER_DATA / "whole" / "vmlinux.map")).is_whole
    assert not parse_link_map(str(LINKER_DATA / "gnu.map")).is_whole


def test_without_the_map_of_vmlinux_o_the_file_is_vmlinux_o(tmp_path: Path) -> None:
    alone = tmp_path / "vmlinux.map"
    alone.write_bytes((LINKER_DATA / "whole" / "vmlinux.map").read_bytes())
    entry = parse_link_map(str(alone)).at(0xFFFFFFFF81000000)
    assert entry is not None
    assert entry.object_file == "vmlinux.o"


GNU = "Linker script and memory map\n\n"


def read(tmp_path: Path, text: str) -> link_map.LinkMap:
    path = tmp_path / "some.map"
    path.write_text(text)
    return parse_link_map(str(path))


def test_what_the_linker_discarded_is_not_in_the_image(tmp_path: Path) -> None:
    text = "Discarded input sections\n\n .text          0x0000000000001000     0x10 gone.o\n\n" + GNU
    text += ".text           0x0000000000001000     0x10\n .text          0x0000000000001000     0x10 kept.o\n"
    entry = read(tmp_path, text).at(0x1000)
    assert entry is not None
    assert entry.object_file == "kept.o"


def test_an_object_files_path_may_hold_spaces(tmp_path: Path) -> None:
    text = GNU + ".text           0x1000     0x10\n .text          0x1000     0x10 my files/a b.o\n"
    entry = read(tmp_path, text).at(0x1000)
    assert entry is not None
    assert entry.object_file == "my files/a b.o"


def test_sections_need_not_be_in_the_order_of_their_addresses(tmp_path: Path) -> None:
    text = GNU + ".b 0x2000 0x10\n .b 0x2000 0x10 b.o\n\n.a 0x1000 0x10\n .a 0x1000 0x10 a.o\n"
    link = read(tmp_path, text)
    assert [entry and entry.object_file for entry in (link.at(0x1000), link.at(0x2000))] == ["a.o", "b.o"]


def test_strings_that_were_all_merged_away_do_not_hide_the_next_file(tmp_path: Path) -> None:
    text = GNU + ".rodata 0x1000 0x20\n .s 0x1000 0x18 merged.o\n .s 0x1000 0x20 real.o\n"
    entry = read(tmp_path, text).at(0x1000)
    assert entry is not None
    assert entry.object_file == "real.o"


def test_older_lld_without_load_addresses(tmp_path: Path) -> None:
    text = "         Address             Size Align Out     In      Symbol\n"
    text += "            1000               20    16 .text\n"
    text += "            1000               10    16         a.o:(.text)\n"
    text += "            1000                0     0                 main\n"
    entry = read(tmp_path, text).at(0x100F)
    assert entry == MapEntry(".text", 0x1000, 0x1010, "a.o")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a link map"),
        ("ffffffff81000000 T _text\n", "not a link map"),
        (GNU, "without input sections"),
        (GNU + ".text 0x1000 0x10\n .text 0xyz 0x10 a.o\n", "line 4: not a number"),
        (GNU + ".t 0x1 0xffffffffffffffffffff\n .t 0xfffffffffffffff0 0x20 a.o\n", "beyond 64 bits"),
        ("VMA LMA Size Align Out     In      Symbol\nx y z w a.o:(.text)\n", "line 2: not a number"),
    ],
)
def test_what_is_no_map_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "some.map") in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        parse_link_map(str(tmp_path / "none.map"))


def test_a_file_too_large_for_a_map_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_map, "LARGEST_MAP", 10)
    with pytest.raises(InputError, match="larger than"):
        read(tmp_path, GNU + ".text 0x1000 0x10\n")


@settings(max_examples=150)
@given(st.sampled_from(["gnu.map", "lld.map"]), st.data())
def test_a_damaged_map_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    content = bytearray((LINKER_DATA / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.map"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):  # any other error fails the test
        assert len(parse_link_map(str(path))) > 0
