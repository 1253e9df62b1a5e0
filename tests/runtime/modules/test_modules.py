"""The loaded modules of a vmcore against what the guest said of them itself, before and after the 6.4 rewrite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.open_dumps import Dumped, open_dump, session_in

from kplug import model
from kplug.runtime.modules.images import FROM_FILE, FROM_MEMORY, PlacedModule, images_of
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.session import session_of

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = pytest.mark.kernel


class ModulesDump(Dumped):
    """A dump, open, and the modules in it that were asked about."""

    @property
    def placed(self) -> Iterator[PlacedModule]:
        for image in images_of(self.kernel):
            if isinstance(image, PlacedModule):
                yield image


@pytest.fixture(
    scope="module",
    params=[(name, files) for name in ("amd64-6.1", "amd64-6.12") for files in (True, False)],
    ids=lambda param: f"{param[0]}-{'files' if param[1] else 'kallsyms'}",
)
def dumped(request: pytest.FixtureRequest) -> ModulesDump:
    name, with_files = request.param
    return ModulesDump.open(name, modules=with_files)


def test_the_list_is_that_of_proc_modules(dumped: ModulesDump) -> None:
    """Name, size, reference count, users and state, in its order."""
    states = {"live": "Live", "coming": "Loading", "going": "Unloading"}
    told = [line.split() for line in dumped.dumps.truth.text("modules").splitlines()]
    assert told
    assert [
        [m.name, str(m.size), str(m.refcount), ",".join(m.users) + "," if m.users else "-", states[m.state]]
        for m in modules_of(dumped.kernel)
    ] == [row[:5] for row in told]
    text = {
        module.name: next(part.start for part in module.memory if part.type == "text")
        for module in modules_of(dumped.kernel)
    }
    assert text == {name: base for name, (base, _) in dumped.dumps.truth.modules.items()}
    assert modules_of(dumped.kernel).problem is None


def test_build_ids_are_those_of_sysfs(dumped: ModulesDump) -> None:
    assert {module.name: module.build_id for module in modules_of(dumped.kernel)} == dumped.dumps.truth.module_build_ids


def test_every_section_is_where_sysfs_says(dumped: ModulesDump) -> None:
    for module in modules_of(dumped.kernel):
        truth = dumped.dumps.truth.module_sections[module.name]
        assert {section.name: section.start for section in module.all_sections} == truth
        for section in module.all_sections:
            freed = section.name.startswith(".init") or section.name in (".symtab", ".strtab")
            assert (module.part_at(section.start) is None) == freed, (module.name, section.name)


def test_every_section_of_memory_is_answered_with_its_module(dumped: ModulesDump) -> None:
    for module in modules_of(dumped.kernel):
        for section in module.sections:
            annotation = dumped.session.resolver.where(section.start)
            names = [(layer.kind, layer.name) for layer in annotation.layers]
            assert (model.MODULE, module.name) in names
            assert (model.SECTION, section.name) in names


def test_a_stale_init_section_is_not_claimed(dumped: ModulesDump) -> None:
    """What sysfs has of init sections is where they were: they are said to be freed, and nothing is where somebody else
    is now."""
    for module in modules_of(dumped.kernel):
        for section in module.all_sections:
            if module.part_at(section.start) is None:
                where = dumped.session.resolver.where(section.start)
                layer = where.first(model.MODULE)
                if layer is not None and layer.details.get("freed"):
                    assert (where.state.mapped, where.state.freed) == (False, True)
                    assert module.name in (layer.name, *(layer.details["before"] or ()))
                else:
                    assert layer is None or layer.name != module.name


def test_every_symbol_is_that_of_kallsyms(dumped: ModulesDump) -> None:
    """Each name at each address, and no other. Assembler labels (.L...) name an address, and hold none."""
    truth: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for symbol in dumped.dumps.truth.symbols:
        if symbol.module is not None:
            truth[symbol.module].add((symbol.name, symbol.address))
    asked = 0
    for placed in dumped.placed:
        table = placed.image.symbols
        told = truth[placed.image.name]
        assert placed.warnings == ()
        assert placed.image.symbols_from == (FROM_FILE if dumped.with_modules else FROM_MEMORY)
        ours = {(symbol.name, symbol.address) for symbol in map(table.symbol, table.places())}
        assert ours == {(name, address) for name, address in told if not name.startswith(".L")}
        for name, address in told:
            assert address in [symbol.address for symbol in table.exact(name)]
            asked += 1
    assert asked > 2000


def test_the_letters_are_those_of_kallsyms(dumped: ModulesDump) -> None:
    """But for case, which there says "exported", and "a" for per-CPU variables, which here are data."""
    truth = {(s.module, s.name, s.address): s.kind.lower() for s in dumped.dumps.truth.symbols if s.module}
    for placed in dumped.placed:
        table = placed.image.symbols
        for symbol in map(table.symbol, table.places()):
            letter = truth[placed.image.name, symbol.name, symbol.address]
            section = placed.image.section_name(symbol.section_index)
            assert symbol.letter.lower() == ("d" if section == ".data..percpu" else letter), symbol


def test_every_symbol_is_the_answer_for_its_address(dumped: ModulesDump) -> None:
    for symbol in dumped.dumps.truth.symbols:
        if symbol.module is None or not symbol.address >> 63 or symbol.name.startswith(".L"):
            continue
        held = images_of(dumped.kernel).holding(symbol.address)
        assert held is not None, symbol
        placed, piece = held
        assert placed.image.name == symbol.module
        layers = placed.layers(symbol.address, piece)
        last = next((layer for layer in reversed(layers) if layer.kind == model.SYMBOL), None)
        if last is None or last.start != symbol.address:
            # Something without bytes: an empty structure, or a label where its section ends.
            (entry,) = (s for s in placed.image.symbols.exact(symbol.name) if s.address == symbol.address)
            assert not entry.size
        else:
            assert symbol.name in (last.name, *last.details["aliases"])
            assert last.source == (".symtab" if dumped.with_modules else "the module's kallsyms in memory")


@pytest.mark.parametrize(
    ("memory", "region_class"),
    [("text", "text"), ("rodata", "rodata"), ("ro_after_init", "data"), ("data", "data")],
)
def test_the_class_is_that_of_the_memory(dumped: ModulesDump, memory: str, region_class: str) -> None:
    starts = [p.start for m in modules_of(dumped.kernel) for p in m.memory if p.type == memory]
    assert starts
    for start in starts:
        annotation = dumped.session.resolver.where(start)
        layer = annotation.first(model.MODULE)
        assert layer is not None
        assert layer.details["memory"] == memory
        assert annotation.region_class == region_class or annotation.last(model.SECTION).details["type"] == "NOBITS"  # type: ignore[union-attr]


def test_all_of_a_modules_memory_is_answered(dumped: ModulesDump) -> None:
    """In steps over all of it: a section, or a gap that says what is there; never another module."""
    for module in modules_of(dumped.kernel):
        for part in module.memory:
            for address in (*range(part.start, part.end, 0x47), part.end - 1):
                held = images_of(dumped.kernel).holding(address)
                assert held is not None
                assert held[0].image.name == module.name
                kinds = {layer.kind for layer in held[1].layers}
                assert model.SECTION in kinds or model.GAP in kinds
                for layer in held[1].layers:
                    assert layer.start is not None
                    assert layer.end is not None
                    assert part.start <= layer.start <= address < layer.end <= part.end


def test_the_kernels_own_symbol_table_is_told(dumped: ModulesDump) -> None:
    """The tables for kallsyms lie in the module's data, between its sections and the end of its pages."""
    placed = next(each for each in dumped.placed if each.image.name == "bridge")
    assert [table.name for table in placed._tables] == ["symbol table", "symbol names", "symbol types"]
    annotation = dumped.session.resolver.where(placed._tables[0].start)
    gap = annotation.first(model.GAP)
    assert gap is not None
    assert gap.details["why"] == "the module's symbol table, kept for kallsyms"


