"""The live kernel: kplug in a guest, on the guest's own /proc/kcore, against what that kernel says of itself."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from support.live_guest import Guest
    from support.sampling import Sampling
    from vmimages import GroundTruth
    from vmimages.truth import Symbol

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(
        shutil.which("qemu-system-x86_64") is None or shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") is None,
        reason="needs qemu-system-x86_64 and mke2fs",
    ),
]
SAMPLES = 200  # of each kind of symbol, in a whole run
PERCPU = ("runqueues", "softnet_data", "cpu_info")


class Mapping(NamedTuple):
    """A line of /proc/vmallocinfo. `end` is behind the guard page; `caller` has no offset."""

    start: int
    end: int
    caller: str


class Seen(NamedTuple):
    """What was asked in the guest, and what came: the answers by address, and the ground truth."""

    truth: GroundTruth
    image: Sequence[Symbol]
    modules: Sequence[Symbol]
    sections: Sequence[tuple[str, str, int]]  # module, section, address
    percpu: Sequence[tuple[str, int, int]]  # variable, CPU, address of the CPU's instance
    vmalloc: Sequence[Mapping]
    of_init: tuple[int, str]  # the first address of process 1, and the file that is mapped there
    in_drgn: str  # what `%kwhere -b schedule+4` said
    answers: dict[int, dict[str, Any]]
    names: dict[int, set[str]]  # what kallsyms calls an address


def sample(things: Sequence[Any], sampling: Sampling) -> Sequence[Any]:
    """Some of them, evenly spread."""
    return things[:: max(1, len(things) // sampling.count(SAMPLES))]


def layer(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    """The narrowest layer of that kind; empty if there is none."""
    return next((each for each in reversed(answer["layers"]) if each["kind"] == kind), {})


def names(answer: dict[str, Any]) -> set[str]:
    """What an answer calls the symbol."""
    symbol = layer(answer, "symbol")
    return {symbol["name"], *(symbol["details"]["aliases"] or ())} if symbol else set()


@pytest.fixture(scope="module")
def seen(guest: Guest, sampling: Sampling) -> Seen:
    """All questions about addresses, asked in one go: a guest takes ten seconds to start kplug."""
    truth = guest.truth
    # Zeros on x86_64 before 6.15 are per-CPU variables' offsets; .LC0 and the like are the assembler's, not symbols.
    symbols = [each for each in truth.symbols if each.address >> 63 and not each.name.startswith(".L")]
    of_image = [each for each in symbols if each.module is None]
    end = max(each.address for each in of_image)  # __init_scratch_end, say: the first address that is not the image's
    text = [each for each in of_image if each.kind in "tT"]
    data = [each for each in of_image if each.kind in "dDbBrR" and each.address != end]
    of_modules = [each for each in symbols if each.module in truth.modules and each.kind in "tTdDbBrR"]
    percpu, in_drgn = of_drgn(guest)
    vmalloc = lasting_mappings(guest, truth)
    first = guest.vm.run("cat /proc/1/maps").splitlines()[0].split()
    of_init = int(first[0].split("-")[0], 16), first[5]
    known: dict[int, set[str]] = {}
    for each in symbols:
        known.setdefault(each.address, set()).add(each.name)
    seen = Seen(
        truth=truth,
        image=[*sample(text, sampling), *sample(data, sampling)],
        modules=_of_each(of_modules, sampling),
        sections=sampling.of(module_sections(truth)),
        percpu=percpu,
        vmalloc=vmalloc,
        of_init=of_init,
        in_drgn=in_drgn,
        answers={},
        names=known,
    )
    asked = [each.address for each in (*seen.image, *seen.modules)]
    asked += [address for _, _, address in (*seen.sections, *percpu)] + [each.start for each in vmalloc]
    asked.append(of_init[0])
    seen.answers.update(zip(asked, guest.where(asked)))
    return seen


def _of_each(symbols: Sequence[Symbol], sampling: Sampling) -> Sequence[Symbol]:
    """Some symbols of modules, one of each module at least."""
    first = {each.module: each for each in symbols}
    return list(dict.fromkeys((*first.values(), *sample(symbols, sampling))))


def of_drgn(guest: Guest) -> tuple[list[tuple[str, int, int]], str]:
    """Where each CPU's instances are by drgn's own helper, and what the plugin answers in drgn."""
    code = [
        "from drgn.commands import run_command",
        f"names = {list(PERCPU)}",
        "rows = [(n, c, int(per_cpu_ptr(prog[n].address_of_(), c))) for n in names for c in (0, 1)]",
        "import json",
        "print(json.dumps(rows))",
        'run_command(prog, "kwhere -b schedule+4")',
    ]
    status, output = guest.module("drgn", f"-q -e {shlex.quote('; '.join(code))}")
    assert status == 0, output
    rows, in_drgn = output.splitlines()
    return [(name, cpu, address) for name, cpu, address in json.loads(rows)], in_drgn


def module_sections(truth: GroundTruth) -> list[tuple[str, str, int]]:
    """The sections that loaded modules still have, of some bytes."""
    gone = (".init", ".ref", ".symtab", ".strtab", ".exit", ".modinfo", "__versions", ".data..percpu", ".note", ".orc")
    found = []
    for module in truth.modules:
        rows = sorted((address, name) for name, address in truth.module_sections[module].items())
        # Of two at one address the first is empty.
        last = {address: name for address, name in rows if not name.startswith(gone)}
        found += [(module, name, address) for address, name in last.items()]
    return found


def lasting_mappings(guest: Guest, truth: GroundTruth) -> list[Mapping]:
    """Mappings of vmalloc's that were there before and are there now."""
    now = set(guest.vm.run("cat /proc/vmallocinfo").splitlines())
    rows = [line.split() for line in truth.text("vmallocinfo").splitlines() if line in now]
    mappings = []
    for bounds, _, caller, *_ in (row for row in rows if len(row) > 2 and "+0x" in row[2]):
        start, end = (int(bound, 16) for bound in bounds.split("-"))
        mappings.append(Mapping(start, end, caller.split("+")[0]))
    return mappings[:: max(1, len(mappings) // 50)]


def test_kplug_without_a_file(guest: Guest, seen: Seen) -> None:
    # As `sudo kplug`: the running kernel is asked, and its vmlinux found where Debian puts it.
    of_init, path = seen.of_init
    status, output = guest.kplug_from_the_start(
        "-e 'kwhere schedule+4' -e 'kwhere -b &runqueues@1' -e 'hex(prog[\"init_task\"].address_)' "
        f"-e 'kwhere --pid 1 --json {of_init:#x}'"
    )
    assert status == 0, output
    lines = [line.split() for line in output.splitlines() if not line.startswith(" ")]
    assert lines[0][:3] == [f"{seen.truth.address('schedule') + 4:#x}", "schedule+0x4", ".text"]
    assert [lines[1][0]] == [f"{address:#x}" for name, cpu, address in seen.percpu if (name, cpu) == ("runqueues", 1)]
    assert lines[2] == [f"'{seen.truth.address('init_task'):#x}'"]
    found = layer(json.loads(output.splitlines()[-1]), "vma")
    assert (found["details"]["pid"], found["details"]["path"]) == (1, path)
    assert guest.vm.files.release in output


def test_symbols_of_the_image(seen: Seen) -> None:
    wrong = [
        (symbol, seen.answers[symbol.address]["summary"])
        for symbol in seen.image
        if seen.names[symbol.address].isdisjoint(names(seen.answers[symbol.address]))
    ]
    assert not wrong
    assert len(seen.image) >= SAMPLES // 4


def test_symbols_of_modules(seen: Seen) -> None:
    wrong = []
    for symbol in seen.modules:
        answer = seen.answers[symbol.address]
        same_module = layer(answer, "module").get("name") == symbol.module
        if not same_module or seen.names[symbol.address].isdisjoint(names(answer)):
            wrong.append((symbol, answer["summary"]))
    assert not wrong
    assert {each.module for each in seen.modules} >= {"loop", "br_netfilter", "bridge"}


def test_sections_of_modules(seen: Seen) -> None:
    wrong = []
    for module, section, address in seen.sections:
        answer = seen.answers[address]
        found = {each["name"] for each in answer["layers"] if each["kind"] == "section"}
        if layer(answer, "module").get("name") != module or section not in found:
            wrong.append((module, section, answer["summary"]))
    assert not wrong


def test_per_cpu_variables(seen: Seen) -> None:
    for name, cpu, address in seen.percpu:
        found = layer(seen.answers[address], "percpu")
        assert found, seen.answers[address]
        assert (found["details"]["variable"], found["details"]["cpu"]) == (name, cpu)


def test_vmalloc(seen: Seen) -> None:
    wrong = []
    for mapping in seen.vmalloc:
        answer = seen.answers[mapping.start]
        found = layer(answer, "vmap")
        caller = (found.get("details") or {}).get("caller") or ""
        if mapping.caller == "kernel_clone" and answer["summary"].startswith("lazily freed"):
            continue  # the stack of a task that ended between the two questions
        if int(found.get("start", "0"), 16) != mapping.start or mapping.caller not in caller:
            wrong.append((mapping, answer["summary"]))
    assert not wrong
    assert len(seen.vmalloc) > 20


def test_the_plugin_in_drgn(seen: Seen) -> None:
    assert seen.in_drgn.split()[:2] == [f"{seen.truth.address('schedule') + 4:#x}", "schedule+0x4"]


def test_not_root(guest: Guest) -> None:
    status, output = guest.kplug("where -c /proc/kcore schedule", root=False)
    assert status == 2
    (line,) = output.splitlines()
    assert line.startswith("kplug: ")
    assert "/proc/kcore" in line


def test_user_addresses(guest: Guest, seen: Seen) -> None:
    """Those of init where no process is named, never of kplug itself; files alone say what else could tell."""
    start, path = seen.of_init
    found = layer(seen.answers[start], "vma")
    assert found, seen.answers[start]
    assert (found["details"]["pid"], found["details"]["path"]) == (1, path)
    status, output = guest.kplug(f"where -b {start:#x} {start:#x}")
    assert status == 0, output
    assert output.count("-c /proc/kcore, as root") == 1
