"""The forms in which distributions ship a vmlinux and its debug information: every front end answers from each as from
the plain file.

    pytest tests/matrix/test_forms.py --kernel amd64-6.12-clang --source dwz
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import gdbhelp
from support.oracle import binutils, kernels
from support.recorder import Recorder

pytestmark = pytest.mark.kernel

RANDOM_ADDRESSES = 3000
IN_A_DEBUGGER = 200
_WORDS = 50
_SEED = 20_27


class Made(NamedTuple):
    """A vmlinux in one form, and what stands in for /usr/lib/debug, if it takes that."""

    vmlinux: Path
    debug_directory: Path | None = None


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, capture_output=True)


def _compressed(form: str) -> Callable[[Path, Path], Made]:
    def make(plain: Path, folder: Path) -> Made:
        _run("objcopy", f"--compress-debug-sections={form}", plain, folder / "vmlinux")
        return Made(folder / "vmlinux")

    return make


def _dwz(plain: Path, folder: Path) -> Made:
    for name in ("vmlinux", "another"):
        shutil.copy(plain, folder / name)
    _run("dwz", "-L", "none", "-l", "none", "-m", "common.debug", "vmlinux", "another", cwd=folder)
    (folder / "another").unlink()
    return Made(folder / "vmlinux")


def _dwz_alone(plain: Path, folder: Path) -> Made:
    shutil.copy(plain, folder / "vmlinux")
    _run("dwz", "-L", "none", "-l", "none", "vmlinux", cwd=folder)
    return Made(folder / "vmlinux")


def _indexed(*options: str) -> Callable[[Path, Path], Made]:
    def make(plain: Path, folder: Path) -> Made:
        shutil.copy(plain, folder / "vmlinux")
        _run("gdb-add-index", *options, "vmlinux", cwd=folder)
        return Made(folder / "vmlinux")

    return make


def _linked(plain: Path, folder: Path) -> Made:
    _run("objcopy", "--only-keep-debug", plain, folder / "kernel.debug")
    _run("objcopy", "--strip-debug", "--add-gnu-debuglink=kernel.debug", plain, "vmlinux", cwd=folder)
    return Made(folder / "vmlinux")


def _beside(plain: Path, folder: Path) -> Made:
    _run("objcopy", "--only-keep-debug", plain, folder / "vmlinux.debug")
    _run("strip", "--strip-all", plain, "-o", folder / "vmlinux")
    return Made(folder / "vmlinux")


def _by_build_id(plain: Path, folder: Path) -> Made:
    from vmimages.elf import build_id

    name = build_id(plain)
    place = folder / "debug" / ".build-id" / name[:2] / f"{name[2:]}.debug"
    place.parent.mkdir(parents=True)
    _run("objcopy", "--only-keep-debug", plain, place)
    _run("strip", "--strip-all", plain, "-o", folder / "vmlinux")
    return Made(folder / "vmlinux", folder / "debug")


FORMS: dict[str, Callable[[Path, Path], Made]] = {
    "zlib": _compressed("zlib"),
    "zstd": _compressed("zstd"),
    "zlib-gnu": _compressed("zlib-gnu"),
    "dwz": _dwz,
    "dwz-alone": _dwz_alone,
    "debug_names": _indexed("-dwarf-5"),
    "gdb_index": _indexed(),
    "debuglink": _linked,
    "vmlinux.debug": _beside,
    "build-id": _by_build_id,
}


@pytest.fixture(scope="module", params=FORMS)
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plain(kernel: str) -> Path:
    return Path(kernels.vmlinux(kernel))


@pytest.fixture(scope="module")
def made(source: str, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp(source)
    yield FORMS[source](plain, folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def addresses(plain: Path) -> Sequence[str]:
    """Bounds of sections, addresses at random in all of them, and as many in code."""
    choose = random.Random(_SEED)
    rows = [row for row in binutils.sections(str(plain)) if "A" in row.flags and row.size and row.address]
    code = [row for row in rows if "X" in row.flags]
    found = {bound for row in rows for bound in (row.address - 1, row.address, row.address + row.size)}
    for _ in range(RANDOM_ADDRESSES):
        for row in (choose.choices(code, [each.size for each in code])[0], choose.choice(rows)):
            found.add(row.address + choose.randrange(row.size))
    return [hex(address) for address in sorted(found)]


def _answers(text: str) -> dict[str, dict[str, Any]]:
    """The answers by address, without the file's name; and without the source files of static symbols, whose names
    `objcopy --strip-debug` takes out of the symbol table."""
    found = {}
    for line in text.splitlines():
        answer = json.loads(line)
        for layer in answer["layers"]:
            if layer["kind"] == "image":
                layer["name"] = layer["details"]["path"] = ""
            elif layer["kind"] == "symbol":
                layer["details"].pop("file", None)
        found[answer["input"]] = answer
    return found


def _command(made: Made, *words: str) -> list[str]:
    """The command, with the folder of debug files in the place of the system's, for it alone."""
    if made.debug_directory is None:
        return list(words)
    script = f'mount --bind "{made.debug_directory}" /usr/lib/debug && exec "$@"'
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *words]


