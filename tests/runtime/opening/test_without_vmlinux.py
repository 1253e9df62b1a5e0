"""Dumps opened without a vmlinux: symbols from kallsyms in memory, types from BTF, stacks by ORC or frame records.

The full vmlinux is the truth here; tests/runtime/memory asks the same of what the guest itself said.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import drgn
import pytest
from drgn.helpers.linux.pid import for_each_task
from support.open_dumps import open_dump, session_in

from kplug import model
from kplug.errors import MismatchError
from kplug.image import btf
from kplug.image.opening.sources import Given, join
from kplug.model import Annotation, Layer
from kplug.runtime.finders import finders_of, types_source
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.locators.stacks import stacks_of
from kplug.runtime.locators.tasks import tasks_of
from kplug.runtime.locators.vmap import vmap_areas
from kplug.runtime.modules.module_list import Modules, modules_of
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Request
from kplug.runtime.session import kernel_of, open_session
from kplug.runtime.types.variables import variable_types

if TYPE_CHECKING:
    from support.sampling import Sampling
    from vmimages import DumpSet

    from kplug.runtime.kernel.kernel import Kernel
    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

KERNELS = ("amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")
MASK = (1 << 64) - 1


@dataclass
class Both:
    """One dump, opened with the full vmlinux and without any."""

    dumps: DumpSet
    full: Session
    bare: Session

    @property
    def known(self) -> Kernel:
        kernel: Kernel = self.full.target.kernel  # type: ignore[union-attr]
        return kernel

    @property
    def kernel(self) -> Kernel:
        kernel: Kernel = self.bare.target.kernel  # type: ignore[union-attr]
        return kernel

    @cached_property
    def listed(self) -> Mapping[int, set[str]]:
        """The names that the kernel's own kallsyms has at each address: what the guest's /proc said."""
        found: dict[int, set[str]] = {}
        for words in map(str.split, (self.dumps.root / "truth" / "kallsyms").read_text().splitlines()):
            if len(words) == 3:
                found.setdefault(int(words[0], 16), set()).add(words[2])
        return found

    @cached_property
    def answers(self) -> Mapping[int, tuple[Annotation, Annotation]]:
        """What each says of some of every kind of address: with the full vmlinux, without any."""
        return {
            address: (self.full.resolver.where(address), self.bare.resolver.where(address))
            for address in addresses(self)
        }


@pytest.fixture(scope="module", params=KERNELS)
def both(request: pytest.FixtureRequest) -> Both:
    from vmimages import dumps

    found = dumps(request.param, ("elf",), quiet=True)
    return Both(found, session_in(found), session_in(found, vmlinux=False))


# -- what is said of it ------------------------------------------------------------------------------------------------


def test_no_more_is_said_than_what_is_used(both: Both) -> None:
    assert both.bare.warnings == ()
    (way,) = both.bare.ways
    assert re.fullmatch(r"no vmlinux: symbols from kallsyms in memory: [\d,]+ symbols, .*", way)
    assert types_source(both.kernel) == "BTF in memory"
    assert types_source(both.known) == "DWARF"


def test_the_image_is_known_by_build_id_release_and_banner(both: Both) -> None:
    ours, theirs = both.kernel.image, both.known.image
    assert ours is not None
    assert theirs is not None
    assert (ours.image.build_id, ours.image.release, ours.image.banner) == (
        theirs.image.build_id,
        theirs.image.release,
        theirs.image.banner,
    )
    assert ours.placement.kaslr_offset == theirs.placement.kaslr_offset


# -- answers -----------------------------------------------------------------------------------------------------------


def addresses(both: Both) -> Iterator[int]:
    """Some of every kind of place, from a kept seed."""
    chance, known = random.Random(4), both.known
    assert known.image is not None
    table = known.image.image.symbols
    for entry in chance.sample(table.places(), 300):
        symbol = table.symbol(entry)
        yield known.image.symbol_address(symbol) + chance.randrange(max(symbol.size, 1))
    percpu = [e for e in table.places() if table.section_index(e) and _section(table, e) == ".data..percpu"]
    for entry in chance.sample(percpu, 40):
        symbol = table.symbol(entry)
        for instance in both.full._reader._percpu.instances(known.image.symbol_address(symbol), None):  # type: ignore[union-attr]
            yield instance + chance.randrange(max(symbol.size, 1))
    for stack in stacks_of(known).stacks:
        yield chance.randrange(stack.start, stack.end)
    for task in tasks_of(known).tasks:
        yield task.address + chance.randrange(1000)
    for area in vmap_areas(known).areas[:100]:
        yield chance.randrange(area.start, area.end)
    modules: Modules = modules_of(known)
    for module in modules:
        for part in module.memory:
            yield from (chance.randrange(part.start, part.end) for _ in range(4))
    assert space_of(known) is not None
    start = next(area.start for area in space_of(known).areas if area.name == "direct map")
    for _ in range(300):
        yield start + chance.randrange(256 << 20)


def _section(table: Any, entry: int) -> str:
    return str(table.sections[table.section_index(entry)].name)


# What only an ELF file has. An image without sections says so by not naming any.
ONLY_ELF = {model.SECTION, model.SEGMENT, model.LINE}
# Of a symbol kallsyms has the address, the name and nm's letter: no size (it reaches to the next symbol, the answer
# says so: sizeless), no source file, no binding but what the letter says; aliases come in its own order.
UNKNOWN_OF_SYMBOLS = {"size", "sizeless", "file", "binding", "listed_type", "type", "aliases"}
# Where the file is; how long a caller's function is said to be; frames, which take call frame information.
UNKNOWN_ELSEWHERE = {"path", "caller", "frame"}


def _words(layer: Layer) -> tuple[Any, ...]:
    details = {name: value for name, value in layer.details.items() if name not in UNKNOWN_ELSEWHERE}
    caller = str(layer.details.get("caller")).partition("/")[0]  # "function+0x10/0x20": the size is the next symbol's
    return (layer.kind, layer.name, layer.start, layer.end, details, caller)


def _is_of_the_image(answer: Annotation, layer: Layer) -> bool:
    """Whether a layer says what the image's symbols say: itself, through an alias, or as a per-CPU variable."""
    return layer.kind in (model.SYMBOL, model.GAP) or (
        layer.kind == "alias" and str(layer.details["why"]).startswith("direct map of")
    )


