"""The configuration in an image (CONFIG_IKCONFIG), at the shell: what was packed into it must come out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from support.answers import outputs
from support.bad_files import SECONDS
from support.bounded_kplug import BoundedKplug
from support.elf_builder import BANNER, BASE_64, BUILD_ID, build_id_note, small_vmlinux
from support.elf_notes import note, vmlinux_with_notes
from support.info import facts_of
from support.kernel_memory import Memory, kernel_without_a_file

from kplug.live.machine import Machine
from kplug.outputs import Problem, Table
from kplug.shell import cli

CONFIG = "# Linux/x86 6.1 Kernel Configuration\nCONFIG_64BIT=y\n# CONFIG_IKCONFIG_PROC is not set\nCONFIG_IKCONFIG=y\n"


def with_config(folder: Path, packed: bytes) -> str:
    elf = small_vmlinux()
    [rodata] = [section for section in elf.sections if section.name == ".rodata"]
    rodata.data = BANNER.ljust(0x80, b"\0") + b"IKCFG_ST" + packed + b"IKCFG_ED"
    path = folder / "vmlinux"
    path.write_bytes(bytes(elf))
    return str(path)


def test_the_configuration_is_printed(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = with_config(tmp_path, gzip.compress(CONFIG.encode()))
    assert facts_of(kplug.run("info", "--json", path))["config"] == "in the image (IKCONFIG)"
    answer = kplug.run("info", path, "--config")
    assert (answer.status, answer.out, answer.err) == (0, CONFIG, "")
    assert kplug.run("info", path, "--config", "64bit").out == "CONFIG_64BIT=y\n"
    assert kplug.run("info", path, "--config=CONFIG_IKCONFIG*").out == "\n".join([*CONFIG.splitlines()[2:], ""])
    missing = kplug.run("info", path, "--config=NUMA")
    assert (missing.status, missing.err) == (1, f"kplug: {path}: no option NUMA in its configuration\n")


def test_the_running_kernels_is_where_it_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.gz"
    path.write_bytes(gzip.compress(CONFIG.encode()))
    monkeypatch.setattr("kplug.commands.info._RUNNING_CONFIG", str(path))
    session = kernel_without_a_file([BASE_64, BASE_64 + 8], Memory(0, b""))
    [problem] = outputs(session, "info", "--config")
    assert isinstance(problem, Problem)  # another kernel's
    monkeypatch.setattr("kplug.commands.info.runs_here", lambda image: True)
    [table] = outputs(session, "info", "--config=64BIT")
    assert isinstance(table, Table)
    assert list(table.rows) == [{"line": "CONFIG_64BIT=y", "path": str(path)}]
    path.unlink()
    [problem] = outputs(session, "info", "--config")
    assert isinstance(problem, Problem)


def test_a_running_kernel_that_hides_its_addresses_still_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who may not read /proc/kallsyms may read /proc/version and /sys/kernel/notes."""
    version, notes = tmp_path / "version", tmp_path / "notes"
    version.write_bytes(BANNER)
    notes.write_bytes(note(b"GNU", 3, BUILD_ID))
    monkeypatch.setattr("kplug.commands.info._RUNNING_BANNER", str(version))
    monkeypatch.setattr("kplug.commands.notes._RUNNING_NOTES", str(notes))
    monkeypatch.setattr("kplug.live.machine.Machine", lambda: Machine(str(tmp_path)))
    assert cli.main(["info", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    release = BANNER.split()[2].decode()
    assert (rows[0]["kind"], rows[0]["release"], rows[1]["value"]) == ("running kernel", release, BUILD_ID.hex())
    assert cli.main(["notes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(notes)
    assert cli.main(["where", "0"]) == 2
    assert "the running kernel does not show its addresses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (gzip.compress(bytes(1 << 26)), "unpacks to over 8 MiB"),
        (gzip.compress(CONFIG.encode())[:-9], "is truncated"),
        (b"\x1f\x8b\x08" + b"nonsense" * 9, "cannot be unpacked: "),
        (gzip.compress(b"#!/bin/sh\n"), "what is marked as its configuration (IKCONFIG) is not one"),
    ],
    ids=["bomb", "cut off", "no gzip", "no configuration"],
)
def test_what_is_marked_as_a_configuration_and_is_none(
    tmp_path: Path, kplug: BoundedKplug, packed: bytes, why: str
) -> None:
    path = with_config(tmp_path, packed)
    answer = kplug.run("info", path, "--config")
    assert (answer.status, answer.out, answer.crash) == (2, "", None)
    assert path in answer.err
    assert why in answer.err
    assert answer.err.count("\n") == 1
    assert answer.seconds < SECONDS


def test_an_image_without_one(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = vmlinux_with_notes(tmp_path, build_id_note(BUILD_ID))
    answer = kplug.run("info", "--config", "--json", path)
    assert answer.status == 2 or answer.err
    answer = kplug.run("info", path, "--config")
    assert answer.status == 2
    assert "contains no configuration (CONFIG_IKCONFIG was not set)" in answer.err
