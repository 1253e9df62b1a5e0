"""Colours, by the role of a word."""

from __future__ import annotations

from kplug.named_tuples import NamedTuple


class Style(NamedTuple):
    """The escape sequences of each role; empty strings for plain text. `reset` ends any of them."""

    address: str = ""
    symbol: str = ""
    label: str = ""
    section: str = ""
    warning: str = ""
    heading: str = ""
    reset: str = ""

    def paint(self, colour: str, text: str) -> str:
        """`text` in one of the colours."""
        return f"{colour}{text}{self.reset}" if colour else text


PLAIN = Style()
COLOURED = Style(
    address="\x1b[34m",
    symbol="\x1b[1;32m",
    label="\x1b[36m",
    section="\x1b[33m",
    warning="\x1b[31m",
    heading="\x1b[1m",
    reset="\x1b[0m",
)
