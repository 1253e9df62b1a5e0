"""`make bench`: kplug's speed beside its peers', as ratios in one run, medians of several runs.

    run.py [--rounds N] [--kernel amd64-6.1] [--no-files] [--no-lists] [--no-gdb] [--no-dumps]

The limits are those that the project set itself (its issues "kwhere on a real kernel", "vmcores and the live kernel",
"without debug info"). A limit that does not hold is said; the exit status is 1 then. Nothing of kplug's is cached
between runs but Python's own compiled modules, as installed.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import random
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, "vm-images"), os.path.dirname(os.path.abspath(__file__))]

from whole_commands import Runs, measure  # noqa: E402

MANY = 20_000
BULK = 100_000
DRGN_SAMPLES = 200


class Report:
    """Prints the lines of the report, and remembers whether every limit held."""

    def __init__(self) -> None:
        self.held = True

    def ratio(self, what: str, value: float, limit: float, at_least: bool = False) -> None:
        good = value >= limit if at_least else value <= limit
        self.held = self.held and good
        sign = ">=" if at_least else "<="
        print(f"    {what:<58} {value:9.2f}   limit {sign} {limit:g}   {'holds' if good else 'DOES NOT HOLD'}")

    def runs(self, name: str, runs: Runs) -> None:
        spread = f"{min(runs.seconds):.3f}-{max(runs.seconds):.3f}"
        print(f"    {name:<34} {runs.median:8.3f} s  ({spread})   {runs.peak:8.1f} MB")


def text_addresses(vmlinux: str, count: int, seed: int) -> list[int]:
    """Random addresses of the kernel's text, the same for every tool."""
    from kplug.image.opening.files import open_vmlinux

    section = open_vmlinux(vmlinux).elf.section(".text")
    assert section is not None
    generator = random.Random(seed)
    return [generator.randrange(section.address, section.end) for _ in range(count)]


def bench_one_address(report: Report, vmlinux: str, kplug: str, rounds: int, environment: dict[str, str]) -> None:
    address = hex(text_addresses(vmlinux, 1, 1)[0])
    print(f"one address, {os.path.getsize(vmlinux) / 1e6:.0f} MB vmlinux")
    runs = measure(
        {
            "kplug where": [kplug, "where", "-s", vmlinux, address],
            "addr2line -fe": ["addr2line", "-fe", vmlinux, address],
        },
        rounds,
        environment=environment,
    )
    for name, measured in runs.items():
        report.runs(name, measured)
    report.ratio("kplug / addr2line, time", runs["kplug where"].median / runs["addr2line -fe"].median, 1)
    report.ratio("kplug / addr2line, peak memory", runs["kplug where"].peak / runs["addr2line -fe"].peak, 1)


