"""The shell front end: exit statuses, options, standard input, colours.

0 answered; 1 answered, but an address or a line could not be resolved as asked; 2 usage, or an input that cannot be
read.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.bounded_kplug import BoundedKplug
from support.elf_builder import BASE_64, FUNC, LOCAL, Elf, Sym, small_vmlinux
from support.paths import ROOT

from kplug import __version__
from kplug.image.opening import sources
from kplug.live import machine as live_machine
from kplug.shell import cli

COMMANDS = ("where", "regs", "stack", "x", "sym", "regions", "sections", "segments", "kaslr", "kplug")
START_KERNEL = f"{BASE_64 + 0x10:#x}"


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cli") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    return str(path)


@pytest.fixture
def module(tmp_path: Path) -> str:
    elf = small_vmlinux(type=1, segments=[])
    for section in elf.sections:
        section.address = 0
    elf.symbols = [Sym("mod_open", 0x8, 0x20, ".text", FUNC, LOCAL), Sym("mod_data", 0, 8, ".data", 1)]
    path = tmp_path / "my-mod.ko"
    path.write_bytes(bytes(elf))
    return str(path)


def run(
    *words: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """A real process, for what only one shows: its streams, its exit."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **(environment or {})}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "kplug", *words]
    return subprocess.run(command, input=stdin, env=environment, timeout=60, check=False, **options)


# -- exit status -------------------------------------------------------------------------------------------------------


def test_files_as_other_debuggers_take_them_are_told_their_options(
    vmlinux: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([vmlinux, "vmcore"]) == 2
    assert capsys.readouterr().err == (
        f"kplug: no command {vmlinux!r} (files are given with -c VMCORE and -s VMLINUX)\n"
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["where", "-s", "VMLINUX", START_KERNEL], 0),
        (["where", "-s", "VMLINUX", "start_kernel", "0x0", "0xdead000000000100"], 0),  # a special value is an answer
        (["where", "-s", "VMLINUX", "nothing"], 1),
        (["where", "-s", "VMLINUX", "nothing", "start_kernel"], 1),
        (["where", "-s", "VMLINUX", "0x10000000000000000"], 1),
        (["sym", "-s", "VMLINUX", "start_kernel"], 0),
        (["sym", "-s", "VMLINUX", "start_*"], 0),
        (["sym", "-s", "VMLINUX", "-p", "start_"], 0),
        (["sym", "-s", "VMLINUX", START_KERNEL], 0),
        (["sym", "-s", "VMLINUX", "nothing"], 1),
        (["sym", "-s", "VMLINUX", "nothing*", "start_kernel"], 1),
        (["sym", "-s", "VMLINUX", "-p", "nothing"], 1),
        (["regions", "-s", "VMLINUX"], 0),
        (["sections", "-s", "VMLINUX"], 0),
        (["segments", "-s", "VMLINUX"], 0),
        (["kaslr", "-s", "VMLINUX"], 0),
        (["kplug", "-s", "VMLINUX"], 0),
        (["--version"], 0),
        (["--help"], 0),
        (["where", "-c", "/nonexistent", "--qemu", "/nonexistent", "0"], 2),
        (["where", "-c", "/nonexistent", "--kaslr", "0x1000", "0"], 2),
        (["where", "-c", "/nonexistent", "--module", "x.ko@0", "0"], 2),
        (["where", "-c", "/nonexistent", "0"], 2),
        (["nothing"], 2),
        (["where", "-s", "VMLINUX"], 2),
        (["where", "-s", "VMLINUX", "--nothing", "0"], 2),
        (["where", "-s"], 2),
        (["sections", "-s", "VMLINUX", "nix"], 1),
        (["segments", "-s", "VMLINUX", "0"], 2),
        (["where", "-s", "VMLINUX", "--color", "sometimes", "0"], 2),
        (["where", "-s", "/nonexistent", "0"], 2),
        (["where", "-s", "VMLINUX", "--lds", "/nonexistent", "0"], 2),
        (["where", "-s", "VMLINUX", "--map", "/nonexistent", "0"], 2),
        (["completion"], 2),
        (["completion", "csh"], 2),
    ],
)
def test_the_exit_status_says_how_it_went(kplug: BoundedKplug, vmlinux: str, words: list[str], status: int) -> None:
    answer = kplug.run(*[vmlinux if word == "VMLINUX" else word for word in words])
    assert answer.crash is None
    assert answer.status == status
    assert (answer.err == "") == (status == 0)
    assert answer.err.startswith("kplug") or status == 0
    if status == 2:
        assert answer.out == ""
        assert answer.err.count("\n") == 1


