"""Logs: a long one beside grep, an oops through a pipe, a million addresses beside addr2line and llvm-symbolizer."""

from __future__ import annotations

import os
import random
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.commands import BenchError, Command
from bench.pairs import in_turn
from bench.report import Report
from bench.setting import ROOT, Setting, text_addresses

DISTINCT = 1_000_000
PART = 10_000
LOG_BYTES = 1 << 30
MILLION_ROUNDS, LOG_ROUNDS, PIPE_ROUNDS = 2, 2, 5
MOST_MEGABYTES = 200
PIPE_SECONDS = 60
OOPS = "tests/data/logs/guest-amd64-6.1-null.log"


def million_addresses(report: Report, setting: Setting) -> None:
    """addr2line, which takes minutes for a million, has a part of them."""
    report.section(f"{DISTINCT:,} addresses on standard input: llvm-symbolizer --no-inlines")
    addresses = text_addresses(setting.vmlinux, DISTINCT, 3)
    with tempfile.TemporaryDirectory() as folder:
        whole, part = (os.path.join(folder, name) for name in ("whole", "part"))
        for path, these in ((whole, addresses), (part, addresses[:PART])):
            Path(path).write_text("".join(f"{address:#x}\n" for address in these))
        runs = {
            "brief": setting.ours("where", "--brief", "-s", setting.vmlinux, "-", stdin_path=whole),
            "peer": setting.command("llvm-symbolizer", "--no-inlines", f"--obj={setting.vmlinux}", stdin_path=whole),
            "all": setting.ours("where", "-s", setting.vmlinux, "-", stdin_path=whole),
            "part": setting.ours("where", "-s", setting.vmlinux, "-", stdin_path=part),
            "addr2line": setting.command("addr2line", "-fe", setting.vmlinux, stdin_path=part),
        }
        took = in_turn({name: run.seconds for name, run in runs.items()}, MILLION_ROUNDS, warm=0)
    report.ratio("kplug where --brief -", took["brief"], took["peer"], 1)
    report.ratio("kplug where -, whole answers", took["all"], took["peer"], None)
    report.ratio(f"kplug where -, {PART:,} of them: addr2line -fe", took["part"], took["addr2line"], 1)


def long_log(report: Report, setting: Setting) -> None:
    """As ftrace's function tracer writes it, with addresses for names. grep searches bytes (LC_ALL=C): in UTF-8 it
    takes six times as long."""
    report.section(f"a log of {LOG_BYTES >> 20:,} MB, {DISTINCT:,} distinct addresses: grep -oE, in the C locale")
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        _write_trace(log, text_addresses(setting.vmlinux, DISTINCT, 4))
        ours = setting.ours("annotate", "--no-lines", "-s", setting.vmlinux, log)
        peer = Command(("grep", "-oE", "[0-9a-f]{16}", log), {**setting.environment, "LC_ALL": "C"})
        took = in_turn({"ours": ours.seconds, "peer": peer.seconds}, LOG_ROUNDS, warm=0)
        report.ratio("kplug annotate --no-lines", took["ours"], took["peer"], 4)
        report.figure("   peak memory of a process", [ours.peak()], "MB", MOST_MEGABYTES)


def _write_trace(path: str, addresses: Sequence[int]) -> None:
    generator = random.Random(5)
    pairs = zip(addresses[::2], addresses[1::2])
    text = "".join(
        f"{'bash':>16}-{generator.randrange(100, 9999):<7} [{generator.randrange(8):03}] d..2. {1000 + at / 1e6:.6f}: "
        f"{callee:016x} <-{caller:016x}\n"
        for at, (callee, caller) in enumerate(pairs)
    ).encode()
    with open(path, "wb") as file:
        for _ in range(-(-LOG_BYTES // len(text))):
            file.write(text)


def piped_oops(report: Report, setting: Setting) -> None:
    report.section("an oops through a pipe that stays open")
    text = (ROOT / OOPS).read_bytes()
    took = [_first_line(setting, text) for _ in range(PIPE_ROUNDS)]
    report.figure("its first line is out", took, "s", 1)


def _first_line(setting: Setting, text: bytes) -> float:
    """Seconds from the command to the first line of its output, while the log has not ended."""
    begin = time.perf_counter()
    with subprocess.Popen(
        (setting.kplug, "annotate", "-s", setting.vmlinux),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(setting.environment),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(text)
        process.stdin.flush()
        if not select.select([process.stdout], [], [], PIPE_SECONDS)[0]:
            process.kill()
            raise BenchError(f"kplug annotate printed nothing in {PIPE_SECONDS} s, while its input was open")
        line = process.stdout.readline()
        seconds = time.perf_counter() - begin
        process.stdin.close()
        process.stdout.read()
    if line != text[: text.find(b"\n") + 1]:
        raise BenchError(f"kplug annotate printed {line!r} for the first line")
    return seconds