def test_memory_is_answered_as_with_the_full_vmlinux(both: Both) -> None:
    """Modules, pages, slab objects, stacks, tasks, vmap areas, per-CPU areas, page tables: nothing is missing and
    nothing differs but what the rules above name."""
    # The address at which the image ends is in a segment of sid's, and in nothing that symbols bracket.
    asked = {address: answers for address, answers in both.answers.items() if address != both.known.symbol("_end")}
    assert len(asked) > 1000
    for address, (full, bare) in asked.items():
        told = [
            _words(layer) for layer in full.layers if layer.kind not in ONLY_ELF and not _is_of_the_image(full, layer)
        ]
        ours = [
            _words(layer) for layer in bare.layers if layer.kind not in ONLY_ELF and not _is_of_the_image(bare, layer)
        ]
        for mine, theirs in zip(ours, told):
            if (
                mine[0] == theirs[0] == model.PERCPU
            ):  # at offset 0 several names stand; kallsyms has them in another order
                mine[4].pop("variable"), theirs[4].pop("variable")
        assert ours == told, hex(address)
        assert bare.state.mapped == full.state.mapped
        assert bare.state.permissions == full.state.permissions
        assert bare.state.freed == full.state.freed
        assert bare.region_class == full.region_class or full.region_class is None, hex(address)


