"""Measures the gdb front end on a stopped QEMU guest: loading, the first kwhere after connecting, the next ones.

    python tests/gdb/measure.py [KERNEL]        KPLUG_GDB names another gdb; --json prints one object
    python tests/gdb/measure.py --no-vmlinux    the same where gdb has no file of the kernel; bytes read too

Each run is a gdb of its own on the same guest; medians of `RUNS` runs. The time of a command is taken inside gdb around
gdb.execute(command, to_string=True); that of the processor does not move with what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

# Runs by itself, without what pytest puts on the path.
_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT / "vm-images")]

from support.gdbhelp import GDB, SCRIPT, run  # noqa: E402

RUNS = 5
# gdb's Python keeps compiled modules, as it does for a user, whatever the one does that runs this.
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}

_INSIDE = """
import gdb, json, statistics, time

found = {}

def measure(name, *commands):
    # The median; the processor's time is that of gdb's own thread.
    walls, processors = [], []
    for command in commands:
        start, began = time.perf_counter(), time.thread_time()
        gdb.execute(command, to_string=True)
        walls.append((time.perf_counter() - start) * 1000)
        processors.append((time.thread_time() - began) * 1000)
    found[name] = statistics.median(walls)
    found[name + ", processor"] = statistics.median(processors)

measure("load", "source SCRIPT")
measure("first", "kwhere $pc")
gdb.execute("set kplug lines off")
base = int(gdb.parse_and_eval("(unsigned long)$pc")) & ~0xfffff
measure("next", *["kwhere $pc"] * 200)
measure("next, other addresses", *[f"kwhere {base + 0x971 * n:#x}" for n in range(200)])
measure("value", *["output $kclass($pc)"] * 200)
gdb.execute("set kplug lines on")
gdb.execute("kwhere $pc", to_string=True)
measure("next, with lines", *["kwhere $pc"] * 200)
measure("first, of a module", "kwhere MODULE")
measure("next, of a module", *["kwhere MODULE"] * 200)
print(json.dumps(found))
""".replace("SCRIPT", str(SCRIPT))

# Without a vmlinux: how much memory is read for the symbols.
_WITHOUT = """
import gdb, json, statistics, time

def taken(command):
    start = time.perf_counter()
    gdb.execute(command, to_string=True)
    return (time.perf_counter() - start) * 1000

found = {"load": taken("source SCRIPT")}
gdb.execute("set kplug drgn off")
import kplug_gdb.views
plainly, count = kplug_gdb.views.read_plainly, [0]

def counted(address, size):
    count[0] += size
    return plainly(address, size)

kplug_gdb.views.read_plainly = counted
found["first"] = taken("kwhere $pc")
found["first: KiB read"] = count[0] / 1024
base = int(gdb.parse_and_eval("(unsigned long)$pc")) & ~0xfffff
count[0] = 0
found["next"] = statistics.median(taken("kwhere $pc") for _ in range(200))
found["next: bytes read"] = count[0] / 200
found["next, other addresses"] = statistics.median(taken(f"kwhere {base + 0x971 * n:#x}") for n in range(200))
found["value"] = statistics.median(taken("output $kclass($pc)") for _ in range(200))
print(json.dumps(found))
""".replace("SCRIPT", str(SCRIPT))


def runs(kernel: str, has_vmlinux: bool = True) -> dict[str, list[float]]:
    """What each run measured, by name: milliseconds where that does not say otherwise."""
    from vmimages import boot

    found = []
    with boot(kernel, quiet=True) as machine, tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "inside.py"
        base, _ = max(machine.truth().modules.values(), key=lambda each: each[1])
        script.write_text(_INSIDE.replace("MODULE", f"{base + 0x1234:#x}") if has_vmlinux else _WITHOUT)
        vmlinux = machine.files.vmlinux if has_vmlinux else None
        for number in range(RUNS + 1):
            before = [f"target remote {machine.gdb}"]
            session = run([], Path(folder), vmlinux=vmlinux, before=before, script=script, extra=_COMPILED)
            if number:  # the first one warms the page cache, and leaves compiled modules
                found.append(json.loads(session[f"source {script}"].text.splitlines()[-1]))
    return {name: [one[name] for one in found] for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="time kplug in gdb on a stopped QEMU guest")
    parser.add_argument("kernel", nargs="?", default="amd64-6.1")
    parser.add_argument("--no-vmlinux", action="store_true", help="gdb has no file of the kernel")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = runs(arguments.kernel, not arguments.no_vmlinux)
    found = {name: statistics.median(values) for name, values in measured.items()}
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{arguments.kernel}, {GDB}, median of {RUNS} runs, ms")
    for name, value in found.items():
        print(f"  {name:34} {value:8.2f}")


if __name__ == "__main__":
    main()
