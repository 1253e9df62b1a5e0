#!/usr/bin/env python3
"""`make demo`: a real Debian kernel under QEMU with KASLR on, asked about in gdb, at the shell and from drgn on a dump.

    demo.py [--kernel amd64-6.1]

Everything shown is what the tools print. The guest is ended at the end.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "vm-images")]

import vmimages  # noqa: E402

GDB_COMMANDS = (
    "kwhere $pc",
    "kaslr",
    "kwhere --brief schedule+0x10/0xc7 &init_task .rodata+0x40 jiffies runqueues",
    "kwhere 0xdead000000000122 0x18",
    'printf "%s is %s\\n", $kwhere($pc), $kclass($pc)',
)


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(command: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """Run a command, print it as a person would type it and what it prints; returns that."""
    print("$ " + shlex.join(shown or command), flush=True)
    # What the tool complains of is part of the demonstration.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"demo: {command[0]} left with {done.returncode}")
    return done.stdout


def ask_gdb(vm: vmimages.VM) -> None:
    script = str(ROOT / "gdb" / "kplug.py")
    settings = ["set pagination off", "set confirm off", "set style enabled off", "set width 0"]
    quiet = [word for setting in settings for word in ("-iex", setting)]
    steps = [f"target remote {vm.gdb}", f"source {script}", *GDB_COMMANDS]
    # Each command is echoed at a prompt, as in a session.
    shown = [word for step in steps for word in ("-ex", f"echo (gdb) {_echoed(step)}\\n", "-ex", step)]
    command = ["gdb", "-q", "-nx", "-batch", *quiet, str(vm.files.vmlinux), *shown]
    run(command, ["gdb", "-q", str(vm.files.vmlinux)])


def _echoed(step: str) -> str:
    return step.replace("\\", "\\\\").replace('"', '\\"')


def ask_shell(vm: vmimages.VM, slide: int, address: int) -> None:
    kplug = str(Path(sys.executable).with_name("kplug"))
    vmlinux = str(vm.files.vmlinux)
    run([kplug, "where", "-l", "-s", vmlinux, "--kaslr", hex(slide), hex(address)])


def ask_drgn(vm: vmimages.VM, dump: Path) -> int:
    """The same resolver from a drgn script, on a dump of the guest. Returns the slide that the dump's note tells."""
    import drgn
    from drgn.helpers.linux.pid import for_each_task

    from kplug.image.opening import open_vmlinux
    from kplug.image.placed import PlacedImage
    from kplug.placement import slid
    from kplug.render.text import TextRenderer
    from kplug.session import Session

    program = drgn.Program()
    program.set_core_dump(dump)
    program.load_debug_info([vm.files.vmlinux])
    note = program["vmcoreinfo_data"].string_().decode()
    match = re.search(r"^KERNELOFFSET=([0-9a-f]+)$", note, re.MULTILINE)
    slide = int(match.group(1), 16) if match else 0
    image = open_vmlinux(str(vm.files.vmlinux))
    session = Session([PlacedImage(image, slid(image.sections, slide, "VMCOREINFO of the dump"))])
    renderer = TextRenderer()
    # The stacks of two kernel threads; inlined frames share their address with the function that holds them.
    for task in [task for task in for_each_task(program) if not task.mm][1:3]:
        print(f"task {task.comm.string_().decode()} (pid {task.pid.value_()})")
        for address in dict.fromkeys(frame.pc for frame in program.stack_trace(task)):
            print("  " + renderer.brief(session.resolver.where(address)))
    return slide


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="amd64-6.1", help="its name in the manifest")
    arguments = parser.parse_args()
    title(f"Boot {arguments.kernel} with KASLR on")
    with vmimages.boot(arguments.kernel, cpus=1) as vm:
        print(f"{vm.files.release}, ready after {vm.boot_seconds:.0f} s")
        schedule = vm.truth().address("schedule")
        vm.stop()
        title("kwhere in gdb, on the guest's gdb stub")
        ask_gdb(vm)
        title("drgn on a dump of the guest, with kplug's resolver")
        dump = vmimages.dump(vm, vm.run_dir / "vmcore", "elf")
        slide = ask_drgn(vm, dump)
        title(f"The shell, for schedule as the guest's own /proc/kallsyms has it: {schedule:#x}")
        ask_shell(vm, slide, schedule + 4)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vmimages.VMError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        os._exit(130)