def test_between_two_modules_is_a_gap(dumped: ModulesDump) -> None:
    parts = sorted((part, module.name) for module in modules_of(dumped.kernel) for part in module.memory)
    by_address = sorted(parts, key=lambda entry: entry[0].start)
    gaps = [(below, above) for below, above in zip(by_address, by_address[1:]) if below[0].end + 1 < above[0].start]
    assert gaps
    for (below, name), (above, other) in gaps:
        gap = dumped.session.resolver.where(below.end + 1).last(model.GAP)
        assert gap is not None
        assert (gap.details["after"], gap.details["before"]) == (f"{name} ({below.type})", f"{other} ({above.type})")
        assert (gap.start, gap.end) == (below.end, above.start)


def test_a_module_is_made_only_when_an_address_in_it_is_asked_about(dumps_612: DumpSet) -> None:
    session = session_in(dumps_612)
    images = session.images
    made = images._made  # type: ignore[attr-defined]
    list(session.where("schedule"))
    assert made == {}
    base, _ = dumps_612.truth.modules["loop"]
    list(session.where(hex(base)))
    assert [placed.image.name for placed in made.values()] == ["loop"]
    list(session.where("br_handle_frame"))
    assert {placed.image.name for placed in made.values()} == {"loop", "bridge"}


def test_many_addresses_at_once(dumped: ModulesDump) -> None:
    symbols = [s for s in dumped.dumps.truth.symbols if s.kind in "tT" and s.module in ("loop", "overlay", None)][::50]
    columns = dumped.session.resolver.bulk([symbol.address for symbol in symbols])
    for symbol, image, section in zip(symbols, columns.image, columns.section):
        if symbol.module is not None:
            assert (image, section is not None) == (symbol.module, True)


