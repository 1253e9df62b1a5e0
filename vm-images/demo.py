#!/usr/bin/env python3
"""`make demo`: a real Debian kernel under QEMU with KASLR on, asked about in gdb, at kplug's and drgn's
prompts on a dump, and at the shell.

    demo.py [--kernel amd64-6.1]

Everything shown is what the tools print. The guest is ended at the end.
"""

from __future__ import annotations

import argparse
import os
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
    "kaslr --apply",
    "bt 3",
)


_SETTINGS = ("set pagination off", "set confirm off", "set style enabled off", "set width 0")
QUIET = tuple(word for setting in _SETTINGS for word in ("-iex", setting))
TRY_IT = "gdb {vmlinux} -ex 'target remote {gdb}' -ex 'source gdb/kplug.py'"


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(command: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """Run a command, print it as a user would type it and its output; returns the output."""
    print("$ " + shlex.join(shown or command), flush=True)
    # What the tool complains of is part of the demonstration.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"demo: {command[0]} left with {done.returncode}")
    return done.stdout


def ask_gdb(vm: vmimages.VM) -> None:
    script = str(ROOT / "gdb" / "kplug.py")
    steps = [f"target remote {vm.gdb}", f"source {script}", *GDB_COMMANDS]
    # Each command is echoed at a prompt, as in a session.
    shown = [word for step in steps for word in ("-ex", f"echo (gdb) {_echoed(step)}\\n", "-ex", step)]
    command = ["gdb", "-q", "-nx", "-batch", *QUIET, str(vm.files.vmlinux), *shown]
    run(command, ["gdb", "-q", str(vm.files.vmlinux)])


# Without any file: questions that do not need debug information.
UNNAMED_COMMANDS = ("kwhere $pc", "kwhere --brief schedule+0x10/0xc7 &init_task jiffies runqueues loop_probe")


def ask_gdb_without_vmlinux(vm: vmimages.VM) -> None:
    script = str(ROOT / "gdb" / "kplug.py")
    steps = [f"target remote {vm.gdb}", f"source {script}", *UNNAMED_COMMANDS]
    shown = [word for step in steps for word in ("-ex", f"echo (gdb) {_echoed(step)}\\n", "-ex", step)]
    run(["gdb", "-q", "-nx", "-batch", *QUIET, *shown], ["gdb", "-q"])


def _echoed(step: str) -> str:
    return step.replace("\\", "\\\\").replace('"', '\\"')


def ask_shell(vm: vmimages.VM, kaslr_offset: int, address: int) -> None:
    kplug = str(Path(sys.executable).with_name("kplug"))
    vmlinux = str(vm.files.vmlinux)
    run([kplug, "where", "-l", "-s", vmlinux, "--kaslr", hex(kaslr_offset), hex(address)])


# Lines for kplug's prompt on the dump: k-commands and Python, as a user would type them.
PROMPT_COMMANDS = (
    "kwhere $pc",
    "bt -n 8",
    "kwhere --brief start_kernel runqueues@0 loop_probe $rsp find_task(1) find_task(1).stack",
    "kregs rip rsp gs_base",
    "kx $rsp 4",
    "kmod loop | head -11",
    "kmap direct-map vmalloc vmemmap",
)
# What is typed after the % at drgn's own prompt.
DRGN_COMMAND = "from drgn.commands import run_command; run_command(prog, 'kwhere find_task(1).stack')"


def ask_prompt(vm: vmimages.VM, dump: Path) -> None:
    """kplug's own prompt on a dump of the guest."""
    which = ["-c", str(dump), "-s", str(vm.files.vmlinux), "--module-dir", str(vm.files.debug_modules)]
    commands = [word for command in PROMPT_COMMANDS for word in ("-e", command)]
    run([str(Path(sys.executable).with_name("kplug")), *which, *commands])


def ask_without_vmlinux(vm: vmimages.VM, dump: Path, kallsyms: Path, address: int) -> None:
    """The dump alone, and the shell with the boot image and the guest's own /proc/kallsyms."""
    kplug = str(Path(sys.executable).with_name("kplug"))
    run([kplug, "-c", str(dump), "-e", "kwhere $pc", "-e", "kwhere --brief find_task(1).stack runqueues@0"])
    run([kplug, "where", "--vmlinuz", str(vm.files.vmlinuz), "--kallsyms", str(kallsyms), hex(address)])


def ask_drgn(vm: vmimages.VM, dump: Path) -> None:
    """The same answers from drgn: its command line's %kwhere, and a script."""
    drgn = [str(Path(sys.executable).with_name("drgn")), "-q", "-c", str(dump), "-s", str(vm.files.vmlinux)]
    run([*drgn, "-e", DRGN_COMMAND])
    run([*drgn, str(ROOT / "docs" / "drgn_example.py")])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="amd64-6.1", help="its name in the manifest")
    arguments = parser.parse_args()
    title(f"Boot {arguments.kernel} with KASLR on")
    with vmimages.boot(arguments.kernel, cpus=1) as vm:
        print(f"{vm.files.release}, ready after {vm.boot_seconds:.0f} s")
        truth = vm.truth()
        schedule, kaslr_offset = truth.address("schedule"), truth.kaslr_offset(vm.files)
        vm.stop()
        title("kwhere in gdb, on the guest's gdb stub")
        ask_gdb(vm)
        title("gdb with no vmlinux at all: the kernel's own kallsyms, in its memory")
        ask_gdb_without_vmlinux(vm)
        title("kplug's prompt, on a dump of the guest")
        dump = vmimages.dump(vm, vm.run_dir / "vmcore", "elf")
        ask_prompt(vm, dump)
        title("kplug in drgn, on the same dump")
        ask_drgn(vm, dump)
        title(f"The shell, for schedule as the guest's own /proc/kallsyms has it: {schedule:#x}")
        ask_shell(vm, kaslr_offset, schedule + 4)
        title("Without debug information: the dump alone, the boot image with the guest's /proc/kallsyms")
        ask_without_vmlinux(vm, dump, truth.root / "kallsyms", schedule + 4)
    print(f"\nTo try it yourself:\n  vm-images/vm.py boot {arguments.kernel} -- {TRY_IT}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vmimages.VMError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        os._exit(130)
