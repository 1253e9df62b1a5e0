"""ksym: symbols by name or address."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Command, add_json_argument
from kplug.errors import ExpressionError, TargetError
from kplug.names import symbols_of, symbols_of_source_name
from kplug.outputs import Column, Hex, Output, Problem, Size, Table

if TYPE_CHECKING:
    from kplug.image.placed import PlacedImage
    from kplug.image.symbols.symbol import Symbol
    from kplug.session import Session

_COLUMNS = (
    Column("ADDRESS", "address"),
    Column("SIZE", "size", right=True),
    Column("T", "type"),
    Column("SYMBOL", "name"),
    Column("IN SOURCE", "source_name"),
    Column("SECTION", "section"),
    Column("FILE", "file"),
    Column("PART OF", "part_of"),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="a symbol, a pattern (*, ?, [...]), or an address")
    parser.add_argument("-p", "--prefix", action="store_true", help="all symbols that begin with NAME")
    add_json_argument(parser)


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for name in arguments.names:
        found = list(_by_name(session, name, arguments.prefix))
        if not found and not arguments.prefix and not _is_pattern(name):
            try:
                found = list(_by_address(session, name))
            except (ExpressionError, TargetError) as error:
                problems.append(Problem(str(error)))
                continue
        if not found:
            problems.append(Problem(f"{name}: no symbol"))
        rows += found
    if rows:
        yield Table("kplug.sym/1", _COLUMNS, rows)
    yield from problems


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _by_name(session: Session, name: str, prefix: bool) -> Iterator[dict[str, Any]]:
    if not prefix and not _is_pattern(name):
        found = symbols_of(name, session.images)
        source_name = None if found else name
        for placed, symbol in found or symbols_of_source_name(name, session.images):
            yield _row(placed, symbol, source_name)
        return
    for placed in session.images:
        table = placed.image.symbols
        for symbol in table.named(table.prefix(name) if prefix else table.glob(name)):
            yield _row(placed, symbol)


def _by_address(session: Session, expression: str) -> Iterator[dict[str, Any]]:
    """The symbols that hold an address, widest first."""
    for place in session.places(expression):
        found = session.images.holding(place.address)
        if found is not None:
            placed, _ = found
            for extent in placed.image.index.chain(placed.placement.link(place.address)):
                yield _row(placed, extent.symbol)


def _row(placed: PlacedImage, symbol: Symbol, source_name: str | None = None) -> dict[str, Any]:
    image = placed.image
    sections = image.sections
    return {
        "address": Hex(placed.symbol_address(symbol)) if placed.is_placed(symbol.section_index) else None,
        "link_address": None if image.is_module or not placed.placement.link_known else Hex(symbol.address),
        "size": Size(symbol.size) if symbol.size and placed.knows_end(symbol.address) else None,
        "type": symbol.letter,
        "binding": symbol.binding or None,
        "name": symbol.name,
        "source_name": source_name,
        "image": image.name,
        "section": sections[symbol.section_index].name if symbol.section_index < len(sections) else None,
        "file": image.symbols.file_of(symbol),
        "part_of": symbol.whole,
    }


SYM = Command(
    name="sym",
    summary="symbols by name, pattern or address",
    description="""Find symbols: by exact name, by pattern (*, ?, [...]), by prefix (-p), or those that hold an address.
If there is none of that name, those that have it in their source (foo.isra.0, foo.llvm.123 and parts of it, for foo).
Static symbols that share a name are distinguished by their source file.""",
    examples=(
        ("schedule", "one symbol"),
        ("'*_fops'", "all that match"),
        ("-p tcp_v4_", "all that begin with it"),
        ("0xffffffff81a114f4", "the symbols that hold an address"),
    ),
    add_arguments=_add_arguments,
    run=_run,
    takes_symbols=True,
    words="names",
)
