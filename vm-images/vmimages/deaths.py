"""Kernels that died, each in one way: a dump of each, and the kernel's own last words.

The module `specimens/deaths` dies as it is told. Where there is no compiler for the kernel's architecture, the guest
can call what a handler of sysrq was made to point to.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from . import building, dumping, manifest, paths
from .architectures import architecture
from .dumping import DumpSet
from .errors import VMError
from .fetching import KernelFiles, fetch
from .machine import VM, boot

_SPECIMENS = Path(__file__).resolve().parent.parent / "specimens"
WAYS: tuple[str, ...] = ("null", "irq", "softirq", "nmi", "overflow", "call-null", "call-slab", "call-data", "init")
# Only x86_64 has NMIs that a module can handle.
_NMI_ARCH = "amd64"
# By sysrq: where the handler points to then, as a symbol.
SYSRQ_WAYS: dict[str, str | None] = {"sysrq-null": None, "sysrq-data": "init_task"}
_MEMORY = 192
_SECONDS, _STARTED_SECONDS, _STUB_SECONDS = 600.0, 3.0, 600.0
_LAST_WORDS = "end Kernel panic"


def ways(name: str) -> tuple[str, ...]:
    """The ways in which the kernel `name` can die: those of the module, which has to be built, and those by sysrq."""
    arch = manifest.find(name).arch
    return (*(way for way in WAYS if way != "nmi" or arch == _NMI_ARCH), *SYSRQ_WAYS)


def death(name: str, way: str, *, refresh: bool = False, quiet: bool = False) -> DumpSet:
    """ELF dumps of the kernel `name` that died that way, out of the cache or made in one boot. The truth is of the
    moment before; `console` in it is what the kernel said.
    """
    if way not in ways(name):
        raise VMError(f"{name} cannot die by {way!r}; there are: {', '.join(ways(name))}")
    files = fetch(name, quiet=quiet)
    module = building.module(files, _SPECIMENS / "deaths", quiet) if way in WAYS else None
    place = paths.cache_root() / "dumps" / f"{name}-death-{way}"
    built_from = module.parent.name if module is not None else ""
    return dumping.kept(
        files, place, built_from, "dumps-lock", lambda folder: _make(files, folder, module, way, quiet), refresh
    )


def _make(files: KernelFiles, folder: Path, module: Path | None, way: str, quiet: bool) -> None:
    inside = (("deaths.ko", module),) if module is not None else ()
    with boot(files.name, memory=_MEMORY, append=("panic=0", "oops=panic"), files=inside, quiet=quiet) as vm:
        vm.run("echo 8 >/proc/sys/kernel/printk")
        command = _prepared(vm, way) if module is not None else _sysrq(vm, SYSRQ_WAYS[way])
        vm.truth(folder / "truth")
        if way == "nmi":  # which only lays the trap
            vm.run(command)
            vm.qmp.execute("inject-nmi")
        else:
            with contextlib.suppress(VMError):  # the dead do not answer
                vm.run(command, timeout=_STARTED_SECONDS)
        console = _last_words(vm)
        vm.stop()
        (folder / "truth" / "console").write_text(console)
        (folder / "truth" / "registers").write_text(vm.monitor("info registers -a"))
        formats = ["elf", *(["elf-paging"] if architecture(files.arch).elf_paging else [])]
        for format in formats:
            dumping.dump(vm, folder / format, format, quiet=quiet)
    dumping.stamp(folder, files, formats, complete=True)


def _prepared(vm: VM, way: str) -> str:
    """The command that the guest dies of."""
    if way == "init":
        return "insmod /deaths.ko panic_in_init=1"
    vm.run("insmod /deaths.ko")
    return f"echo {way} >/sys/module/deaths/parameters/die"


def _sysrq(vm: VM, target: str | None) -> str:
    """The same, after the handler of sysrq c, which comes first in its structure, was made to point elsewhere."""
    wanted = ("sysrq_crash_op", *([target] if target is not None else []))
    lines = vm.run(f"grep -wE '{'|'.join(wanted)}' /proc/kallsyms").splitlines()
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in lines}
    write_memory(vm, symbols["sysrq_crash_op"], (symbols[target] if target is not None else 0).to_bytes(8, "little"))
    return "echo c >/proc/sysrq-trigger"


def _last_words(vm: VM) -> str:
    deadline = time.monotonic() + _SECONDS
    while True:
        console = vm.console.read_text(errors="replace").replace("\r", "")
        if _LAST_WORDS in console:
            return console
        if time.monotonic() > deadline:
            raise VMError(f"{vm.files.name} did not die in {_SECONDS:.0f} s")
        time.sleep(0.1)


def write_memory(vm: VM, address: int, data: bytes) -> None:
    """Write to the guest's memory through QEMU's gdb stub, which asks no page for permission."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stub:
        stub.settimeout(_STUB_SECONDS)
        stub.connect(vm.gdb)
        for body in (f"M{address:x},{len(data):x}:{data.hex()}", "D"):
            stub.sendall(f"${body}#{sum(body.encode()) & 0xFF:02x}".encode())
            answer = b""
            while b"$OK#" not in answer:
                got = stub.recv(4096)
                if not got:
                    raise VMError(f"QEMU's gdb stub takes no {body[:1]}: {answer!r}")
                answer += got
        stub.sendall(b"+")
