"""System.map and /proc/kallsyms as files: what they say, and what is told of those that are broken."""

from __future__ import annotations

import gzip
import json
import lzma
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kplug.errors import InputError
from kplug.image.kallsyms_modules import held_ranges
from kplug.image.symbols.listings import KallsymsListing, read_kallsyms, read_system_map
from kplug.image.symbols.symbol_list import SymbolList
from kplug.shell.cli import main

MAP = b"ffffffff81000000 T _text\nffffffff81000010 t one\nffffffff81000010 t one.cold\nffffffff81800000 D jiffies\n"
KALLSYMS = (
    b"0000000000000000 A fixed_percpu_data\n" + MAP + b"ffffffffc0201000 t two\t[bridge]\n"
    b"ffffffffc0301000 t two\t[stp]\nffffffffc0202000 r three\t[bridge]\nffffffffc0401000 t bpf_prog_1\t[bpf]\n"
)


def put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def rows(symbols: SymbolList) -> list[tuple[int, str, str]]:
    return [
        (symbols.addresses[number], chr(symbols.letters[number]), symbols.name(number))
        for number in range(len(symbols))
    ]


def by_hand(content: bytes) -> list[tuple[int, str, str]]:
    words = [line.split() for line in content.decode().splitlines()]
    return [(int(address, 16), letter, name) for address, letter, name, *_ in words]


# -- System.map --------------------------------------------------------------------------------------------------------


def test_a_system_map_is_its_lines(tmp_path: Path) -> None:
    assert rows(read_system_map(put(tmp_path / "map", MAP))) == by_hand(MAP)


def test_addresses_of_32_bits(tmp_path: Path) -> None:
    content = b"c0008000 T _text\nc0008240 t __create_page_tables\n"
    assert rows(read_system_map(put(tmp_path / "map", content))) == by_hand(content)


def test_what_mksysmap_drops_is_dropped(tmp_path: Path) -> None:
    odd = b"                 U undefined\n                 w weak\n0000000000000000 N .comment\n\n" + MAP
    assert rows(read_system_map(put(tmp_path / "map", odd))) == by_hand(MAP)


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    assert rows(read_system_map(put(tmp_path / "map", MAP.replace(b"\n", b"\r\n")))) == by_hand(MAP)


