"""Reads a line of a log: which address or symbol it names (`kplug.log.forms` declares how)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from kplug.log.forms import (
    ADDRESS_IN_TEXT,
    AFTER,
    BEFORE,
    CORE,
    IN_TEXT,
    NO_ADDRESSES,
    REGISTER,
    REGISTERS,
    TITLES,
    Form,
    as_number,
)
from kplug.log.text import read_prefixes
from kplug.named_tuples import NamedTuple

# More than any log has around an address.
_MOST_PARTS = 24
# No symbol has more. The kernel computes a size, and that of a module's data may be below 0.
_MOST_BYTES = 0x10000000
# What a serial line loses or adds.
_UNPRINTED = dict.fromkeys((*range(9), *range(14, 27), 127))


class Mention(NamedTuple):
    """What a line names: a symbol, where in it, its size and module, or an address, as far as each is stated.

    `text` is what was read; `register` the register that has the address. `unplaced` says why there is no address, in
    words that follow the text.
    """

    text: str
    symbol: str | None = None
    offset: int | None = None
    size: int | None = None
    module: str | None = None
    address: int | None = None
    register: str | None = None
    unplaced: str | None = None
    build_id: str | None = None

    @property
    def note(self) -> str | None:
        """A note if the line states no place in its symbol, or one outside it."""
        if self.offset is None:
            is_typed = self.text == f"{self.symbol} [{self.module}]"  # which no kernel prints
            return None if is_typed else f"the line has no offset: this is where {self.symbol} begins"
        if self.size is None or self.offset <= self.size:
            return None
        return f"{self.symbol}+{self.offset:#x}/{self.size:#x}: not in the symbol, by the size in the line"


class LogLine(NamedTuple):
    """A line that is a log's. `whole`: each part of it is known, or a log's prefix begins it; else the line is a text
    with such an address or symbol in it."""

    mentions: Sequence[Mention]
    whole: bool = True


def read_line(line: str) -> LogLine | None:
    """What a line of a log names; None for what need not be one: an expression, a command, other text."""
    text = line.translate(_UNPRINTED) if not line.isprintable() else line
    position, prefixed, _ = read_prefixes(text)
    frame = _frame(text, position)
    if frame is not None and (frame.known or (prefixed and not frame.is_word)):
        return LogLine((frame.mention,))
    rest = text[position:]
    if _begins(rest, REGISTERS):
        return LogLine(_registers(rest))
    titled = prefixed or _begins(rest, TITLES)
    named = tuple(dict.fromkeys(_mention(match.group(), _stated((match,))) for match in re.finditer(IN_TEXT, rest)))
    if not named and titled:
        found = dict.fromkeys(match.group() for match in re.finditer(ADDRESS_IN_TEXT, rest))
        # Eight decimal digits are a number as well.
        named = tuple(_in_text(each) for each in found if len(each) > 8 or not each.isdigit())
    return LogLine(named, titled) if named or titled else None


def _in_text(address: str) -> Mention:
    """An address in a text, which may say anything of it."""
    return Mention(address, unplaced=f"it names {address} in a text: ask about it")


def _begins(text: str, forms: tuple[Form, ...]) -> bool:
    return any(pattern.match(text) for pattern in _compiled(forms))


class _Frame(NamedTuple):
    """What a whole text names; `known`: it can only be a log's, `is_word`: it is one word, which may be of a text."""

    mention: Mention
    known: bool
    is_word: bool


@cache
def _compiled(forms: tuple[Form, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(form.pattern) for form in forms)


def _frame(text: str, position: int) -> _Frame | None:
    """The one address or symbol that the whole text from there on is about; None if it is not of known forms only."""
    start = position
    before, position = _parts(text, position, BEFORE)
    core = next(((form, match) for form, match in _matches(text, position, CORE)), None)
    if core is None:
        return None
    after, end = _parts(text, core[1].end(), AFTER)
    if end < len(text):
        return None
    stated = _stated(match for _, match in (*before, core, *after))
    # "ADDRESS SYMBOL+OFFSET/SIZE" may as well be two questions.
    known = any(form.alone for form, _ in (*before, *after)) or (core[0].alone and not before)
    return _Frame(_mention(text[start:].strip(), stated), known, not known and stated.keys() == {"symbol"})


def _stated(matches: Iterable[re.Match[str]]) -> dict[str, str]:
    """What the groups of the matches have; of several, the last one counts."""
    return {name: value for match in matches for name, value in match.groupdict().items() if value is not None}


def _parts(text: str, position: int, forms: tuple[Form, ...]) -> tuple[list[tuple[Form, re.Match[str]]], int]:
    """The forms that follow each other from there on, and where they end."""
    found: list[tuple[Form, re.Match[str]]] = []
    while len(found) < _MOST_PARTS:
        part = next(_matches(text, position, forms), None)
        if part is None:
            break
        found.append(part)
        position = part[1].end()
    return found, position


def _matches(text: str, position: int, forms: tuple[Form, ...]) -> Iterator[tuple[Form, re.Match[str]]]:
    for form, pattern in zip(forms, _compiled(forms)):
        match = pattern.match(text, position)
        if match is not None and match.end() > position:
            yield form, match


def _mention(text: str, stated: dict[str, str]) -> Mention:
    module = stated.get("module") or stated.get("module_before")
    if module is None and "module_file" in stated:
        module = stated["module_file"].rpartition("/")[2].partition(".ko")[0].replace("-", "_")
    symbol, offset, size = stated.get("symbol"), stated.get("offset"), as_number(stated.get("size"))
    if size is not None and size >= _MOST_BYTES:
        size = None
    address = _address(stated.get("address"))
    if symbol is None and address is None:
        address = 0 if stated.get("address") else None
    unplaced = None
    if "program" in stated:
        unplaced = f"a frame of {stated['program']}, which is no kernel code"
    elif offset is None and address is None:
        if "placeless" in stated:
            unplaced = f"{symbol} is inlined there, and has no address of its own"
        elif "place" in stated:
            unplaced = f"{symbol} and a source line, and no address"
        elif symbol is None:
            unplaced = "neither an address nor a symbol"
    return Mention(text, symbol, as_number(offset), size, module, address, None, unplaced, stated.get("build_id"))


def _address(text: str | None) -> int | None:
    """The address; None where the kernel hid it as zeros."""
    return (int(text, 16) or None) if text is not None else None


def _registers(text: str) -> tuple[Mention, ...]:
    """The registers in the text that may have an address."""
    found = (match for match in re.finditer(REGISTER, text) if match.group("register") not in NO_ADDRESSES)
    return tuple(
        Mention(match.group(), address=int(match.group("address"), 16), register=match.group("register"))
        for match in found
    )
