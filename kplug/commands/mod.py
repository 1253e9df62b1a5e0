"""kmod: the loaded modules, their memory and their sections."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Command, add_json_argument
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.outputs import Column, Hex, NamedFacts, Output, Problem, Range, Size, Table

if TYPE_CHECKING:
    from kplug.loaded_modules import LoadedModule, LoadedSection, ModuleMemory, ModuleSource
    from kplug.session import Session

_COLUMNS = (
    Column("MODULE", "name"),
    Column("SIZE", "size", right=True),
    Column("STATE", "state"),
    Column("USED", "refcount", right=True),
    Column("BY", "used_by"),
    Column("TAINTS", "taints"),
    Column("SYMBOLS FROM", "symbols_from"),
    Column("MEMORY", "ranges"),
)
_MEMORY_COLUMNS = (
    Column("MEMORY", "type"),
    Column("START", "start"),
    Column("END", "end"),
    Column("SIZE", "size", right=True),
)
_SECTION_COLUMNS = (
    Column("SECTION", "name"),
    Column("START", "start"),
    Column("END", "end"),
    Column("SIZE", "size", right=True),
    Column("TYPE", "type"),
    Column("FLG", "flags"),
    Column("MEMORY", "memory"),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="a module's name, or an address in its memory")
    add_json_argument(parser)


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    source = session.modules
    if source is None:
        through = "the kernel's list of modules is read through drgn"
        if session.target is not None and session.target.has_memory():  # gdb's
            raise UsageError(f"{through}, which is not in use: `kplug` says why")
        from importlib.util import find_spec

        has_drgn = find_spec("drgn") is not None
        if session.target is not None:
            install = "" if has_drgn else "; `kplug` says how to get drgn"
            raise UsageError(f"{through} from memory: {session.hints.memory}{install}")
        running = ", or in `sudo kplug`" if os.path.exists("/proc/kcore") else ""
        install = "" if has_drgn else " (pip install drgn)"
        raise UsageError(f"{through} from memory{install}: kplug mod -c VMCORE, or --qemu QMP{running}")
    if not arguments.modules:
        yield from _list(source)
    for word in arguments.modules:
        try:
            yield from _one(session, source, word)
        except (ExpressionError, TargetError) as error:
            yield Problem(str(error))


def _list(source: ModuleSource) -> Iterator[Output]:
    modules = source.modules()
    if modules:
        yield Table("kplug.modules/1", _COLUMNS, [_row(module) for module in modules])
    problem = source.problem()
    if problem is not None:
        yield Problem(problem)
    elif not modules:
        yield Problem("no module is loaded")
    yield from map(Problem, dict.fromkeys(each for module in modules for each in module.problems))
    try:
        unloaded = source.unloaded()
    except TargetError as error:
        yield Problem(str(error))
        return
    if unloaded:
        rows = [{"name": gone.name, "taints": gone.taints or None, "times": gone.times} for gone in unloaded]
        columns = (Column("UNLOADED", "name"), Column("TAINTS", "taints"), Column("TIMES", "times", right=True))
        yield Table("kplug.unloaded_modules/1", columns, rows)


def _row(module: LoadedModule) -> dict[str, Any]:
    return {
        "name": module.name,
        "size": Size(module.size),
        "state": module.state,
        "refcount": module.refcount,
        "used_by": list(module.users),
        "taints": module.taints or None,
        "symbols_from": module.symbols_from or "none",
        "ranges": _joined(module.memory),
        "path": module.path,
        "build_id": module.build_id,
        "version": module.version,
        "source_version": module.source_version,
        "memory": _memory(module.memory),
        "percpu": None if module.percpu is None else Hex(module.percpu[0]),
        "percpu_size": None if module.percpu is None else Size(module.percpu[1]),
    }


def _joined(memory: Sequence[ModuleMemory]) -> list[Range]:
    """The ranges without their types; adjacent ones are joined."""
    found: list[Range] = []
    for part in memory:
        if found and found[-1].end == part.start:
            found[-1] = Range(found[-1].start, part.end)
        else:
            found.append(Range(part.start, part.end))
    return found


def _memory(memory: Sequence[ModuleMemory]) -> list[dict[str, Any]]:
    return [{"type": part.type, "start": Hex(part.start), "end": Hex(part.end)} for part in memory]


def _one(session: Session, source: ModuleSource, word: str) -> Iterator[Output]:
    """What a module consists of; it is named, or found by an address in its memory."""
    module = source.named(word) or source.named(word.replace("-", "_"))
    if module is None:
        module = _holding(session, source, word)
    facts: dict[str, Any] = {
        "name": module.name,
        "state": module.state,
        "size": Size(module.size),
        "refcount": module.refcount,
        "used_by": list(module.users),
        "build_id": module.build_id,
        "symbols_from": module.symbols_from or "none",
    }
    # Optional facts are there only if the module has them.
    others = {
        "path": module.path,
        "version": module.version,
        "source_version": module.source_version,
        "taints": module.taints or None,
    }
    yield NamedFacts(
        "kplug.module/1", {**facts, **{name: value for name, value in others.items() if value is not None}}
    )
    memory = [*module.memory]
    if module.percpu is not None:
        base, size = module.percpu
        from kplug.loaded_modules import ModuleMemory  # imported here so that declaring the commands stays cheap

        memory.append(ModuleMemory("percpu", base, base + size))
    rows = [
        {
            "module": module.name,
            "type": part.type,
            "start": Hex(part.start),
            "end": Hex(part.end),
            "size": Size(part.end - part.start),
        }
        for part in memory
    ]
    if rows:
        yield Table("kplug.module_memory/1", _MEMORY_COLUMNS, rows)
    sections = source.sections(module.name)
    if sections:
        yield Table("kplug.module_sections/1", _SECTION_COLUMNS, [_section_row(module.name, each) for each in sections])
    yield from map(Problem, module.problems)


def _section_row(name: str, section: LoadedSection) -> dict[str, Any]:
    return {
        "module": name,
        "name": section.name,
        "start": Hex(section.start),
        "end": Hex(section.end),
        "size": Size(section.end - section.start),
        "type": section.type,
        "flags": section.flags,
        "memory": section.memory,
    }


def _holding(session: Session, source: ModuleSource, word: str) -> LoadedModule:
    """The module at the address that `word` means. ExpressionError if there is none."""
    problem = source.problem()
    try:
        places = session.places(word)
    except ExpressionError:
        because = f" ({problem})" if problem else ""
        raise ExpressionError(f"{word}: no module of that name is loaded, and it is not an address{because}") from None
    for place in places:
        module = source.holding(place.address)
        if module is not None:
            return module
    raise ExpressionError(
        f"{word}: no module has {places[0].address:#x} in its memory" + (f" ({problem})" if problem else "")
    )


MOD = Command(
    name="mod",
    takes_modules=True,
    summary="the loaded modules, their memory and sections",
    description="""List the loaded modules as lsmod does, with where they are and where their symbols come from; or one
module's memory and sections. Without a debug file a section ends where the next begins: the kernel keeps no sizes.""",
    examples=(
        ("", "all modules"),
        ("ext4", "one module's memory and sections"),
        ("0xffffffffc0401234", "the module that holds an address"),
        ("--json", "for a script"),
    ),
    add_arguments=_add_arguments,
    run=_run,
)
