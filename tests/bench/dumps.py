"""A vmcore: how soon kplug's prompt and its first answer are there, and how fast it answers, beside drgn and crash.

All have the vmlinux alone, no debug information of modules.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from bench.commands import BenchError
from bench.pairs import in_turn
from bench.report import Report
from bench.setting import Setting
from bench.terminal import seconds_until_ready

if TYPE_CHECKING:
    from vmimages import DumpSet

START_ROUNDS, PROMPT_ROUNDS, CRASH_ROUNDS, BARE_ROUNDS = 9, 9, 3, 3
# What kplug takes for one answer at most, in milliseconds of the processor.
WARM = 2.0
# What stands last on the screen when each waits for a line; drgn's greeting has ">>> " in it too.
_PROMPTS = {"ours": b"kplug>", "peer": b"import *\r\n>>> "}


def _dump(setting: Setting) -> DumpSet:
    from vmimages import dumps

    return dumps(setting.kernel, ("elf",), quiet=True)


def start(report: Report, setting: Setting) -> None:
    """From the command line to the end of an empty command, and to the first answer."""
    dumped = _dump(setting)
    core, vmlinux = str(dumped.paths["elf"]), str(dumped.files.vmlinux)
    report.section(f"a vmcore of {os.path.getsize(core) / 1e6:.0f} MB: drgn")
    ours = ("-c", core, "-s", vmlinux, "-e")
    peer = (setting.drgn, "-q", "--no-default-symbols", "-c", core, "-s", vmlinux, "-e")
    identify = 'print(identify_address(prog["schedule"].address_))'
    runs = {
        "empty": setting.ours(*ours, "pass").seconds,
        "empty peer": setting.command(*peer, "pass").seconds,
        "first": setting.ours(*ours, "kwhere schedule").seconds,
        "first peer": setting.command(*peer, identify).seconds,
    }
    took = in_turn(runs, START_ROUNDS)
    report.ratio("start: -e pass", took["empty"], took["empty peer"], 1.2)
    report.ratio("start and first answer: kwhere, identify_address", took["first"], took["first peer"], 1.2)
    _prompt(report, setting, ours[:-1], peer[:-1])
    _crash(report, setting, core, vmlinux)
    _less_than_vmlinux(report, setting, dumped)


def _prompt(report: Report, setting: Setting, ours: tuple[str, ...], peer: tuple[str, ...]) -> None:
    commands = {"ours": (setting.kplug, *ours), "peer": peer}
    done: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as home:
        environment = {**setting.environment, "HOME": home}

        def shown(name: str) -> float:
            seen, answered = seconds_until_ready(
                commands[name], _PROMPTS[name], b"print(6*7)", b"42\r", environment
            )  # fmt: skip
            done[name].append(answered)
            return seen

        took = in_turn({"ours": lambda: shown("ours"), "peer": lambda: shown("peer")}, PROMPT_ROUNDS)
    report.ratio("prompt drawn", took["ours"], took["peer"], 1.0)
    report.ratio("what is typed there at once done", done["ours"][1:], done["peer"][1:], 1.2)


def _crash(report: Report, setting: Setting, core: str, vmlinux: str) -> None:
    """It is no fault of kplug's if crash cannot open the dump."""
    what = "start and first answer: kwhere, crash's sym"
    with tempfile.NamedTemporaryFile("w") as asked:
        asked.write("sym schedule\nquit\n")
        asked.flush()
        peer = setting.command("crash", "-s", vmlinux, core, stdin_path=asked.name)
        try:
            said = peer.output()
            if b"schedule" not in said:
                raise BenchError(f"crash: {(said.decode(errors='replace').strip().splitlines() or ['no output'])[-1]}")
        except (OSError, BenchError) as error:
            report.not_measured(what, str(error))
            return
        ours = setting.ours("-c", core, "-s", vmlinux, "-e", "kwhere schedule")
        took = in_turn({"ours": ours.seconds, "peer": peer.seconds}, CRASH_ROUNDS, warm=0)
    report.ratio(what, took["ours"], took["peer"], None)


def _less_than_vmlinux(report: Report, setting: Setting, dumped: DumpSet) -> None:
    """The first answer with the vmlinuz, and with nothing, over that with the vmlinux."""
    core, asked = str(dumped.paths["elf"]), ("-e", "kwhere schedule")
    runs = {
        "vmlinuz": setting.ours("-c", core, "--vmlinuz", str(dumped.files.vmlinuz), *asked).seconds,
        "vmlinux": setting.ours("-c", core, "-s", str(dumped.files.vmlinux), *asked).seconds,
        "nothing": setting.ours("-c", core, *asked).seconds,
    }
    took = in_turn(runs, BARE_ROUNDS)
    report.ratio("first answer with its vmlinuz / with its vmlinux", took["vmlinuz"], took["vmlinux"], None)
    report.ratio("first answer with neither / with its vmlinux", took["nothing"], took["vmlinux"], None)


def warm(report: Report, setting: Setting) -> None:
    _dump(setting)  # made here, where it may take its time
    found = setting.inside("inside_vmcore.py", setting.kernel)
    report.section("one kwhere after another on the vmcore, by what the address is of: drgn's identify_address")
    for kind, took in found.items():
        report.processor(kind, took["ours"], took["processor"], WARM, took["peer"])
