"""Finding pyelftools: gdb's Python is the system's, which rarely has it, and an active venv changes nothing for it."""

from __future__ import annotations

import glob
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGE = "elftools"


class ElftoolsFinder(MetaPathFinder):
    """Finds pyelftools, and only that, in folders that are not on sys.path: nothing else of them gets in the way."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = list(folders)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE:
            return None
        return PathFinder.find_spec(fullname, self.folders, target)


_root = ""
_finder: ElftoolsFinder | None = None


def install(root: str) -> None:
    """Look for pyelftools near the core too, after everywhere that Python itself looks."""
    global _root, _finder
    uninstall()
    _root, _finder = root, ElftoolsFinder(folders(root))
    sys.meta_path.append(_finder)


def uninstall() -> None:
    """Take the finder of this loading away again."""
    global _finder
    if _finder is not None and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _finder = None


def folders(root: str) -> list[str]:
    """Where it may be: beside the core (site-packages), in the checkout's .venv, in the active venv."""
    found = [] if _is_checkout(root) else [root]
    for environment in (os.path.join(root, ".venv"), os.environ.get("VIRTUAL_ENV") or ""):
        if environment:
            # Pure Python, so that any version's folder will do; the newest first.
            found += sorted(glob.glob(os.path.join(glob.escape(environment), "lib", "python*", "site-packages")))[::-1]
    return found


def _is_checkout(root: str) -> bool:
    return os.path.isfile(os.path.join(root, "pyproject.toml"))


def missing_line() -> str | None:
    """What to run to get pyelftools, in one line; None if it is there. Nothing is imported for it."""
    if PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is not None:
        return None
    return f"kplug: gdb's Python finds no pyelftools; run: {remedy()}"


def remedy() -> str:
    """The command that puts pyelftools where it is found."""
    if _is_checkout(_root):
        venv = os.path.join(_root, ".venv")
        return f"python3 -m venv {venv} && {venv}/bin/pip install pyelftools"
    return f"python3 -m pip install --target {_root} pyelftools"
