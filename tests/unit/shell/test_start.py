"""What a start imports: what is imported and not needed is most of the time until a short command answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from support.elf_builder import BASE_64, small_vmlinux
from support.paths import ROOT
from support.python_imports import of_colours

from kplug.arch import registry

# Python's own that take milliseconds each, and what is for memory, for a prompt or for other answers.
HEAVY = {"ast", "asyncio", "ctypes", "dataclasses", "dis", "importlib.metadata", "inspect", "json", "logging"}
HEAVY |= {"locale", "pathlib", "pkgutil", "shutil", "socket", "subprocess", "tempfile", "tokenize", "traceback"}
ROOMS = ("kplug.runtime", "kplug.repl", "kplug.image.boot", "kplug.image.kallsyms", "drgn", "prompt_toolkit")
_RUN = """
import sys
from kplug.__main__ import main
main()
print(*sys.modules, sep="\\n", file=sys.stderr)
"""

_DECLARATIONS = """
import sys
from kplug.commands import COMMANDS
print(*(f"{name} {command.name}" for name, command in COMMANDS.items()), sep="\\n")
print(*sys.modules, sep="\\n", file=sys.stderr)
"""


def imported(program: str, *words: str) -> Sequence[str]:
    """The modules that a Python without any package has imported at the end of the program."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-S", "-c", program, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**environment, "PYTHONPATH": str(ROOT)}, check=True
    )
    assert done.stdout
    return done.stderr.splitlines()


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    path = tmp_path_factory.mktemp("start") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    return imported(_RUN, "where", "-s", str(path), f"{BASE_64 + 0x10:#x}")


def test_an_address_of_a_vmlinux_imports_nothing_heavy(where: Sequence[str]) -> None:
    assert HEAVY.intersection(where) <= of_colours()
    assert [name for name in where if name.startswith(ROOMS)] == []


def test_an_address_of_a_vmlinux_loads_one_architecture(where: Sequence[str]) -> None:
    names = {f"kplug.arch.{name}" for name in registry.names()}
    assert len(names) > 10
    assert names.intersection(where) == {"kplug.arch.x86_64"}


def test_a_command_is_imported_alone(where: Sequence[str]) -> None:
    assert {name for name in where if name.startswith("kplug.commands.")} == {
        "kplug.commands.base",
        "kplug.commands.where",
    }


def test_the_commands_that_gdb_declares_import_nothing_heavy() -> None:
    declared = imported(_DECLARATIONS)
    assert HEAVY.intersection(declared) == set()
    assert [name for name in declared if name.startswith((*ROOMS, "kplug.session", "kplug.arch.x86_64"))] == []
