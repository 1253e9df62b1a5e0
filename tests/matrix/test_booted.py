"""A kernel booted with KASLR, asked about through each front end: gdb on the machine, prompt and shell on its dump.

    pytest tests/matrix/test_booted.py --kernel amd64-5.10

Each comparison is with the guest's own /proc, with QEMU's registers and page walks, or with drgn and the kernel's whole
debug information; `support.booted` has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.booted import FRONTS, Facts, differences, facts_of, questions
from support.recorder import Recorder

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# The machines that a kernel of each architecture is booted on, and their options.
MACHINES: dict[str, dict[str, dict[str, Any]]] = {
    "amd64": {"4-level": {}, "5-level": {"la57": True}},
    # 52 bits of virtual addresses take LPA2 and LVA, which QEMU's `max` has; 6.12 is the first with 4 KiB pages.
    "arm64": {"max": {}, "48-bit": {"cpu": "cortex-a72"}},
    **{name: {name: {}} for name in ("i386", "riscv64", "armhf", "s390x", "ppc64el")},
}
# gdb reads a packet for each page of tables that it needs.
COUNTS = {"shell": 4000, "prompt": 400, "gdb": 400}


class Machine(NamedTuple):
    """A row of MACHINES, for one kernel."""

    kernel: str
    name: str
    options: dict[str, Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [
        Machine(kernel, name, options)
        for kernel in metafunc.config.option.kernel or ()
        for name, options in MACHINES.get(kernel.partition("-")[0], {}).items()
    ]
    metafunc.parametrize("facts", chosen, ids=lambda each: f"{each.kernel}-{each.name}", indirect=True, scope="module")


@pytest.fixture(scope="module")
def facts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    from vmimages import boot

    machine: Machine = request.param
    with boot(machine.kernel, spin=1, quiet=True, **machine.options) as vm:
        yield facts_of(vm, tmp_path_factory.mktemp("booted"))


@pytest.mark.parametrize("vmlinux", [True, False], ids=["vmlinux", "no-vmlinux"])
@pytest.mark.parametrize("source", FRONTS)
def test_answers(facts: Facts, source: str, vmlinux: bool, tmp_path: Path, cell: Recorder) -> None:
    cell.about("release", facts.files.release)
    asked = questions(facts, COUNTS[source], vmlinux)
    answers = FRONTS[source](facts, vmlinux, tmp_path)([each.address for each in asked])
    found = differences(asked, answers)
    differed = Counter(each.group for each, _ in found)
    for group, number in Counter(each.group for each in asked).items():
        cell.compared(f"{group} {'with' if vmlinux else 'without'} vmlinux", number, differed[group])
    if not vmlinux and facts.lacks is not None:
        cell.stopped("kernel", f"{facts.lacks}: without a vmlinux nothing tells its modules, tasks and per-CPU areas")
    lines = [f"{each.group}: {each.address:#x} {said}" for each, said in found]
    assert not lines, f"{len(lines)} of {len(asked)}:\n" + "\n".join(lines[:40])
