"""Without a vmlinux: the running kernel's kallsyms beside `cat`, a boot image beside vmlinux-to-elf's kallsyms-finder.

vmlinux-to-elf is GPL: it is installed apart, into the cache, and only run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from bench.pairs import in_turn
from bench.report import Report
from bench.setting import Setting

# kallsyms-finder takes seconds.
FINDER_ROUNDS = 2
KERNELS = ("amd64-6.1", "amd64-6.12", "arm64-6.12")
KALLSYMS_ROUNDS = 15


def kallsyms(report: Report, setting: Setting) -> None:
    with open("/proc/kallsyms", "rb") as file:
        text = file.read()
    report.section(f"the running kernel, {text.count(10):,} symbols: cat /proc/kallsyms")
    if b"\nf" not in text:
        report.not_measured("kplug where schedule", "/proc/kallsyms shows no addresses here")
        return
    peer = setting.command("cat", "/proc/kallsyms")
    ours = setting.ours("where", "schedule")
    runs = {
        "opened": lambda: float(setting.inside("inside_kallsyms.py")),
        "peer": peer.seconds,
        "whole": ours.seconds,
    }
    took = in_turn(runs, KALLSYMS_ROUNDS)
    report.ratio("opened to first answer", took["opened"], took["peer"], 1.5)
    report.ratio("kplug where schedule, the whole command", took["whole"], took["peer"], 3)
    report.ratio("   peak memory", [ours.peak()], [peer.peak()], None, "MB")


def boot_images(report: Report, setting: Setting) -> None:
    """From the command line to the first answer out of a boot image, of the kernels that are in the cache."""
    import vmimages

    report.section("one address of a vmlinuz: vmlinux-to-elf's kallsyms-finder")
    peer = _finder()
    if peer is None:
        report.not_measured("kplug where --vmlinuz", "vmlinux-to-elf could not be installed")
        return
    for name in KERNELS:
        files = vmimages.cached(name)
        if files is None:
            report.not_measured(f"kplug where --vmlinuz, {name}", "not in the cache: vm-images/vm.py fetch")
            continue
        vmlinuz = str(files.vmlinuz)
        with tempfile.TemporaryDirectory() as folder:
            readable = _readable(peer, vmlinuz, setting.kplug, folder)
            ours = setting.ours("where", "--vmlinuz", vmlinuz, "schedule")
            took = in_turn(
                {"ours": ours.seconds, "peer": setting.command(peer, readable).seconds}, FINDER_ROUNDS, warm=0
            )
        report.ratio(f"kplug where --vmlinuz, {name}", took["ours"], took["peer"], 1 / 3)


def _finder() -> str | None:
    """vmlinux-to-elf's kallsyms-finder, installed into the cache if it is not there; None if it cannot be had."""
    from vmimages.paths import cache_root

    place = cache_root() / "vmlinux-to-elf"
    program = place / "bin" / "kallsyms-finder"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        installed = subprocess.run(
            [str(place / "bin" / "pip"), "install", "-q", "vmlinux-to-elf"], check=False, capture_output=True
        )
        if installed.returncode:
            return None
    return str(program)


def _readable(peer: str, vmlinuz: str, kplug: str, folder: str) -> str:
    """What kallsyms-finder is given: the vmlinuz, or what is in it. It does not unpack LZ4 in which it sees a version
    string (6.1's), and then has less to do."""
    if not subprocess.run([peer, vmlinuz], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        return vmlinuz
    extracted = os.path.join(folder, "vmlinux")
    subprocess.run([kplug, "extract", vmlinuz, "-o", extracted], check=True, stderr=subprocess.DEVNULL)
    return extracted
