"""Sourcing the script: by any name, twice, in a package, without drgn, on too little of everything."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import gdbhelp
from support.gdbhelp import SCRIPT, run
from support.paths import ROOT

COMMANDS = ("kwhere", "kregs", "kstack", "kx", "ksym", "kregions", "ksections", "ksegments", "kmap", "kaslr", "kplug")
# What must be so after loading, whatever the name was: the real gdb module, the checkout's core, nothing on sys.path.
CHECKS = (
    "python import gdb, kplug, sys; print(gdb.__file__, kplug.__file__, hasattr(gdb, 'execute'))",
    f"python print([p for p in sys.path if p.startswith({str(ROOT)!r}) or p.endswith('kplug_gdb')])",
    "python print('drgn' in sys.modules)",
)


def check(session: gdbhelp.Session) -> None:
    place, path, imported = (session[command].text for command in CHECKS)
    assert str(ROOT / "kplug" / "__init__.py") in place
    assert str(ROOT / "gdb") not in place.split()[0]
    assert path.strip() == "[]"
    assert imported.strip() == "False"
    assert "What is this address?" in session["help kwhere"].text


def test_by_any_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.py").symlink_to(SCRIPT)
    (home / "folder").symlink_to(ROOT)
    for name, cwd in (
        (str(SCRIPT), tmp_path),
        ("gdb/kplug.py", ROOT),
        ("kplug.py", ROOT / "gdb"),
        ("link.py", home),
        ("~/link.py", tmp_path),
        ("~/folder/gdb/kplug.py", tmp_path),
        ("../home/folder/gdb/../gdb/kplug.py", home),
    ):
        session = run([*CHECKS, "help kwhere"], tmp_path, script=name, cwd=cwd, extra={"HOME": str(home)})
        assert session[f"source {name}"].error is None
        check(session)


def test_from_another_script(tmp_path: Path) -> None:
    outer = tmp_path / "outer.py"
    outer.write_text(f"import gdb\ngdb.execute('source {SCRIPT}')\n")
    check(run([*CHECKS, "help kwhere"], tmp_path, script=outer))


def test_twice(tmp_path: Path) -> None:
    session = run(
        [
            "set kplug lines off",
            "python import kplug_gdb, kplug; first = (kplug_gdb, kplug)",
            f"source {SCRIPT}",
            "python import kplug_gdb, kplug; print(kplug_gdb is first[0], kplug is first[1])",
            "python print(sum(type(f).__name__ == 'PackageFinder' for f in sys.meta_path))",
            "show kplug lines",
            "help kwhere",
            *CHECKS,
        ],
        tmp_path,
    )
    assert [result.error for result in session.results] == [None] * len(session.results)
    assert session.results[4].output.strip() == "False False"
    assert session.results[5].output.strip() == "1"
    assert session["show kplug lines"].text.strip().endswith("off.")
    check(session)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The two packages as a wheel installs them, without drgn."""
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "kplug", site / "kplug", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "gdb" / "kplug_gdb", site / "kplug_gdb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SCRIPT, site / "kplug_gdb" / "kplug.py")
    return site


# The machine may have it for the system's Python.
HIDE = "python import sys; sys.path[:] = [p for p in sys.path if not p.endswith('-packages')]"
REMEDY = "python from kplug_gdb import dependencies; print(dependencies.has_drgn(), dependencies.drgn_remedy())"
VERSION = "python import sys; print('python%d.%d' % sys.version_info[:2])"


def test_installed_package(package: Path, tmp_path: Path) -> None:
    # numpy stands for everything else in site-packages: it must not become importable.
    (package / "numpy.py").write_text("raise SystemError('not to be imported')\n")
    for name in ("drgn", "_drgn", "_drgn_util"):
        (package / f"{name}.py").write_text("raise SystemError('not to be imported yet')\n")
    session = run(
        [
            "python import kplug, importlib.util; print(kplug.__file__, importlib.util.find_spec('numpy'))",
            "python print(importlib.util.find_spec('drgn').origin)",
            "kplug",
        ],
        tmp_path,
        before=[HIDE],
        script=package / "kplug_gdb" / "kplug.py",
        extra={"VIRTUAL_ENV": ""},
    )
    core, numpy = session.results[2].text.split()
    assert core == str(package / "kplug" / "__init__.py")
    assert str(package) not in numpy
    assert session.results[3].text.strip() == str(package / "drgn.py")
    assert "no vmlinux" in session["kplug"].text
    assert "missing" not in session["kplug"].text


def test_the_command_that_installs_drgn(package: Path, tmp_path: Path) -> None:
    """It puts drgn where kplug looks; what it would make is made here by hand, of the packages' names alone."""
    checkout = tmp_path / "check out"
    shutil.copytree(package / "kplug", checkout / "kplug")
    shutil.copytree(package / "kplug_gdb", checkout / "gdb" / "kplug_gdb")
    shutil.move(str(checkout / "gdb" / "kplug_gdb" / "kplug.py"), checkout / "gdb" / "kplug.py")
    (checkout / "pyproject.toml").touch()
    script, venv = checkout / "gdb" / "kplug.py", checkout / ".venv"

    def asked(script: Path) -> tuple[str, str, str]:
        found = run([VERSION, REMEDY, "kplug"], tmp_path, before=[HIDE], script=script, extra={"VIRTUAL_ENV": ""})
        assert found[f"source {script}"].text == ""
        has_drgn, _, remedy = found[REMEDY].text.strip().partition(" ")
        assert (f"  remedy  {remedy}" in found["kplug"].text) == (has_drgn == "False")
        return found[VERSION].text.strip(), has_drgn, remedy

    python, has_drgn, remedy = asked(package / "kplug_gdb" / "kplug.py")
    assert (has_drgn, remedy) == ("False", f"{python} -m pip install --target {package} drgn")
    assert asked(script)[1:] == ("False", f"{python} -m venv '{venv}' && '{venv}/bin/pip' install drgn")
    (venv / "lib" / "python3.1" / "site-packages").mkdir(parents=True)
    packages = venv / "lib" / python / "site-packages"
    assert asked(script)[1:] == ("False", f"{python} -m pip install --target '{packages}' drgn")
    packages.mkdir(parents=True)
    assert asked(script)[1:] == ("False", f"'{venv}/bin/{python}' -m pip install drgn")
    for name in ("drgn", "_drgn", "_drgn_util"):
        (packages / f"{name}.py").touch()
    assert asked(script)[1] == "True"


