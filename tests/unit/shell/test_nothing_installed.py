"""A checkout and a Python without any package: questions about files are answered as with them; the rest says what it
needs.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.elf_builder import BASE_64, small_vmlinux
from support.paths import ROOT

ADDRESS = f"{BASE_64 + 0x10:#x}"


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nothing") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    return str(path)


def run(*words: str, packages: bool = False) -> tuple[int, str, str]:
    """kplug's exit status, output and complaint. -S: nothing of site-packages is importable."""
    command = [sys.executable, *([] if packages else ["-S"]), "-m", "kplug", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment.update(PYTHONPATH=str(ROOT), PYTHONNOUSERSITE="1", PYTHONUTF8="1")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def test_there_is_no_package() -> None:
    ask = "import importlib.util as u; print([n for n in ('elftools', 'drgn', 'prompt_toolkit') if u.find_spec(n)])"
    done = subprocess.run([sys.executable, "-S", "-s", "-E", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    ["where -s FILE ADDRESS schedule .text", "where --json -s FILE ADDRESS", "sym -s FILE start_kernel", "map -s FILE",
     "map --json -s FILE", "regions -s FILE", "sections -s FILE", "segments -s FILE", "kaslr -s FILE", "info FILE",
     "info --json FILE", "notes FILE"],
)  # fmt: skip
def test_what_is_asked_of_files_is_answered_the_same(vmlinux: str, words: str) -> None:
    given = [{"FILE": vmlinux, "ADDRESS": ADDRESS}.get(word, word) for word in words.split()]
    bare = run(*given)
    assert bare == run(*given, packages=True)
    assert bare[0] in (0, 1)
    assert bare[1]


@pytest.mark.parametrize("words", ["-c FILE", "where -c FILE ADDRESS", "where -l -s FILE ADDRESS", "mod -s FILE"])
def test_what_needs_drgn_says_so(vmlinux: str, words: str) -> None:
    status, output, complaint = run(*({"FILE": vmlinux, "ADDRESS": ADDRESS}.get(word, word) for word in words.split()))
    assert (status, output) == (2, "")
    assert len(complaint.splitlines()) == 1
    assert "drgn" in complaint
    assert "pip install drgn" in complaint


def test_doctor_lists_what_is_missing() -> None:
    _, output, complaint = run("doctor")
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.strip()}
    assert complaint == ""
    assert rows["drgn"][0] == rows["prompt_toolkit"][0] == "missing"
    assert rows["drgn"][-3:] == ["pip", "install", "drgn"]
