"""A guest that has Python, drgn, kplug and its kernel's debug information, and asks about itself."""

from __future__ import annotations

import compileall
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from support.live_guest import Guest
from support.paths import ROOT

# What kplug needs in the guest, besides Python and itself.
_PACKAGES = ("drgn", "prompt_toolkit", "wcwidth")


def kplug_tree(folder: Path) -> Path:
    """A folder with kplug as it is now, as pip installs it: compiled, and with its entry points."""
    tree = folder / "tree"
    shutil.copytree(ROOT / "kplug", tree / "kplug", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(tree, quiet=2)
    installed = metadata.distribution("kplug")
    about = tree / f"kplug-{installed.version}.dist-info"
    about.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (about / name).write_text(installed.read_text(name) or "")
    return tree


@pytest.fixture(scope="session", params=["amd64-6.1", "amd64-6.12"])
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    from vmimages import boot, disk, fetch, manifest

    files = fetch(request.param, quiet=True)
    folder = tmp_path_factory.mktemp("guest")
    disks = disk.python_disk(files, _PACKAGES, quiet=True), disk.image(kplug_tree(folder), folder / "kplug.ext4")
    with boot(
        request.param,
        memory=2048,  # vmlinux is mapped, 590 MB of it
        threads="multi",
        devices=disk.devices(*disks),
        modules=(*disk.MODULES, *manifest.EXTRA_MODULES),
        quiet=True,
    ) as vm:
        disk.attach(vm)
        yield Guest(vm)
