"""A vmlinux alone: one address beside addr2line, many beside llvm-symbolizer, a call for all of them beside drgn."""

from __future__ import annotations

import os
import tempfile

from bench.pairs import in_turn
from bench.report import Report
from bench.setting import Setting, text_addresses

MANY = 20_000
ONE_ROUNDS, MANY_ROUNDS = 15, 5


def one_address(report: Report, setting: Setting) -> None:
    report.section(f"one address of a vmlinux of {os.path.getsize(setting.vmlinux) / 1e6:.0f} MB: addr2line -fe")
    address = hex(text_addresses(setting.vmlinux, 1, 1)[0])
    ours = setting.ours("where", "-s", setting.vmlinux, address)
    peer = setting.command("addr2line", "-fe", setting.vmlinux, address)
    took = in_turn({"ours": ours.seconds, "peer": peer.seconds}, ONE_ROUNDS)
    report.ratio("kplug where", took["ours"], took["peer"], 0.6)
    report.ratio("   peak memory", [ours.peak()], [peer.peak()], 1, "MB")


def many_addresses(report: Report, setting: Setting) -> None:
    report.section(f"{MANY:,} addresses on standard input: llvm-symbolizer --no-inlines")
    with tempfile.NamedTemporaryFile("w", suffix=".addresses") as file:
        file.writelines(f"{address:#x}\n" for address in text_addresses(setting.vmlinux, MANY, 2))
        file.flush()
        text = setting.ours("where", "-s", setting.vmlinux, "-", stdin_path=file.name)
        json = setting.ours("where", "--json", "-s", setting.vmlinux, "-", stdin_path=file.name)
        peer = setting.command(
            "llvm-symbolizer", "--no-inlines", f"--obj={setting.vmlinux}", stdin_path=file.name
        )  # fmt: skip
        # The peer runs between the two, and is the neighbour of both.
        took = in_turn({"text": text.seconds, "peer": peer.seconds, "json": json.seconds}, MANY_ROUNDS)
        report.ratio("kplug where -", took["text"], took["peer"], 0.4)
        report.ratio("kplug where --json -", took["json"], took["peer"], 0.4)
        report.ratio("   peak memory of JSON", [json.peak()], [peer.peak()], None, "MB")


def bulk(report: Report, setting: Setting) -> None:
    found = setting.inside("inside_bulk.py", setting.vmlinux)
    report.section(f"{found['count']:,} addresses in one call: drgn's Program.symbol, for each address")
    report.ratio("Resolver.bulk: times as fast", found["symbols"], found["peer"], 1000, "us", at_least=True)
    report.figure("   section, region and class", found["others"], "us")
    report.figure("   the first call, all set-up", found["first"], "s")
