"""The k-commands at drgn's own prompt, on real dumps. Truth: the guests' own symbols."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import drgn
import pytest
from drgn.commands import CommandArgumentError, CommandError, run_command
from drgn.helpers.linux.printk import get_printk_records
from support.drgn_prompt import Prompt

from kplug import drgn_plugin
from kplug.commands import COMMANDS

if TYPE_CHECKING:
    from vmimages import DumpSet


# -- being there costs nothing -----------------------------------------------------------------------------------------


def test_the_plugin_imports_nothing_of_kplugs() -> None:
    ask = "import sys, kplug.drgn_plugin; print(*(name for name in sys.modules if name.startswith('kplug')))"
    assert subprocess.check_output([sys.executable, "-c", ask], text=True).split() == ["kplug", "kplug.drgn_plugin"]


def test_drgn_finds_it_and_asks_it_for_nothing() -> None:
    ask = (
        "import drgn, os, sys; prog = drgn.Program(); prog.set_pid(os.getpid());"
        "print(*sorted(name for name in sys.modules if name.startswith('kplug')))"
    )
    assert subprocess.check_output([sys.executable, "-c", ask], text=True).split() == ["kplug", "kplug.drgn_plugin"]
    (entry,) = (each for each in metadata.entry_points(group="drgn.plugins") if each.name == "kplug")
    assert entry.value == "kplug.drgn_plugin"


def test_it_has_every_command() -> None:
    # If this fails, a command is new: add it to kplug.drgn_plugin.NAMES.
    assert sorted(drgn_plugin.NAMES) == sorted(command.host_name for command in COMMANDS.values())


# -- as a command of drgn's --------------------------------------------------------------------------------------------


def test_a_program_that_is_no_kernel() -> None:
    with pytest.raises(CommandArgumentError, match="kwhere: no kernel is open"):
        run_command(drgn.Program(), "kwhere 0")
    process = drgn.Program()
    process.set_pid(os.getpid())
    with pytest.raises(CommandArgumentError, match="kwhere: this program is not a Linux kernel"):
        run_command(process, "kwhere 0")


def test_help_needs_no_program(capsys: pytest.CaptureFixture[str]) -> None:
    for name in drgn_plugin.NAMES:
        run_command(drgn.Program(), f"{name} --help")
        assert capsys.readouterr().out.startswith(f"usage: {name} ")


@pytest.mark.parametrize("line", ["kwhere 'init_task", "kwhere 0 |", "kwhere 0 >"])
def test_a_line_that_is_no_command(line: str) -> None:
    with pytest.raises(SyntaxError):
        run_command(drgn.Program(), line)


@pytest.mark.kernel
def test_errors_come_after_the_answers(prog: drgn.Program, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match=r"^1 of the above could not be answered$"):
        run_command(prog, "kwhere -b schedule no_such_thing init_task", globals={})
    out, err = capfd.readouterr()
    assert [line.split()[1] for line in out.splitlines()] == ["schedule+0x0", "init_task+0x0"]
    assert err.startswith("drgn: error: no_such_thing: no such symbol")
    with pytest.raises(CommandError, match=r"no_such_thing"):
        run_command(prog, "kwhere no_such_thing", globals={})
    with pytest.raises(CommandArgumentError, match=r"unrecognized arguments: --nonsense"):
        run_command(prog, "kwhere --nonsense")


@pytest.mark.kernel
def test_output_goes_where_it_is_sent(prog: drgn.Program, tmp_path: Path) -> None:
    file = tmp_path / "answers"
    run_command(prog, f"kwhere --json &init_task > {file}")
    run_command(prog, f"kwhere --json schedule >> {file}")
    assert [json.loads(line)["input"] for line in file.read_text().splitlines()] == ["&init_task", "schedule"]
    run_command(prog, f"ksym -p tcp_v4_ | head -n 2 > {file}")
    assert file.read_text().split()[:3] == ["ADDRESS", "SIZE", "T"]


@pytest.mark.kernel
def test_the_log_is_the_one_that_drgn_reads(prog: drgn.Program, capfd: pytest.CaptureFixture[str]) -> None:
    run_command(prog, "klog --plain", globals={})
    expected = [
        f"[{record.timestamp // 10**9:5}.{record.timestamp // 1000 % 10**6:06}] {line}"
        for record in get_printk_records(prog)
        for line in record.text.decode().split("\n")
    ]
    assert expected[0].startswith("[    0.000000] Linux version ")
    assert capfd.readouterr().out.splitlines() == expected


# -- typed at the prompt -----------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_kwhere(prompt: Prompt, dumped: DumpSet) -> None:
    lines = prompt.type("%kwhere schedule+4").splitlines()
    assert lines[0].split()[:3] == [f"{dumped.truth.address('schedule') + 4:#x}", "schedule+0x4", ".text"]
    assert any(line.split()[:2] == ["region", "sched.text"] for line in lines)


@pytest.mark.kernel
def test_kwhere_takes_the_same_words_as_everywhere(prompt: Prompt, dumped: DumpSet) -> None:
    schedule = f"{dumped.truth.address('schedule'):x}"
    for words in ("&schedule", schedule, "schedule+0x0/0x10", "[<" + schedule + ">] schedule"):
        assert prompt.type(f"%kwhere -b {words}").split()[1] == "schedule+0x0", words
    assert "area, image, segment, section" in prompt.type("%kwhere -h")
    assert json.loads(prompt.type("%kwhere --json schedule"))["schema"] == "kplug.where/1"


@pytest.mark.kernel
def test_kwhere_without_words_asks_about_pc(prompt: Prompt) -> None:
    # QEMU made the dump of a guest that did not crash: the first CPU's thread stands for the crashed one.
    pc = prompt.type("hex(stack_trace(cpu_curr(0))[0].pc)").strip("'")
    assert prompt.type("%kwhere").split()[0] == pc
    assert prompt.type("%kwhere -b $pc").split()[0] == pc


@pytest.mark.kernel
def test_kwhere_takes_python(prompt: Prompt) -> None:
    prompt.type("task = find_task(1)")
    address = prompt.type("hex(task)").strip("'")
    assert prompt.type("%kwhere -b task").split()[0] == address
    assert prompt.type("%kwhere -b task.comm").split()[0] == prompt.type("hex(task.comm.address_)").strip("'")
    assert prompt.type("%kwhere tsak") == ("drgn: error: tsak: no such symbol, section, register or Python expression")
    assert prompt.type("%kwhere 1/0") == "drgn: error: 1/0: ZeroDivisionError: division by zero"


@pytest.mark.kernel
def test_the_other_commands(prompt: Prompt, dumped: DumpSet) -> None:
    assert prompt.type("%ksym schedule").splitlines()[1].split()[0] == f"{dumped.truth.address('schedule'):#x}"
    assert f"{dumped.truth.kaslr_offset(dumped.files):#x}" in prompt.type("%kaslr")
    assert prompt.type("%kregions | head -n 1").split()[0] == "ADDRESS" or "init" in prompt.type("%kregions")
    assert str(dumped.files.vmlinux) in prompt.type("%kplug")


@pytest.mark.kernel
def test_an_answer_in_python_shows_as_text(prompt: Prompt) -> None:
    assert prompt.type("from kplug.drgn import where") == ""
    assert prompt.type('where("schedule")') == prompt.type("%kwhere schedule")