def test_symbols_are_those_of_the_full_vmlinux(both: Both) -> None:
    """The same name where kallsyms has it; else none, or the symbol before, said to reach to the next one."""
    checked = 0
    for address, (full, bare) in both.answers.items():
        theirs, ours = full.last(model.SYMBOL), bare.last(model.SYMBOL)
        if theirs is None or full.first(model.MODULE) is not None:
            continue
        if full.first(model.PERCPU) is None and theirs.name not in both.listed.get(theirs.start, ()):
            # Not in kallsyms: what is dropped there (scripts/mksysmap: __efistub_, __kvm_nvhe_, __crc_, .L, ...).
            continue
        if ours is None or ours.name != theirs.name:
            # An alias of the same address: which of them is shown depends on sizes and on the order of the table.
            assert ours is None or ours.start == theirs.start or ours.start > theirs.start, hex(address)
            continue
        assert ours.start == theirs.start, hex(address)
        assert ours.end >= theirs.end, hex(address)
        known = {name: value for name, value in ours.details.items() if name not in UNKNOWN_OF_SYMBOLS}
        assert known == {name: value for name, value in theirs.details.items() if name not in UNKNOWN_OF_SYMBOLS}
        checked += 1
    assert checked > 250


def test_stacks_of_all_tasks(both: Both) -> None:
    """The same return addresses; functions that were inlined are only in DWARF. By ORC (x86_64, from memory), or frame
    records (arm64)."""
    full, bare = both.known.prog, both.kernel.prog
    deep = 0
    for task in for_each_task(full):
        if task.on_cpu.value_():
            continue
        pid = task.pid.value_()
        theirs = list(dict.fromkeys(_counters(full.stack_trace(task))))
        ours = list(dict.fromkeys(_counters(bare.stack_trace(pid))))
        assert ours == theirs, pid
        deep += len(ours) > 3
    assert deep > 20


def _counters(trace: drgn.StackTrace) -> Iterator[int]:
    for frame in trace:
        try:
            yield frame.pc
        except LookupError:  # the end of the stack
            return


def test_kstack_marks_the_frames(both: Both) -> None:
    import argparse

    from kplug.commands.stack import STACK

    def marked(session: Session) -> dict[Any, Any]:
        pid = 1
        session.target.selection.select_task(  # type: ignore[union-attr]
            next(t for t in for_each_task(session.target.kernel.prog) if t.pid.value_() == pid)  # type: ignore[union-attr]
        )
        parser = argparse.ArgumentParser()
        STACK.add_arguments(parser)
        table = next(iter(STACK.run(session, parser.parse_args([]))))
        return {row["address"]: row["stale"] for row in table.rows if row["kind"] == "ret"}  # type: ignore[union-attr]

    assert marked(both.bare) == marked(both.full)


def test_drgns_own_questions(both: Both) -> None:
    """prog.symbol, variables, functions, constants and types by name."""
    full, bare = both.known.prog, both.kernel.prog
    for name in ("schedule", "init_task", "jiffies"):
        assert bare.symbol(name).address == full.symbol(name).address
    assert bare.symbol(full.symbol("schedule").address + 4).name == "schedule"
    assert bare["init_task"].comm.string_() == b"swapper/0"
    if both.kernel.machine == "x86_64":  # arm64's DWARF has it behind the two instructions that ftrace patches
        assert bare["schedule"].address_ == full["schedule"].address_
    assert bare.function("schedule").type_.type_name() == full.function("schedule").type_.type_name()
    assert bare.constant("PG_locked").value_() == full.constant("PG_locked").value_()
    assert bare["runqueues"].address_ == full["runqueues"].address_  # a per-CPU variable: BTF has its type
    with pytest.raises(LookupError):
        bare["no_such_variable"]
    with pytest.raises(LookupError):
        bare.type("struct no_such_structure")


# -- types -------------------------------------------------------------------------------------------------------------


