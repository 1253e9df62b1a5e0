"""kplug as pip installs it, for the disk of a guest."""

from __future__ import annotations

import compileall
import shutil
from importlib import metadata
from pathlib import Path

from support.paths import ROOT, TESTS

# What kplug needs in the guest, besides Python and itself.
PACKAGES = ("drgn", "prompt_toolkit", "wcwidth")


def kplug_tree(folder: Path) -> Path:
    """A folder with kplug as it is now, as pip installs it: compiled, and with its entry points.

    With it is the program by which a guest runs it, guest_server.py.
    """
    tree = folder / "tree"
    shutil.copytree(ROOT / "kplug", tree / "kplug", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TESTS / "support/guest_server.py", tree)
    compileall.compile_dir(tree, quiet=2)
    installed = metadata.distribution("kplug")
    about = tree / f"kplug-{installed.version}.dist-info"
    about.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (about / name).write_text(installed.read_text(name) or "")
    return tree
