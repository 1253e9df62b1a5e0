"""drgn inside gdb: modules, slab objects, vmalloc, allocated per-CPU memory, stacks, at gdb's prompt.

Only where gdb's own Python can import drgn. What is right: the guest's own /proc, and gdb's plain reads of memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from expected import layer, symbol_names
from gdbhelp import SCRIPT, Session, run
from rsp_stub import ElfMemory, Stub, registers_of

if TYPE_CHECKING:
    from vmimages import VM, DumpSet, GroundTruth

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

PLAIN = ("off", "absent", "broken")


@pytest.fixture(scope="module", autouse=True)
def _importable(tmp_path_factory: pytest.TempPathFactory) -> None:
    ask = "python from kplug_gdb import dependencies; print(dependencies.has_drgn() and dependencies.import_drgn())"
    found = run([ask], tmp_path_factory.mktemp("drgn"))[ask]
    if found.error is not None or found.text.strip() == "False":
        pytest.skip(f"gdb's Python cannot import drgn: {found.error or 'it is not there'}")


def asked(*addresses: int | str) -> str:
    return "kwhere --json " + " ".join(f"{each:#x}" if isinstance(each, int) else each for each in addresses)


def word(address: int) -> str:
    """The command by which gdb itself reads a word."""
    return f"output/x *(unsigned long *){address:#x}"


def module_symbols(truth: GroundTruth, count: int = 60) -> list[Any]:
    """Functions of modules whose names and addresses are nobody else's, from all over the list."""
    names = [symbol.name for symbol in truth.symbols]
    places = [symbol.address for symbol in truth.symbols]
    fitting = [
        symbol for symbol in truth.symbols
        if symbol.module and symbol.kind in "tT" and names.count(symbol.name) == places.count(symbol.address) == 1
        and not symbol.name.startswith(("init_module", "cleanup_module"))
    ]  # fmt: skip
    return fitting[:: max(1, len(fitting) // count)]


def check_module_symbols(answers: list[dict[str, Any]], symbols: list[Any]) -> None:
    assert len(answers) == len(symbols)
    for answer, symbol in zip(answers, symbols):
        assert int(answer["address"], 16) == symbol.address
        assert layer(answer, "module")["name"] == symbol.module
        assert symbol.name in symbol_names(answer)
        assert (answer["class"], answer["warnings"]) == ("text", [])
        assert layer(answer, "page")["details"]["state"] == "vmalloc"


def vmalloc_rows(truth: GroundTruth) -> list[tuple[int, int, str]]:
    """(start, size without the guard page, who asked) of what vmalloc gave out."""
    rows = []
    for line in truth.text("vmallocinfo").splitlines():
        match = re.match(r"0x(\w+)-0x\w+ +(\d+) (\w+)\+\S+ .*pages=(\d+) vmalloc", line)
        if match:
            rows.append((int(match[1], 16), int(match[4]) * 4096, match[3]))
    return rows


def gdbs_own(session: Session, commands: list[str]) -> list[tuple[str, str | None]]:
    return [(session[command].output, session[command].error) for command in commands]


# -- a guest -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth(moved: VM) -> GroundTruth:
    found = moved.truth()
    moved.stop()
    return found


def test_modules_and_vmalloc(moved: VM, truth: GroundTruth, tmp_path: Path) -> None:
    symbols, rows = module_symbols(truth), vmalloc_rows(truth)
    assert len(symbols) > 40
    assert rows
    by_address, by_name = asked(*(s.address for s in symbols)), asked(*(s.name for s in symbols))
    areas = asked(*(start + 8 for start, _, _ in rows))
    name, (base, _) = next(iter(truth.modules.items()))
    session = run(
        [by_address, by_name, areas, "kmod --json", f"kmod --json {name}", f"kmod {base:#x}", "kplug --json"],
        tmp_path, vmlinux=moved.files.vmlinux, before=[f"target remote {moved.gdb}"],
    )  # fmt: skip
    check_module_symbols(session[by_address].json, symbols)
    check_module_symbols(session[by_name].json, symbols)
    for (start, size, _), answer in zip(rows, session[areas].json):
        vmap = layer(answer, "vmap")
        assert (int(vmap["start"], 16), int(vmap["end"], 16)) == (start, start + size)
    listed = {row["name"]: row for row in session["kmod --json"].json if "refcount" in row}
    assert list(listed) == list(truth.modules)
    for each, (start, size) in truth.modules.items():
        assert listed[each]["size"] == size
        assert start in [int(part["start"], 16) for part in listed[each]["memory"]]
    assert session[f"kmod --json {name}"].json[0]["name"] == name
    sections = {row["name"]: int(row["start"], 16) for row in session[f"kmod --json {name}"].json if "flags" in row}
    for section, start in truth.module_sections[name].items():
        if section in sections and ".init" not in section and ".exit" not in section:
            assert sections[section] == start
    assert name in session[f"kmod {base:#x}"].text
    assert re.match(r"\d+\.\d+", session["kplug --json"].json[0]["drgn"])
    assert session["kplug --json"].json[0]["missing"] == []


def test_slab_and_allocated_percpu(moved: VM, truth: GroundTruth, tmp_path: Path) -> None:
    """`names_cachep` points to a kmem_cache, which is a slab object itself; its first member is a __percpu pointer."""
    at, offsets = truth.address("names_cachep"), truth.address("__per_cpu_offset")
    before = [f"target remote {moved.gdb}"]
    session = run([word(at), word(offsets), word(offsets + 8)], tmp_path, before=before)
    cache, *distances = (int(session[word(place)].text, 16) for place in (at, offsets, offsets + 8))
    pointer = int(run([word(cache)], tmp_path, before=before)[word(cache)].text, 16)
    commands = [asked(cache + 8), asked(f"{pointer:#x}@*"), asked(pointer + distances[1]), asked(pointer)]
    session = run(commands, tmp_path, vmlinux=moved.files.vmlinux, before=before)
    (answer,) = session[commands[0]].json
    assert layer(answer, "slab")["name"] == "kmem_cache"
    assert int(layer(answer, "slab")["start"], 16) == cache
    everywhere = session[commands[1]].json
    assert [int(each["address"], 16) for each in everywhere] == [pointer + distance for distance in distances]
    for cpu, answer in ((0, everywhere[0]), (1, everywhere[1]), (1, session[commands[2]].json[0])):
        percpu = next(each for each in answer["layers"] if each["kind"] == "percpu")
        assert (percpu["name"], percpu["details"]["kind"]) == (f"CPU {cpu}", "dynamic")
        assert (percpu["details"]["allocated"], percpu["details"]["pointer"]) == (True, hex(pointer))
        assert answer["class"] == "percpu"
    (answer,) = session[commands[3]].json
    assert layer(answer, "special")["name"] == "per-CPU pointer"


def test_stack_and_freed_init(moved: VM, truth: GroundTruth, tmp_path: Path) -> None:
    init, stack = truth.address("__init_begin"), truth.address("init_stack")
    commands = [asked(init), asked(stack + 0x3F00), asked(truth.address("init_task")), f"kstack {stack + 0x3F00:#x}"]
    session = run(commands, tmp_path, vmlinux=moved.files.vmlinux, before=[f"target remote {moved.gdb}"])
    (answer,) = session[commands[0]].json
    assert (answer["class"], answer["state"]["freed"]) == ("init", True)
    assert layer(session[commands[1]].json[0], "stack")["details"]["pid"] == 0
    assert layer(session[commands[2]].json[0], "task")["details"]["comm"] == "swapper/0"
    assert "stack of 0 (swapper/0)" in session[commands[3]].text
    assert "the kernel's own record of it" in session[commands[3]].text


def test_what_is_read_is_forgotten_when_memory_changes(moved: VM, truth: GroundTruth, tmp_path: Path) -> None:
    """A module's name, changed in its `struct module` behind kplug's back, and put back."""
    this = next(symbol for symbol in truth.symbols if symbol.name == "__this_module" and symbol.module)
    assert this.module is not None
    name, base = this.address + 24, truth.modules[this.module][0]  # state, list
    commands = [
        f"x/s {name:#x}", asked(base), f"set var *(char *){name:#x} = 'X'", f"{asked(base)} ",
        f"set var *(char *){name:#x} = '{this.module[0]}'", f"{asked(base)}  ",
    ]  # fmt: skip
    session = run(commands, tmp_path, vmlinux=moved.files.vmlinux, before=[f"target remote {moved.gdb}"])
    assert f'"{this.module}"' in session[commands[0]].text
    found = [layer(session[command].json[0], "module")["name"] for command in commands[1::2]]
    assert found == [this.module, f"X{this.module[1:]}", this.module]


def test_gdb_itself_goes_on(moved: VM, truth: GroundTruth, tmp_path: Path) -> None:
    """gdb's own libraries are not disturbed by drgn's: its answers are the same, with drgn in the process and without.

    And what the vmlinux alone answers starts no drgn.
    """
    symbol = module_symbols(truth)[0]
    own = ["info line schedule", "p init_task.comm", "bt 2", "p sizeof(struct list_head)", "info symbol init_task"]
    loaded = "python import sys; print('drgn' in sys.modules)"
    outputs = []
    for setting, module in (("off", False), ("auto", True)):
        session = run(
            [f"set kplug drgn {setting}", "kwhere $pc", "kwhere schedule", "kwhere linux_banner+1", "kwhere 0",
             "p $kclass($pc)", "kplug", "kaslr", loaded, asked(symbol.address), f"{loaded} ", "kaslr --apply", *own],
            tmp_path, vmlinux=moved.files.vmlinux, before=[f"target remote {moved.gdb}"],
        )  # fmt: skip
        assert session[loaded].text.strip() == "False"
        assert session[f"{loaded} "].text.strip() == str(module)
        outputs.append(gdbs_own(session, own))
    assert outputs[0] == outputs[1]
    assert all(error is None for _, error in outputs[0])
    assert "kernel/sched/core.c" in outputs[1][0][0]
    assert "swapper/0" in outputs[1][1][0]


@pytest.mark.parametrize("how", PLAIN)
def test_without_drgn(moved: VM, truth: GroundTruth, tmp_path: Path, how: str) -> None:
    """As it was without: area, image, static per-CPU variables; and `kplug` says what is missing."""
    symbol = module_symbols(truth)[0]
    extra = {}
    before = [f"target remote {moved.gdb}"]
    if how == "absent":
        before.append("python import sys; sys.modules['_drgn'] = None")
    if how == "broken":
        (tmp_path / "drgn").mkdir()
        (tmp_path / "drgn" / "__init__.py").write_text("raise OSError('libdw.so.1: wrong\\nELF class')")
        extra["PYTHONPATH"] = str(tmp_path)
    commands = [
        asked(symbol.address),
        asked("init_task"),
        asked("runqueues@1"),
        "kmod",
        "kplug --json",
        "kwhere nosuch",
    ]
    first = ["set kplug drgn off"] if how == "off" else []
    session = run([*first, *commands], tmp_path, vmlinux=moved.files.vmlinux, before=before, extra=extra)
    (answer,) = session[commands[0]].json
    assert [each["kind"] for each in answer["layers"]] == ["area"]
    assert answer["warnings"] == []
    assert answer["state"]["permissions"] == "r-x"
    assert layer(session[commands[1]].json[0], "symbol")["name"] == "init_task"
    assert layer(session[commands[2]].json[0], "percpu")["details"]["variable"] == "runqueues"
    assert "drgn" in session["kmod"].complaint
    assert "nosuch" in session["kwhere nosuch"].complaint
    missing = session["kplug --json"].json[0]["missing"]
    if how == "off":
        assert missing == []
        return
    (told,) = missing
    assert "slab" in told["cost"]
    if how == "absent":
        assert (told["what"], "install" in told["remedy"]) == ("drgn", True)
    else:
        assert "libdw.so.1: wrong" in told["what"]
        assert "set kplug drgn off" in told["remedy"]


# -- a CPU in user mode under page-table isolation, on 6.12 ------------------------------------------------------------


def test_in_user_mode(isolated: VM, tmp_path: Path) -> None:
    truth = isolated.truth()
    symbols, rows = module_symbols(truth, 20), vmalloc_rows(truth)[:5]
    by_address, areas = asked(*(s.address for s in symbols)), asked(*(start for start, _, _ in rows))
    mode = "maintenance packet qqemu.PhyMemMode"
    isolated.stop_in_user_mode(1)
    try:
        session = run(
            ["thread 2", "p/x $cs", by_address, areas, "kmod --json", mode, "thread 1", f"{by_address} ", f"{areas} "],
            tmp_path, vmlinux=isolated.files.vmlinux, before=[f"target remote {isolated.gdb}"],
        )  # fmt: skip
    finally:
        isolated.cont()
    assert session["p/x $cs"].text.strip().endswith("0x33")
    check_module_symbols(session[by_address].json, symbols)
    check_module_symbols(session[f"{by_address} "].json, symbols)
    for number, (start, size, _) in enumerate(rows):
        for command in (areas, f"{areas} "):
            vmap = layer(session[command].json[number], "vmap")
            assert (int(vmap["start"], 16), int(vmap["end"], 16)) == (start, start + size)
    assert [row["name"] for row in session["kmod --json"].json if "refcount" in row] == list(truth.modules)
    assert 'received: "0"' in session[mode].text


# -- cores, other stubs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["elf-paging", "elf"])
def test_cores(dumped: DumpSet, tmp_path: Path, kind: str) -> None:
    """The same answers as kplug's own prompt gives, by virtual address and by physical address only."""
    truth, core, vmlinux = dumped.truth, dumped.paths[kind], dumped.files.vmlinux
    symbols = module_symbols(truth, 20)
    others = [start for start, _, _ in vmalloc_rows(truth)[:5]]
    others += [truth.address("init_task"), truth.address("__init_begin"), truth.address("init_stack") + 0x3F00]
    by_address, rest = asked(*(s.address for s in symbols)), asked(*others)
    session = run([by_address, rest, "kmod --json"], tmp_path, vmlinux=vmlinux, before=[f"core-file {core}"])
    answers = session[by_address].json
    for answer in [*answers, *(others_answers := session[rest].json)]:
        told = answer["warnings"]
        assert len(told) == (1 if kind == "elf" else 0), told
        answer["warnings"] = []
    check_module_symbols(answers, symbols)
    assert [row["name"] for row in session["kmod --json"].json if "refcount" in row] == list(truth.modules)
    words = [f"{address:#x}" for address in others]
    command = [sys.executable, "-m", "kplug", "where", "--json", "-c", str(core), "-s", str(vmlinux), *words]
    done = subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True, check=True)
    by_drgn = [json.loads(line) for line in done.stdout.splitlines()]
    told_apart = ("area", "image")  # with facts of VMCOREINFO, and with how the slide is known
    for here, there in zip(others_answers, by_drgn):
        for answer in (here, there):
            answer["layers"] = [each for each in answer["layers"] if each["kind"] not in told_apart]
        assert here["layers"] == there["layers"]
        assert here["state"] == there["state"]


def test_another_stub_is_asked_on_request_only(dumped: DumpSet, tmp_path: Path) -> None:
    truth = dumped.truth
    symbol = module_symbols(truth)[0]
    memory = ElfMemory(dumped.paths["elf-paging"])
    registers = registers_of((dumped.root / "truth" / "registers").read_text(), 0)
    command = asked(symbol.address)
    with Stub(memory, registers) as stub:
        session = run([command, "kplug --json"], tmp_path, vmlinux=dumped.files.vmlinux, before=[stub.command])
        few = stub.memory_packets()
        (answer,) = session[command].json
        assert [each["kind"] for each in answer["layers"]] == ["area"]
        (told,) = session["kplug --json"].json[0]["missing"]
        assert "set kplug drgn on" in told["remedy"]
        session = run(["set kplug drgn on", command], tmp_path, vmlinux=dumped.files.vmlinux, before=[stub.command])
        assert few < 30 < stub.memory_packets() - few
    (answer,) = session[command].json
    assert layer(answer, "module")["name"] == symbol.module
    assert symbol.name in symbol_names(answer)