def test_names_are_found_in_modules(dumped: ModulesDump) -> None:
    truth = {(s.module, s.name): s.address for s in dumped.dumps.truth.symbols}
    size = next(p for p in dumped.placed if p.image.name == "loop").image.symbols.exact("lo_release")[0].size
    for text in ("lo_release+4", f"lo_release+0x4/{size:#x} [loop]", "loop.c:lo_release+4"):
        if "loop.c" in text and not dumped.with_modules:
            continue  # the kernel does not keep the names of source files
        (place,) = dumped.session.places(text)
        assert place.address == truth["loop", "lo_release"] + 4
    assert len(dumped.session.places(".rodata")) == 1  # the vmlinux's


def test_functions_of_modules_are_found_by_the_name_in_their_source(dumped: ModulesDump) -> None:
    truth = [symbol for symbol in dumped.dumps.truth.symbols if symbol.module == "bridge"]
    renamed = [symbol for symbol in truth if symbol.name.endswith(".isra.0") and not symbol.name.startswith("__pfx_")]
    assert len(renamed) > 5
    for symbol in renamed[:5]:
        name = symbol.name.partition(".")[0]
        assert symbol.address in [place.address for place in dumped.session.places(name)]


def test_freed_code_has_no_address(dumped: ModulesDump) -> None:
    from kplug.errors import ExpressionError

    expected = (
        "loop_init: in .init.text of loop, whose memory the kernel freed after init"
        if dumped.with_modules
        else "no such"
    )
    with pytest.raises(ExpressionError, match=expected):
        dumped.session.places("loop_init")


def test_source_lines() -> None:
    """The line of each function of a module is the one that addr2line finds in its debug file."""
    import subprocess

    from vmimages import dumps

    for name in ("amd64-6.1", "amd64-6.12"):
        found = dumps(name, ("elf",), quiet=True)
        session = session_of(open_dump(found, modules=True), lines=True)
        placed = session.images.named("loop")
        assert placed is not None
        text = placed.image.elf.section(".text")
        assert text is not None
        base = found.truth.module_sections["loop"][".text"]
        symbols = [s for s in found.truth.symbols if s.module == "loop" and base <= s.address < base + text.size][::4]
        told = subprocess.run(
            ["addr2line", "-e", placed.image.path, "-j", ".text", *(hex(s.address - base) for s in symbols)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        lines = 0
        for symbol, expected in zip(symbols, told):
            layer = session.resolver.where(symbol.address).first(model.LINE)
            if layer is None:
                assert expected.startswith("??"), symbol
                continue
            lines += 1
            assert layer.details["line"] == int(expected.split()[0].rpartition(":")[2])
            assert Path(expected.rpartition(":")[0]).name == Path(layer.details["file"]).name
        assert lines > 5
