"""A guest that was booted, asked about through any front end, beside what it says of itself.

A *group* is a function from what is known of the guest (`Facts`) to questions: an address, and what must be said of it.
Expected values are the guest's own /proc, QEMU's registers and page walks, and drgn with the kernel's full debug
information where it opens the dump. Whoever has a machine for an architecture uses these as they are.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from support import gdbhelp
from support.gdb_expected import symbol_names

if TYPE_CHECKING:
    import drgn
    from vmimages import VM, DumpSet, GroundTruth, KernelFiles, Symbol

Answer = dict[str, Any]
PAGE = 4096
_SECONDS = 3600
_COMMAND_WORDS = 200
_KERNEL_LETTERS = "tTdDbBrR"
# The compiler's labels, which 5.10's kallsyms has too, and the marks of code and data in Arm's modules.
_NO_NAMES = (".L", "$")
# /proc/iomem's names of the image's parts, and their class.
IOMEM = {"Kernel code": "text", "Kernel rodata": "rodata", "Kernel data": "data", "Kernel bss": "bss"}
_WITHOUT_OFFSET = ("i386", "armhf")  # whose VMCOREINFO does not say how far KASLR moved the kernel
_ALIGNMENT = 16 << 10  # of an image, virtually and physically
# What gdb must be told without a vmlinux: QEMU's stub does not say it.
_GDB_MACHINES = {
    "s390x": ("set architecture s390:64-bit", "set endian big"),
    "ppc64el": ("set architecture powerpc:common64", "set endian little"),
}
# What is said of an address at which the image would be without KASLR; on arm64 vmalloc's first areas are there.
_HINT = re.compile(r"not in the moved kernel; if it is a link address")
_INCLUDED = {"Kernel code": ("Kernel rodata",), "Kernel data": ("Kernel bss", "Kernel rodata")}


class Question(NamedTuple):
    """`wrong` says what is wrong in the answer; an empty text if nothing is."""

    group: str
    address: int
    wrong: Callable[[Answer], str]


@dataclass
class Facts:
    """What is known of a guest that is stopped: its files, its word, its dump, and the machine while it is there."""

    files: KernelFiles
    truth: GroundTruth
    core: Path
    vm: VM | None = None
    prog: drgn.Program | None = None  # with debug information; None where drgn cannot open the dump
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    @cached_property
    def named(self) -> dict[int, set[str]]:
        """The image's names at each address, by the guest's kallsyms."""
        found: dict[int, set[str]] = defaultdict(set)
        for symbol in self.truth.symbols:
            if symbol.module is None and not symbol.name.startswith(_NO_NAMES):
                found[symbol.address].add(symbol.name)
        return found

    @cached_property
    def image(self) -> list[Symbol]:
        """The image's symbols. Where the guest's kallsyms have functions alone (no CONFIG_KALLSYMS_ALL), System.map's,
        moved as far as the guest says.
        """
        from vmimages import Symbol

        own = [symbol for symbol in self.truth.symbols if symbol.module is None]
        if self.has("KALLSYMS_ALL") or self.files.system_map is None:
            return own
        offset = self.truth.kaslr_offset(self.files)
        rows = (line.split() for line in self.files.system_map.read_text().splitlines())
        return [Symbol(int(row[0], 16) + offset, row[1], row[2], None) for row in rows]

    def has(self, option: str) -> bool:
        """Whether the kernel was built with it."""
        return f"CONFIG_{option}=y\n" in self.files.config.read_text()

    @cached_property
    def lacks(self) -> str | None:
        """What the kernel does not have in memory, without which only the vmlinux tells its structures."""
        for option, words in (
            ("DEBUG_INFO_BTF", "it has no BTF"),
            ("KALLSYMS_ALL", "its kallsyms has functions alone (no CONFIG_KALLSYMS_ALL)"),
        ):
            if not self.has(option):
                return words
        return None

    @cached_property
    def percpu(self) -> range:
        """Where the image's per-CPU variables are, as kallsyms has their symbols."""
        return range(*(next(s.address for s in self.image if s.name == f"__per_cpu_{end}") for end in ("start", "end")))

    @cached_property
    def image_moved(self) -> int | None:
        """How far above its place in RAM the image is mapped, by drgn's walk of the page tables where it has one."""
        if self.prog is None:
            return None
        from drgn.helpers.linux.mm import follow_phys

        start = self.truth.address(self.truth.first)
        try:
            physical: int = follow_phys(self.prog["init_mm"].address_of_(), start).value_()
        except (ValueError, LookupError, NotImplementedError):
            return None
        return start - physical

    @cached_property
    def kept(self) -> dict[str, list[range]]:
        """The memory that each module still has. Without drgn, of one since 6.4 that of its functions alone."""
        if self.prog is None:
            return {name: [range(base, base + size)] for name, (base, size) in self.truth.modules.items()}
        loaded = (module for module, _ in self.prog.loaded_modules())
        return {module.name: [range(*bounds) for bounds in module.address_ranges or ()] for module in loaded}

    def some(self, whole: Iterable[Any], count: int) -> list[Any]:
        everything = list(whole)
        return self.chance.sample(everything, min(count, len(everything)))


