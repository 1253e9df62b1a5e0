"""What surrounds a machine, without booting one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vmimages import command, machine, manifest, options, paths, process
from vmimages.cli import main
from vmimages.errors import VMError
from vmimages.fetching import KernelFiles
from vmimages.options import Options
from vmimages.progress import Progress, size_text
from vmimages.truth import GroundTruth, collect


def files(root: Path, arch: str = "amd64") -> KernelFiles:
    return KernelFiles(
        name=f"{arch}-6.1", arch=arch, release="r", version="v", build_id="00", root=root, vmlinux=root / "vmlinux",
        vmlinuz=root / "vmlinuz", config=root / "config", system_map=root / "System.map", modules=root / "modules",
        debug_modules=root / "debug-modules", busybox=root / "busybox",
    )  # fmt: skip


def test_command_line(tmp_path: Path) -> None:
    words = options.command(Options(), files(tmp_path), tmp_path / "i", tmp_path / "a,b")
    assert words[0] == "qemu-system-x86_64"
    assert "tcg,thread=single" in words
    assert "-S" not in words
    # Nothing listens on a network, and no comma of a path splits an option.
    assert not any("host=" in word for word in words)
    assert any(word.endswith(f"path={tmp_path}/a,,b/gdb.sock") for word in words)
    assert "nokaslr" not in options.kernel_command_line(Options(), "amd64")
    assert "nokaslr" in options.kernel_command_line(Options(kaslr=False), "amd64").split()
    assert "pti=on" in options.kernel_command_line(Options(pti=True), "amd64").split()
    on_tcp = options.command(Options(gdb="tcp", paused=True), files(tmp_path), tmp_path / "i", tmp_path)
    assert any("host=127.0.0.1,port=0" in word for word in on_tcp)
    assert "-S" in on_tcp


def test_command_line_of_another_architecture(tmp_path: Path) -> None:
    words = options.command(Options(pti=True), files(tmp_path, "arm64"), tmp_path / "i", tmp_path)
    assert words[0] == "qemu-system-aarch64"
    assert "virt" in words
    assert {"console=ttyAMA0", "kpti=on"} <= set(words[words.index("-append") + 1].split())
    chosen = options.command(Options(cpu="cortex-a72"), files(tmp_path, "arm64"), tmp_path / "i", tmp_path)
    assert chosen[chosen.index("-cpu") + 1] == "cortex-a72"
    with pytest.raises(VMError, match="LA57"):
        Options(la57=True).check("arm64")
    with pytest.raises(VMError, match="no machine to boot m68k"):
        options.command(Options(), files(tmp_path, "m68k"), tmp_path / "i", tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [Options(cpus=0), Options(memory=64), Options(gdb="x"), Options(threads="x"), Options(spin=2), Options(spin=-1)],
)
def test_options_that_make_no_sense(wrong: Options) -> None:
    with pytest.raises(VMError):
        wrong.check("amd64")


def test_run_dirs(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Path("/tmp") / f"kplug-test-{os.getpid()}"
    monkeypatch.setenv("KPLUG_CACHE", str(short))
    try:
        mine, dead = paths.make_run_dir(), paths.make_run_dir()
        (mine / "owner").write_text(f"{os.getpid()}\n")
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        (dead / "owner").write_text(f"{child.pid}\n")
        new = paths.make_run_dir()
        assert mine.exists()
        assert not dead.exists()
        assert new.parent == short / "run"
    finally:
        paths.remove_tree(short)
    # A socket's path must fit in 108 bytes.
    monkeypatch.setenv("KPLUG_CACHE", str(tmp_path / ("x" * 90)))
    away = paths.make_run_dir()
    assert len(str(away)) < 90
    away.rmdir()


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from vmimages import process\n"
        "child = process.start(['sleep', '60'], open(sys.argv[2], 'wb'))\n"
        "print(child.pid, flush=True); time.sleep(60)\n"
    )
    vm_images = Path(process.__file__).parents[1]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(vm_images), str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(pid)


def test_stop_and_a_missing_program(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        child = process.start(["sleep", "60"], log)
        process.stop(child)
        assert child.returncode == -signal.SIGTERM
        process.stop(child)
        with pytest.raises(VMError, match="apt-packages"):
            process.start(["no-such-program-here"], log)


def test_program_beside_a_machine() -> None:
    assert command.fill_in(["{gdb} {x} {}", "a"], {"gdb": "/s", "pid": 1}) == ["/s {x} {}", "a"]
    assert command.run_beside([sys.executable, "-c", "raise SystemExit({pid})"], {"pid": 7}) == 7
    with pytest.raises(VMError, match="no-such"):
        command.run_beside(["no-such-program-here"], {})


def test_progress_on_a_terminal_and_in_a_log() -> None:
    log = io.StringIO()
    progress = Progress("x", log)
    for step in range(1000):
        progress.update(str(step))
    progress.done("end")
    assert log.getvalue() == "x: 0\nx: end\n"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    progress = Progress("x", screen)
    progress.update("y" * 500)
    progress.done("end")
    first, second = screen.getvalue().split("\r\033[K")[1:]
    assert len(first) < 500
    assert second == "x: end\n"
    quiet = io.StringIO()
    Progress("x", quiet, quiet=True).done("end")
    assert quiet.getvalue() == ""
    assert [size_text(count) for count in (7, 1500, 2_000_000, 1_730_000_000)] == ["7 B", "2 kB", "2 MB", "1.73 GB"]


def test_truth(tmp_path: Path) -> None:
    answers = {
        "kallsyms": b"0000000000000000 A zero\nffffffff9c000000 T _text\nffffffffc0001000 t f\t[loop]\n"
        b"ffffffffc0002000 t _text\t[loop]\n",
        "modules": b"loop 32768 0 - Live 0xffffffffc0001000\ntainted 4096 1 loop, Live 0xffffffffc0009000 (OE)\n",
        "sections": b"loop/sections/.text:0xffffffffc0001000\nloop/sections/__bug_table:0xffffffffc0003000\n",
        "module-build-ids": b"loop 00ff\n",
    }
    from vmimages import truth

    names = {shell: name for name, shell in truth._COMMANDS}
    found = collect(
        lambda shell: (0, answers[names[shell]]) if names[shell] in answers else (1, b"error"), tmp_path / "t"
    )
    assert found.address("_text") == 0xFFFFFFFF9C000000
    assert [symbol.module for symbol in found.symbols] == [None, None, "loop", "loop"]
    assert found.modules == {"loop": (0xFFFFFFFFC0001000, 32768), "tainted": (0xFFFFFFFFC0009000, 4096)}
    assert found.module_sections == {"loop": {".text": 0xFFFFFFFFC0001000, "__bug_table": 0xFFFFFFFFC0003000}}
    assert found.module_build_ids == {"loop": "00ff"}
    assert found.text("iomem") == ""
    (tmp_path / "System.map").write_text("ffffffff81000000 T _text\n")
    assert found.kaslr_offset(files(tmp_path)) == 0x1B000000
    for ask in (lambda: found.address("no"), lambda: found.build_id, lambda: GroundTruth(tmp_path / "no").symbols):
        with pytest.raises(VMError):
            ask()


def test_errors_are_one_line(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["fetch", "nope"],
        ["boot", "arm64-6.12", "--la57"],
        ["list", "--", "x"],
        ["boot", "amd64-6.1", "--cpus", "0"],
    ):
        assert main(words) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    for words in ([], ["nope"], ["boot"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        capsys.readouterr()


def test_list_and_clean(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(manifest.KERNELS)
    assert main(["list", "--json"]) == 0
    for name in ("dumps", "kernels", "apt", "boot-images", "disks"):
        (cache / name / "x").mkdir(parents=True)
    assert main(["clean"]) == 0
    assert {path.name for path in cache.iterdir()} == {"boot-images", "kernels"}
    assert main(["clean", "--all"]) == 0
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["list", "fetch", "image", "initramfs", "boot", "dump", "truth", "clean"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert "usage: vm.py" in capsys.readouterr().out


@pytest.mark.parametrize(("ends", "starts"), [("kill -SEGV $$", 3), ("exit 1", 1)])
def test_qemu_that_crashes_is_started_again_and_one_that_refuses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, starts: int
) -> None:
    began = tmp_path / "began"
    monkeypatch.setattr(machine, "fetch", lambda name, quiet: files(tmp_path))
    monkeypatch.setattr(machine.initramfs, "build", lambda *_: tmp_path / "initramfs")
    monkeypatch.setattr(machine.options, "command", lambda *_: ["sh", "-c", f"echo >> '{began}'; {ends}"])
    with pytest.raises(VMError, match="QEMU ended with status"):
        machine.boot("amd64-6.1", quiet=True)
    assert began.read_text() == "\n" * starts
