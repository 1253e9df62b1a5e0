"""A dump with its vmlinux, under short names in a folder of each test's own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.terminal import PROMPT, Terminal, environment_of, terminal

if TYPE_CHECKING:
    from vmimages import DumpSet


@pytest.fixture(scope="session")
def dumped() -> DumpSet:
    from vmimages import dumps

    return dumps("amd64-6.1", ("elf",), quiet=True)


@pytest.fixture
def folder(dumped: DumpSet, tmp_path: Path) -> Path:
    """Holds `vmcore` and `vmlinux`; the history is kept in it."""
    (tmp_path / "vmcore").symlink_to(dumped.paths["elf"])
    (tmp_path / "vmlinux").symlink_to(dumped.files.vmlinux)
    return tmp_path


@pytest.fixture
def prompt(folder: Path) -> Iterator[Callable[..., Terminal]]:
    """Opens the prompt on the dump, and waits for it."""
    with contextlib.ExitStack() as stack:

        def opened(prompt: str = PROMPT, **options: Any) -> Terminal:
            person = stack.enter_context(terminal("-c", "vmcore", "-s", "vmlinux", folder=folder, **options))
            person.prompt = prompt
            person.is_asked()
            return person

        yield opened


@pytest.fixture
def kplug(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs kplug on the dump without a terminal."""

    def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kplug", "-c", "vmcore", "-s", "vmlinux", *words],
            cwd=folder, env=environment_of(folder, environment), input=stdin, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip

    return run
