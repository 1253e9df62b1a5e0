"""Opening what is wrong, at the shell: one clear line, exit status 2, and never a crash."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.changed_dumps import first_bytes
from support.kept_dumps import dump, vmlinux
from support.ordinary_user import ORDINARY_USER
from support.paths import TESTS

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

_OPENS = TESTS / "support" / "open_broken.py"


def kplug(*words: str | Path, run_by: Sequence[str] = ()) -> tuple[int, str, str]:
    """Exit status, output and errors of the real command."""
    command = [*run_by, sys.executable, "-m", "kplug", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return result.returncode, result.stdout, result.stderr


def refused(*words: str | Path, run_by: Sequence[str] = ()) -> str:
    """The one line that says why, after the command's name."""
    status, output, errors = kplug("where", *words, "0xffffffff81000000", run_by=run_by)
    assert (status, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("kplug: ")
    assert "internal error" not in line
    return line.removeprefix("kplug: ")


class TestNoDump:
    """What is given as a dump and is none."""

    def test_not_there(self) -> None:
        assert refused("-c", "/nowhere/vmcore") == "/nowhere/vmcore: No such file or directory"

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "vmcore"
        path.touch()
        assert refused("-c", path) == f"{path}: not a dump: it is empty"

    def test_a_directory(self, tmp_path: Path) -> None:
        assert refused("-c", tmp_path) == f"{tmp_path}: a directory, not a file"

    def test_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert refused("-c", tmp_path / "pipe") == f"{tmp_path}/pipe: a pipe, not a file"

    def test_text(self, tmp_path: Path) -> None:
        path = tmp_path / "notes"
        path.write_text("what happened\n" * 1000)
        assert refused("-c", path) == f"{path}: not a dump: neither an ELF core file nor makedumpfile's kdump format"

    def test_a_vmlinux(self) -> None:
        path = vmlinux("amd64-6.1")
        assert refused("-c", path) == f"{path}: not a dump but an executable or vmlinux (a vmlinux is given with -s)"

    def test_unreadable(self, tmp_path: Path) -> None:
        path = tmp_path / "vmcore"
        path.touch(0)
        assert refused("-c", path, run_by=ORDINARY_USER) == f"{path}: Permission denied"

    def test_a_programs_core_file(self, tmp_path: Path) -> None:
        from support.elf_core import program_core

        path = program_core(tmp_path / "core")
        assert refused("-c", path) == (
            f"{path}: no VMCOREINFO in it, nor in its memory: not a Linux kernel's dump, "
            "or give it with --vmcoreinfo FILE"
        )

    def test_netdumps(self, tmp_path: Path) -> None:
        from support.elf_core import program_core

        path = program_core(tmp_path / "core", task_note=True)
        assert refused("-c", path) == (
            f"{path}: no VMCOREINFO in it, nor in its memory: netdump's, of a kernel that had none yet "
            "(crash reads it), or give it with --vmcoreinfo FILE"
        )

    def test_compressed(self, tmp_path: Path) -> None:
        path = tmp_path / "vmcore.gz"
        path.write_bytes(gzip.compress(dump("amd64-6.1", "elf").open("rb").read(1 << 16)))
        assert refused("-c", path) == f"{path}: compressed with gzip: unpack it first (gunzip)"


class TestTruncated:
    """Where too little is left to answer anything."""

    @pytest.mark.parametrize("length", [1, 16, 63, 64, 200, 470, 2000, 5000])
    def test_elf(self, length: int, tmp_path: Path) -> None:
        path = first_bytes(dump("amd64-6.1", "elf"), tmp_path / "vmcore", length)
        assert refused("-c", path).startswith(f"{path}: ")

    def test_so_much_that_there_are_no_symbols(self, tmp_path: Path) -> None:
        path = first_bytes(dump("amd64-6.1", "elf"), tmp_path / "vmcore", 100_000)
        status, output, errors = kplug("where", "-c", path, "schedule")
        assert (status, output) == (1, "")
        assert errors.startswith(
            f"kplug: schedule: no such symbol, section or register ({path} is truncated: bytes missing at its end: "
        )
        assert "; no vmlinux found for 6.1." in errors
        _, _, errors = kplug("-c", path, "-e", "kwhere schedule")
        assert errors.startswith("kplug: schedule: no such symbol, section or register; Python: name 'schedule' is not")
        assert "; no vmlinux found for 6.1." in errors

    @pytest.mark.parametrize("length", [8, 400, 4095, 4096, 8192, 20000])
    def test_compressed(self, length: int, tmp_path: Path) -> None:
        path = first_bytes(dump("amd64-6.1", "makedumpfile-zlib"), tmp_path / "vmcore", length)
        assert refused("-c", path).startswith(f"{path}: truncated")

    @pytest.mark.parametrize("length", [16, 4096, 20000, 100000])
    def test_flattened(self, length: int, tmp_path: Path) -> None:
        path = first_bytes(dump("amd64-6.1", "makedumpfile-flat-d31"), tmp_path / "vmcore", length)
        assert refused("-c", path).startswith(f"{path}: truncated")


class TestOptions:
    """What else is given and cannot be used."""

    def test_another_kernels_vmlinux(self) -> None:
        line = refused("-c", dump("amd64-6.1", "kdump-zlib"), "-s", vmlinux("amd64-6.12"))
        assert line.count("(build ID ") == 2

    def test_no_vmcoreinfo(self, tmp_path: Path) -> None:
        note = tmp_path / "note"
        note.write_text("PAGESIZE=4096\n")
        line = refused("-c", dump("amd64-6.1", "elf"), "--vmcoreinfo", note)
        assert line == f"{note}: not the text of VMCOREINFO: no OSRELEASE in it"

    def test_a_folder_that_is_not_there(self) -> None:
        line = refused("-c", dump("amd64-6.1", "elf"), "--module-dir", "/nowhere")
        assert line == "--module-dir /nowhere: no such directory"


class TestLyingHeaders:
    """Headers with broken bytes are refused or answered; no library that reads them brings the process down."""

    @pytest.mark.parametrize(
        ("format", "first", "last"),
        [("elf", 0, 4096), ("elf-paging", 0, 16384), ("makedumpfile-zlib", 0, 8192), ("kdump-zlib", 4096, 12288)],
    )
    def test_none_crashes(self, format: str, first: int, last: int, tmp_path: Path) -> None:
        small = first_bytes(dump("amd64-6.1", format), tmp_path / "vmcore", 2 << 20)
        result = subprocess.run(
            [sys.executable, str(_OPENS), str(small), str(first), str(last), "0", "100"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, f"{result.stdout.splitlines()[-1:]} {result.stderr[-2000:]}"
        assert result.stderr == ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    """A listening socket at `qmp` in the folder."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmp"))
        listener.listen(4)
        yield listener


class TestNoGuest:
    """What is given as a QMP socket and is none."""

    def test_not_there(self) -> None:
        assert refused("--qemu", "/nowhere/qmp") == "/nowhere/qmp: no QMP server: No such file or directory"

    def test_nobody_listens(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "qmp"))
        assert refused("--qemu", tmp_path / "qmp") == f"{tmp_path}/qmp: no QMP server: Connection refused"

    def test_no_such_port(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            assert refused("--qemu", address) == f"{address}: no QMP server: Connection refused"

    def test_something_else_listens(self, server: socket.socket, tmp_path: Path) -> None:
        threading.Thread(target=_serve, args=(server, b"220 mail ready\r\n"), daemon=True).start()
        assert refused("--qemu", tmp_path / "qmp").startswith(f"{tmp_path}/qmp: not a QMP server: ")

    def test_it_says_nothing(self, server: socket.socket, tmp_path: Path) -> None:
        line = refused("--qemu", tmp_path / "qmp")
        assert line == (
            f"{tmp_path}/qmp: no QMP greeting or answer in 5 s: not a QMP server, or another client holds it"
        )

    def test_ctrl_c_while_it_does_not_answer(self, server: socket.socket, tmp_path: Path) -> None:
        """The first connection is answered, and on the second, which is drgn's, nothing comes."""
        served = threading.Event()
        threading.Thread(target=_serve_once, args=(server, served), daemon=True).start()
        with subprocess.Popen(
            [sys.executable, "-m", "kplug", "where", "--qemu", str(tmp_path / "qmp"), "0x10"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert served.wait(300)
            time.sleep(0.5)  # until drgn waits
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=600)
            assert (process.returncode, output, errors) == (130, "", "")


def _serve(listener: socket.socket, greeting: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(greeting)
        connection.recv(1)


def _serve_once(listener: socket.socket, served: threading.Event) -> None:
    """A QMP server that answers its first client only."""
    connection, _ = listener.accept()
    answers = [b"{}", b'{"running": true}', b'{"arch": "x86_64"}', b'""']
    with connection:
        connection.sendall(b'{"QMP": {}}\n')
        for answer in answers:
            connection.recv(4096)
            connection.sendall(b'{"return": ' + answer + b"}\n")
        connection.recv(1)
    second, _ = listener.accept()
    served.set()
    time.sleep(60)
    second.close()
