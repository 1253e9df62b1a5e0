"""How a machine is to be, and QEMU's command line for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import manifest
from .architectures import Architecture, architecture
from .errors import VMError
from .fetching import KernelFiles


@dataclass(frozen=True)
class Options:
    """What can be chosen about a machine."""

    cpus: int = 2
    memory: int = 256  # MiB; a dump is as big
    kaslr: bool = True
    pti: bool = False  # page-table isolation, as on hardware that needs it
    la57: bool = False  # five levels of page tables
    cpu: str | None = None  # QEMU's name of the CPU; None: the widest that it can be
    paused: bool = False  # stopped before the first instruction; a debugger or `cont()` lets it go
    gdb: str = "unix"  # a stub on a unix socket, or "tcp" on a free port of 127.0.0.1
    spin: int | None = None  # a CPU to keep busy in user mode once the guest is ready
    threads: str | None = None  # "single", or "multi": a host thread for each CPU; None: what is usual for it
    append: tuple[str, ...] = ()  # more words for the kernel's command line
    modules: tuple[str, ...] = manifest.EXTRA_MODULES
    devices: tuple[str, ...] = ()  # more arguments for QEMU
    files: tuple[tuple[str, Path], ...] = ()  # (place in the guest, the host's file): more that it has, executable

    def check(self, arch: str) -> None:
        """Say what makes no sense before QEMU does in its own words."""
        if self.la57 and architecture(arch).levels is None:
            raise VMError(f"{arch} has no LA57: its CPU determines the levels of page tables")
        if not 1 <= self.cpus <= 64:
            raise VMError("the number of CPUs is from 1 to 64")
        if not 128 <= self.memory <= 1 << 20:
            raise VMError("the memory size is in MiB, and 128 at least")
        if self.gdb not in ("unix", "tcp"):
            raise VMError("the gdb stub is on unix or tcp")
        if self.threads not in (None, "single", "multi"):
            raise VMError("threads are single or multi")
        if self.spin is not None and not 0 <= self.spin < self.cpus:
            raise VMError(f"there is no CPU {self.spin} to keep busy")


def kernel_command_line(options: Options, arch: str) -> str:
    """The guest kernel's command line."""
    row = architecture(arch)
    words = [
        *row.words,
        # A guest that panics must end, not sit there.
        "panic=-1",
        # Without a terminal nobody reads the messages as they come; they cost much of the boot under TCG.
        "loglevel=4",
        # Else /proc/vmallocinfo and the like have hashes for addresses: ground truth must be true.
        "no_hash_pointers",
        # The crypto self-tests take longer than the rest of the boot.
        "cryptomgr.notests",
        "nokaslr" if not options.kaslr else "",
        row.pti if options.pti else "",
        *options.append,
    ]
    return " ".join(word for word in words if word)


def _cpu(options: Options, row: Architecture) -> str:
    cpu = row.cpu if options.cpu is None else options.cpu
    return cpu if row.levels is None else f"{cpu},{row.levels[options.la57]}"


def command(options: Options, files: KernelFiles, initramfs: Path, run_dir: Path) -> list[str]:
    """QEMU's command line. All sockets lie in `run_dir`, but for a gdb stub on TCP."""
    options.check(files.arch)
    row = architecture(files.arch)

    def path(name: str) -> str:
        # A comma ends an option's value, two stand for one.
        return str(run_dir / name).replace(",", ",,")

    if options.gdb == "unix":
        gdb = f"socket,id=gdb,server=on,wait=off,path={path('gdb.sock')}"
    else:
        # Port 0: the kernel picks a free one, and QEMU reports which. There is no race for it.
        gdb = "socket,id=gdb,server=on,wait=off,host=127.0.0.1,port=0,ipv4=on,nodelay=on"
    arguments = [row.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += [
        "-name",
        f"kplug-{files.name}",
        "-machine",
        row.machine,
        "-accel",
        f"tcg,thread={options.threads or row.threads}",
    ]
    arguments += ["-cpu", _cpu(options, row)]
    arguments += ["-smp", str(options.cpus), "-m", str(options.memory)]
    arguments += [
        "-kernel",
        str(files.vmlinuz),
        "-initrd",
        str(initramfs),
        "-append",
        kernel_command_line(options, files.arch),
    ]
    arguments += ["-chardev", f"file,id=console,path={path('console.log')}", "-serial", "chardev:console"]
    # Two monitors: one socket serves one client at a time, and the library keeps the first.
    for name in ("qmp", "qmp2"):
        arguments += ["-chardev", f"socket,id={name},server=on,wait=off,path={path(name + '.sock')}"]
        arguments += ["-mon", f"chardev={name},mode=control"]
    arguments += ["-chardev", f"socket,id=control,server=on,wait=off,path={path('control.sock')}"]
    arguments += ["-device", row.control, "-device", "virtserialport,chardev=control,name=kplug.control"]
    if row.hands_over_vmcoreinfo:
        # Puts VMCOREINFO in dumps, once the guest has loaded qemu_fw_cfg.
        arguments += ["-device", "vmcoreinfo"]
    arguments += ["-chardev", gdb, "-gdb", "chardev:gdb"]
    if options.paused:
        arguments.append("-S")
    return [*arguments, *options.devices]
