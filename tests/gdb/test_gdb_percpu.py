"""A CPU's own variables in gdb, without drgn: `kwhere runqueues@1`, and the way back from an instance's address.

Truth: the kernel's __per_cpu_offset, read from the dump, and the guest's own symbols.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.gdb_expected import layer
from support.gdbhelp import run
from support.rsp_stub import ElfMemory, Stub, registers_of

if TYPE_CHECKING:
    from vmimages import VM, DumpSet, GroundTruth

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

CPUS = (0, 1)


@pytest.fixture(scope="module")
def offsets(dumped: DumpSet, memory: ElfMemory) -> tuple[int, ...]:
    """__per_cpu_offset, from the dump by hand."""
    data = memory.read(dumped.truth.address("__per_cpu_offset"), 16)
    assert data is not None
    return struct.unpack("<2Q", data)


def check(answer: dict[str, Any], cpu: int, instance: int, name: str) -> None:
    """The answer is that of a CPU's instance of a variable, asked about `instance`."""
    assert int(answer["address"], 16) == instance
    percpu, symbol = layer(answer, "percpu"), layer(answer, "symbol")
    assert (percpu["name"], percpu["details"]["cpu"], percpu["details"]["kind"]) == (f"CPU {cpu}", cpu, "static")
    assert percpu["details"]["variable"] == symbol["name"] == name
    assert (answer["class"], answer["link_address"]) == ("percpu", None)
    # A core by physical addresses has one of its own, with every answer.
    assert [warning for warning in answer["warnings"] if "physical addresses only" not in warning] == []


@pytest.mark.parametrize("kind", ["elf-paging", "elf"])
def test_cores(dumped: DumpSet, bare_61: Path, offsets: tuple[int, ...], tmp_path: Path, kind: str) -> None:
    """By virtual address, and by physical address only, where the CPUs' areas are outside what can be read."""
    own = dumped.truth.address("runqueues")
    by_name = [f"kwhere --json runqueues@{cpu}+8" for cpu in CPUS]
    by_address = [f"kwhere --json {own + offsets[cpu] + 8:#x}" for cpu in CPUS]
    session = run(
        [*by_name, *by_address, "kwhere --json &runqueues@*", "kwhere runqueues@7", "kwhere init_task@0",
         "kwhere --json .data..percpu@1"],
        tmp_path, vmlinux=bare_61, before=[f"core-file {dumped.paths[kind]}"],
    )  # fmt: skip
    for cpu in CPUS:
        for command in (by_name[cpu], by_address[cpu]):
            check(session[command].json[0], cpu, own + offsets[cpu] + 8, "runqueues")
    everywhere = session["kwhere --json &runqueues@*"].json
    assert [int(answer["address"], 16) for answer in everywhere] == [own + offset for offset in offsets]
    assert session["kwhere runqueues@7"].complaint == "runqueues@7: CPU 7: this kernel has CPUs 0-1"
    assert session["kwhere init_task@0"].complaint == "init_task@0: init_task is not a per-CPU variable"
    assert int(session["kwhere --json .data..percpu@1"].json[0]["address"], 16) == offsets[1]


def test_every_variable_on_every_cpu(dumped: DumpSet, bare_61: Path, offsets: tuple[int, ...], tmp_path: Path) -> None:
    truth = dumped.truth
    end = truth.address("__per_cpu_end")
    variables = [symbol for symbol in truth.symbols if symbol.module is None and symbol.address < end]
    assert len(variables) > 200
    asked = [(symbol, cpu) for symbol in variables for cpu in CPUS]
    command = "kwhere --json " + " ".join(f"{symbol.address + offsets[cpu]:#x}" for symbol, cpu in asked)
    session = run([command], tmp_path, vmlinux=bare_61, before=[f"core-file {dumped.paths['elf-paging']}"])
    answers = session[command].json
    assert len(answers) == len(asked)
    for (symbol, cpu), answer in zip(asked, answers):
        found = layer(answer, "symbol")
        assert symbol.name in (found["name"], *found["details"]["aliases"])
        check(answer, cpu, symbol.address + offsets[cpu], found["name"])


def test_a_stub_is_asked_for_three_small_things_once(
    dumped: DumpSet, memory: ElfMemory, bare_61: Path, offsets: tuple[int, ...], tmp_path: Path
) -> None:
    own, truth = dumped.truth.address("runqueues"), dumped.truth
    registers = registers_of((dumped.root / "truth" / "registers").read_text(), 0)
    first, again = f"kwhere --json {own + offsets[1]:#x}", "kwhere --json runqueues@0"
    with Stub(memory, registers) as stub:
        session = run(
            ["kwhere --json schedule", first, again, f"kwhere --json {truth.address('init_task'):#x}"],
            tmp_path, vmlinux=bare_61, before=[stub.command],
        )  # fmt: skip
        reads = [packet for packet in stub.packets if packet.startswith("m")]
    check(session[first].json[0], 1, own + offsets[1], "runqueues")
    check(session[again].json[0], 0, own + offsets[0], "runqueues")
    for name, size in (("nr_cpu_ids", 4), ("__cpu_possible_mask", 8), ("__per_cpu_offset", 16)):
        assert reads.count(f"m{truth.address(name):x},{size:x}") == 1, name


def test_files_alone(bare_61: Path, tmp_path: Path) -> None:
    session = run(["kwhere runqueues@0"], tmp_path, vmlinux=bare_61)
    complaint = session["kwhere runqueues@0"].complaint
    assert complaint == "runqueues@0: a CPU's own copy can only be found in memory, and there is none here"


def test_a_guest(moved: VM, moved_truth: GroundTruth, bare_61: Path, tmp_path: Path) -> None:
    """Each CPU's this_cpu_off holds the distance of its area: it does where kplug says that it is."""
    own = moved_truth.address("this_cpu_off")
    moved.stop()
    asked = [f"kwhere --json this_cpu_off@{cpu}" for cpu in CPUS]
    session = run(asked, tmp_path, vmlinux=bare_61, before=[f"target remote {moved.gdb}"])
    instances = [int(session[command].json[0]["address"], 16) for command in asked]
    reading = [f"output/x *(unsigned long *){instance:#x}" for instance in instances]
    back = [f"kwhere --json {instance:#x}" for instance in instances]
    session = run([*reading, *back], tmp_path, vmlinux=bare_61, before=[f"target remote {moved.gdb}"])
    for cpu, instance in zip(CPUS, instances):
        assert int(session[reading[cpu]].text, 16) == instance - own
        check(session[back[cpu]].json[0], cpu, instance, "this_cpu_off")
