"""kregs: the registers, each with what it holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.annotated import WHAT, Annotator, memory_target
from kplug.commands.base import Command, add_json_argument
from kplug.outputs import Column, Hex, Output, Problem, Table

if TYPE_CHECKING:
    from kplug.session import Session
    from kplug.target import Register

_COLUMNS = (Column("NAME", "name", role="label"), Column("VALUE", "value", role="address"), WHAT)
# Segment selectors: small numbers, indexes of descriptors.
_SELECTORS = frozenset(("cs", "ss", "ds", "es", "fs", "gs"))
# These always hold addresses, even small ones: the CPU's position, and its last fault.
_ADDRESSES = frozenset(("rip", "pc", "cr2"))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these registers")
    add_json_argument(parser)


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    registers = memory_target(session, "registers").registers()
    machine = session.machine
    chosen, problems = _chosen(registers, list(arguments.names), machine)
    annotator = Annotator(session)
    rows = [_row(register, machine, annotator) for register in chosen]
    if rows:
        yield Table("kplug.regs/1", _COLUMNS, rows)
    yield from problems


def _chosen(
    registers: Sequence[Register], names: Sequence[str], machine: str
) -> tuple[Sequence[Register], list[Problem]]:
    """The named registers, in the order given; all of them if none is named."""
    # Imported here so that declaring the commands stays cheap.
    from kplug.arch.registers import canonical, is_register

    if not names:
        return registers, []
    by_name = {canonical(register.name, machine)[0]: register for register in registers}
    chosen, problems = [], []
    for name in names:
        register = by_name.get(canonical(name.lstrip("$"), machine)[0])
        if register is None:
            known = is_register(name.lstrip("$"), machine)
            problems.append(Problem(f"{name}: {'its value is not known' if known else 'no such register'} here"))
        else:
            chosen.append(register)
    return chosen, problems


def _row(register: Register, machine: str, annotator: Annotator) -> dict[str, Any]:
    from kplug.arch.registers import flag_names

    value = register.value
    row: dict[str, Any] = {"name": register.name, "value": None if value is None else Hex(value), "flags": None}
    if value is None:
        return {**row, **annotator.fields(None), "summary": "not saved in this frame"}
    flags = flag_names(register.name, value, machine)
    if flags is not None:
        return {**row, **annotator.fields(None), "flags": flags, "summary": " ".join(flags)}
    if register.name in _SELECTORS:
        return {**row, **annotator.fields(None)}
    if register.name in _ADDRESSES and value:
        return {**row, **annotator.fields(annotator.place(value))}
    return {**row, **annotator.fields(annotator.telling(annotator.plain_return(register.name, value)))}


REGS = Command(
    name="regs",
    summary="the registers, each with what it holds",
    description="""Show the registers of the selected frame, with the one-line answer for each that holds an address;
flags and control registers by the names of their bits.""",
    examples=(("", "all of them"), ("rdi rsi", "these"), ("--json", "for a script")),
    add_arguments=_add_arguments,
    run=_run,
)