def layers(answer: Answer, kind: str) -> list[dict[str, Any]]:
    return [layer for layer in answer["layers"] if layer["kind"] == kind]


def last(answer: Answer, kind: str) -> dict[str, Any]:
    """The narrowest layer of a kind; empty if there is none."""
    return next(reversed(layers(answer, kind)), {})


# -- the groups --------------------------------------------------------------------------------------------------------


def symbols(facts: Facts, count: int) -> Iterator[Question]:
    """The image's functions and variables, by /proc/kallsyms."""
    offset = facts.truth.kaslr_offset(facts.files)
    own = {s.address for s in facts.truth.symbols if s.module is None and s.kind in _KERNEL_LETTERS}
    top = facts.truth.address(facts.truth.first)
    # _end is the first address that is not the image's: on arm64 a guard page's.
    own = {at for at in own & set(facts.named) if "_end" not in facts.named[at]}
    for address in facts.some(sorted(at for at in own if at >= top and at not in facts.percpu), count):

        def wrong(answer: Answer, names: set[str] = facts.named[address], link: int = address - offset) -> str:
            if not symbol_names(answer) & names:
                return f"not {' or '.join(sorted(names))}"
            # Null where the memory does not tell it: to gdb without a vmlinux, for these and where data is not listed.
            if answer["link_address"] is None and (facts.files.arch in _WITHOUT_OFFSET or facts.lacks is not None):
                return ""
            return "" if int(answer["link_address"] or "0", 16) == link else f"link address, not {link:#x}"

        yield Question("symbols", address, wrong)


def modules(facts: Facts, count: int) -> Iterator[Question]:
    """Every module where /proc/modules has it, and every section of it that is kept."""
    for name, (base, _) in facts.truth.modules.items():
        yield Question("modules", base, lambda answer, name=name: _of_module(answer, name))
    for name, sections in facts.truth.module_sections.items():
        at: dict[int, set[str]] = defaultdict(set)
        for section, address in sections.items():
            if any(address in part for part in facts.kept[name]):
                at[address].add(section)
        for address, sharing in at.items():

            def wrong(answer: Answer, name: str = name, sharing: set[str] = sharing) -> str:
                found = last(answer, "section").get("name")
                return _of_module(answer, name) or ("" if found in sharing else f"section {found}, not {sharing}")

            yield Question("module sections", address, wrong)


def module_symbols(facts: Facts, count: int) -> Iterator[Question]:
    """Functions of modules, by /proc/kallsyms."""
    named: dict[tuple[int, str], set[str]] = defaultdict(set)
    for symbol in facts.truth.symbols:
        if symbol.module in facts.truth.modules and symbol.kind in "tT" and not symbol.name.startswith(_NO_NAMES):
            named[symbol.address, symbol.module].add(symbol.name)
    for address, module in facts.some(sorted(named), count):

        def wrong(answer: Answer, module: str = module, names: set[str] = named[address, module]) -> str:
            missing = "" if symbol_names(answer) & names else f"not {' or '.join(sorted(names))}"
            return _of_module(answer, module) or missing

        yield Question("module symbols", address, wrong)


