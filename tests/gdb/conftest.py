"""Kernels, machines and dumps, each made once for all tests here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import gdbhelp
from support.rsp_stub import ElfMemory

if TYPE_CHECKING:
    from vmimages import VM, DumpSet, GroundTruth, KernelFiles


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which(gdbhelp.GDB) is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"no {gdbhelp.GDB}"))


def _files(name: str) -> KernelFiles:
    from vmimages import fetch

    return fetch(name, quiet=True)


@pytest.fixture(scope="session")
def kernel_61() -> KernelFiles:
    return _files("amd64-6.1")


@pytest.fixture(scope="session")
def bare_61(kernel_61: KernelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6.1's vmlinux without its 550 MB of debug information: gdb takes seconds to look through those."""
    return _stripped(kernel_61, tmp_path_factory)


@pytest.fixture(scope="session")
def bare_612(kernel_612: KernelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _stripped(kernel_612, tmp_path_factory)


def _stripped(files: KernelFiles, factory: pytest.TempPathFactory) -> Path:
    path = factory.mktemp("bare") / f"vmlinux-{files.name}"
    subprocess.run(["objcopy", "--strip-debug", str(files.vmlinux), str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def kernel_612() -> KernelFiles:
    return _files("amd64-6.12")


@pytest.fixture(scope="session")
def kernel_arm64() -> KernelFiles:
    return _files("arm64-6.12")


@pytest.fixture(scope="session")
def dumped() -> DumpSet:
    """Dumps of a 6.1 with KASLR, made at one moment, from the cache if they are there."""
    from vmimages import dumps

    return dumps("amd64-6.1", ("elf", "elf-paging"), quiet=True)


@pytest.fixture(scope="package")
def _moved_and_truth() -> Iterator[tuple[VM, GroundTruth]]:
    from vmimages import boot

    for _ in range(3):  # KASLR leaves one kernel in some 500 where it was linked
        with boot("amd64-6.1", quiet=True) as machine:
            truth = machine.truth()
            if truth.kaslr_offset(machine.files):
                yield machine, truth
                return
    raise AssertionError("KASLR moved none of three kernels")


@pytest.fixture(scope="package")
def moved(_moved_and_truth: tuple[VM, GroundTruth]) -> VM:
    """A 6.1 with KASLR and two CPUs, in the idle loop most of the time."""
    return _moved_and_truth[0]


@pytest.fixture(scope="package")
def isolated_idle() -> Iterator[VM]:
    """A 6.12 with KASLR and page-table isolation."""
    from vmimages import boot

    with boot("amd64-6.12", pti=True, quiet=True) as machine:
        yield machine


@pytest.fixture(scope="package")
def isolated_truth(isolated_idle: VM) -> GroundTruth:
    return isolated_idle.truth()


@pytest.fixture(scope="package")
def isolated(isolated_idle: VM, isolated_truth: GroundTruth) -> VM:
    """Its CPU 1 is busy in user mode, from the time on when it has told its truth: that takes thrice as long then."""
    isolated_idle.spin(1)
    return isolated_idle


@pytest.fixture(autouse=True)
def _only_the_guest_that_is_asked_runs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without a CPU of its own, a guest takes the core that others need: all of it, where it is busy in user mode."""
    asked = [request.getfixturevalue(name) for name in ("moved", "isolated") if name in request.fixturenames]
    for machine in asked:
        machine.cont()
    yield
    for machine in asked:
        machine.stop()


@pytest.fixture(scope="package")
def moved_truth(_moved_and_truth: tuple[VM, GroundTruth]) -> GroundTruth:
    return _moved_and_truth[1]


@pytest.fixture(scope="module")
def memory(dumped: DumpSet) -> ElfMemory:
    """What a stub serves of the dump, by virtual address."""
    return ElfMemory(dumped.paths["elf-paging"])
