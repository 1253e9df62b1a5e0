"""Without a vmlinux: a boot image beside vmlinux-to-elf's kallsyms-finder, the running kernel beside `cat`, a vmcore.

vmlinux-to-elf is GPL: it is installed apart, into the cache, and only run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from whole_commands import Runs, measure, run_once

if TYPE_CHECKING:
    from run import Report
    from vmimages import DumpSet

KERNELS = ("amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12", "arm64-sid")
# kallsyms-finder takes seconds.
FINDER_ROUNDS = 3
LIVE_ROUNDS = 21
_ROOT = Path(__file__).resolve().parents[2]

# In one process, with everything imported: from nothing known of the running kernel to the first answer, as
# `kplug where schedule` comes to it. It is kallsyms' time where the machine has no vmlinux and no vmlinuz.
_IN_PROCESS = """
import gc, time
import kplug.shell.cli, kplug.image.symbols.sorted_list, kplug.image.opening.sources, kplug.live.modules
from kplug.live.kernel import open_live
from kplug.live.machine import Machine
from kplug.resolver import Resolver
gc.disable()
begin = time.perf_counter()
live = open_live(Machine())
address = live.main.symbol_address(live.main.image.symbols.exact("schedule")[0])
answer = Resolver(live.images).where(address)
seconds = time.perf_counter() - begin
assert answer.last("symbol").name == "schedule"
print(seconds)
"""


def finder() -> str | None:
    """vmlinux-to-elf's kallsyms-finder, installed into the cache if it is not there; None if it cannot be had."""
    from vmimages.paths import cache_root

    place = cache_root() / "vmlinux-to-elf"
    program = place / "bin" / "kallsyms-finder"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        installed = subprocess.run([str(place / "bin" / "pip"), "install", "-q", "vmlinux-to-elf"], check=False)
        if installed.returncode:
            return None
    return str(program)


def _readable(peer: str, vmlinuz: str, kplug: str, folder: str) -> str:
    """What kallsyms-finder is given: the vmlinuz, or what is in it. It does not unpack LZ4 in which it sees a version
    string (6.1's), and then has less to do."""
    if not subprocess.run([peer, vmlinuz], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        return vmlinuz
    print("    (kallsyms-finder cannot read this one, and is given the kernel that kplug extracted)")
    extracted = os.path.join(folder, "vmlinux")
    subprocess.run([kplug, "extract", vmlinuz, "-o", extracted], check=True, stderr=subprocess.DEVNULL)
    return extracted


def bench_vmlinuz(report: Report, kplug: str, environment: Mapping[str, str]) -> None:
    """From the command line to the first answer out of a boot image."""
    import vmimages

    peer = finder()
    if peer is None:
        print("    vmlinux-to-elf could not be installed: not compared")
        return
    for name in KERNELS:
        try:
            vmlinuz = str(vmimages.fetch(name, quiet=True).vmlinuz)
        except vmimages.VMError as error:
            print(f"    {name}: {error}")
            continue
        print(f"a vmlinuz of {os.path.getsize(vmlinuz) / 1e6:.0f} MB, {name}")
        with tempfile.TemporaryDirectory() as folder:
            commands = {
                "kplug where --vmlinuz": [kplug, "where", "--vmlinuz", vmlinuz, "schedule"],
                "kallsyms-finder": [peer, _readable(peer, vmlinuz, kplug, folder)],
            }
            runs = measure(commands, FINDER_ROUNDS, environment=environment)
        for what, measured in runs.items():
            report.runs(what, measured)
        ratio = runs["kplug where --vmlinuz"].median / runs["kallsyms-finder"].median
        report.ratio("kplug's first answer / kallsyms-finder", ratio, 1 / 3)


def bench_running(report: Report, kplug: str, environment: Mapping[str, str]) -> None:
    """The running kernel's kallsyms beside `cat /proc/kallsyms`: in a process that has begun, and as a command."""
    with open("/proc/kallsyms", "rb") as file:
        text = file.read()
    if b"\nf" not in text:
        print("/proc/kallsyms shows no addresses here: not measured")
        return
    print(f"/proc/kallsyms of {text.count(10):,} symbols")
    inside: list[float] = []
    runs = {"cat /proc/kallsyms": Runs(), "kplug where schedule": Runs()}
    commands = {"cat /proc/kallsyms": ["cat", "/proc/kallsyms"], "kplug where schedule": [kplug, "where", "schedule"]}
    for number in range(LIVE_ROUNDS + 1):
        for name, command in commands.items():
            seconds, kilobytes = run_once(command, None, environment)
            if number:
                runs[name].seconds.append(seconds)
                runs[name].kilobytes.append(kilobytes)
        said = subprocess.run(
            [sys.executable, "-c", _IN_PROCESS], cwd=_ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
        if number:
            inside.append(float(said.stdout))
    for name, measured in runs.items():
        report.runs(name, measured)
    print(f"    {'from opening it to the answer':<34} {statistics.median(inside):8.3f} s")
    cat = runs["cat /proc/kallsyms"].median
    report.ratio("kallsyms opened, first answer / cat", statistics.median(inside) / cat, 2)
    whole = runs["kplug where schedule"].median / cat
    print(f"    {'the whole command / cat, with the start of Python':<58} {whole:9.2f}")


def bench_dump(report: Report, dumped: DumpSet, kplug: str, rounds: int, environment: Mapping[str, str]) -> None:
    """A vmcore with the vmlinux, with the vmlinuz, and with nothing."""
    core = str(dumped.paths["elf"])
    print("the first answer from a vmcore")
    asked = ["-e", "kwhere schedule"]
    commands = {
        "with its vmlinux": [kplug, "-c", core, "-s", str(dumped.files.vmlinux), *asked],
        "with its vmlinuz": [kplug, "-c", core, "--vmlinuz", str(dumped.files.vmlinuz), *asked],
        "with nothing else": [kplug, "-c", core, *asked],
    }
    runs = measure(commands, rounds, environment=environment)
    for name, measured in runs.items():
        report.runs(name, measured)
    full = runs["with its vmlinux"].median
    for name in ("with its vmlinuz", "with nothing else"):
        print(f"    {name + ' / with its vmlinux':<58} {runs[name].median / full:9.2f}")