def _of_module(answer: Answer, name: str) -> str:
    found = last(answer, "module").get("name")
    return "" if found == name else f"module {found}, not {name}"


def iomem(facts: Facts, count: int) -> Iterator[Question]:
    """The image's parts where /proc/iomem has them: class and physical address of their ends and of some in between."""
    text = facts.truth.text("iomem")
    parts = re.findall(rf"([0-9a-f]+)-([0-9a-f]+) : ({'|'.join(IOMEM)})\n", text)
    names = [name for _, _, name in parts]
    if "Kernel code" not in names:
        assert facts.files.arch == "ppc64el", text  # powerpc lists no parts of the image
        return
    moved = facts.image_moved
    if moved is None:
        # Where that is differs: arm64's code begins at _stext, arm's at _text.
        start = int(parts[names.index("Kernel code")][0], 16)
        places = [s.address for name in ("_stext", "_text") for s in facts.image if s.name == name]
        moved = next(address for address in places if (address - start) % _ALIGNMENT == 0) - start
    for first, end, name in parts:
        start, stop = int(first, 16), int(end, 16)
        # Where a part is not listed for itself, the one before it has it too.
        wanted = {IOMEM[name], *(IOMEM[later] for later in _INCLUDED.get(name, ()) if later not in names)}
        for physical in sorted({start, stop, *(facts.chance.randrange(start, stop) for _ in range(count // 8))}):

            def wrong(answer: Answer, physical: int = physical, wanted: set[str] = wanted) -> str:
                page = last(answer, "page")
                at = int(page["details"]["physical"], 16) + physical % PAGE if page else None
                if answer["class"] not in {*wanted, "init", "brk", "none"}:  # what lies between them
                    return f"class {answer['class']}, not {' or '.join(sorted(wanted))}"
                return "" if at is None or at == physical else f"physical {at:#x}, not {physical:#x}"

            yield Question("iomem", physical + moved, wrong)


def percpu(facts: Facts, count: int) -> Iterator[Question]:
    """The image's per-CPU variables, of each CPU: drgn has __per_cpu_offset."""
    if facts.prog is None:
        return
    table, mask = facts.prog["__per_cpu_offset"], (1 << 8 * facts.prog.type("unsigned long").size) - 1
    cpus = facts.prog["nr_cpu_ids"].value_()
    named: dict[int, set[str]] = defaultdict(set)
    for symbol in facts.image:
        if symbol.address in facts.percpu:
            named[symbol.address].add(symbol.name)
    variables = set(named)
    for address in facts.some(sorted(variables - {facts.percpu.start}), count // 4):
        for cpu in range(cpus):

            def wrong(answer: Answer, cpu: int = cpu, names: set[str] = named[address]) -> str:
                details = last(answer, "percpu").get("details", {})
                if details.get("cpu") != cpu:
                    return f"CPU {details.get('cpu')}, not {cpu}"
                known = {details.get("variable"), *symbol_names(answer)}
                return "" if known & names else f"variable {details.get('variable')}, not {' or '.join(sorted(names))}"

            yield Question("percpu", address + table[cpu].value_() & mask, wrong)


def stacks(facts: Facts, count: int) -> Iterator[Question]:
    """Every task and its stack, both ends: drgn has the list."""
    if facts.prog is None:
        return
    from drgn.helpers.linux.pid import for_each_task

    for task in for_each_task(facts.prog):
        places = [("task", task.value_() + 8)]
        if task.stack.value_():
            places += [("stack", task.stack.value_() + offset) for offset in (0, PAGE + 8)]
        for kind, address in places:

            def wrong(answer: Answer, kind: str = kind, pid: int = task.pid.value_()) -> str:
                found = last(answer, kind).get("details", {}).get("pid")
                return "" if found == pid else f"{kind} of {found}, not {pid}"

            yield Question(f"{kind}s", address, wrong)


def _of_files_alone(answer: Answer) -> bool:
    """Whether the kernel's records had no part in an answer: to gdb, of the image's code and read-only data, for which
    it does not start drgn (docs/gdb.md). On arm64 these are vmap areas.
    """
    return answer["class"] in ("text", "rodata") and bool(layers(answer, "image")) and not layers(answer, "page")


def vmap(facts: Facts, count: int) -> Iterator[Question]:
    """What drgn lists as vmap areas, at both ends."""
    if facts.prog is None:
        return
    from drgn.helpers.linux.mm import for_each_vmap_area

    for area in for_each_vmap_area(facts.prog):
        start, end = area.va_start.value_(), area.va_end.value_()
        if not area.vm:
            continue  # vm_map_ram() and per-CPU chunks: no owner is kept

        def wrong(answer: Answer, start: int = start, end: int = end) -> str:
            if _of_files_alone(answer):
                return ""
            found = last(answer, "vmap")
            there = (int(found["start"], 16), int(found["end"], 16)) if found else None
            return "" if there == (start, end) else f"vmap {found.get('start')}, not {start:#x}"

        yield Question("vmap", start, wrong)
        yield Question("vmap", end - 1, wrong)


def page_walk(facts: Facts, count: int) -> Iterator[Question]:
    """Physical addresses, beside QEMU's walk of the page tables for a CPU that is in the kernel."""
    if facts.vm is None:
        return
    cpu = facts.vm.privileges().index(0)
    own = [
        symbol.address
        for symbol in facts.truth.symbols
        if symbol.kind in _KERNEL_LETTERS and symbol.address not in facts.percpu
        # Whether a module is there is said not to be known where the kernel lacks that, without a vmlinux.
        if symbol.module is None or facts.lacks is None
    ]
    for address in facts.some(own, count // 8):
        said = facts.vm.monitor(f"gva2gpa {address:#x}", cpu)
        found = re.search(r"gpa: (?:0x)?([0-9a-f]+)", said)
        physical = int(found[1], 16) if found else None

        def wrong(answer: Answer, physical: int | None = physical, address: int = address) -> str:
            if answer["state"]["mapped"] is not (physical is not None):
                return f"mapped: {answer['state']['mapped']}, at {physical}"
            page = last(answer, "page")
            at = int(page["details"]["physical"], 16) + address % PAGE if page else None
            return "" if physical is None or at in (None, physical) else f"physical {at:#x}, not {physical:#x}"

        yield Question("page walk", address, wrong)


def areas(facts: Facts, count: int) -> Iterator[Question]:
    """What the guest lists in /proc/vmallocinfo, and its modules: in which area of the address space they are."""
    places = [("modules", start) for start, _ in facts.truth.modules.values()]
    for line in facts.truth.text("vmallocinfo").splitlines():
        found = re.match(r"0x([0-9a-f]+)-0x([0-9a-f]+) +(\d+)", line)
        if found is None or "iotable_init" in line:  # on arm, memory of CMA in the direct map
            continue
        start, end = int(found[1], 16), int(found[2], 16)
        if end - start == int(found[3]):  # else they are hashes, as before no_hash_pointers (5ead723a20e0, 5.12)
            places += [("", start), ("", end - 1)]
    for kind, address in places:
        names = ("modules", "vmalloc") if kind else ("modules", "vmalloc", "ioremap")

        def wrong(answer: Answer, names: tuple[str, ...] = names) -> str:
            outer = next(iter(layers(answer, "area")), {})
            is_right = outer.get("name", "").startswith(names) and not outer["details"]["hole"]
            return "" if is_right else f"in {outer.get('name')}, not in {' or '.join(names)}"

        yield Question("areas", address, wrong)


GROUPS = (symbols, modules, module_symbols, iomem, percpu, stacks, vmap, areas, page_walk)
#: What needs no types.
PLAIN = (symbols, iomem, page_walk)


def questions(facts: Facts, count: int, vmlinux: bool = True) -> list[Question]:
    """Of all groups that can be answered; `count` bounds those of which there are thousands."""
    groups = GROUPS if vmlinux or facts.lacks is None else PLAIN
    return [each for group in groups for each in group(facts, count)]


# -- front ends --------------------------------------------------------------------------------------------------------

Asker = Callable[[Sequence[int]], list[Answer]]


def _kplug(words: Sequence[str], given: str = "") -> list[Answer]:
    done = subprocess.run(
        [sys.executable, "-m", "kplug", *words], input=given, capture_output=True, text=True, timeout=_SECONDS
    )
    assert done.returncode <= 1, done.stderr[-1000:]
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _symbols_of(facts: Facts, vmlinux: bool) -> list[str]:
    return ["-s", str(facts.files.vmlinux)] if vmlinux else []


def _commands(addresses: Sequence[int]) -> list[str]:
    parts = (addresses[at : at + _COMMAND_WORDS] for at in range(0, len(addresses), _COMMAND_WORDS))
    return ["kwhere --json " + " ".join(map(hex, part)) for part in parts]


def shell(facts: Facts, vmlinux: bool, scratch: Path) -> Asker:
    """All addresses at once on its standard input."""
    words = ["where", "--json", "-c", str(facts.core), *_symbols_of(facts, vmlinux), "-"]
    return lambda addresses: _kplug(words, "".join(f"{address:#x}\n" for address in addresses))


def prompt(facts: Facts, vmlinux: bool, scratch: Path) -> Asker:
    words = ["-c", str(facts.core), *_symbols_of(facts, vmlinux)]
    return lambda addresses: _kplug([*words, *(word for each in _commands(addresses) for word in ("-e", each))])


def gdb(facts: Facts, vmlinux: bool, scratch: Path) -> Asker:
    """On the machine itself, which is stopped."""
    from vmimages.architectures import architecture

    vm = facts.vm
    assert vm is not None
    program = gdbhelp.GDB if architecture(facts.files.arch).is_the_hosts else gdbhelp.GDB_OF_ALL
    assert program is not None
    before = [*(() if vmlinux else _GDB_MACHINES.get(facts.files.arch, ())), gdbhelp.connect(vm)]

    def ask(addresses: Sequence[int]) -> list[Answer]:
        commands = _commands(addresses)
        session = gdbhelp.run(
            [*commands, "disconnect"], scratch, vmlinux=facts.files.vmlinux if vmlinux else None, before=before,
            program=program, timeout=_SECONDS,
        )  # fmt: skip
        assert vm.qmp.status() != "running"  # as it would after `detach`, with which gdb ends otherwise
        return [answer for command in commands for answer in session[command].json]

    return ask


FRONTS: dict[str, Callable[[Facts, bool, Path], Asker]] = {"shell": shell, "prompt": prompt, "gdb": gdb}


# -- comparing ---------------------------------------------------------------------------------------------------------


def differences(asked: Sequence[Question], answers: Sequence[Answer]) -> list[tuple[Question, str]]:
    """Each question whose answer is wrong or warns, and what is wrong."""
    assert len(answers) == len(asked)
    found = []
    for question, answer in zip(asked, answers):
        assert int(answer["address"], 16) == question.address
        wrong = question.wrong(answer) or "; ".join(each for each in answer["warnings"] if not _HINT.match(each))
        if wrong:
            found.append((question, f"{answer['summary']}: {wrong}"))
    return found


def facts_of(vm: VM, folder: Path) -> Facts:
    """Of a machine that is ready: its word, then it is stopped and dumped."""
    from vmimages import dump

    from support.open_dumps import open_files

    truth = vm.truth(folder / "truth")
    if vm.options.spin is None:
        vm.stop()
    else:
        vm.stop_in_user_mode(vm.options.spin)
    core = dump(vm, folder / "elf", quiet=True)
    opened = open_files(core, vm.files.vmlinux)
    return Facts(vm.files, truth, core, vm, opened.prog)


def facts_of_dump(made: DumpSet) -> Facts:
    """Of a dump that is there; no machine, so nothing of its registers and page walks."""
    from support.open_dumps import open_dump

    return Facts(made.files, made.truth, made.paths["elf"], None, open_dump(made).prog)
