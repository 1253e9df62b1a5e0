"""Boot a kernel and hold on to the machine: `with boot("amd64-6.1") as vm: ...`"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import initramfs, manifest, options, paths, process, truth
from .architectures import architecture
from .control import Control
from .errors import GuestGone, QEMUCrashed, VMError
from .fetching import KernelFiles, fetch
from .options import Options
from .progress import Progress
from .qmp import QMPClient, QMPError
from .truth import GroundTruth

READY_SECONDS = 600.0
_START_SECONDS = 600.0
_POLL = 0.05
_END_SECONDS = 30.0
_TAIL_BYTES = 8000
_BOOTS = 3  # QEMU 7.2 with a thread for each CPU was seen to die of SIGSEGV in one boot of some hundreds


class VM:
    """A machine that runs. Made by `boot()`; ended by leaving the `with`, by `close()`, or with this process."""

    def __init__(self, files: KernelFiles, chosen: Options, quiet: bool = False) -> None:
        self.files = files
        self.options = chosen
        self.boot_seconds: float | None = None  # from start to ready
        self._progress = Progress(files.name, quiet=quiet)
        self._control: Control | None = None
        self._qmp: QMPClient | None = None
        self._closed = False
        self.run_dir = paths.make_run_dir()
        try:
            (self.run_dir / "owner").write_text(f"{os.getpid()}\n")
            image = initramfs.build(files, self.run_dir / "initramfs.cpio", chosen.modules, chosen.files)
            command = options.command(chosen, files, image, self.run_dir)
            with (self.run_dir / "qemu.log").open("wb") as log:
                self._process = process.start(command, log)
        except BaseException:
            paths.remove_tree(self.run_dir)
            raise
        atexit.register(self.close)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VM:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    @property
    def qmp(self) -> QMPClient:
        """The library's own QMP connection."""
        if self._qmp is None or self._closed:
            raise VMError("the machine has ended")
        return self._qmp

    @property
    def qmp_socket(self) -> Path:
        """A second QMP socket, free for others."""
        return self.run_dir / "qmp2.sock"

    @property
    def console(self) -> Path:
        """What the guest wrote to its console."""
        return self.run_dir / "console.log"

    @property
    def gdb(self) -> str:
        """What to give to gdb's `target remote`."""
        if self.options.gdb == "unix":
            return str(self.run_dir / "gdb.sock")
        for device in self.qmp.execute("query-chardev"):
            if device["label"] == "gdb":
                match = re.search(r"(127\.0\.0\.1:\d+)", device["filename"])
                if match:
                    return match[1]
        raise VMError("QEMU doesn't say on which port its gdb stub is")

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until the guest has loaded its modules and takes commands; boot() has done so unless it was paused."""
        if self._control is None:
            raise VMError("the machine has ended")
        if self._control.ready:
            return
        started = time.monotonic()
        try:
            self._control.wait_ready(timeout, self._tick)
        except VMError as error:
            if self._ends(error):
                raise self._ended() from None
            raise VMError(f"{self.files.name}: {error}; its last words: {self._last_line() or 'none'}") from None
        self.boot_seconds = time.monotonic() - started
        if self.options.spin is not None:
            self.spin(self.options.spin)
        self._progress.done(f"ready in {self.boot_seconds:.1f} s  ({self.files.release})")

    def run(self, command: str, timeout: float = 600.0) -> str:
        """The output of a shell command in the guest (which must be running). A failing one is an error."""
        status, output = self.run_bytes(command, timeout)
        text = output.decode(errors="replace")
        if status != 0:
            raise VMError(f"{command!r} failed in the guest (status {status}): {text.strip()[-200:]}")
        return text

    def run_bytes(self, command: str, timeout: float = 600.0) -> tuple[int, bytes]:
        """The same with the exit status, and the output as it is."""
        if self._control is None or self._closed:
            raise VMError("the machine has ended")
        return self._control.run(command, timeout)

    def restart_by(self, command: str, timeout: float = READY_SECONDS) -> None:
        """Wait until the kernel that `command` starts instead of this one (kexec, a crash) is ready."""
        if self._control is None or self._closed:
            raise VMError("the machine has ended")
        self._control.send_last(command)
        self.wait_ready(timeout)

    def read_file(self, path: str) -> bytes:
        """A file of the guest."""
        status, data = self.run_bytes(f"cat '{path}'")
        if status != 0:
            raise VMError(f"{path} can't be read in the guest: {data.decode(errors='replace').strip()}")
        return data

    def truth(self, into: Path | None = None) -> GroundTruth:
        """Ask the guest about its addresses now; the answers go to a folder, which else goes away with the machine."""
        return truth.collect(self.run_bytes, self.run_dir / "truth" if into is None else into)

    def stop(self) -> None:
        """Stop all CPUs, wherever they are."""
        self.qmp.stop()

    def privileges(self) -> list[int]:
        """Each CPU's privilege level: 0 in the kernel, 3 in user mode."""
        row = architecture(self.files.arch)
        return [row.privilege(found) for found in row.modes.findall(self.monitor("info registers -a"))]

    def on_user_page_tables(self) -> list[bool]:
        """For each CPU, whether it uses the page tables that a user program sees under page-table isolation.

        A CPU in the first instructions of the kernel's entry still does. Where QEMU doesn't show the register: False.
        """
        row = architecture(self.files.arch)
        if not self.options.pti or row.user_tables is None:
            return [False] * self.options.cpus
        pattern, bit = row.user_tables
        return [bool(int(value, 16) & bit) for value in pattern.findall(self.monitor("info registers -a"))]

    def spin(self, cpu: int) -> None:
        """Have a program keep `cpu` busy in user mode, as the option `spin` has it from the start."""
        self.run(f"spin {cpu}")

    def stop_in_user_mode(self, cpu: int, timeout: float = 600.0) -> None:
        """Stop all CPUs at a moment when `cpu` is in user mode and the others are in the kernel, with its page tables;
        see `spin`.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.stop()
            levels, on_users = self.privileges(), self.on_user_page_tables()
            states = list(zip(levels, on_users))
            if all(level == 3 if i == cpu else level == 0 and not on_user for i, (level, on_user) in enumerate(states)):
                return
            self.cont()
            if time.monotonic() > deadline:
                raise VMError(f"CPU {cpu} never was the only one in user mode; the last levels: {levels}")
            time.sleep(_POLL)

    def cont(self) -> None:
        """Let them run."""
        self.qmp.cont()

    def monitor(self, command: str, cpu: int = 0) -> str:
        """A command of QEMU's human monitor, as seen from a CPU."""
        return self.qmp.monitor(command, cpu)

    def wait(self) -> None:
        """Wait until QEMU ends by itself (the guest powers off or panics, or QEMU is asked to quit)."""
        while self._process.poll() is None:
            time.sleep(_POLL)

    def info(self) -> dict[str, Any]:
        """What another program needs in order to use this machine, ready for JSON."""
        return {
            "name": self.files.name,
            "release": self.files.release,
            "build_id": self.files.build_id,
            "vmlinux": str(self.files.vmlinux),
            "modules": str(self.files.modules),
            "debug_modules": str(self.files.debug_modules),
            "pid": self.pid,
            "gdb": self.gdb,
            "qmp": str(self.qmp_socket),
            "console": str(self.console),
            "boot_seconds": self.boot_seconds,
            "options": dataclasses.asdict(self.options),
        }

    def close(self) -> None:
        """End the machine and remove its sockets and logs. May be called again."""
        if self._closed:
            return
        self._closed = True
        for connection in (self._control, self._qmp):
            if connection is not None:
                connection.close()
        process.stop(self._process)
        with contextlib.suppress(OSError):
            paths.remove_tree(self.run_dir)
        atexit.unregister(self.close)

    def _connect(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self._control is None:
            if self._process.poll() is not None:
                raise self._ended()
            try:
                # The last socket that QEMU makes: those of the monitors are there too then.
                self._control = Control(self.run_dir / "control.sock")
            except VMError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
        while self._qmp is None:
            if self._process.poll() is not None:
                raise self._ended()
            try:
                self._qmp = QMPClient(self.run_dir / "qmp.sock", timeout=max(1.0, deadline - time.monotonic()))
            except QMPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)
        self._qmp.timeout = _START_SECONDS

    def _tick(self) -> None:
        if self._process.poll() is not None:
            raise self._ended()
        self._progress.update(f"booting  {self._progress.elapsed:.0f} s  {self._last_line()}")

    def _ends(self, error: VMError) -> bool:
        # QEMU's sockets close a moment before it has ended.
        if isinstance(error, GuestGone):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        return self._process.poll() is not None

    def _ended(self) -> VMError:
        said = (
            _tail(self.run_dir / "qemu.log") or _tail(self.console, rb"Kernel panic") or self._last_line() or "silence"
        )
        # TCG's threads do not order memory as x86 does: of hundreds of such guests, one panicked while it booted.
        raced = self.options.threads == "multi" and bool(_tail(self.console, b"Kernel panic"))
        kind = QEMUCrashed if self._process.returncode < 0 or raced else VMError
        return kind(f"{self.files.name}: QEMU ended with status {self._process.returncode}: {said}")

    def _last_line(self) -> str:
        return _tail(self.console)