def test_broken_checkout(tmp_path: Path) -> None:
    (tmp_path / "gdb").mkdir()
    script = tmp_path / "gdb" / "kplug.py"
    shutil.copy(SCRIPT, script)
    said = run([], tmp_path, script=script)[f"source {script}"].text
    assert len(said.splitlines()) == 1
    assert "checkout or package is incomplete" in said


def test_without_vmlinux(tmp_path: Path) -> None:
    session = run([*COMMANDS, "kwhere 0", "p $kwhere(0)", "complete kwhere a", "complete kwhere --j"], tmp_path)
    for command in ("kregions", "ksections", "ksegments", "kaslr", "kwhere 0"):
        assert session[command].complaint.startswith("no vmlinux: "), command
    assert "no address given" in session["kwhere"].complaint
    assert "required: NAME" in session["ksym"].complaint
    assert "no vmlinux" in session["p $kwhere(0)"].complaint
    assert "no vmlinux" in session["kplug"].text
    assert session["complete kwhere a"].text == ""
    assert session["complete kwhere --j"].text == "kwhere --json\n"


def test_other_programs_and_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ELF\n")
    (tmp_path / "short").write_bytes(Path(sys.executable).read_bytes()[:1000])
    session = run(
        ["kwhere 0", "set kplug vmlinux /no/such", "show kplug vmlinux", "set kplug vmlinux text", "kwhere 0",
         "set kplug vmlinux short", "kwhere 1"],
        tmp_path, vmlinux=sys.executable,
    )  # fmt: skip
    first, second = session.all("kwhere 0")
    assert first.complaint.startswith("no vmlinux: ")
    assert session["set kplug vmlinux /no/such"].complaint == "/no/such: no such file"
    assert session["show kplug vmlinux"].text.strip().endswith("auto.")
    assert "not an ELF file" in second.complaint
    assert "short: " in session["kwhere 1"].complaint


def test_settings(tmp_path: Path) -> None:
    session = run(
        ["show kplug", "set kplug slide 0x100", "show kplug slide", "set kplug slide x", "show kplug slide ",
         "set kplug color blue", "set kplug nothing"],
        tmp_path,
    )  # fmt: skip
    assert len(session["show kplug"].text.splitlines()) == 10
    assert "0x100" in session["show kplug slide"].text
    assert "auto, none or a number" in session["set kplug slide x"].complaint
    assert "0x100" in session["show kplug slide "].text
    assert session["set kplug color blue"].error
    assert "no setting 'nothing'" in session["set kplug nothing"].complaint


def test_own_mistakes_are_one_line(tmp_path: Path) -> None:
    session = run(
        [
            "python import kplug_gdb.host; kplug_gdb.host.HOST.session = lambda: 1 // 0",
            "kwhere 0",
            "p $kclass(0)",
            "set python print-stack full",
            "kwhere 1",
        ],
        tmp_path,
    )
    for command in ("kwhere 0", "p $kclass(0)"):
        error = session[command].error or ""
        assert "internal error: ZeroDivisionError" in error
        assert len(error.strip().splitlines()) == 1
    assert "integer division or modulo by zero" in (session["kwhere 1"].error or "")


@pytest.mark.kernel
@pytest.mark.skipif("KPLUG_GDB" in os.environ, reason="drives a terminal by the prompt that the system's gdb draws")
def test_colours_on_the_terminal_only(tmp_path: Path, bare_61: Path) -> None:
    """What goes into a pipe, or to a script, has no escapes; nor has what a script writes."""
    ours, theirs = pty.openpty()
    piped, kept = tmp_path / "piped", tmp_path / "kept"
    commands = [
        f"source {SCRIPT}",
        "kwhere --brief schedule",
        f"pipe kwhere schedule | cat > {piped}",
        f"| kwhere schedule | cat >> {piped}",
        f"python open({str(kept)!r}, 'w').write(gdb.execute('kwhere schedule', to_string=True))",
        "quit",
    ]
    environment = {**gdbhelp.environment(), "TERM": "xterm"}
    started = [gdbhelp.GDB, "-nx", "-q", "-ex", "set confirm off", str(bare_61)]
    shown = b""
    with subprocess.Popen(started, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, "".join(f"{command}\n" for command in commands).encode())
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
        process.wait(60)
    os.close(ours)
    answer = next(line for line in shown.splitlines() if b".text" in line and b"schedule" in line)
    assert b"\x1b[" in answer.replace(b"\x1b[?2004", b"")
    assert piped.read_text().count("schedule+0x0") == 2
    assert "\x1b" not in piped.read_text() + kept.read_text()
    assert "schedule+0x0" in kept.read_text()
