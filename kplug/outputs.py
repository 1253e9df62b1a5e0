"""What commands yield: answers, tables, facts and problems, as data. `kplug.render` shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

from kplug.arch.types.word import WIDEST_BITS
from kplug.frozen import Frozen
from kplug.model import Annotation


class Hex(int):
    """An address or offset in an output: in hexadecimal, a string in JSON. Plain ints are counts and indexes."""


class Size(int):
    """A number of bytes in an output: shown in hexadecimal, a number in JSON."""


class Address(Hex):
    """A word in a table where all have the digits of the machine."""

    bits: int

    def __new__(cls, value: int, bits: int = WIDEST_BITS) -> Address:
        self = super().__new__(cls, value)
        self.bits = bits
        return self


class HumanSize(int):
    """A number of bytes in an output: shown with a unit (64 TiB), a number in JSON."""


class Range(Frozen):
    """A half-open range of addresses in an output."""

    start: int
    end: int


class Brief(Frozen):
    """The one-line answer for an address, in a cell: coloured in text, the summary's words in JSON."""

    annotation: Annotation


class Column(Frozen):
    """A column of a table: its heading, the key of the row's value, and whether it is aligned to the right.

    `role` names what its cells are for a reader (address, symbol, label, section, warning), for colours.
    """

    heading: str
    key: str
    right: bool = False
    role: str = ""


class Table(Frozen):
    """Rows of values under headings. `schema` names the JSON form: one object a row, all keys of the row in it.

    Values are strings, numbers, `Hex`, lists of strings, `Brief`, whole Annotations (for JSON), and None, which is
    shown as nothing. `title` distinguishes the tables of several images. `indented` names the key whose values are
    indented by the row's `depth`, in text.
    """

    schema: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    indented: str = ""


class NamedFacts(Frozen):
    """Named facts, one a line. As JSON one object. Values as in a table, `Range`, and lists of mappings of them."""

    schema: str
    facts: Mapping[str, Any]


class InModule(Frozen):
    """The answer for a place in a module whose load address is not known: its addresses count from the start of the
    `section`, and are no runtime addresses."""

    annotation: Annotation
    section: str


class Log(Frozen):
    """A kernel's log. With `answers` for what it names (a `kplug.annotate.answers.LogAnswers`; that file imports this
    one) it is explained; with `events`, these are shown instead of it, a line each."""

    text: bytes
    answers: Any = None
    events: bool = False


class Problem(Frozen):
    """A question that could not be answered; the others still are. Exit status 1 at the shell."""

    message: str


Output = Union[Annotation, InModule, Table, NamedFacts, Log, Problem]