def test_debians_stub_is_told_with_its_package(tmp_path: Path) -> None:
    stub = b"ffffffffffffffff B The real System.map is in the linux-image-6.1.0-56-cloud-amd64-dbg package\n"
    with pytest.raises(InputError, match=r"The real System\.map is in .*apt install linux-image-6\.1\.0-56-cloud-amd6"):
        read_system_map(put(tmp_path / "map", stub))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (MAP + b"ffffffff8180001 D short\n", r"line 5 is not a symbol: 'ffffffff8180001 D short'"),
        (MAP + b"ffffffff81800010 DD two\n", r"line 5 is not a symbol"),
        (MAP + b"ffffffff81800010 D\n" + MAP, r"line 5 is not a symbol"),
        (MAP + b"ffffffff81800010 D a b\n", r"line 5 is not a symbol"),
        (MAP + b"fffffffg81800010 D letter\n", r"line 5 is not a symbol"),
        (MAP + b"c0008000 D narrow\n", r"line 5 has an address of another width"),
        (MAP + b"ffffffff81800010 D cut", r"line 5, the last, is truncated: 'ffffffff81800010 D cut'"),
        (b"hello world here\n" * 9, r"line 1 is not a symbol"),
        (b"x" * 500 + b"\n", r"line 1 is not a symbol: 'x{60}\.\.\.'"),
        (MAP * 700 + b"ffffffff81800010 D nul\0name\n", r"line 2801 is not a symbol"),
        (b"\n \n", r"no symbols in it"),
        (b"", r"the file is empty"),
        (b"\x7fELF" + bytes(60), r"an ELF file.*-s"),
        (bytes(range(256)), r"binary data"),
        (MAP.replace(b"ffffffff81", b"0" * 10).replace(b"10 t", b"00 t").replace(b"800000", b"000000"), r"zero"),
        (b'{"names": ["a", "b"]}\n', r"line 1 is not a symbol"),
        (gzip.compress(MAP, mtime=0), r"packed with gzip: unpack it first \(gunzip\)"),
        (lzma.compress(MAP), r"packed with xz: unpack it first \(unxz\)"),
        (KALLSYMS, r"not a System\.map but a listing of /proc/kallsyms.*--kallsyms"),
    ],
)
def test_a_broken_one_is_told_in_a_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = put(tmp_path / "map", content)
    with pytest.raises(InputError, match=why) as error:
        read_system_map(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


# -- /proc/kallsyms ----------------------------------------------------------------------------------------------------


def test_a_listing_has_the_kernel_and_each_module(tmp_path: Path) -> None:
    listing = read_kallsyms(put(tmp_path / "kallsyms", KALLSYMS))
    lines = KALLSYMS.splitlines(keepends=True)
    assert rows(listing.kernel) == by_hand(b"".join(lines[:5]))
    assert {name: rows(symbols) for name, symbols in listing.modules.items()} == {
        "bridge": by_hand(lines[5] + lines[7]),
        "stp": by_hand(lines[6]),
        "bpf": by_hand(lines[8]),
    }


def test_a_listing_copied_from_a_terminal_has_spaces(tmp_path: Path) -> None:
    listing = read_kallsyms(put(tmp_path / "kallsyms", KALLSYMS.replace(b"\t", b"   ")))
    assert sorted(listing.modules) == ["bpf", "bridge", "stp"]


def test_single_symbols_are_found_without_the_others(tmp_path: Path) -> None:
    listing = read_kallsyms(put(tmp_path / "kallsyms", KALLSYMS))
    assert [listing.kernel.address(name) for name in ("_text", "one", "fixed_percpu_data", "on", "two", "")] == [
        0xFFFFFFFF81000000,
        0xFFFFFFFF81000010,
        0,
        None,
        None,
        None,
    ]
    assert [listing.has_owned(name) for name in ("two", "three", "one")] == [True, True, False]


@pytest.mark.parametrize("address", [0, 0xFFFFFFFF81000000, 0xFFFFFFFF81000008, 0xFFFFFFFF81800001, (1 << 64) - 1])
def test_symbols_can_be_added_where_they_belong(tmp_path: Path, address: int) -> None:
    listing = read_kallsyms(put(tmp_path / "kallsyms", KALLSYMS))
    more = listing.with_symbols([(address, "B", "__bss_start")])
    assert sorted(rows(more.kernel)) == sorted([*rows(listing.kernel), (address, "B", "__bss_start")])
    assert list(more.kernel.addresses) == sorted(more.kernel.addresses)
    assert more.modules.keys() == listing.modules.keys()


@pytest.mark.parametrize(
    "content",
    [
        re.sub(rb"(?m)^[0-9a-f]{16}", b"0" * 16, KALLSYMS),
        b"          (null) A fixed_percpu_data\n          (null) T _text\n",
        b"(____ptrval____) T _text\n",
    ],
)
def test_hidden_addresses_are_told_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    listing = read_kallsyms(put(tmp_path / "kallsyms", content))
    assert listing.hidden
    for ask in (lambda: listing.kernel, lambda: listing.modules):
        with pytest.raises(InputError, match=r"all addresses are zero.*CAP_SYSLOG.*root.*kernel\.kptr_restrict"):
            ask()


def test_a_broken_line_of_a_module_has_its_number_in_the_file(tmp_path: Path) -> None:
    listing = read_kallsyms(put(tmp_path / "kallsyms", KALLSYMS + b"ffffffffc0201000 t\t[bridge]\n"))
    assert len(listing.kernel) == 5
    with pytest.raises(InputError, match=r"line 10 is not a symbol"):
        _ = listing.modules


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_in_a_file_it_is_symbols_or_one_line(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(KALLSYMS * 3 if seed % 2 else MAP * 3)
    for _ in range(chance.randrange(1, 20)):
        at, size = chance.randrange(len(content)), chance.randrange(8)
        content[at : at + size] = chance.choice(
            (b"", b"\n", b"\t[", b"]", bytes(1), chance.randbytes(size), content[: chance.randrange(60)])
        )
    path = put(tmp_path / "file", bytes(content))
    for read in (read_system_map, lambda path: read_kallsyms(path).kernel, lambda path: read_kallsyms(path).modules):
        found, why = told(read, path)
        assert "\n" not in why
        for symbols in found.values() if isinstance(found, dict) else [found] if found is not None else []:
            assert len(symbols) == len(symbols.letters) == len(symbols.name_offsets) == len(symbols.names)
            for number, name in enumerate(symbols.names):
                line = rb"%x\s+%c\s+%s" % (symbols.addresses[number], symbols.letters[number], re.escape(name))
                assert name
                assert re.search(line, bytes(content), re.IGNORECASE)


def told(read: Callable[[str], Any], path: str) -> tuple[Any, str]:
    """What was read, or None and the error's line."""
    try:
        return read(path), ""
    except InputError as error:
        return None, str(error)


# -- this machine's own ------------------------------------------------------------------------------------------------


def test_the_running_kernels_own_symbols() -> None:
    path = Path("/proc/kallsyms")
    text = path.read_text() if path.exists() else ""
    listing = KallsymsListing(text.encode(), str(path))
    if not text or listing.hidden:
        pytest.skip("this machine shows no addresses")
    wanted: dict[str, list[tuple[int, str, str]]] = {}
    for line in text.splitlines():
        address, letter, name, *owner = line.split()
        wanted.setdefault(owner[0][1:-1] if owner else "", []).append((int(address, 16), letter, name))
    assert rows(listing.kernel) == wanted.pop("")
    assert {name: rows(symbols) for name, symbols in listing.modules.items()} == wanted


# -- how much of its memory a module's symbol claims -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbols", "starts", "held"),
    [
        # Text is in one piece, whatever page the next symbol is on; the last one ends with its page.
        ("1010 t, 5000 t", (), [(0x1010, 0x6000, True)]),
        # Data may be in several pieces.
        ("1010 d, 5000 d", (), [(0x1010, 0x2000, False), (0x5000, 0x6000, False)]),
        ("1010 t, 1020 r", (), [(0x1010, 0x1020, True), (0x1020, 0x2000, False)]),
        # No symbol reaches over the start of a section.
        ("1010 t, 5000 t", (0x3000,), [(0x1010, 0x3000, True), (0x5000, 0x6000, True)]),
    ],
)
def test_a_symbol_claims_no_more_than_is_surely_its_own(
    tmp_path: Path, symbols: str, starts: tuple[int, ...], held: list[tuple[int, int, bool]]
) -> None:
    lines = "".join(f"ffffffffc000{each} name\n" for each in symbols.split(", "))
    base = 0xFFFFFFFFC0000000
    found = held_ranges(read_system_map(put(tmp_path / "list", lines.encode())), [base + start for start in starts])
    assert [(start - base, end - base, is_text) for start, end, is_text in found] == held


def test_an_offset_of_a_per_cpu_variable_is_no_place(tmp_path: Path) -> None:
    listed = read_system_map(put(tmp_path / "list", b"0000000000039100 d nf_skb_duplicated\n"))
    assert [tuple(held) for held in held_ranges(listed)] == [(0x39100, 0x39101, False)]


PROGRAM = "bpf_prog_0123456789abcdef_x"


def kernel_with(tmp_path: Path, *lines: str) -> list[str]:
    own = MAP + b"ffffffff81000400 T startup_64\nffffffff81900000 B _end\n"
    return ["--kallsyms", put(tmp_path / "kallsyms", own + "".join(f"{line}\n" for line in lines).encode())]


def test_where_a_bpf_program_ends_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = kernel_with(tmp_path, f"ffffffffc0401234 t {PROGRAM}\t[bpf]")
    assert main(["where", *given, PROGRAM]) == 0
    assert f"{PROGRAM}+0x0  [bpf]" in capsys.readouterr().out
    for expression in (f"{PROGRAM}+0x10", f"{PROGRAM}+0x10/0x50"):
        assert main(["where", *given, expression]) == 0
        assert f"{expression}: where {PROGRAM} ends is not known" in capsys.readouterr().out
    assert main(["sym", "--json", *given, PROGRAM]) == 0
    assert '"size": null' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "head", "size"),
    [
        (f" {PROGRAM}+0x10/0x7c", f"{PROGRAM}+0x10", 0x7C),
        (f"[   12.345678] RIP: 0010:{PROGRAM}+0x10/0x90", f"{PROGRAM}+0x10", 0x90),
        ("bpf_trampoline_6442469379+0x4c/0x1000", "bpf_trampoline_6442469379+0x4c", 0x1000),
        ("bpf_dispatcher_xdp+0x8/0x40", "bpf_dispatcher_xdp+0x8", 0x40),
    ],
)
def test_a_size_in_a_line_bounds_generated_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, head: str, size: int
) -> None:
    given = kernel_with(
        tmp_path,
        f"ffffffffc0401010 t {PROGRAM}\t[bpf]",
        "ffffffffc04010a0 t bpf_prog_fedcba9876543210_y\t[bpf]",
        "ffffffffc0402000 t bpf_trampoline_6442469379\t[bpf]",
        "ffffffffc0403000 t bpf_dispatcher_xdp\t[bpf]",
    )
    assert main(["where", "--json", *given, line]) == 0
    (answer,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert answer["summary"] == f"{head} [bpf]"
    assert answer["class"] == "text"
    symbol = answer["layers"][-1]
    assert (symbol["details"]["size"], int(symbol["end"], 16) - int(symbol["start"], 16)) == (size, size)
    assert f"ends is not known: {size:#x} bytes are what the question says" in answer["warnings"][-1]


def test_a_size_that_reaches_into_the_next_program_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (f"ffffffffc0401010 t {PROGRAM}\t[bpf]", "ffffffffc04010a0 t bpf_prog_fedcba9876543210_y\t[bpf]")
    assert main(["where", "-b", *kernel_with(tmp_path, *lines), f"{PROGRAM}+0x10/0x94"]) == 0
    assert "the next symbol begins before 0x94 bytes" in capsys.readouterr().out


def test_an_ftrace_trampoline_is_shorter_than_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = kernel_with(tmp_path, "ffffffffc0401000 t ftrace_trampoline\t[__builtin__ftrace]")
    assert main(["where", "-b", *given, "ftrace_trampoline+0x10/0x100"]) == 0
    assert capsys.readouterr().out == "0xffffffffc0401010  ftrace_trampoline+0x10  [__builtin__ftrace]\n"


def test_a_modules_per_cpu_variable_is_an_offset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = kernel_with(tmp_path, "0000000000034100 a brnf_frag_data_storage\t[br_netfilter]")
    assert main(["where", "--brief", *given, "brnf_frag_data_storage"]) == 0
    said = capsys.readouterr().out
    assert said.strip().endswith("per-CPU offset of brnf_frag_data_storage+0x0  [br_netfilter]")


def test_a_system_map_is_no_kallsyms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = kernel_with(tmp_path, "0000000001000000 A phys_startup_64")
    assert main(["where", *given, "one"]) == 2
    assert "not a /proc/kallsyms but a System.map: it has phys_startup_64" in capsys.readouterr().err


def test_debians_stub_in_place_of_a_vmlinux_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub = b"ffffffffffffffff B The real System.map is in the linux-image-6.1.0-56-cloud-amd64-dbg package\n"
    assert main(["where", "-s", put(tmp_path / "map", stub), "one"]) == 2
    assert "apt install linux-image-6.1.0-56-cloud-amd64-dbg" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-s", "--kallsyms"])
def test_a_packed_listing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["where", option, put(tmp_path / "map.gz", gzip.compress(MAP * 90, mtime=0)), "one"]) == 2
    assert "packed with gzip: unpack it first (gunzip)" in capsys.readouterr().err


