"""The prompt, driven through a terminal as a person would. What is to be seen is docs/prompt.md's."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT
from support.terminal import (
    CTRL_C,
    CTRL_D,
    CTRL_R,
    CTRL_Z,
    ENTER,
    KPLUG,
    PLAIN_PROMPT,
    PROMPT,
    TAB,
    UP,
    Terminal,
    terminal,
)

from kplug.commands import COMMANDS

pytestmark = pytest.mark.kernel

Prompt = Callable[..., Terminal]


# -- answers -----------------------------------------------------------------------------------------------------------


def test_k_commands_and_python_work_beside_each_other(prompt: Prompt) -> None:
    person = prompt()
    assert "[text > sched.text]" in person.enters("kwhere -b schedule", r"schedule\+0x0.*")
    assert "init_thread_union" in person.enters("kwhere prog['init_task'].stack", r"symbol +init_.*")
    person.enters("task = prog['init_task'].address_of_()", "")
    assert "init_task+0x0" in person.enters("kwhere -b task", r"0x\w{16}  \S+")
    person.enters("task.comm", r'^\(char \[16\]\)"swapper/0"')
    person.enters("1 + 1", r"^2$")
    person.enters("_ * 21", r"^42$")


def test_a_name_of_a_command_can_still_be_a_variable(prompt: Prompt) -> None:
    person = prompt()
    person.enters("kx = 42", "")
    person.enters("kx", r"^42$")
    person.enters("kx + 1", r"^43$")


def test_an_error_is_one_line_and_the_prompt_is_there_again(prompt: Prompt) -> None:
    person = prompt()
    person.enters("kwhere no_such_symbol", r"^no_such_symbol: .*no such symbol.*$")
    person.enters("kwhere --nonsense", r"^kwhere: unrecognized arguments: --nonsense.*$")
    person.enters("kwher schedule", r"^kwher: no such command \(did you mean kwhere\?\)$")
    person.enters("frame 1000", r"^there is no frame 1000.*$")
    person.enters("1 / 0", r"^ZeroDivisionError: division by zero$")
    person.enters("prog['no_such_variable']", r"^\S*ObjectNotFoundError: .*no_such_variable.*$")
    assert "Traceback" not in person.shown
    assert "internal error" not in person.shown


def test_python_of_many_lines_and_where_in_it_an_error_is(prompt: Prompt) -> None:
    person = prompt()
    person.type("def ratio(number):" + ENTER)
    person.sees(r"   \.\.\.")
    person.type("return 1 / number" + ENTER)  # indented by the prompt
    person.type(ENTER)
    person.is_asked()
    person.enters("ratio(4)", r"^0\.25$")
    error = person.enters("ratio(0)", r"^ZeroDivisionError: division by zero$")
    assert re.search(r"line 2, in ratio\n\s+return 1 / number", error)
    assert "kplug/" not in error  # no code but the user's own


# -- registers and frames ----------------------------------------------------------------------------------------------


def test_frames_are_selected_and_registers_are_theirs(prompt: Prompt) -> None:
    person = prompt(columns=200)
    trace = person.enters("bt", r"^PID \d+ \(.*\) on CPU 0$")
    numbers = re.findall(r"^ *(\d+)  (0x\w{16})", trace, re.MULTILINE)
    assert [int(number) for number, _ in numbers] == list(range(len(numbers)))
    number, pc = next(row for row in numbers if row[1] != numbers[0][1])
    person.enters("$rip", rf"^{numbers[0][1]}$")
    person.enters(f"frame {number}", rf"{pc}  \S+")
    person.enters("$rip", rf"^{pc}$")
    person.enters("kwhere -b", rf"^{pc}  \S+\+0x")
    person.enters("up", rf"^ *{int(number) + 1}  0x")
    person.enters("down", rf"^ *{number}  0x")
    person.enters("down 99", r"^ *0  0x")
    person.enters("down", r"^this is the innermost frame$")
    person.enters("$rip + 1", rf"^{int(numbers[0][1], 16) + 1:#x}$")


def test_threads_are_selected_by_pid_and_by_cpu(prompt: Prompt) -> None:
    person = prompt(columns=200)
    person.enters("thread", r"^\* +0 +\d+ +\S+")  # whatever CPU 0 was at
    person.enters("thread 1", r"^PID 1 \(init\)")
    person.sees(r"PID 1 init")  # in the toolbar
    person.enters("bt 2", r"^PID 2 \(kthreadd\)")
    person.enters("thread", r"^\* +1 +init")  # bt has selected nothing
    person.enters("cpu 1", r"CPU 1")
    person.enters("cpu 99", r"^there is no CPU 99; there are 0, 1$")
    person.enters("thread 4000000", r"^no task has the ID 4000000$")


def test_the_toolbar_says_what_is_looked_at(prompt: Prompt) -> None:
    person = prompt(columns=200)
    assert re.search(r"vmcore vmcore  6\.1\.0-\S+  KASLR \+0x[0-9a-f]+", person.shown)
    person.sees(r"CPU 0  PID \d+ \S+  #0 \w+")  # what must be read comes later
    person.type("thread 2" + ENTER)
    person.sees(r"PID 2 kthreadd  #0 \w+")
    person.type("frame 1" + ENTER)
    person.sees(r"PID 2 kthreadd  #1 \w+")


# -- completion --------------------------------------------------------------------------------------------------------


_COMPLETED = {
    "kwh": "kwhere",
    "kwhere --br": "kwhere --brief",
    "kwhere sched_clock_c": "kwhere sched_clock_cpu",
    "kwhere &sched_clock_c": "kwhere &sched_clock_cpu",
    "help ksec": "help ksections",
    "set pag": "set pager",
    "prog['init_task'].stack_can": "prog['init_task'].stack_canary",
    "x = prog['sched_clock_c": "x = prog['sched_clock_cpu']",
    "for_each_online_c": "for_each_online_cpu",
    "kwhere $ri": "kwhere $rip",
    "kregions > vmc": "kregions > vmcore",
}


def test_tab_completes_what_is_certain(prompt: Prompt) -> None:
    person = prompt()
    for typed, becomes in _COMPLETED.items():
        person.type(typed + TAB + CTRL_C)  # on Ctrl-C the line is written once more, as it is
        person.sees(re.escape(becomes) + r"\s")
        person.is_asked()


def test_tab_offers_symbols_that_are_only_like_what_was_typed(prompt: Prompt) -> None:
    person = prompt()
    person.type("kwhere scdclkcpu" + TAB)
    person.sees(r"sched_clock_cpu")
    person.type(CTRL_C + "kwhere runqueues@" + TAB)
    person.sees(r"\b0 *\n *1 *$")


def test_every_command_is_offered_and_has_help(prompt: Prompt) -> None:
    person = prompt(rows=100)
    overview = person.enters("help", r"Ctrl-D leaves the prompt")
    for command in COMMANDS.values():
        assert re.search(rf"^  {command.host_name} +{re.escape(command.summary)}$", overview, re.MULTILINE)
    person.enters("help kwhere", r"(?s)usage: kwhere .*prog\['init_task'\]|usage: kwhere (?s:.)*Python")
    person.enters("ksym --help", r"usage: ksym ")
    person.enters("?", r"kwhere +what is this address")
    person.enters("help nonsense", r"^help: no command nonsense.*$")


# -- Ctrl-C and leaving ------------------------------------------------------------------------------------------------


def test_ctrl_c_gives_the_prompt_back(prompt: Prompt) -> None:
    person = prompt()
    person.type("half a line")
    person.sees("half a line")
    person.type(CTRL_C)
    person.is_asked()
    person.type('exec(\'print("run" + "ning")\\nwhile True: pass\')' + ENTER)
    person.sees(r"^running$")
    person.type(CTRL_C)
    person.is_asked()
    person.type('exec(\'print("read" + "ing")\\nwhile True: prog.read(prog["init_task"].address_, 8)\')' + ENTER)
    person.sees(r"^reading$")
    person.type(CTRL_C)
    person.is_asked()
    person.type("ksym -p '' | (sleep 1; echo star''ted; cat >/dev/null; sleep 60)" + ENTER)
    person.sees(r"^started$")
    person.type(CTRL_C)
    person.is_asked()
    person.enters("1 + 1", r"^2$")
    assert "Traceback" not in person.shown


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="no bash")
def test_ctrl_z_stops_and_the_session_goes_on(folder: Path) -> None:
    with terminal(folder=folder, program=("/bin/bash", "--norc", "--noprofile", "-i")) as person:
        person.type(" ".join((*KPLUG, "-c", "vmcore", "-s", "vmlinux")) + ENTER)
        person.is_asked()
        person.type(CTRL_Z)
        person.sees(r"Stopped")
        person.type("fg" + ENTER)
        person.enters("1 + 1", r"^2$")


@pytest.mark.parametrize("leave", [CTRL_D, "quit" + ENTER, "exit" + ENTER, "q" + ENTER, "quit()" + ENTER])
def test_leaving(prompt: Prompt, leave: str) -> None:
    person = prompt()
    person.type(leave)
    assert person.ends() == 0


# -- history -----------------------------------------------------------------------------------------------------------


def test_the_history_is_kept_for_the_next_session_and_for_its_owner(prompt: Prompt, folder: Path) -> None:
    first = prompt()
    first.enters("kwhere -b schedule", r"sched\.text")
    first.type("if True:" + ENTER + "print('many lines')" + ENTER + ENTER)
    first.sees(r"^many lines$")
    first.is_asked()
    first.type(CTRL_D)
    assert first.ends() == 0
    file = folder / "state" / "kplug" / "history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    second = prompt()
    second.type(UP)
    second.sees(r"print\('many lines'\)")
    second.type(CTRL_C)
    second.is_asked()
    second.type(CTRL_R + "sched")
    second.sees(r"kwhere -b schedule")
    second.type(ENTER + ENTER)
    second.sees(r"sched\.text")


def test_a_history_that_cannot_be_kept_is_no_matter(prompt: Prompt, folder: Path) -> None:
    (folder / "state").write_text("no folder")
    person = prompt()
    person.enters("1 + 1", r"^2$")
    person.type(CTRL_D)
    assert person.ends() == 0
    assert "rror" not in person.shown


# -- output ------------------------------------------------------------------------------------------------------------


def test_output_goes_to_the_shell_or_a_file(prompt: Prompt, folder: Path) -> None:
    person = prompt()
    answer = person.enters("kwhere schedule | grep -c sched.text", r"^\d$")
    assert re.search(r"^[2-9]$", answer, re.MULTILINE)
    person.enters("kwhere -b schedule > out; echo", r"one file is needed after >")
    person.enters("kwhere -b schedule > out", "")
    person.enters("kwhere -b schedule >> out", "")
    assert (folder / "out").read_text().count("schedule+0x0") == 2
    assert "\x1b" not in (folder / "out").read_text()
    person.enters("!echo to the $((1 + 1))", r"^to the 2$")


def test_long_output_is_paged_and_short_is_not(prompt: Prompt) -> None:
    pager = "sed 's/^/paged: /'"
    person = prompt(environment={"PAGER": pager})
    assert "paged" not in person.enters("kwhere -b schedule", r"sched\.text")
    person.enters("ksym -p sched_", r"^paged: ADDRESS")
    person.enters("set pager off", "")
    person.enters("ksym -p sched_", r"^ADDRESS")


def test_ctrl_c_in_the_pager(prompt: Prompt) -> None:
    person = prompt(environment={"PAGER": "less"}, rows=20)
    person.type("ksym -p a" + ENTER)
    person.sees(r"^:")
    person.type(CTRL_C)
    for _ in range(5):  # less may take the first key as the end of its own interruption
        person.type("q")
        try:
            person.sees(PROMPT, timeout=2.0)
            break
        except AssertionError:
            continue
    person.type(CTRL_C)
    person.is_asked()
    person.enters("1 + 1", r"^2$")


def test_colours_are_for_who_wants_them(prompt: Prompt) -> None:
    person = prompt()
    person.enters("kwhere -b schedule", r"sched\.text")
    assert b"\x1b[1;32mschedule+0x0" in person.raw
    plain = prompt(environment={"NO_COLOR": "1"})
    plain.enters("kwhere -b schedule", r"sched\.text")
    assert b"\x1b[1;32m" not in plain.raw
    assert re.search(rb"\x1b\[[0-9;]*3[1-7]m", plain.raw) is None


# -- other terminals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal_type", ["dumb", ""])
def test_a_terminal_that_can_do_nothing(prompt: Prompt, terminal_type: str) -> None:
    person = prompt(PLAIN_PROMPT, environment={"TERM": terminal_type})
    person.enters("kwhere -b schedule", r"\[text > sched\.text\]")
    person.type("for n in range(2):" + ENTER)
    person.sees(r"   \.\.\.")
    person.type("    print('n is', n)" + ENTER + ENTER)
    person.sees(r"^n is 1$")
    person.is_asked()
    person.type('exec(\'print("run" + "ning")\\nwhile True: pass\')' + ENTER)
    person.sees(r"running$")
    person.type(CTRL_C)
    person.is_asked()
    person.enters("1 + 1", r"^2$")
    person.type(CTRL_D)
    assert person.ends() == 0, person.shown
    assert b"\x1b" not in person.raw


def test_without_prompt_toolkit_the_remedy_is_named(folder: Path) -> None:
    _hide_prompt_toolkit(folder)
    path = f"{folder}{os.pathsep}{ROOT}"
    words = ("-c", "vmcore", "-s", "vmlinux")
    with terminal(*words, folder=folder, environment={"PYTHONPATH": path}) as person:
        person.sees(r"^kplug: the prompt needs prompt-toolkit: pip install prompt-toolkit.*$")
        assert person.ends() == 2
        assert len(person.shown.strip().splitlines()) == 1


def _hide_prompt_toolkit(folder: Path) -> None:
    (folder / "prompt_toolkit.py").write_text("raise ModuleNotFoundError('no', name='prompt_toolkit')\n")
