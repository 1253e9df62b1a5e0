"""The interpreters and debuggers of cells: the machine's own, PyPI's, and other Debian suites', in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matrix.cells import GDB, PYTHON, PYTHON_GDBS, PYTHON_SUITES, Cell, Stop
from support.paths import ROOT
from vmimages import VMError
from vmimages.apt import PrivateApt
from vmimages.architectures import host
from vmimages.package_tree import unpack_with_needed
from vmimages.paths import cache_root, locked, remove_tree
from vmimages.progress import Progress

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
    version = cell.subject.rpartition("-")[2]
    if cell.half == PYTHON and cell.source == "gdb":
        suite = PYTHON_GDBS[version]
        assert isinstance(suite, str)
        return _with_gdb(_unpacked(suite, "gdb-multiarch", "gdb-multiarch"))
    if cell.half == PYTHON:
        python = _environment(cell.subject, _interpreter(version), [str(ROOT), "pytest", "hypothesis"])
        return Setting(python, {}, {"Python": _printed(python, "--version").partition(" ")[2]})
    if cell.half == GDB:
        return _with_gdb(_gdb(cell.subject))
    return Setting()


def _with_gdb(gdb: Path) -> Setting:
    embedded = _printed(gdb, "-nx", "-batch", "-ex", "python import platform; print(platform.python_version())")
    about = {"gdb": _printed(gdb, "--version").splitlines()[0].rpartition(" ")[2], "Python": embedded}
    # Debian's plain gdb knows this machine's architecture alone: the tests of others have gdb-multiarch beside it.
    return Setting(_VENV, {} if gdb == Path(shutil.which("gdb") or "") else {"KPLUG_GDB": str(gdb)}, about)


def _printed(program: Path | str, *words: str) -> str:
    done = subprocess.run([str(program), *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return (done.stdout or done.stderr).strip()


def _environment(name: str, interpreter: Path, packages: list[str]) -> Path:
    """The Python of a virtual environment in the cache, made again when what it holds may have changed."""
    folder = cache_root() / "matrix" / name
    made = folder / ".made"
    with locked("matrix-tools-lock"):
        if not made.exists() or made.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
            remove_tree(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            _make([str(interpreter), "-m", "venv", "--without-pip", str(folder)])
            # This one's pip, for that one: Debian's others have none that works unpacked.
            pip = [str(_VENV), "-m", "pip", "--quiet", "--disable-pip-version-check", "--python"]
            _make([*pip, str(folder / "bin" / "python"), "install", *packages])
            made.touch()
    return folder / "bin" / "python"


def _make(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotHereError("packages", lines[-1] if lines else f"{command[0]} failed")


def _unpacked(suite: str, package: str, program: str) -> Path:
    """A program of another Debian suite, beside what it needs: nothing is installed.

    It is told to load the C library and the others of its own suite; what it starts is the machine's.
    """
    root = cache_root() / "matrix" / f"{suite}-{package}"
    path = root / "usr" / "bin" / program
    with locked("matrix-tools-lock"):
        if not (root / ".made").exists():
            remove_tree(root)
            try:
                with locked("lock"):  # apt's folders are shared
                    apt = PrivateApt((suite,), host(), package)
                    apt.update(lambda _: None)
                    unpack_with_needed(apt, package, _is_needed, root, Progress(f"{suite} {package}", quiet=True))
            except VMError as error:
                raise NotHereError("packages", str(error)) from None
            [loader, *_] = sorted(root.glob("usr/lib/*/ld-linux-*.so.*"))
            _make(
                [
                    "patchelf",
                    "--set-interpreter",
                    str(loader),
                    "--force-rpath",
                    "--set-rpath",
                    str(loader.parent),
                    str(path),
                ]
            )
            (root / ".made").touch()
    return path


def _is_needed(package: str) -> bool:
    return package == "gdb" or package.startswith(("lib", "python3", "media-types", "tzdata"))


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
    if version in PYTHON_SUITES:
        return _unpacked(PYTHON_SUITES[version], f"python{version}-venv", f"python{version}")
    raise NotHereError(
        "packages", f"Python {version} is not installed, on PATH or by pyenv, and no Debian suite has it"
    )


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