def test_the_end_of_the_kernel_is_no_place_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = MAP + b"ffffffff81000400 T startup_64\nffffffff81900000 B _end\n"
    assert main(["where", "--system-map", put(tmp_path / "map", kernel), "_end"]) == 0
    assert "outside the kernel" not in capsys.readouterr().out
    assert main(["where", "--system-map", str(tmp_path / "map"), "_end+1"]) == 0
    assert "outside the kernel as linked" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["-s", "--system-map"])
def test_a_system_map_without_its_end_is_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    path = put(tmp_path / "map", MAP + b"ffffffff81000400 T startup_64\n")
    assert main(["where", option, path, "one"]) == 0
    assert f"{path}: it has no _end: it seems to be truncated" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["-s", "--vmlinuz"])
def test_a_program_is_no_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["where", option, "/bin/ls", "one"]) == 2
    assert "a program or a library, not a kernel" in capsys.readouterr().err
    if option == "-s":
        packed = put(tmp_path / "vmlinux.gz", gzip.compress(Path("/bin/ls").read_bytes()))
        assert main(["where", option, packed, "one"]) == 2
        assert "a program or a library, not a kernel" in capsys.readouterr().err


def test_a_kallsyms_of_code_alone_says_so_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "kallsyms", MAP[:25] + b"ffffffff81000400 T startup_64\nffffffff81900000 T _end\n")
    assert main(["where", "--kallsyms", path, "init_task"]) == 1
    assert f"init_task: no such symbol or section ({path} has code only" in capsys.readouterr().err


def test_references_of_a_livepatch_module_are_no_symbols(tmp_path: Path) -> None:
    """It keeps all that its file had; an undefined one has the address of what it refers to. Weak ones are symbols."""
    module = b"ffffffffc0400000 t patched\t[lp]\nffffffffc0400040 w weak\t[lp]\n"
    references = b"ffffffff81000040 u printk\t[lp]\n0000000000000000 U nothing\t[lp]\n"
    only = b"ffffffff81000040 u printk\t[other]\n"
    listing = read_kallsyms(put(tmp_path / "kallsyms", MAP + module + references + only))
    assert list(listing.modules) == ["lp"]
    symbols = listing.modules["lp"]
    assert list(zip(symbols.addresses, symbols.letters)) == [
        (0xFFFFFFFFC0400000, ord("t")),
        (0xFFFFFFFFC0400040, ord("W")),
    ]
    assert [symbols.name(number) for number in range(len(symbols))] == ["patched", "weak"]