def bench_many_addresses(report: Report, vmlinux: str, kplug: str, rounds: int, environment: dict[str, str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".addresses") as file:
        file.writelines(f"{address:#x}\n" for address in text_addresses(vmlinux, MANY, 2))
        file.flush()
        print(f"{MANY} addresses on standard input")
        runs = measure(
            {
                "kplug where -": [kplug, "where", "-s", vmlinux, "-"],
                "kplug where --json -": [kplug, "where", "--json", "-s", vmlinux, "-"],
                "llvm-symbolizer --no-inlines": ["llvm-symbolizer", "--no-inlines", f"--obj={vmlinux}"],
            },
            rounds,
            file.name,
            environment,
        )
    for name, measured in runs.items():
        report.runs(name, measured)
    peer = runs["llvm-symbolizer --no-inlines"].median
    report.ratio("kplug text / llvm-symbolizer, time", runs["kplug where -"].median / peer, 0.5)
    report.ratio("kplug JSON / llvm-symbolizer, time", runs["kplug where --json -"].median / peer, 0.5)


def bench_bulk(report: Report, vmlinux: str, rounds: int) -> None:
    """Resolver.bulk beside drgn's Program.symbol, each for the addresses it can do in reasonable time."""
    import statistics

    import drgn

    from kplug.image.opening.files import open_vmlinux
    from kplug.image.placed import PlacedImage
    from kplug.image.placement import as_linked
    from kplug.resolver import Resolver

    addresses = text_addresses(vmlinux, BULK, 3)
    bulk, peer, once, others = [], [], [], []
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    module = program.extra_module("vmlinux", create=True)
    module = module[0] if isinstance(module, tuple) else module
    module.address_range = (0xFFFFFFFF80000000, 0xFFFFFFFFC0000000)
    module.try_file(vmlinux)
    for _ in range(rounds):
        image = open_vmlinux(vmlinux)
        resolver = Resolver([PlacedImage(image, as_linked(image.sections))])
        begin = time.perf_counter()
        first = resolver.bulk(addresses)
        assert len(first.symbol) == len(first.offset) == BULK
        once.append(time.perf_counter() - begin)
        # Decoding and sorting are a program's load time, as they are drgn's; then the time is that of an address.
        begin = time.perf_counter()
        columns = resolver.bulk(addresses)
        assert len(columns.symbol) == len(columns.offset) == BULK
        bulk.append((time.perf_counter() - begin) / len(addresses))
        begin = time.perf_counter()
        assert len(columns.section) == len(columns.region) == len(columns.region_class) == BULK
        others.append((time.perf_counter() - begin) / len(addresses))
        begin = time.perf_counter()
        for address in addresses[:DRGN_SAMPLES]:
            with contextlib.suppress(LookupError):  # padding has no symbol
                program.symbol(address)
        peer.append((time.perf_counter() - begin) / DRGN_SAMPLES)
    ours, theirs = statistics.median(bulk), statistics.median(peer)
    print(f"{BULK} addresses in one call")
    print(f"    {'Resolver.bulk, first, all set-up':<34} {statistics.median(once):8.3f} s for all")
    print(f"    {'Resolver.bulk: symbol and offset':<34} {ours * 1e6:8.2f} us an address")
    print(f"    {'   section, region and class':<34} {statistics.median(others) * 1e6:8.2f} us more")
    print(f"    {'drgn Program.symbol':<34} {theirs * 1e6:8.2f} us an address")
    report.ratio("drgn / kplug, time for an address", theirs / ours, 1000, at_least=True)


def bench_gdb(report: Report, kernel: str) -> None:
    """gdb on a stopped QEMU guest with KASLR: tests/gdb/measure.py."""
    sys.path.insert(0, os.path.join(ROOT, "tests", "gdb"))
    import measure as gdb_measure

    print(f"gdb on a stopped guest of {kernel}, milliseconds")
    found = gdb_measure.measure(kernel)
    report.ratio("sourcing the script", found["load"], 150)
    report.ratio("first kwhere after connecting", found["first"], 1000)
    report.ratio("next kwhere, same address, no line", found["next"], 2)
    report.ratio("next kwhere, other addresses, no line", found["next, other addresses"], 2)
    print(f"    {'next kwhere, with its source line':<58} {found['next, with lines']:9.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kernel", default="amd64-6.1", help="its name in vm-images' manifest")
    parser.add_argument("--no-files", action="store_true", help="leave out a vmlinux alone")
    parser.add_argument("--no-lists", action="store_true", help="leave out what goes without a vmlinux")
    parser.add_argument("--no-gdb", action="store_true", help="leave out gdb on a QEMU guest")
    parser.add_argument("--no-dumps", action="store_true", help="leave out vmcores")
    arguments = parser.parse_args()
    from vmimages.paths import kernel_dir

    vmlinux = str(kernel_dir(arguments.kernel) / "vmlinux")
    kplug = os.path.join(os.path.dirname(sys.executable), "kplug")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    compileall.compile_dir(os.path.join(ROOT, "kplug"), quiet=2)
    report = Report()
    if not arguments.no_files:
        bench_one_address(report, vmlinux, kplug, arguments.rounds, environment)
        bench_many_addresses(report, vmlinux, kplug, max(3, arguments.rounds // 2), environment)
        bench_bulk(report, vmlinux, 3)
    if not arguments.no_lists:
        import without_vmlinux
        from vmimages import dumps

        without_vmlinux.bench_vmlinuz(report, kplug, environment)
        without_vmlinux.bench_running(report, kplug, environment)
        dumped = dumps(arguments.kernel, ("elf",), quiet=True)
        without_vmlinux.bench_dump(report, dumped, kplug, arguments.rounds, environment)
    if not arguments.no_dumps:
        from dumps import bench_start, bench_where
        from vmimages import dumps

        dumped = dumps(arguments.kernel, ("elf",), quiet=True)
        bench_start(report, dumped, kplug, arguments.rounds, environment)
        bench_where(report, dumped)
    if not arguments.no_gdb:
        bench_gdb(report, arguments.kernel)
    print("every limit holds" if report.held else "NOT every limit holds")
    return 0 if report.held else 1


if __name__ == "__main__":
    sys.exit(main())
