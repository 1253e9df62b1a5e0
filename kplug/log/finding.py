"""Addresses and symbols anywhere in a log's bytes, many lines at once: what `kplug.log.lines` reads one by one.

A line of a long log takes a microsecond here. So no pattern begins by looking back, which would be tried at each byte.
"""

from __future__ import annotations

import re
import struct
from binascii import unhexlify
from collections.abc import Iterator, Sequence
from enum import Enum

from kplug.arch.types.word import WIDEST_BITS
from kplug.log.forms import NO_ADDRESSES

# A longer name is no symbol's (KSYM_NAME_LEN is 512).
_LONGEST_NAME = 512

# `symbol+0xoffset/0xsize [module]`, from the plus sign on; `forms.IN_TEXT` is the same in one line's text.
_AFTER_SYMBOL = re.compile(
    rb"\+0x[0-9a-fA-F]{1,16}/0x[0-9a-fA-F]{1,16}(?![\w.$+/])"
    rb"(?: {1,8}\[[A-Za-z_][\w.-]{0,63}(?: [0-9a-f]{8,64})?\])?"
)
_NAME_BACKWARDS = re.compile(rb"[\w.$]*[A-Za-z_.](?![\w.$])")
# What is an address (as `forms.ADDRESS_IN_TEXT`) is seen in the bytes as classes: h a hexadecimal digit, w what else a
# word has, blank all others. A literal is found several times as fast as a pattern.
_DIGITS = b"0123456789abcdefABCDEF"
_CLASSES = bytes(
    ord("h") if byte in _DIGITS else ord("w") if re.match(rb"[\w.$+]", bytes((byte,))) else ord(" ")
    for byte in range(256)
)
_WORD = {digits: re.compile(b" " + b"h" * digits + b"(?= )") for digits in (8, 16)}
_AFTER_0X = {digits: re.compile(b" hw" + b"h" * digits + b"(?= )") for digits in (8, 16)}
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


# What was found: from where to where in the bytes, and whether it is a symbol. A plain tuple: a log has millions.
Found = tuple[int, int, bool]


def found_in(data: bytes, bits: int) -> list[Found]:
    """The addresses and symbols in some lines, in their order. `bits`: the width of the kernel's addresses."""
    digits = bits // 4
    addresses = [(start, start + digits, False) for start in addresses_in(data, bits)]
    symbols = symbols_in(data)
    return sorted([*addresses, *symbols]) if symbols else addresses


def addresses_in(data: bytes, bits: int) -> list[int]:
    """Where addresses begin, after any 0x; in their order."""
    digits = bits // 4
    classes = b"".join((b"\n", data, b"\n")).translate(_CLASSES)
    # The blank before it takes the place of the one byte more there is.
    found = [match.start() for match in _WORD[digits].finditer(classes)]
    if b"hw" + b"h" * digits in classes:
        starts = (match.start() + 2 for match in _AFTER_0X[digits].finditer(classes))
        found += [start for start in starts if data[start - 2 : start] in (b"0x", b"0X")]
        found.sort()
    return found


def numbers(texts: Sequence[bytes], bits: int) -> Sequence[int]:
    """The addresses that these digits are."""
    return struct.unpack(f">{len(texts)}{'Q' if bits == WIDEST_BITS else 'I'}", unhexlify(b"".join(texts)))


def symbols_in(data: bytes) -> list[Found]:
    """Where there is `symbol+0xoffset/0xsize [module]`."""
    return list(_symbols(data)) if b"+0x" in data else []


def _symbols(data: bytes) -> Iterator[Found]:
    for match in _AFTER_SYMBOL.finditer(data):
        plus = match.start()
        before = data[max(0, plus - _LONGEST_NAME) : plus]
        name = _NAME_BACKWARDS.match(before[::-1])
        if name is not None and _begins_a_name(before, len(before) - name.end()):
            yield plus - name.end(), match.end(), True


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
    name = register.group(1).decode("ascii")
    return None if name in NO_ADDRESSES or name == "Oops" else Role.REGISTER  # the latter has the error's code
