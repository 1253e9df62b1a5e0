"""Finding drgn: gdb's Python is the system's, which rarely has it, and does not use an active venv."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

DRGN = "drgn"
# The packages in drgn's distribution, which is built for one Python version at a time.
_DRGN_PACKAGES = (DRGN, "_drgn", "_drgn_util")
_VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"


class PackageFinder:
    """Finds drgn, and nothing else, in folders that are not on sys.path.

    It has the method of a MetaPathFinder, but importing that class takes 10 ms, a fifth of sourcing the script.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = list(folders)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _DRGN_PACKAGES:
            return None
        return PathFinder.find_spec(fullname, self._folders, target)


_root = ""
_finder: PackageFinder | None = None


def install(root: str) -> None:
    """Search for it near the core too, after Python's own search path."""
    global _root, _finder
    uninstall()
    _root, _finder = root, PackageFinder(folders(root))
    sys.meta_path.append(_finder)


def uninstall() -> None:
    """Remove the finder again."""
    global _finder
    if _finder is not None and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _finder = None


def folders(root: str) -> list[str]:
    """Folders that may have it: the core's own (site-packages), those of the checkout's .venv and of the active venv,
    for gdb's version of Python.
    """
    found = [] if _is_checkout(root) else [root]
    for environment in (_own_venv(root), os.environ.get("VIRTUAL_ENV") or ""):
        if environment and os.path.isdir(_packages_of(environment)):
            found.append(_packages_of(environment))
    return found


def _own_venv(root: str) -> str:
    return os.path.join(root, ".venv")


def _packages_of(environment: str) -> str:
    return os.path.join(environment, "lib", _VERSION, "site-packages")


def _is_checkout(root: str) -> bool:
    return os.path.isfile(os.path.join(root, "pyproject.toml"))


@lru_cache
def has_drgn() -> bool:
    """Whether there is a drgn for gdb's Python. Imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in _DRGN_PACKAGES)


def drgn_remedy() -> str:
    """The command that installs drgn where it is found."""
    import shlex

    if not _is_checkout(_root):
        return f"{_VERSION} -m pip install --target {shlex.quote(_root)} drgn"
    venv = _own_venv(_root)
    packages = _packages_of(venv)
    if os.path.isdir(packages):
        return f"{shlex.quote(os.path.join(venv, 'bin', _VERSION))} -m pip install drgn"
    if os.path.isdir(venv):  # a venv of another Python, which stays as it is
        return f"{_VERSION} -m pip install --target {shlex.quote(packages)} drgn"
    return f"{_VERSION} -m venv {shlex.quote(venv)} && {shlex.quote(os.path.join(venv, 'bin', 'pip'))} install drgn"


def import_drgn() -> str:
    """Import drgn; returns its version. Any exception propagates: it may be built for another machine."""
    known = sys.modules.get(DRGN)
    if known is None:
        # It has its own libdw and libelf; without RTLD_DEEPBIND they would use gdb's functions, of other versions.
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | getattr(os, "RTLD_DEEPBIND", 0))
        try:
            known = importlib.import_module(DRGN)
        finally:
            sys.setdlopenflags(flags)
    return str(getattr(known, "__version__", "of unknown version"))


@contextmanager
def gdbs_signals_held_back() -> Iterator[None]:
    """Threads started inside leave gdb's signals to gdb's own thread. Ctrl-C waits until the end."""
    import signal

    # gdb's own threads block these, so that they reach the thread that handles them (gdbsupport/block-signals.h). So
    # must the threads that drgn starts to read debug information.
    gdbs = {signal.SIGINT, signal.SIGCHLD, signal.SIGALRM, signal.SIGWINCH, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, gdbs)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
