"""The interpreters and debuggers of cells: the machine's own, and what PyPI has, in environments in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matrix.cells import GDB, PYTHON, Cell, Stop
from support.paths import ROOT
from vmimages.paths import cache_root, locked, remove_tree

_VENV = ROOT / ".venv" / "bin" / "python"


class NotHereError(Exception):
    """A tool that is not to be had on this machine."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(why)
        self.stop = Stop(layer, why)


@dataclass
class Setting:
    """What a cell is run with."""

    python: Path = _VENV
    environment: Mapping[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)


def setting(cell: Cell) -> Setting:
    """The interpreter and the environment of a cell; NotHereError if they are not to be had."""
    if cell.half == PYTHON:
        version = cell.subject.partition("-")[2]
        python = _environment(cell.subject, _interpreter(version), [str(ROOT), "pytest", "hypothesis"])
        return Setting(python, {}, {"Python": _printed(python, "--version").partition(" ")[2]})
    if cell.half == GDB:
        gdb = _gdb(cell.subject)
        embedded = _printed(gdb, "-nx", "-batch", "-ex", "python import platform; print(platform.python_version())")
        about = {"gdb": _printed(gdb, "--version").splitlines()[0], "Python": embedded}
        return Setting(_VENV, {"KPLUG_GDB": str(gdb)}, about)
    return Setting()


def _printed(program: Path | str, *words: str) -> str:
    done = subprocess.run([str(program), *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return (done.stdout or done.stderr).strip()


def _environment(name: str, interpreter: Path, packages: list[str]) -> Path:
    """The Python of a virtual environment in the cache, made again when what it holds may have changed."""
    folder = cache_root() / "matrix" / name
    made = folder / ".made"
    with locked("matrix-lock"):
        if not made.exists() or made.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
            remove_tree(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
            for command in ([str(interpreter), "-m", "venv", str(folder)], [*pip, *packages]):
                done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
                if done.returncode:
                    lines = (done.stderr or done.stdout).strip().splitlines()
                    raise NotHereError("packages", lines[-1] if lines else f"{command[0]} failed")
            made.touch()
    return folder / "bin" / "python"


def _interpreter(version: str) -> Path:
    """Python of that version: on PATH, or pyenv's. A shim of pyenv may stand for a version that is not there."""
    found = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for each in (
        *([Path(found)] if found else []),
        *sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True),
    ):
        if subprocess.run([str(each), "-c", ""], capture_output=True, check=False).returncode == 0:
            return each
    raise NotHereError("packages", f"Python {version} is not installed, on PATH or by pyenv")


def _gdb(name: str) -> Path:
    """A gdb by its row: gdb-16 and newer are PyPI's builds, the others the machine's if they have that version."""
    program, _, version = name.rpartition("-")
    if int(version) >= 16:
        return _environment(name, _VENV, [f"gdb-for-pwndbg>={version},<{int(version) + 1}"]).with_name("gdb")
    found = shutil.which(program)
    if found is None:
        raise NotHereError("packages", f"{program} is not installed")
    line = _printed(found, "--version").splitlines()[0]
    here = re.search(r"(\d+)\.\d+(\.\d+)?$", line)
    if here is None or here[1] != version:
        raise NotHereError("packages", f"this machine's is {line}")
    return Path(found)
