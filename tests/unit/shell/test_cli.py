"""The shell front end: exit statuses, options, standard input, help.

0 answered; 1 answered, but an address or a line could not be resolved as asked; 2 usage, or an input that cannot be
read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support.bounded_kplug import BoundedKplug
from support.elf_builder import BASE_64

from kplug import __version__
from kplug.live import machine as live_machine
from kplug.shell import cli

COMMANDS = ("where", "regs", "stack", "x", "sym", "regions", "sections", "segments", "kaslr", "kplug")
START_KERNEL = f"{BASE_64 + 0x10:#x}"

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


@pytest.mark.parametrize(
    "words",
    [
        ["-s", "VMLINUX", "-b", "start_kernel", "jiffies"],
        ["-s", "VMLINUX", "start_kernel", "-b", "jiffies"],
        ["start_kernel", "--brief", "jiffies", "-s", "VMLINUX"],
        ["start_kernel", "-bs", "VMLINUX", "jiffies"],
        ["start_kernel", "--kaslr", "none", "jiffies", "--vmlinux=VMLINUX", "-b"],
        ["-b", "start_kernel", "-s", "VMLINUX", "--", "jiffies"],
    ],
)
def test_options_may_stand_between_the_words(kplug: BoundedKplug, vmlinux: str, words: list[str]) -> None:
    answer = kplug.run("where", *[word.replace("VMLINUX", vmlinux) for word in words])
    assert answer.err == ""
    assert [line.split()[1] for line in answer.out.splitlines()] == ["start_kernel+0x0", "jiffies+0x0"]


def test_what_is_wrong_between_the_words_is_said(kplug: BoundedKplug, vmlinux: str) -> None:
    for words, wrong in (
        (["start_kernel", "--nothing", "jiffies"], "unrecognized arguments: --nothing"),
        (["start_kernel", "-s", vmlinux, "jiffies"], "-s: given twice"),
        (["start_kernel", "--color", "pink", "jiffies"], "'pink'"),
    ):
        answer = kplug.run("where", "-s", vmlinux, *words)
        assert (answer.status, answer.out) == (2, "")
        assert wrong in answer.err


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


def test_the_gdb_script_is_there(kplug: BoundedKplug) -> None:
    answer = kplug.run("gdb-script")
    assert answer.status == 0
    assert os.path.isfile(answer.out.rstrip("\n"))
