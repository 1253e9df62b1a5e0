"""drgn inside gdb: modules, slab objects, vmalloc, allocated per-CPU memory, stacks, at gdb's prompt.

Only where gdb's own Python can import drgn. What is right: the guest's own /proc, and gdb's plain reads of memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from elftools.elf.elffile import ELFFile
from support.gdb_expected import layer, symbol_names
from support.gdbhelp import SCRIPT, Session, run
from support.rsp_stub import ElfMemory, Stub, registers_of

if TYPE_CHECKING:
    from vmimages import VM, DumpSet, GroundTruth

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


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
    names = Counter(symbol.name for symbol in truth.symbols)
    places = Counter(symbol.address for symbol in truth.symbols)
    fitting = [
        symbol for symbol in truth.symbols
        if symbol.module and symbol.kind in "tT" and names[symbol.name] == places[symbol.address] == 1
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
    """(start, end, who asked) of what vmalloc gave out, with the guard page behind it. Stacks of tasks come and go."""
    rows = []
    for line in truth.text("vmallocinfo").splitlines():
        match = re.match(r"0x(\w+)-0x(\w+) +\d+ (\w+)\+\S+ .*pages=\d+ vmalloc", line)
        if match and match[3] != "kernel_clone":
            rows.append((int(match[1], 16), int(match[2], 16), match[3]))
    return rows


def check_vmalloc(answers: list[dict[str, Any]], rows: list[tuple[int, int, str]]) -> None:
    assert len(answers) == len(rows)
    for (start, end, who), answer in zip(rows, answers):
        vmap = layer(answer, "vmap")
        assert (int(vmap["start"], 16), int(vmap["end"], 16)) == (start, end)
        assert who.split(".")[0] in vmap["name"]


# -- a guest -----------------------------------------------------------------------------------------------------------

LOADED = "python import sys; print('drgn' in sys.modules)"
# Of both CPUs, by the first one's thread; its selected frame, which is not the innermost, stays selected.
STACK_POINTERS = (
    "thread 2",
    "set $other = $sp",
    "thread 1",
    "set $own = $sp",
    "frame 1",
    "frame",
    *(f"{question} ${name}{below}" for name in ("own", "other") for below in ("", "-8")
      for question in ("output/x", "kwhere --json")),
    "thread",
    "frame ",
)  # fmt: skip
# What gdb does itself, with its own libraries and its own debug information.
OWN = (
    "kaslr --apply",
    "info line schedule",
    "p init_task.comm",
    "ptype init_task.tasks",
    "info symbol schedule",
    "bt 2",
)


@dataclass(frozen=True)
class Asked:
    """One gdb on a guest with all questions, so that the 590 MB of the vmlinux are loaded once."""

    truth: GroundTruth
    cache: int  # a struct kmem_cache
    pointer: int  # a __percpu pointer, to what it has for each CPU
    distances: tuple[int, int]
    session: Session

    @property
    def stack(self) -> int:
        return self.truth.address("init_stack") + 0x3F00

    def answer(self, *addresses: int | str) -> dict[str, Any]:
        (answer,) = self.session[asked(*addresses)].json
        return answer


@pytest.fixture(scope="module")
def guest(moved: VM, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """`names_cachep` points to a kmem_cache, which is a slab object itself; its first member is a __percpu pointer."""
    truth, scratch, before = moved.truth(), tmp_path_factory.mktemp("asked"), [f"target remote {moved.gdb}"]
    moved.stop()
    at, offsets = truth.address("names_cachep"), truth.address("__per_cpu_offset")
    read = run([word(at), word(offsets), word(offsets + 8)], scratch, before=before)
    cache, *distances = (int(read[word(place)].text, 16) for place in (at, offsets, offsets + 8))
    pointer = int(run([word(cache)], scratch, before=before)[word(cache)].text, 16)
    symbols, name = module_symbols(truth), next(iter(truth.modules))
    stack = truth.address("init_stack") + 0x3F00
    session = run(
        ["kwhere $pc", "kwhere schedule", "kwhere linux_banner+1", "kwhere 0", "p $kclass($pc)", "kplug", "kaslr",
         LOADED, asked(*(s.address for s in symbols)), f"{LOADED} ",
         asked(*(s.name for s in symbols)), asked(*(start + 8 for start, _, _ in vmalloc_rows(truth))),
         "kmod --json", f"kmod --json {name}", f"kmod {truth.modules[name][0]:#x}", "kplug --json",
         asked(cache + 8), asked(f"{pointer:#x}@*"), asked(pointer + distances[1]), asked(pointer),
         asked(truth.address("__init_begin")), asked(stack), asked("init_task"), f"kstack {stack:#x}",
         *STACK_POINTERS, *renamed_commands(truth), *OWN],
        scratch, vmlinux=moved.files.vmlinux, before=before,
    )  # fmt: skip
    return Asked(truth, cache, pointer, (distances[0], distances[1]), session)


def test_what_the_vmlinux_answers_starts_no_drgn(guest: Asked) -> None:
    assert guest.session[LOADED].text.strip() == "False"
    assert guest.session[f"{LOADED} "].text.strip() == "True"
    assert re.search(r"^drgn +not started", guest.session["kplug"].text, re.MULTILINE)
    assert re.match(r"\d+\.\d+", guest.session["kplug --json"].json[0]["drgn"])
    assert guest.session["kplug --json"].json[0]["missing"] == []


def test_symbols_of_modules(guest: Asked) -> None:
    symbols = module_symbols(guest.truth)
    assert len(symbols) > 40
    check_module_symbols(guest.session[asked(*(s.address for s in symbols))].json, symbols)
    check_module_symbols(guest.session[asked(*(s.name for s in symbols))].json, symbols)


def test_vmalloc(guest: Asked) -> None:
    rows = vmalloc_rows(guest.truth)
    assert rows
    check_vmalloc(guest.session[asked(*(start + 8 for start, _, _ in rows))].json, rows)


def test_kmod(guest: Asked) -> None:
    truth, session = guest.truth, guest.session
    listed = {row["name"]: row for row in session["kmod --json"].json if "refcount" in row}
    assert list(listed) == list(truth.modules)
    for each, (start, size) in truth.modules.items():
        assert listed[each]["size"] == size
        assert start in [int(part["start"], 16) for part in listed[each]["memory"]]
    name, (base, _) = next(iter(truth.modules.items()))
    rows = session[f"kmod --json {name}"].json
    assert rows[0]["name"] == name
    sections = {row["name"]: int(row["start"], 16) for row in rows if "flags" in row}
    assert ".text" in sections
    for section, start in truth.module_sections[name].items():
        if section in sections and ".init" not in section and ".exit" not in section:
            assert sections[section] == start
    assert name in session[f"kmod {base:#x}"].text


def test_slab(guest: Asked) -> None:
    slab = layer(guest.answer(guest.cache + 8), "slab")
    assert (slab["name"], int(slab["start"], 16)) == ("kmem_cache", guest.cache)


def test_allocated_percpu(guest: Asked) -> None:
    everywhere = guest.session[asked(f"{guest.pointer:#x}@*")].json
    assert [int(each["address"], 16) for each in everywhere] == [guest.pointer + each for each in guest.distances]
    for cpu, answer in ((0, everywhere[0]), (1, everywhere[1]), (1, guest.answer(guest.pointer + guest.distances[1]))):
        percpu = next(each for each in answer["layers"] if each["kind"] == "percpu")
        assert (percpu["name"], percpu["details"]["kind"]) == (f"CPU {cpu}", "dynamic")
        assert (percpu["details"]["allocated"], percpu["details"]["pointer"]) == (True, hex(guest.pointer))
        assert answer["class"] == "percpu"
    assert layer(guest.answer(guest.pointer), "special")["name"] == "per-CPU pointer"


def test_stack_task_and_freed_init(guest: Asked) -> None:
    answer = guest.answer(guest.truth.address("__init_begin"))
    assert (answer["class"], answer["state"]["freed"]) == ("init", True)
    assert layer(guest.answer(guest.stack), "stack")["details"]["pid"] == 0
    assert layer(guest.answer("init_task"), "task")["details"]["comm"] == "swapper/0"
    told = guest.session[f"kstack {guest.stack:#x}"].text
    assert "stack of 0 (swapper/0)" in told
    assert "the kernel's own record of it" in told


def test_the_side_of_each_cpus_stack_pointer(guest: Asked) -> None:
    for name in ("own", "other"):
        pointer = int(guest.session[f"output/x ${name}"].text, 16)
        if pointer < 1 << 63:  # in user mode
            continue
        for below, side in (("", "live"), ("-8", "dead")):
            details = layer(guest.session[f"kwhere --json ${name}{below}"].json[0], "stack")["details"]
            assert (details["side"], details["sp"]) == (side, hex(pointer))
    assert "thread is 1" in guest.session["thread"].text
    assert guest.session["frame"].text == guest.session["frame "].text


def renamed_commands(truth: GroundTruth) -> list[str]:
    """A module's name, changed in its `struct module` behind kplug's back, and put back."""
    this = next(symbol for symbol in truth.symbols if symbol.name == "__this_module" and symbol.module)
    assert this.module is not None
    name, question = this.address + 24, asked(truth.modules[this.module][0])  # behind state and list
    change = f"set var *(char *){name:#x} ="
    return [
        f"x/s {name:#x}", question, f"{change} 'X'", f"{question} ", f"{change} '{this.module[0]}'", f"{question}  "
    ]  # fmt: skip


def test_what_was_read_is_forgotten_when_memory_changes(guest: Asked) -> None:
    commands = renamed_commands(guest.truth)
    found = [layer(guest.session[command].json[0], "module")["name"] for command in commands[1::2]]
    assert f'"{found[0]}"' in guest.session[commands[0]].text
    assert found == [found[0], f"X{found[0][1:]}", found[0]]


def test_gdb_itself_goes_on(guest: Asked) -> None:
    """gdb's own libelf and libdw, and its reading of symbols, are not disturbed by drgn's in the same process."""
    moved, line, comm, members, symbol, frames = (guest.session[command].text for command in OWN)
    assert "moved by" in moved
    assert re.match(r'Line \d+ of "kernel/sched/core.c" starts at address', line)
    assert hex(guest.truth.address("schedule")) in line
    assert '"swapper/0' in comm
    assert "struct list_head *next;" in members
    assert symbol.startswith("schedule in section .text")
    assert re.match(r"#0 +(?:0x[0-9a-f]+ in )?\w+ \(.*\) at \S+:\d+", frames)


def test_without_drgn(moved: VM, guest: Asked, tmp_path: Path) -> None:
    """Switched off, not there, broken: as it was before, and `kplug` says what is missing and how to get it."""
    symbol = module_symbols(guest.truth)[0]
    commands = [
        asked(symbol.address),
        asked("init_task"),
        asked("runqueues@1"),
        "kmod",
        "kplug --json",
        "kwhere nosuch",
    ]
    (tmp_path / "drgn").mkdir()
    (tmp_path / "drgn" / "__init__.py").write_text("raise OSError('libdw.so.1: wrong\\nELF class')")
    off, absent, broken = (
        [f"{command}{blanks}" for command in commands] for blanks in ("", " ", "  ")
    )  # fmt: skip
    session = run(
        ["set kplug drgn off", *off, "set kplug drgn auto",
         "python sys.modules['_drgn'] = None", f"source {SCRIPT} ", *absent,
         f"python del sys.modules['_drgn']; sys.path.insert(0, {str(tmp_path)!r})", f"source {SCRIPT}  ", *broken],
        tmp_path, vmlinux=moved.files.vmlinux, before=[f"target remote {moved.gdb}", "python import sys"],
    )  # fmt: skip
    for asked_so in (off, absent, broken):
        outside, inside, percpu, kmod, status, nosuch = (session[command] for command in asked_so)
        (answer,) = outside.json
        assert [each["kind"] for each in answer["layers"]] == ["area"]
        assert answer["warnings"] == []
        assert answer["state"]["permissions"] == "r-x"
        assert layer(inside.json[0], "symbol")["name"] == "init_task"
        assert layer(percpu.json[0], "percpu")["details"]["variable"] == "runqueues"
        assert "drgn" in kmod.complaint
        assert "nosuch" in nosuch.complaint
        for told in status.json[0]["missing"]:
            assert "slab" in told["cost"]
    missing = [session[commands[4]].json[0]["missing"] for commands in (off, absent, broken)]
    assert missing[0] == []
    (told,) = missing[1]
    assert (told["what"], "install" in told["remedy"]) == ("drgn", True)
    (told,) = missing[2]
    assert "libdw.so.1: wrong" in told["what"]
    assert "set kplug drgn off" in told["remedy"]


# -- a CPU in user mode under page-table isolation, on 6.12 ------------------------------------------------------------


def test_in_user_mode(isolated: VM, isolated_truth: GroundTruth, tmp_path: Path) -> None:
    truth = isolated_truth
    symbols, rows = module_symbols(truth, 20), vmalloc_rows(truth)[:5]
    by_address, areas = asked(*(s.address for s in symbols)), asked(*(start for start, _, _ in rows))
    mode = "maintenance packet qqemu.PhyMemMode"
    program, init, hole = "kwhere --json $pc", "kwhere --json --pid 1 0x401000", "kwhere --json --pid 1 0x18"
    no_address = f"kwhere --json {symbols[0].address ^ 1 << 58:#x}"
    code = "kx --json --pid 1 0x401000 2"
    isolated.stop_in_user_mode(1)
    try:
        session = run(
            ["thread 2", "p/x $cs", program, init, hole, code, no_address,
             by_address, areas, "kmod --json", mode, "thread 1", f"{by_address} ", f"{areas} "],
            tmp_path, vmlinux=isolated.files.vmlinux, before=[f"target remote {isolated.gdb}"],
        )  # fmt: skip
    finally:
        isolated.cont()
    assert session["p/x $cs"].text.strip().endswith("0x33")
    # The task that runs on the selected CPU, and one that the question names.
    (answer,) = session[program].json
    assert layer(answer, "vma")["details"]["comm"] == "busybox"
    assert answer["state"]["permissions"] == "r-x"
    (answer,) = session[init].json
    assert (layer(answer, "vma")["details"]["pid"], answer["state"]["mapped"]) == (1, True)
    assert [int(row["value"], 16) > 0 for row in session[code].json] == [True, True]
    (answer,) = session[hole].json
    assert [each["kind"] for each in answer["layers"]] == ["area", "gap"]
    # The high bits of an address that is not canonical are not ignored.
    assert session[no_address].json[0]["state"]["mapped"] is False
    check_module_symbols(session[by_address].json, symbols)
    check_module_symbols(session[f"{by_address} "].json, symbols)
    check_vmalloc(session[areas].json, rows)
    check_vmalloc(session[f"{areas} "].json, rows)
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
    told_apart = ("area", "image")  # with facts of VMCOREINFO, and with how the KASLR offset is known
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
        assert 20 * few < stub.memory_packets() - few
    (answer,) = session[command].json
    assert layer(answer, "module")["name"] == symbol.module
    assert symbol.name in symbol_names(answer)


def test_what_a_core_left_out_is_not_taken_for_zeros(tmp_path: Path) -> None:
    """makedumpfile -E keeps the extent of memory (p_memsz) and leaves out the bytes of excluded pages (p_filesz)."""
    from vmimages import dumps

    made = dumps("amd64-6.1", ("makedumpfile-elf",), quiet=True)
    core = made.paths["makedumpfile-elf"]
    with core.open("rb") as file:
        segments = [each for each in ELFFile(file).iter_segments() if each["p_type"] == "PT_LOAD"]
    # Not in the image, whose addresses have no other page: where it is, KASLR decides.
    parts = re.findall(r"(\w+)-(\w+) : Kernel ", made.truth.text("iomem"))
    image = range(int(parts[0][0], 16), int(parts[-1][1], 16))
    segments = [
        each for each in segments
        if each["p_paddr"] >= image.stop or each["p_paddr"] + each["p_memsz"] <= image.start
    ]  # fmt: skip
    gaps = [each["p_paddr"] + each["p_filesz"] for each in segments if each["p_memsz"] >= each["p_filesz"] + 4096]
    held = [each["p_paddr"] for each in segments if each["p_filesz"] > 8192]
    assert gaps
    assert held
    ask = "prog['page_offset_base'].value_()"
    command = [sys.executable, "-m", "kplug", "-c", str(core), "-s", str(made.files.vmlinux), "-e", ask]
    direct_map = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), 0)
    missing, there = (asked(*(direct_map + place for place in places[:5])) for places in (gaps, held))
    session = run([missing, there], tmp_path, vmlinux=made.files.vmlinux, before=[f"core-file {core}"])
    assert [layer(each, "page")["details"].get("in_dump", True) for each in session[missing].json] == [None] * 5
    assert all("in_dump" not in layer(each, "page")["details"] for each in session[there].json)
