"""Finding pyelftools and drgn: gdb's Python is the system's, which rarely has them, and an active venv changes nothing
for it."""

from __future__ import annotations

import glob
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGE = "elftools"
DRGN = "drgn"
# What drgn's distribution consists of. It is built for one version of Python each.
_DRGN_PACKAGES = (DRGN, "_drgn", "_drgn_util")
_VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"


class PackageFinder(MetaPathFinder):
    """Finds pyelftools and drgn, and only these, in folders that are not on sys.path: nothing else of them gets in the
    way.
    """

    def __init__(self, folders: Sequence[str], own_version: Sequence[str]) -> None:
        self._folders = {PACKAGE: list(folders), **{name: list(own_version) for name in _DRGN_PACKAGES}}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._folders:
            return None
        return PathFinder.find_spec(fullname, self._folders[fullname], target)


_root = ""
_finder: PackageFinder | None = None


def install(root: str) -> None:
    """Look for them near the core too, after everywhere that Python itself looks."""
    global _root, _finder
    uninstall()
    near = folders(root)
    # A site-packages folder beside the core is of the Python that it was installed for, or of --target.
    own = [folder for folder in near if folder == root or os.path.basename(os.path.dirname(folder)) == _VERSION]
    _root, _finder = root, PackageFinder(near, own)
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


# -- drgn --------------------------------------------------------------------------------------------------------------

# gdb's own threads hold these back, so that they reach the thread that handles them (gdbsupport/block-signals.h). So
# must the threads that drgn makes to read debug information.
_GDBS_SIGNALS = {signal.SIGINT, signal.SIGCHLD, signal.SIGALRM, signal.SIGWINCH, signal.SIGTERM}


def has_drgn() -> bool:
    """Whether there is a drgn for gdb's Python. Nothing is imported for it."""
    return all(importlib.util.find_spec(name) is not None for name in _DRGN_PACKAGES)


def drgn_remedy() -> str:
    """The command that puts drgn where it is found."""
    if _is_checkout(_root):
        return f"a {_VERSION} venv in {os.path.join(_root, '.venv')}: bin/pip install drgn"
    return f"{_VERSION} -m pip install --target {_root} drgn"


def import_drgn() -> str:
    """Import drgn; returns its version. Whatever its import raises is raised: it may be built for another machine."""
    known = sys.modules.get(DRGN)
    if known is None:
        # Its own libdw and libelf; without RTLD_DEEPBIND they would use functions of gdb's, which are other versions.
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | getattr(os, "RTLD_DEEPBIND", 0))
        try:
            known = importlib.import_module(DRGN)
        finally:
            sys.setdlopenflags(flags)
    return str(getattr(known, "__version__", "of unknown version"))


@contextmanager
def gdbs_signals_held_back() -> Iterator[None]:
    """Threads that begin inside leave gdb's signals to gdb's own thread. Ctrl-C waits as long."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GDBS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
