"""A guest that has Python, drgn, kplug and its kernel's debug information, and asks about itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.kplug_tree import PACKAGES, kplug_tree
from support.live_guest import Guest


@pytest.fixture(scope="package", params=["amd64-6.1", "amd64-6.12"])
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    from vmimages import boot, disk, fetch, manifest

    files = fetch(request.param, quiet=True)
    folder = tmp_path_factory.mktemp("guest")
    disks = disk.python_disk(files, PACKAGES, quiet=True), disk.image(kplug_tree(folder), folder / "kplug.ext4")
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
