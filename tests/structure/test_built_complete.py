"""Objects are made complete: only an object itself assigns to its attributes. Read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_OWN = ("self", "cls")
_SETTERS = ("setattr", "delattr", "__setattr__", "__delattr__")


def _assigned(target: ast.expr) -> Iterator[ast.Attribute]:
    """The attributes among what is assigned to."""
    if isinstance(target, ast.Attribute):
        yield target
    elif isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from _assigned(element)
    elif isinstance(target, ast.Starred):
        yield from _assigned(target.value)


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Assign):
        yield from node.targets
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For, ast.AsyncFor)):
        yield node.target
    elif isinstance(node, ast.Delete):
        yield from node.targets
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        yield from (item.optional_vars for item in node.items if item.optional_vars is not None)


def patches(source: str) -> list[str]:
    """What a file assigns to attributes of other objects than `self` and `cls`, as it is written: `a.b.c`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for attribute in (each for target in _targets(node) for each in _assigned(target)):
            if not (isinstance(attribute.value, ast.Name) and attribute.value.id in _OWN):
                found.append(ast.unparse(attribute))
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            own = bool(node.args) and isinstance(node.args[0], ast.Name) and node.args[0].id in _OWN
            if name in _SETTERS and not own:
                found.append(ast.unparse(node))
    return found


def _sources() -> dict[str, Path]:
    folders = (ROOT / "kplug", ROOT / "gdb" / "kplug_gdb")
    return {str(path.relative_to(ROOT)): path for folder in folders for path in folder.rglob("*.py")}


# What others made to be assigned to: the interpreter's own hooks, and the ways of libraries.
EXCEPTIONS = {
    "kplug/files/decoder_backends.py": {"function.restype", "function.argtypes"},  # how ctypes declares a function
    "kplug/log/machine_code.py": {"made.detail", "made.syntax"},  # how capstone is told what to give
    "kplug/repl/dispatch.py": {"builtins._", "sys.displayhook"},  # Python's own prompt
    "kplug/repl/prompt.py": {  # prompt-toolkit's events
        "self._session.app.after_render",
        "event.current_buffer.complete_state",
    },
    "kplug/repl/python.py": {"builtins._", "builtins.input", "self._compiler.flags"},  # Python's own prompt; codeop
    "kplug/runtime/finders.py": {"main.address_range"},  # drgn's modules, here and below
    "kplug/runtime/modules/debug_files.py": {"known.address_ranges"},
    "kplug/runtime/opening/drgn_calls.py": {"logger.propagate"},  # the logging module
    "kplug/runtime/opening/vmlinux.py": {
        "main.build_id",
        "main.loaded_file_status",
        "options.directories",
        "options.kernel_directories",
    },
    "kplug/runtime/types/lines.py": {"module.address_range"},
    "kplug/shell/arguments.py": {"setattr(namespace, self.dest, value)"},  # an action of argparse
}


@pytest.mark.parametrize(
    "line",
    [
        "placed.disputed = {}",
        "self.target.view = None",
        "image.release, image.build_id = told",
        "found.warnings += ('more',)",
        "made.count: int = 1",
        "for found.each in many: pass",
        "with opened() as found.file: pass",
        "del found.file",
        "setattr(placed, 'disputed', {})",
        "object.__setattr__(placed, 'disputed', {})",
    ],
)
def test_a_patch_is_found(line: str) -> None:
    assert len(patches(line)) == (2 if "release" in line else 1)


def test_what_an_object_does_itself_is_none() -> None:
    assert patches("self.view = cls.made = setattr(self, name, None)\nview = found.view\nfound[0] = 1") == []


def test_no_object_is_patched() -> None:
    found = {name: set(patches(path.read_text())) for name, path in _sources().items()}
    assert {name: more for name, each in found.items() if (more := each - EXCEPTIONS.get(name, set()))} == {}
    stale = {name: gone for name, each in EXCEPTIONS.items() if (gone := each - found.get(name, set()))}
    assert stale == {}, "exceptions that nothing needs any more"


def test_one_place_makes_sessions() -> None:
    making = {
        name
        for name, path in _sources().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Session"
    }
    assert making == {"kplug/assembly.py"}