def _kplug(made: Made, *words: str, given: str = "") -> str:
    command = _command(made, sys.executable, "-m", "kplug", *words)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def _compare(cell: Recorder, what: str, plain: dict[str, Any], got: dict[str, Any]) -> None:
    differing = [(at, plain[at], got.get(at)) for at in plain if plain[at] != got.get(at)]
    cell.compared(what, len(plain), len(differing))
    assert len(plain) > IN_A_DEBUGGER / 2
    assert not differing, f"{len(differing)} differ, as {differing[:2]}"


def test_the_shell(plain: Path, made: Made, addresses: Sequence[str], cell: Recorder) -> None:
    words, given = ("where", "-l", "--json", "-s"), "\n".join(addresses) + "\n"
    expected = _answers(_kplug(Made(plain), *words, str(plain), "-", given=given))
    assert any(layer["kind"] == "line" for each in expected.values() for layer in each["layers"])
    _compare(cell, "answers", expected, _answers(_kplug(made, *words, str(made.vmlinux), "-", given=given)))


def _batches(addresses: Sequence[str]) -> list[Sequence[str]]:
    few = addresses[:: max(1, len(addresses) // IN_A_DEBUGGER)]
    return [few[at : at + _WORDS] for at in range(0, len(few), _WORDS)]


def test_gdb(
    kernel: str, source: str, plain: Path, made: Made, addresses: Sequence[str], tmp_path: Path, cell: Recorder
) -> None:
    def asked(made: Made) -> dict[str, Any]:
        commands = [f"kwhere -l --json {' '.join(batch)}" for batch in _batches(addresses)]
        wrapper = tmp_path / "gdb"
        # All forms have one build ID, under which gdb would keep an index of each.
        no_index = "-iex 'set index-cache enabled off'"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(_command(made, gdbhelp.GDB))} "$@" {no_index}\n')
        wrapper.chmod(0o755)
        session = gdbhelp.run(commands, tmp_path, vmlinux=made.vmlinux, program=str(wrapper))
        return _answers("".join(session[command].text for command in commands))

    expected, got = asked(Made(plain)), asked(made)
    unread, no_lines = made.vmlinux.with_suffix(".debug").exists(), None
    if unread:
        no_lines = "it takes debug files by build ID and .gnu_debuglink, not by their name; kplug says so"
    elif source == "debug_names" and "clang" in kernel:
        # Of 1,671 units 21 have ranges there, those from assembly; gcc writes ranges of all.
        no_lines = "with .debug_names it finds an address's unit by .debug_aranges, which clang does not write"
    if no_lines is not None:
        cell.stopped("gdb", f"source lines: {no_lines}")
        for answers in (expected, got):
            for answer in answers.values():
                answer["layers"] = [layer for layer in answer["layers"] if layer["kind"] != "line"]
    if unread:
        for answer in got.values():
            said = [warning for warning in answer["warnings"] if "which gdb has not read" in warning]
            assert len(said) == 1
            answer["warnings"].remove(said[0])
    _compare(cell, "answers in gdb", expected, got)


@pytest.mark.boot
def test_the_prompt_on_a_dump(kernel: str, plain: Path, made: Made, addresses: Sequence[str], cell: Recorder) -> None:
    from vmimages.dumping import dumps

    # Without ACPI, these kernels find one CPU. Not the usual machine: no other format is made.
    core = dumps(kernel, ("elf",), cpus=1, memory=192, quiet=True)
    offset = core.truth.kaslr_offset(core.files)
    moved = [hex(int(address, 16) + offset) for address in addresses]

    def asked(made: Made) -> dict[str, Any]:
        commands = [word for batch in _batches(moved) for word in ("-e", f"kwhere -l --json {' '.join(batch)}")]
        return _answers(_kplug(made, "-c", str(core.paths["elf"]), "-s", str(made.vmlinux), *commands))

    _compare(cell, "answers in the prompt", asked(Made(plain)), asked(made))
