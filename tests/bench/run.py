"""`make bench`: kplug's speed beside its peers', as ratios of paired runs. It ends with one table.

    run.py [--kernel amd64-6.1] [SECTION...]

The figure is the median of the ratios of neighbouring runs; where there is no pair, of milliseconds of the processor. A
limit is missed if the better quartile misses it too (tests/bench/pairs.py). The exit status is 1 then. Nothing of
kplug's is cached between runs but Python's own compiled modules, as installed.
"""

from __future__ import annotations

import argparse
import compileall
import os
import sys
import time
from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Python put this file's folder first, whose names are of no use to others.
sys.path[0:1] = [ROOT, os.path.join(ROOT, "vm-images")]
sys.path.append(os.path.join(ROOT, "tests"))

from bench import dumps, files, gdb_guest, lists, logs  # noqa: E402
from bench.report import Report  # noqa: E402
from bench.setting import Setting  # noqa: E402

SECTIONS: dict[str, Callable[[Report, Setting], None]] = {
    "one": files.one_address,
    "many": files.many_addresses,
    "bulk": files.bulk,
    "kallsyms": lists.kallsyms,
    "vmlinuz": lists.boot_images,
    "dump": dumps.start,
    "warm": dumps.warm,
    "gdb": gdb_guest.gdb,
    "million": logs.million_addresses,
    "log": logs.long_log,
    "pipe": logs.piped_oops,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of: {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--kernel", default="amd64-6.1", help="its name in vm-images' manifest")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    from vmimages.paths import kernel_dir

    setting = Setting(
        kernel=arguments.kernel,
        vmlinux=str(kernel_dir(arguments.kernel) / "vmlinux"),
        kplug=os.path.join(os.path.dirname(sys.executable), "kplug"),
        environment={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    compileall.compile_dir(os.path.join(ROOT, "kplug"), quiet=2)
    report, begin = Report(), time.monotonic()
    for name in arguments.sections or SECTIONS:
        try:
            SECTIONS[name](report, setting)
        except Exception as error:  # the other sections are measured all the same
            report.failed(name, f"{type(error).__name__}: {error}")
    print(report.text())
    load = os.getloadavg()[1]
    print(f"{time.monotonic() - begin:.0f} seconds; {os.cpu_count()} processors, on which {load:.1f} processes ran")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
