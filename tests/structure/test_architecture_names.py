"""Outside kplug/arch/ the source names no architecture: what differs between them is declared there, once each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

from kplug.arch import registry

FOLDERS = ("kplug", "gdb/kplug_gdb")
DECLARATIONS = ROOT / "kplug" / "arch"


def _words() -> Iterator[str]:
    for architecture in registry.declared():
        names = architecture.names
        yield from (architecture.name, *names.uname, *names.debian, *names.other, *names.gdb, *names.qemu)
        yield from filter(None, (architecture.title, names.drgn, names.kernel))


WORDS = frozenset(word.rstrip("*").lower() for word in _words())
# Words of ELF files that are spelt as an architecture's: EI_OSABI of 97, the owner of a note.
OTHER_WORDS = {"kplug/image/elf/header.py": "ARM", "kplug/image/elf/note_names.py": "PowerPC"}


def _sources() -> list[Path]:
    files = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return [path for path in files if DECLARATIONS not in path.parents]


def _named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The string constants that are an architecture's name, whole; drgn's enumerators; parameters that assume one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in WORDS:
            yield node.lineno, node.value
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            if node.value.attr == "Architecture" and not node.attr.startswith("__"):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if parts[:2] == ["kplug", "arch"] and set(parts[2:3]) & set(registry.names()):
                yield node.lineno, f"import of {node.module}"


def test_the_words_are_those_of_all_declarations() -> None:
    assert {"x86_64", "amd64", "aarch64", "arm64", "i386:x86-64", "armv", "riscv", "s390x", "ppc64le"} <= WORDS


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_names_an_architecture(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    found = [(line, word) for line, word in _named(ast.parse(path.read_text())) if word != OTHER_WORDS.get(name)]
    assert found == []
