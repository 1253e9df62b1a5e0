"""What is right, from others: nm and readelf of the files, the guest's own /proc/kallsyms."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmimages import GroundTruth


@dataclass(frozen=True)
class Named:
    """A symbol as nm or kallsyms lists it."""

    address: int
    letter: str
    name: str


def nm(path: str | Path) -> list[Named]:
    """nm's list of a file."""
    lines = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = (line.split() for line in lines)
    return [Named(int(row[0], 16), row[1], row[2]) for row in rows if len(row) == 3]


def sections(path: str | Path) -> dict[str, tuple[int, int]]:
    """readelf's allocated sections: name to address and size."""
    text = subprocess.run(["readelf", "-SW", str(path)], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s+\[ *\d+\] (\S+)\s+\S+\s+([0-9a-f]{16}) [0-9a-f]+ ([0-9a-f]+) \S+\s+[WXMSILOGTCE]*A", line)
        if match:
            found[match[1]] = (int(match[2], 16), int(match[3], 16))
    return found


def listed(truth: GroundTruth) -> list[Named]:
    """The image's symbols, by the guest's own list."""
    return [Named(s.address, s.kind, s.name) for s in truth.symbols if s.module is None]


def sample(symbols: Iterable[Named], count: int, seed: int = 1) -> list[Named]:
    """Some functions and variables of the kernel's image whose names and addresses are nobody else's."""
    listed = list(symbols)
    names: dict[str, int] = {}
    places: dict[int, int] = {}
    for symbol in listed:
        names[symbol.name] = names.get(symbol.name, 0) + 1
        places[symbol.address] = places.get(symbol.address, 0) + 1
    fitting = [
        symbol
        for symbol in listed
        if symbol.letter in "tTdDbBrR"
        and symbol.address >> 63
        and names[symbol.name] == places[symbol.address] == 1
        and not symbol.name.startswith(("__start_", "__stop_", "__end_", "__begin_"))
    ]
    return random.Random(seed).sample(fitting, count)


def symbol_names(answer: dict[str, Any]) -> set[str]:
    """All names that an answer of kwhere --json has for the very address."""
    found = set()
    for layer in answer["layers"]:
        if layer["kind"] == "symbol" and layer["offset"] == "0x0":
            found |= {layer["name"], *layer["details"]["aliases"]}
    return found


def layer(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    """The narrowest layer of a kind."""
    found = [layer for layer in answer["layers"] if layer["kind"] == kind]
    assert found, f"no {kind} in {answer['summary']}"
    return dict(found[-1])


def check_symbols(answers: Sequence[dict[str, Any]], symbols: Sequence[Named], kaslr_offset: int) -> None:
    """Each answer is for its symbol: the name, the address at which kallsyms has it, and the link address."""
    assert len(answers) == len(symbols)
    for answer, symbol in zip(answers, symbols):
        assert int(answer["address"], 16) == symbol.address, symbol
        assert int(answer["link_address"], 16) == symbol.address - kaslr_offset, symbol
        assert symbol.name in symbol_names(answer), (symbol, answer["summary"])
        assert answer["warnings"] == []


def addresses_command(symbols: Iterable[Named]) -> str:
    return "kwhere --json " + " ".join(f"{symbol.address:#x}" for symbol in symbols)


def names_command(symbols: Iterable[Named]) -> str:
    return "kwhere --json " + " ".join(symbol.name for symbol in symbols)