def test_what_cannot_be_resolved_keeps_no_other_from_its_answer(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "-b", "-s", vmlinux, "nothing", "start_kernel", "neither", "jiffies")
    assert [line.split()[1] for line in answer.out.splitlines()] == ["start_kernel+0x0", "jiffies+0x0"]
    assert [line.split(":")[1].strip() for line in answer.err.splitlines()] == ["nothing", "neither"]


def live_root(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the running kernel be what the files below `root` tell of one."""
    made = live_machine.Machine(str(root))
    monkeypatch.setattr(live_machine, "Machine", lambda: made)


def test_without_anything_the_error_says_how_to_give_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    live_root(monkeypatch, tmp_path)
    assert cli.main(["where", "0xffffffff81000000"]) == 2
    assert re.fullmatch(r"kplug: no vmlinux .*-s FILE.*kplug doctor.*\n", capsys.readouterr().err)


def test_without_s_the_running_kernels_vmlinux_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], vmlinux: str, tmp_path: Path
) -> None:
    for path, content in (
        ("proc/version", b"Linux version 6.1.0-test (a@b) #1\n"),
        ("usr/lib/debug/boot/vmlinux-6.1.0-test", Path(vmlinux).read_bytes()),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    live_root(monkeypatch, tmp_path)
    assert cli.main(["where", "-b", "start_kernel"]) == 0
    assert "start_kernel+0x0" in capsys.readouterr().out


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_each_command_has_help_with_examples(kplug: BoundedKplug, command: str, option: str) -> None:
    answer = kplug.run(command, option)
    assert (answer.status, answer.err, answer.crash) == (0, "", None)
    assert answer.out.startswith("usage: kplug " + command)
    assert "examples:" in answer.out
    assert "--json" in answer.out


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_the_help_names_every_command_and_the_exit_statuses(kplug: BoundedKplug, words: list[str]) -> None:
    answer = kplug.run(*words)
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", answer.out, re.M)
    assert "exit status" in answer.out


def test_commands_have_their_debugger_names_too(kplug: BoundedKplug, vmlinux: str) -> None:
    for command in ("kwhere", "ksym"):
        assert kplug.run(command, "-s", vmlinux, "start_kernel").status == 0
    for command in ("kregions", "ksections", "ksegments"):
        assert kplug.run(command, "-s", vmlinux).status == 0


def test_the_version_is_the_packages(kplug: BoundedKplug) -> None:
    assert kplug.run("--version").out == f"kplug {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_every_command(kplug: BoundedKplug, shell: str) -> None:
    answer = kplug.run("completion", shell)
    assert answer.status == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", answer.out)


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="no bash")
def test_the_completion_script_is_bash(kplug: BoundedKplug) -> None:
    script = kplug.run("completion", "bash").out
    ask = 'COMP_WORDS=(kplug se); COMP_CWORD=1; _kplug; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["/bin/bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sections", "segments"]
    assert done.stderr == ""


# -- standard input ----------------------------------------------------------------------------------------------------


def heads(out: str) -> list[str]:
    return [line.split()[1] for line in out.splitlines() if line.startswith("0x")]


def test_lines_of_standard_input_are_answered_in_their_order(kplug: BoundedKplug, vmlinux: str) -> None:
    words = ["start_kernel", "jiffies+1", "setup", "start_kernel+4", "buffer"] * 20
    answer = kplug.run("where", "-b", "-s", vmlinux, "-", stdin="\n".join(words).encode())
    assert answer.status == 0
    assert heads(answer.out) == ["start_kernel+0x0", "jiffies+0x1", "setup+0x0", "start_kernel+0x4", "buffer+0x0"] * 20


def test_a_dash_stands_among_other_words(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "-b", "-s", vmlinux, "jiffies", "-", "setup", stdin=b"buffer\nlabel\n")
    assert heads(answer.out) == ["jiffies+0x0", "buffer+0x0", "label+0x0", "setup+0x0"]


@pytest.mark.parametrize("stdin", [b"", b"\n", b"\n \n\t\n\r\n"])
def test_empty_standard_input_is_no_question_and_no_error(kplug: BoundedKplug, vmlinux: str, stdin: bytes) -> None:
    answer = kplug.run("where", "-s", vmlinux, "-", stdin=stdin)
    assert (answer.status, answer.out, answer.err) == (0, "", "")


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"\x00",
        b"start\x00kernel",
        "café".encode("latin-1"),
        "字".encode(),
        b"\x1b[31mred",
        b"a" * 100_000,
        b"a" + b" " * 100_000 + b"b",
        b"9" * 100_000,
        b"start_kernel+" + b"9" * 100_000,
        b"-",
        b"--help",
        b"-s",
        b"%s%n",
        b"Call Trace:",
        b"[   12.345678] BUG: unable to handle page fault for address: ffffffffc0401234",
    ],
)
def test_a_broken_line_is_said_on_standard_error_and_the_others_answered(
    kplug: BoundedKplug, vmlinux: str, line: bytes
) -> None:
    answer = kplug.run("where", "-b", "-s", vmlinux, "-", stdin=b"jiffies\n" + line + b"\nsetup\n")
    assert answer.crash is None
    assert answer.status == 1
    assert heads(answer.out) == ["jiffies+0x0", "setup+0x0"]
    assert answer.err.count("\n") == 1
    assert len(answer.err) < 400
    assert answer.err.rstrip("\n").isprintable()


def test_lines_may_end_as_on_windows_and_the_last_need_not_end(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "-b", "-s", vmlinux, "-", stdin=b"jiffies\r\n  setup  \r\nbuffer")
    assert (answer.status, heads(answer.out)) == (0, ["jiffies+0x0", "setup+0x0", "buffer+0x0"])


def test_each_line_of_json_answers_one_address(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "--json", "-s", vmlinux, "-", stdin=b"jiffies\nffffffff81000014\nstart_kernel+0x4\n")
    answers = [json.loads(line) for line in answer.out.splitlines()]
    assert [each["input"] for each in answers] == ["jiffies", "ffffffff81000014", "start_kernel+0x4"]
    assert [each["address"] for each in answers] == ["0xffffffff81002000", "0xffffffff81000014", "0xffffffff81000014"]


def test_a_name_that_several_have_is_answered_for_each(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "--json", "-s", vmlinux, "twin")
    files = [json.loads(line)["layers"][-1]["details"]["file"] for line in answer.out.splitlines()]
    assert sorted(files) == ["a.c", "b.c"]


# -- tables ------------------------------------------------------------------------------------------------------------

ROW_KEYS = {
    "sym": "address link_address size type binding name image section file part_of",
    "regions": "kind name depth class start end size link_start start_symbol end_symbol bounds freed_after_boot "
    "read_only_after_init after_boot source",
    "sections": "index name type start end size flags segments link_start offset entry_size link info alignment image",
    "segments": "index type start end size file_size flags offset link_start physical alignment sections image",
}


@pytest.mark.parametrize("command", ROW_KEYS)
def test_rows_have_the_keys_that_scripts_rely_on(kplug: BoundedKplug, vmlinux: str, command: str) -> None:
    """docs/json.md, "Tables"."""
    answer = kplug.run(command, "--json", "-s", vmlinux, *(["*"] if command == "sym" else []))
    assert answer.status == 0
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert rows
    for row in rows:
        assert row["schema"] == f"kplug.{command}/1"
        assert set(ROW_KEYS[command].split()) <= set(row)
        for key in ("address", "link_address", "start", "end", "link_start", "offset", "physical"):
            assert row.get(key) is None or re.fullmatch(r"0x[0-9a-f]+", row[key])
        for key in ("size", "index", "depth", "alignment"):
            assert row.get(key) is None or type(row[key]) is int


def test_sections_are_as_they_were_made(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("sections", "--json", "-s", vmlinux, "--kaslr", "0x8a00000")
    rows = {row["name"]: row for row in map(json.loads, answer.out.splitlines())}
    text, bss = rows[".text"], rows[".bss"]
    assert (text["start"], text["end"], text["link_start"]) == (
        hex(BASE_64 + 0x8A00000), hex(BASE_64 + 0x8A00200), hex(BASE_64),
    )  # fmt: skip
    assert (text["type"], text["flags"], text["size"], text["alignment"]) == ("PROGBITS", "AX", 0x200, 16)
    assert (bss["type"], bss["flags"], bss["size"]) == ("NOBITS", "WA", 0x100)
    assert (rows[".symtab"]["start"], rows[".symtab"]["end"]) == (None, None)


def test_segments_hold_the_sections_they_were_made_to_cover(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("segments", "--json", "-s", vmlinux)
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [(row["type"], row["flags"], row["sections"]) for row in rows] == [
        ("LOAD", "R E", [".text", ".rodata", ".notes"]),
        ("LOAD", "RW", [".data", ".bss"]),
        ("LOAD", "RWE", [".init.text"]),
        ("NOTE", "R", [".notes"]),
    ]


def test_every_byte_of_the_image_is_in_a_region_or_a_gap(kplug: BoundedKplug, vmlinux: str) -> None:
    """Every byte of [_text, _end) gets an answer."""
    rows = [json.loads(line) for line in kplug.run("regions", "--json", "-s", vmlinux).out.splitlines()]
    covered = BASE_64
    for row in rows[1:]:
        start, end = int(row["start"], 16), int(row["end"], 16)
        assert start <= covered
        covered = max(covered, end)
    assert covered == BASE_64 + 0x4000
    assert rows[0]["name"] == "image"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["start_kernel"], {"start_kernel"}),
        (["__*_rodata"], {"__start_rodata", "__end_rodata"}),
        (["-p", "_s"], {"_stext", "_sdata", "_sinittext"}),
        ([START_KERNEL], {"start_kernel"}),
        (["start_kernel+0x5"], {"start_kernel"}),
        (["twin"], {"twin"}),
        (["setup", "jiffies"], {"setup", "jiffies"}),
    ],
)
def test_symbols_are_found_by_name_pattern_prefix_and_address(
    kplug: BoundedKplug, vmlinux: str, words: list[str], names: set[str]
) -> None:
    answer = kplug.run("sym", "--json", "-s", vmlinux, *words)
    assert {json.loads(line)["name"] for line in answer.out.splitlines()} == names


# -- slides ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kaslr", "slide"),
    [
        ("none", 0),
        ("0", 0),
        ("0x0", 0),
        ("0x8a00000", 0x8A00000),
        ("8a00000", 0x8A00000),  # as KERNELOFFSET= in a vmcoreinfo
        ("0X8A00000", 0x8A00000),
        ("+0x200000", 0x200000),
        ("-0x200000", -0x200000),
    ],
)
def test_the_slide_may_be_given(kplug: BoundedKplug, vmlinux: str, kaslr: str, slide: int) -> None:
    answer = kplug.run("where", "--json", "-s", vmlinux, f"--kaslr={kaslr}", "start_kernel")
    assert answer.status == 0
    given = json.loads(answer.out)
    assert given["address"] == hex(BASE_64 + 0x10 + slide)
    assert given["link_address"] == hex(BASE_64 + 0x10)


@pytest.mark.parametrize("kaslr", ["", "x", "0x", "1.5", "--0x200000", "0x200000 ", "0x1" + "0" * 16, "yes", "\n"])
def test_a_slide_that_is_none_is_refused(kplug: BoundedKplug, vmlinux: str, kaslr: str) -> None:
    answer = kplug.run("where", "-s", vmlinux, f"--kaslr={kaslr}", "start_kernel")
    assert (answer.status, answer.out, answer.crash) == (2, "", None)
    assert "--kaslr" in answer.err


def test_a_link_address_given_for_a_moved_kernel_gets_a_hint(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "--json", "-s", vmlinux, "--kaslr", "0x8a00000", START_KERNEL)
    (warning,) = json.loads(answer.out)["warnings"]
    assert hex(BASE_64 + 0x8A00010) in warning


# -- modules -----------------------------------------------------------------------------------------------------------


def test_a_module_is_answered_where_it_was_placed(kplug: BoundedKplug, vmlinux: str, module: str) -> None:
    words = ("--module", f"{module}@0xffffffffc0400000", "0xffffffffc040000c")
    answer = kplug.run("where", "--json", "-s", vmlinux, *words)
    assert answer.status == 0
    given = json.loads(answer.out)
    layers = {layer["kind"]: layer for layer in given["layers"]}
    assert layers["module"]["name"] == "my_mod"
    assert layers["section"]["name"] == ".text"
    assert (layers["symbol"]["name"], layers["symbol"]["offset"]) == ("mod_open", "0x4")
    assert given["link_address"] is None


@pytest.mark.parametrize("at", ["0xffffffffc0400000", "ffffffffc0400000", ".text=0xffffffffc0400000"])
def test_a_modules_address_has_these_forms(kplug: BoundedKplug, module: str, at: str) -> None:
    answer = kplug.run("where", "-b", "--module", f"{module}@{at}", "mod_open+1")
    assert (answer.status, answer.out.split()[:2]) == (0, ["0xffffffffc0400009", "mod_open+0x1"])


def test_a_modules_data_has_its_own_address(kplug: BoundedKplug, module: str) -> None:
    specification = f"{module}@0xffffffffc0400000,.data=0xffffffffc0402000"
    answer = kplug.run("where", "-b", "--module", specification, "0xffffffffc0402004", "mod_data")
    assert [line.split()[1] for line in answer.out.splitlines()] == ["mod_data+0x4", "mod_data+0x0"]


def test_of_a_modules_section_without_an_address_nothing_is_claimed(kplug: BoundedKplug, module: str) -> None:
    answer = kplug.run("where", "--module", f"{module}@0xffffffffc0400000", "mod_data")
    assert answer.status == 1
    assert ".data" in answer.err
    assert "mod_data" not in kplug.run("where", "--json", "--module", f"{module}@0xffffffffc0400000", "0", "0x4").out


@pytest.mark.parametrize(
    "at",
    [
        "", "@", "@x", "@-1000", "@1_0", "@0x", "@0x1ffffffffffffffff", "@.data", "@.data=", "@.data=zz", "@=0x10",
        "@0x10,", "@,0x10", "@.nothing=0x10", "@.symtab=0x10", "@0xffffffffffffff00", "@ 0x10", "@0x10 ",
    ],
)  # fmt: skip
def test_a_module_without_a_place_is_refused(kplug: BoundedKplug, module: str, at: str) -> None:
    answer = kplug.run("where", "--module", f"{module}{at}", "0x10")
    assert (answer.status, answer.out, answer.crash) == (2, "", None)
    assert answer.err.count("\n") == 1
    assert "--module" in answer.err


@pytest.mark.parametrize("number", [0xFF00, 0xFFF2, 0xFFFF, 200])
def test_a_symbol_of_a_module_may_claim_a_section_that_is_not_there(
    kplug: BoundedKplug, tmp_path: Path, number: int
) -> None:
    elf = small_vmlinux(type=1, segments=[], symbols=[Sym("lost", 0, 4, number, FUNC)])
    path = tmp_path / "m.ko"
    path.write_bytes(bytes(elf))
    answer = kplug.run("where", "--module", f"{path}@0xffffffffc0400000", "lost")
    assert (answer.status, answer.out, answer.crash) == (1, "", None)
    assert "lost" in answer.err


def test_a_vmlinux_is_no_module(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "--module", f"{vmlinux}@0xffffffffc0000000", "0")
    assert answer.status == 2
    assert "not a module" in answer.err


def test_the_text_sections_of_a_module_follow_each_other_as_the_loader_lays_them(
    kplug: BoundedKplug, tmp_path: Path
) -> None:
    """kernel/module/main.c, layout_sections(): .text of 0x200 bytes at 16, then a section of alignment 0x100."""
    elf = small_vmlinux(type=1, segments=[])
    for section in elf.sections:
        section.address = 0
    elf.sections[1].flags |= 4  # .rodata is executable here, and lies between
    elf.sections[1].align = 0x100
    elf.sections[1].name = ".text.unlikely"
    elf.symbols = [
        Sym("hot", 0, 4, ".text", FUNC),
        Sym("cold", 8, 4, ".text.unlikely", FUNC),
        Sym("init", 0, 4, ".init.text"),
    ]
    elf.sections[0].data = b"\x90" * 0x210
    path = tmp_path / "m.ko"
    path.write_bytes(bytes(elf))
    answer = kplug.run("where", "-b", "--module", f"{path}@0xffffffffc0000000", "hot", "cold")
    assert [line.split()[0] for line in answer.out.splitlines()] == ["0xffffffffc0000000", "0xffffffffc0000308"]
    assert kplug.run("where", "--module", f"{path}@0xffffffffc0000000", "init").status == 1


# -- colours and streams -----------------------------------------------------------------------------------------------


def on_a_terminal(*words: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    mine, its = pty.openpty()
    settings = {"TERM": "xterm", "NO_COLOR": "", **environment}
    done = run(*words, stdout=its, environment=settings)
    os.close(its)
    out = b""
    try:
        while data := os.read(mine, 65536):
            out += data
    except OSError:
        pass
    finally:
        os.close(mine)
    assert done.returncode == 0
    return out.decode()


def test_text_is_coloured_on_a_terminal_only(vmlinux: str) -> None:
    words = ("where", "-s", vmlinux, "start_kernel")
    assert "\x1b[" in on_a_terminal(*words)
    assert b"\x1b[" not in run(*words).stdout


@pytest.mark.parametrize(
    ("environment", "options"),
    [({"NO_COLOR": "1"}, []), ({"TERM": "dumb"}, []), ({}, ["--color", "never"]), ({}, ["--json"])],
)
def test_a_terminal_without_colours(vmlinux: str, environment: dict[str, str], options: list[str]) -> None:
    """no-color.org: NO_COLOR, when present and not an empty string, prevents colour."""
    assert "\x1b[" not in on_a_terminal("where", "-s", vmlinux, "start_kernel", *options, **environment)


def test_colours_may_be_asked_for(kplug: BoundedKplug, vmlinux: str) -> None:
    coloured = kplug.run("where", "-s", vmlinux, "--color", "always", "start_kernel").out
    plain = kplug.run("where", "-s", vmlinux, "start_kernel").out
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_a_reader_that_goes_away_is_no_error(vmlinux: str) -> None:
    """`kplug where - | head -1`: nothing on standard error, whatever was still to come."""
    reading, writing = os.pipe()
    os.close(reading)
    done = run("where", "-s", vmlinux, "-", stdin=b"start_kernel\n" * 20_000, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line_and_status_2(vmlinux: str) -> None:
    with open("/dev/full", "wb") as full:
        done = run("where", "-s", vmlinux, "start_kernel", stdout=full)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


@pytest.mark.parametrize(("closed", "status"), [("<&-", 0), (">&-", 2), ("2>&-", 0)])
def test_closed_streams_are_no_traceback(vmlinux: str, closed: str, status: int) -> None:
    command = f'"{sys.executable}" -m kplug where -s "{vmlinux}" start_kernel - {closed}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["/bin/sh", "-c", command], input=b"", capture_output=True, env=environment, check=False)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_names_that_the_streams_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "kern字"
    path.write_bytes(bytes(small_vmlinux()))
    done = run("where", "-s", str(path), "start_kernel", environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"kern\\u5b57" in done.stdout


def test_an_interrupt_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], vmlinux: str
) -> None:
    class Interrupted:
        def readline(self, size: int) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert cli.main(["where", "-s", vmlinux, "-"]) == 130  # 128 + SIGINT
    assert "Traceback" not in capsys.readouterr().err


def test_memory_that_runs_out_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], vmlinux: str
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sources, "open_kernel", fail)
    assert cli.main(["where", "-s", vmlinux, "0"]) == 2
    assert capsys.readouterr().err == "kplug: out of memory\n"


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    """`main` turns the collector off for its short life; these tests live on."""
    import gc

    yield
    gc.enable()


def test_the_gdb_script_is_there(kplug: BoundedKplug) -> None:
    answer = kplug.run("gdb-script")
    assert answer.status == 0
    assert os.path.isfile(answer.out.rstrip("\n"))


def test_a_vmlinux_of_each_kind_is_answered(kplug: BoundedKplug, tmp_path: Path) -> None:
    for bits, little, machine in ((64, True, 62), (64, False, 21), (32, True, 3), (32, False, 20)):
        path = tmp_path / f"{bits}{little}"
        path.write_bytes(bytes(Elf(**vars(small_vmlinux(bits, little, machine)))))
        answer = kplug.run("where", "-b", "-s", str(path), "start_kernel+4")
        assert (answer.status, answer.out.split()[1:]) == (0, ["start_kernel+0x4", ".text", "[text]"])


def test_an_interrupt_while_it_starts_is_no_traceback() -> None:
    starting = """
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "kplug.resolver":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from kplug.__main__ import main
sys.exit(main())
"""
    run = subprocess.run([sys.executable, "-c", starting], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