def shape(kind: drgn.Type, depth: int = 0) -> tuple[Any, ...]:
    """What must be the same of a type."""
    kinds = drgn.TypeKind
    if kind.kind in (kinds.STRUCT, kinds.UNION):
        if not kind.is_complete() or (kind.tag and depth):
            return (kind.kind.name, kind.tag, kind.size)
        members = kind.members or ()
        return (
            kind.kind.name,
            kind.tag,
            kind.size,
            tuple((m.name, m.bit_offset, m.bit_field_size, shape(m.type, depth + 1)) for m in members),
        )
    if kind.kind == kinds.ENUM:
        listed = kind.enumerators
        values = None if listed is None else (kind.type.size, kind.type.is_signed, [(e.name, e.value) for e in listed])
        return ("ENUM", kind.tag, values)
    if kind.kind == kinds.TYPEDEF:
        return ("TYPEDEF", kind.name, kind.qualifiers, shape(kind.type, depth + 1))
    if kind.kind == kinds.POINTER:
        return ("POINTER", kind.qualifiers, kind.type.kind)
    if kind.kind == kinds.ARRAY:
        # BTF has no dimensions but one where pahole was older than 1.30, and `[]` is an array of none.
        count, element = kind.length or 0, kind.type
        while element.kind == kinds.ARRAY:
            count, element = count * (element.length or 0), element.type
        return ("ARRAY", count, shape(element, depth + 1))
    if kind.kind == kinds.INT:
        return ("INT", kind.name, kind.size, kind.is_signed, kind.qualifiers)
    return (kind.kind.name,)


def test_every_type_is_laid_out_as_dwarf_says(both: Both, sampling: Sampling) -> None:
    """All structures, unions, enums and typedefs that have a name: sizes, members, offsets, bit-fields, values.

    All, or a sample of them.
    """
    full, bare = both.known.prog, both.kernel.prog
    found = finders_of(both.kernel)
    assert found is not None
    assert found.types is not None
    types = found.types.btf
    same, ambiguous, only_there = 0, 0, 0
    for kind, prefix in (
        (btf.STRUCT, "struct "),
        (btf.UNION, "union "),
        (btf.ENUM, "enum "),
        (btf.ENUM64, "enum "),
        (btf.TYPEDEF, ""),
    ):
        for offset, numbers in sampling.of(list(types._by_name[kind].items())):
            name = prefix + types.string(offset)
            if not types.alike(numbers):
                with pytest.raises(LookupError):  # several of that name that differ: none is picked
                    bare.type(name)
                ambiguous += 1
                continue
            try:
                theirs = full.type(name)
            except LookupError:
                only_there += 1
                continue
            assert shape(bare.type(name)) == shape(theirs), name
            same += 1
    assert same > sampling.count(9000)
    assert ambiguous < 30
    assert only_there < 60


VOID_POINTER = (drgn.TypeKind.POINTER, None, (drgn.TypeKind.VOID, None, None))


def test_the_table_of_variables_is_what_dwarf_says(both: Both) -> None:
    full, checked = both.known.prog, 0
    for name, declared in variable_types(both.kernel.machine).items():
        try:
            theirs = full.variable(name).type_
        except LookupError:
            continue  # not in this release
        ours = both.kernel.prog.type(declared)
        if ours.kind == drgn.TypeKind.ARRAY and not ours.length:
            assert theirs.kind == drgn.TypeKind.ARRAY, name
            ours, theirs = ours.type, theirs.type
        if _resolved(theirs) == VOID_POINTER:  # some releases say less: 5.12 to 6.14 of hardirq_stack_ptr
            assert ours.kind == drgn.TypeKind.POINTER, name
        else:
            assert _resolved(ours) == _resolved(theirs), name
        checked += 1
    assert checked > 70


def _resolved(kind: drgn.Type) -> tuple[Any, ...]:
    """A type without its typedefs: `pg_data_t` is `struct pglist_data`."""
    while kind.kind == drgn.TypeKind.TYPEDEF and kind.type.kind != drgn.TypeKind.INT:
        kind = kind.type
    if kind.kind in (drgn.TypeKind.POINTER, drgn.TypeKind.ARRAY):
        return (kind.kind, kind.length if kind.kind == drgn.TypeKind.ARRAY else None, _resolved(kind.type))
    return (kind.kind, getattr(kind, "tag", None), kind.size if hasattr(kind, "size") else None)


def test_all_variables_that_kplug_asks_for(both: Both) -> None:
    """Whatever `kplug.runtime` names in its sources is found with BTF if it is with DWARF."""
    import kplug.runtime

    sources = "".join(path.read_text() for path in Path(kplug.runtime.__file__).parent.rglob("*.py"))
    # The one whose form changed, and which `kplug.runtime.modules.module_list` reads without its type.
    untyped = {"last_unloaded_module"}
    names = set(re.findall(r"""prog(?:\.constant|\.variable)?[\[(]["'](\w+)["'][\])]""", sources))
    types = set(re.findall(r"""prog\.type\(["']([\w ]+)["']\)""", sources))
    assert len(names) > 15
    assert len(types) > 30
    full, bare = both.known.prog, both.kernel.prog
    for name in names - untyped:
        assert not _there(full.object, name) or _there(bare.object, name), name
    for name in types:
        assert not _there(full.type, name) or _there(bare.type, name), name


