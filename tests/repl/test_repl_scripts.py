"""Commands from -e and from standard input, their exit status, and what `kplug` alone opens."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT
from support.terminal import KPLUG, environment_of

pytestmark = pytest.mark.kernel

Kplug = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("commands", "status"),
    [
        (["kwhere schedule"], 0),
        (["1 + 1", "kwhere schedule"], 0),
        (["help kwhere"], 0),
        (["kwhere no_such_symbol"], 1),
        (["kwhere no_such_symbol", "kwhere schedule"], 1),
        (["1 / 0"], 1),
        (["!exit 3"], 1),
        (["kwhere --nonsense"], 2),
        (["kwhere --nonsense", "kwhere no_such_symbol"], 2),
        (["x = = 1"], 2),
        (["kwhere schedule > no/such/folder"], 2),
        (["quit", "kwhere no_such_symbol"], 0),
        (["import sys; sys.exit(7)"], 7),
    ],
)
def test_the_exit_status_says_how_it_went(kplug: Kplug, commands: list[str], status: int) -> None:
    done = kplug(*(word for command in commands for word in ("-e", command)))
    assert done.returncode == status
    assert (done.stderr == "") == (status in (0, 7) or commands == ["!exit 3"])
    for line in done.stderr.splitlines():
        assert line.startswith("kplug: ")


def test_commands_are_run_in_their_order(kplug: Kplug) -> None:
    done = kplug(
        "-e", "x = 40", "-e", "x + 2", "-e", "_ + 1", "-e", "kwhere -b schedule", "-e", "!echo shell", "-e", "x"
    )
    assert re.fullmatch(r"42\n43\n0x\w{16}  schedule\+0x0 .*\nshell\n40\n", done.stdout)


def test_a_script_is_run_without_any_prompt(kplug: Kplug) -> None:
    script = """\
# a comment
kwhere -b schedule
for n in range(2):
    print("n is", n)

    if n:
        print("more")
else:
    print("done")
def twice(x):
    return 2 * x
twice(21)
kwhere --json -b prog["init_task"].stack
names = ["a",
         "b"]
names
text = '''two
lines'''
text
"""
    done = kplug(stdin=script)
    assert done.returncode == 0
    assert done.stderr == ""
    brief, *rest = done.stdout.splitlines()
    assert "schedule+0x0" in brief
    answer = json.loads(rest.pop(5))
    assert rest == ["n is 0", "n is 1", "more", "done", "42", "['a', 'b']", r"'two\nlines'"]
    assert answer["schema"] == "kplug.where/1"


def test_errors_in_a_script_say_their_line(kplug: Kplug) -> None:
    script = (
        "kwhere -b schedule\n\nkwhere nothing_of_that_name\nfor n in range(2):\n    1 / n\nkwhere --nonsense\n1 + 1\n"
    )
    done = kplug(stdin=script)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "2"  # the others are answered
    first, second, third = done.stderr.splitlines()
    assert re.match(r"kplug: line 3: .*nothing_of_that_name", first)
    assert second == "kplug: line 4: ZeroDivisionError: division by zero"
    assert third.startswith("kplug: line 6: kwhere: unrecognized arguments: --nonsense")


def test_output_that_nobody_reads_any_more_ends_it_quietly(kplug: Kplug) -> None:
    done = kplug("-e", "ksym -p '' | head -1", "-e", "1 + 1")
    assert done.stdout.splitlines()[0].startswith("ADDRESS")
    assert done.stdout.splitlines()[-1] == "2"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("last", ["kmap -v", "for n in range(100000): print(n)"])
def test_where_nobody_reads_standard_output_the_rest_is_not_run(folder: Path, last: str) -> None:
    words = ["-c", "vmcore", "-s", "vmlinux", "-e", last, "-e", "!touch ran"]
    with subprocess.Popen(
        [*KPLUG, *words], cwd=folder, env=environment_of(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
    assert not (folder / "ran").exists()


def test_a_full_disk_is_said_in_one_line(kplug: Kplug, folder: Path) -> None:
    assert kplug("-e", "kmap > /dev/full").stderr == "kplug: /dev/full: No space left on device\n"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*KPLUG, "-c", "vmcore", "-s", "vmlinux", "-e", "kmap"], cwd=folder, env=environment_of(folder),
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=600, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "kplug: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("kwher schedule", "kwher: no such command (did you mean kwhere?)"),
        ("x $sp 4", "x: no such command (did you mean kx?)"),
        ("x/4gx $sp", "x: no such command (did you mean kx?)"),
        ("rd 0 4", "rd: no such command (did you mean kx?)"),
        ("mod", "mod: no such command or Python name (did you mean kmod?)"),
        ("nothing like it", "SyntaxError: invalid syntax: nothing like it"),
        ("nothing $sp", "SyntaxError: invalid syntax: nothing $sp"),
        ("nothing", "NameError: name 'nothing' is not defined"),
    ],
)
def test_words_of_other_debuggers_are_told_by_their_names_here(kplug: Kplug, line: str, said: str) -> None:
    assert kplug("-e", line).stderr == f"kplug: {said}\n"


def test_scripts_need_no_prompt_toolkit(kplug: Kplug, folder: Path) -> None:
    (folder / "prompt_toolkit.py").write_text("raise ModuleNotFoundError('no', name='prompt_toolkit')\n")
    done = kplug("-e", "kwhere -b schedule", PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stderr) == (0, "")


def test_names_from_memory_cannot_reach_the_terminal(kplug: Kplug) -> None:
    done = kplug("-e", "kwhere '\x1b[31mred'", "-e", "bt '\x1b]0;title\x07'")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr + done.stdout
    assert "\\x1b[31mred" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "no_such_file"], "no_such_file"),
        (["-c", "vmcore", "--qemu", "socket"], "only one kernel"),
        (["-c", "vmcore", "one_word_more"], "unrecognized arguments"),
        (["--qemu", "no_such_socket"], "no_such_socket"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_what_cannot_be_opened_is_one_line(folder: Path, words: list[str], message: str) -> None:
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "kplug", *words], cwd=folder, input="", capture_output=True, text=True, timeout=600,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
