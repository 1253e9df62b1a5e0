"""A guest that has Python, drgn, kplug and its kernel's debug information, and asks about itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.kplug_tree import PACKAGES, kplug_tree
from support.live_guest import Guest
from support.sampling import Sampling

# A minute each: a run takes the one or the other, a whole one both.
KERNELS = ("amd64-6.1", "amd64-6.12")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "guest" in metafunc.fixturenames:
        options = metafunc.config.option
        kernels = Sampling(options.sample_seed, options.whole).one_of(KERNELS)
        metafunc.parametrize("guest", kernels, indirect=True, scope="package")


@pytest.fixture(scope="package")
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