def boot(
    name: str,
    *,
    cpus: int = 2,
    memory: int = 256,
    kaslr: bool = True,
    pti: bool = False,
    la57: bool = False,
    cpu: str | None = None,
    paused: bool = False,
    gdb: str = "unix",
    spin: int | None = None,
    threads: str | None = None,
    append: tuple[str, ...] = (),
    modules: tuple[str, ...] = manifest.EXTRA_MODULES,
    devices: tuple[str, ...] = (),
    files: tuple[tuple[str, Path], ...] = (),
    timeout: float = READY_SECONDS,
    quiet: bool = False,
) -> VM:
    """Boot the kernel `name` (fetched if it must be) and wait until the guest is ready; `Options` has the meanings.

    With `paused` it comes back before the first instruction: `vm.cont()` and `vm.wait_ready()` go on from there.
    A QEMU that crashes before the guest is ready is started again, twice at most.
    """
    chosen = Options(
        cpus=cpus, memory=memory, kaslr=kaslr, pti=pti, la57=la57, cpu=cpu, paused=paused, gdb=gdb, spin=spin,
        threads=threads, append=tuple(append), modules=tuple(modules), devices=tuple(devices), files=tuple(files),
    )  # fmt: skip
    chosen.check(manifest.find(name).arch)
    kernel = fetch(name, quiet=quiet)
    for _ in range(_BOOTS - 1):
        try:
            return _boot_once(kernel, chosen, timeout, quiet)
        except QEMUCrashed as error:
            print(f"{error}; it is started again", file=sys.stderr)
    return _boot_once(kernel, chosen, timeout, quiet)


def _boot_once(files: KernelFiles, chosen: Options, timeout: float, quiet: bool) -> VM:
    vm = VM(files, chosen, quiet=quiet)
    try:
        if not chosen.paused:
            vm.wait_ready(timeout)
    except BaseException:
        vm.close()
        raise
    return vm


def _tail(path: Path, with_text: bytes = b"") -> str:
    """The last line of a log (that has some text in it), safe to print on a terminal."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = [line.strip() for line in re.split(rb"[\r\n]+", file.read())]
    except OSError:
        return ""
    text = next((line for line in reversed(lines) if line and with_text in line), b"").decode(errors="replace")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return "".join(char if char.isprintable() else "?" for char in plain)
