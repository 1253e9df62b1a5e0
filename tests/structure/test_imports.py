"""The rooms: what may import what, read from the source. Imports in functions and under TYPE_CHECKING count."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from support.paths import ROOT

LONGEST = 400
# Files that are tables: data with its source, where a limit would only cut a table in two.
TABLES = {
    "kplug/arch/aarch64/memory_map.py": "the areas of each combination of page size and address bits",
}


def _sources() -> dict[str, Path]:
    """The modules of the core and of the gdb front end, by their names."""
    found = {}
    for top, cut in ((ROOT / "kplug", ROOT), (ROOT / "gdb" / "kplug_gdb", ROOT / "gdb")):
        for path in top.rglob("*.py"):
            name = ".".join(path.relative_to(cut).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


SOURCES = _sources()


def _imported(name: str, path: Path) -> Iterator[str]:
    """Everything that the file imports, anywhere in it; of the project the module that a name is of."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in SOURCES else base


@cache
def _imports() -> Mapping[str, frozenset[str]]:
    """What each file imports; read by the first test that asks."""
    return {name: frozenset(_imported(name, path)) for name, path in SOURCES.items()}


def _files() -> dict[str, set[str]]:
    """What each file imports of the project."""
    return {name: {each for each in imported if each in SOURCES} - {name} for name, imported in _imports().items()}


def _room(name: str) -> str:
    """The folder of a file below kplug/; a loose file of kplug/ is a room of its own, and so is all of gdb's."""
    parts = name.split(".")
    if parts[0] != "kplug":
        return parts[0]
    folder = parts if SOURCES[name].name == "__init__.py" else parts[:-1]
    return ".".join(folder) if len(folder) > 1 else name


def _first_level(name: str) -> str:
    return ".".join(_room(name).split(".")[:2])


def _grouped(room_of: Mapping[str, str]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for name, imported in _files().items():
        groups.setdefault(room_of[name], set()).update(room_of[each] for each in imported)
    return {room: others - {room} for room, others in groups.items()}


def _circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """What reaches itself, as groups (Tarjan's strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        path.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in path:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = path[path.index(node) :]
            del path[path.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_a_circle_is_found() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert _circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert _circles(_files()) == []


@pytest.mark.parametrize("room_of", [_room, _first_level])
def test_no_rooms_import_each_other_in_a_circle(room_of) -> None:  # type: ignore[no-untyped-def]
    assert _circles(_grouped({name: room_of(name) for name in SOURCES})) == []


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("drgn", {"kplug.runtime", "kplug.repl", "kplug.drgn", "kplug.drgn_plugin", "kplug_gdb"}),
        ("prompt_toolkit", {"kplug.repl"}),
        ("gdb", {"kplug_gdb"}),
        ("capstone", {"kplug.log.machine_code"}),
    ],
)
def test_only_these_rooms_import(package: str, rooms: set[str]) -> None:
    having = {name for name, imported in _imports().items() if any(each.split(".")[0] == package for each in imported)}
    assert having
    assert {name for name in having if not name.startswith(tuple(rooms))} == set()


# What can unpack a compression where it is installed; each has others that do.
_UNPACKERS = {"compression", "lz4", "zstandard"}


@pytest.mark.skipif(sys.version_info < (3, 10), reason="does not list its standard library")
def test_nothing_else_has_to_be_installed() -> None:
    others = {each.split(".")[0] for imported in _imports().values() for each in imported}
    # typing_extensions is a type checker's own, and only for it (kplug/frozen.py).
    others -= {*getattr(sys, "stdlib_module_names", ()), *_UNPACKERS, "kplug", "kplug_gdb", "typing_extensions"}
    assert others == {"drgn", "prompt_toolkit", "gdb", "capstone"}


def test_no_file_is_long_but_tables() -> None:
    paths = [*SOURCES.values(), *(ROOT / "vm-images").rglob("*.py")]
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert {name: lines for name, lines in long.items() if lines > LONGEST and name not in TABLES} == {}


def test_named_tuples_are_those_that_start_fast() -> None:
    """Not typing's: kplug/named_tuples.py says why."""
    asked = re.compile(r"^\s*from typing import .*\bNamedTuple\b", re.MULTILINE)
    assert [name for name, path in SOURCES.items() if asked.search(path.read_text())] == ["kplug.named_tuples"]
