"""Addresses and symbols anywhere in a log's bytes, many lines at once: what `kplug.log.lines` reads one by one.

A line of a long log takes a microsecond here. So no pattern begins by looking back, which would be tried at each byte:
what is before a match is looked at after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

from kplug.log.forms import NO_ADDRESSES
from kplug.named_tuples import NamedTuple

# A longer name is no symbol's (KSYM_NAME_LEN is 512).
_LONGEST_NAME = 512

# `symbol+0xoffset/0xsize [module]`, from the plus sign on; `forms.IN_TEXT` is the same in one line's text.
_AFTER_SYMBOL = re.compile(
    rb"\+0x[0-9a-fA-F]{1,16}/0x[0-9a-fA-F]{1,16}(?![\w.$+/])"
    rb"(?: {1,8}\[[A-Za-z_][\w.-]{0,63}(?: [0-9a-f]{8,64})?\])?"
)
_NAME_BACKWARDS = re.compile(rb"[\w.$]*[A-Za-z_.](?![\w.$])")
# As `forms.ADDRESS_IN_TEXT`, by the number of digits.
_ADDRESS = {
    digits: re.compile(
        rb"(?s)[0-9a-fA-F]{%d}(?:(?<![\w.$+].{%d})|(?<=0x.{%d})|(?<=0X.{%d}))(?![\w.$+])" % ((digits,) * 4)
    )
    for digits in (8, 16)
}
_NO_ADDRESS_BEFORE = (b"end trace ", b"flags:", b"flags: ", b"flags: 0x", b"flags:0x")
_REGISTER_BEFORE = re.compile(
    rb"(?:.*[^\w.$])?([A-Za-z]\w{0,6})\s{0,4}:\s{0,4}(?:[0-9a-fA-F]{4}:)?(?:\[<)?(?:0x)?", re.S
)
_FAULT_BEFORE = re.compile(rb"(?:.*\W)?(?:address:?|addr|CR2\s{0,4}:|FAR(?:_EL\d)?\s{0,4}[:=]) *(?:0x)?", re.S | re.I)
_MOST_BEFORE = 32


class Role(Enum):
    """What an address in a log is there: the address of a fault, the value of a register, or one in a text."""

    FAULT = "fault"
    REGISTER = "register"
    TEXT = "text"


class Found(NamedTuple):
    """What was found, from `start` to `end` in the bytes."""

    start: int
    end: int
    is_symbol: bool


def found_in(data: bytes, bits: int) -> list[Found]:
    """The addresses and symbols in some lines, in their order. `bits`: the width of the kernel's addresses."""
    addresses = [Found(match.start(), match.end(), False) for match in _ADDRESS[bits // 4].finditer(data)]
    if b"+0x" not in data:
        return addresses
    symbols = list(_symbols(data))
    if not symbols or not addresses:
        return symbols or addresses
    return sorted([*addresses, *symbols])


def _symbols(data: bytes) -> Iterator[Found]:
    for match in _AFTER_SYMBOL.finditer(data):
        plus = match.start()
        before = data[max(0, plus - _LONGEST_NAME) : plus]
        name = _NAME_BACKWARDS.match(before[::-1])
        if name is not None and _begins_a_name(before, len(before) - name.end()):
            yield Found(plus - name.end(), match.end(), True)


def _begins_a_name(before: bytes, start: int) -> bool:
    return start == 0 or before[start - 1 : start] != b"+"


def role_of(data: bytes, start: int) -> Role | None:
    """What the address is that begins there; None for a number that is no address."""
    line = data.rfind(b"\n", max(0, start - _MOST_BEFORE), start) + 1
    before = data[max(line, start - _MOST_BEFORE) : start]
    if before.endswith(_NO_ADDRESS_BEFORE):
        return None
    if _FAULT_BEFORE.fullmatch(before):
        return Role.FAULT
    register = _REGISTER_BEFORE.fullmatch(before)
    if register is None:
        return Role.TEXT
    return None if register.group(1).decode("ascii", "replace") in NO_ADDRESSES else Role.REGISTER