def _there(find: Any, name: str) -> bool:
    try:
        find(name)
    except LookupError:
        return False
    return True


# -- a vmlinuz or a System.map beside the dump -------------------------------------------------------------------------


def given(both: Both, source: str, other: DumpSet | None = None) -> Request:
    files = (other or both.dumps).files
    kernel = files.vmlinux.parent
    chosen = Given(vmlinuz=str(kernel / "vmlinuz")) if source == "vmlinuz" else Given(system_map=str(kernel / source))
    return Request(str(both.dumps.paths["elf"]), joined=join(chosen))


@pytest.mark.parametrize("source", ["vmlinuz", "System.map"])
def test_a_file_beside_the_dump(both: Both, source: str) -> None:
    session = open_session(given(both, source))
    assert session.warnings == ()
    address = both.known.symbol("schedule")
    assert address is not None
    answer = session.resolver.where(address + 4)
    symbol, section = answer.last(model.SYMBOL), answer.first(model.SECTION)
    assert symbol is not None
    assert symbol.name == "schedule"
    if source == "vmlinuz" and both.kernel.machine == "x86_64":  # arm64's is a flat image
        assert section is not None
        assert section.name == ".text"
    assert types_source(session.target.kernel).startswith("BTF")  # type: ignore[union-attr]


@pytest.mark.parametrize("source", ["vmlinuz", "System.map"])
def test_a_file_of_another_kernel_is_refused(both: Both, source: str) -> None:
    from vmimages import dumps

    name = both.dumps.files.name
    other = dumps("amd64-6.12" if name != "amd64-6.12" else "amd64-6.1", ("elf",), quiet=True)
    with pytest.raises(MismatchError) as raised:
        open_kernel(given(both, source, other))
    assert "\n" not in str(raised.value)
    assert source in str(raised.value)


# -- where it is not all there -----------------------------------------------------------------------------------------


def test_a_kernel_without_btf_has_symbols(tmp_path: Path) -> None:
    from vmimages import dumps

    found = dumps("amd64-6.1", ("elf",), quiet=True)
    bare = tmp_path / "vmlinux"
    subprocess.run(["objcopy", "--strip-debug", str(found.files.vmlinux), str(bare)], check=True)
    data = bare.read_bytes()
    for name in (b"\0__start_BTF\0", b"\0__stop_BTF\0", b"\0.BTF\0"):
        assert data.count(name) >= 1
        data = data.replace(name, name.replace(b"BTF", b"XXX"))
    bare.write_bytes(data)
    kernel = kernel_of(open_kernel(Request(str(found.paths["elf"]), symbols=(str(bare),))))
    assert not kernel.has_types
    assert types_source(kernel) == "none: there is neither DWARF nor BTF"
    assert kernel.symbol("schedule") == found.truth.address("schedule")


@pytest.mark.parametrize("name", ["amd64-6.1", "amd64-6.12"])
def test_a_kernel_that_does_not_name_its_tables(name: str, tmp_path: Path) -> None:
    """As before 6.0: kallsyms is found in memory by its structure."""
    from vmimages import dumps

    found = dumps(name, ("elf",), quiet=True)
    text = open_dump(found, vmlinux=False).vmcoreinfo.text
    note = tmp_path / "note"
    note.write_text("".join(line for line in text.splitlines(keepends=True) if "SYMBOL(kallsyms_" not in line))
    kernel = kernel_of(open_kernel(Request(str(found.paths["elf"]), vmcoreinfo=str(note))))
    assert kernel.symbol("schedule") == found.truth.address("schedule")
    assert types_source(kernel) == "BTF in memory"
    assert len(modules_of(kernel).all) > 5
