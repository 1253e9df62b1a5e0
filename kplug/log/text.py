"""A line of a log: the bytes as they came, and where the kernel's message begins in them."""

from __future__ import annotations

import re
from functools import cache

from kplug.log.forms import PREFIXES
from kplug.named_tuples import NamedTuple

# More prefixes than any line has.
_MOST_PREFIXES = 24
# The kernel's records have 1024 bytes at most (CONFIG_LOG_LINE_MAX); what is beyond this is not read.
_LONGEST = 1 << 14
# What nearly all lines begin with: tried first, for its speed. More may follow it only if one of these characters does.
_USUAL = re.compile(
    r"(?:<(?P<level>\d{1,3})>)?\[ {0,12}(?P<time>\d{1,10}\.\d{1,9})\](?:\[ {0,12}(?P<caller>[TC]\d{1,10})\])?"
)
_MORE = frozenset("[<>\x1b(-0123456789")
# journalctl -o short-monotonic puts the host after the time.
_HOSTED, _HOST = " kernel: ", 80
_UNPRINTED = dict.fromkeys((*range(9), *range(14, 27), *range(28, 32), 127))
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
# 80 columns: what terminals and consoles wrap at, and mark nowhere.
COLUMNS = 80


class LogText(NamedTuple):
    """A line. `raw` has its bytes as text (UTF-8, surrogates for what is not), its end of line included, as given;
    `message` is what the kernel said, from `begin` in `raw` on, without blanks around it, colours, the unprintable.

    `time`, `caller` (T and a PID, or C and a CPU; MediaTek: a PID), `cpu` and `level` are as the prefixes state,
    else None.
    """

    number: int
    raw: str
    begin: int
    message: str
    time: str | None = None
    caller: str | None = None
    cpu: int | None = None
    level: str | None = None

    @property
    def prefixed(self) -> bool:
        """Whether a carrier's prefix begins it."""
        return bool(self.raw[: self.begin].strip())

    @property
    def data(self) -> bytes:
        """The bytes that were read."""
        return self.raw.encode("utf-8", "surrogateescape")

    @property
    def fills_the_columns(self) -> bool:
        """Whether a console of 80 columns may have wrapped it."""
        return len(self.raw.rstrip("\r\n")) == COLUMNS


class Prefixes(NamedTuple):
    """`end`: where the text goes on after all prefixes; `known`: whether one of them shows that it is a log's."""

    end: int
    known: bool
    stated: dict[str, str]


def read_text(number: int, line: str | bytes) -> LogText:
    """The line with this number, counted from 1."""
    raw = line.decode("utf-8", "surrogateescape") if isinstance(line, bytes) else line
    text = raw if len(raw) <= _LONGEST else raw[:_LONGEST]
    usual = _USUAL.match(text)
    if usual is not None:
        begin = _after_blanks(text, usual.end())
        if begin == len(text) or (text[begin] not in _MORE and text.find(_HOSTED, begin, begin + _HOST) < 0):
            message = text[begin:].rstrip()
            level, time, caller = usual.groups()
            if not message.isprintable():
                message = _clean(message)
            return LogText._make((number, raw, begin, message, time, caller, None, level))
    begin, _, stated = read_prefixes(text)
    message = text[begin:].rstrip()
    cpu = stated.get("cpu")
    return LogText(
        number,
        raw,
        begin,
        message if message.isprintable() else _clean(message),
        stated.get("time"),
        stated.get("caller"),
        int(cpu) if cpu is not None else None,
        stated.get("level"),
    )


def read_prefixes(text: str) -> Prefixes:
    """What carriers put before a message, nested as they may be."""
    position, known = _after_blanks(text, 0), False
    stated: dict[str, str] = {}
    for _ in range(_MOST_PREFIXES):
        if _any_prefix().match(text, position) is None:
            break
        for form, pattern in zip(PREFIXES, _patterns()):
            match = pattern.match(text, position)
            if match is not None and match.end() > position:
                position, known = _after_blanks(text, match.end()), known or form.alone
                # The innermost is the kernel's own.
                stated.update((name, value) for name, value in match.groupdict().items() if value is not None)
                break
        else:
            break
    return Prefixes(position, known, stated)


@cache
def _any_prefix() -> re.Pattern[str]:
    """All of them at once: most lines have no more, and some have none."""
    return re.compile("|".join(f"(?:{unnamed(form.pattern)})" for form in PREFIXES))


def unnamed(pattern: str) -> str:
    """The pattern without the names of its groups, to be one among others in another pattern."""
    return re.sub(r"\(\?P<\w+>", "(?:", pattern)


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(form.pattern) for form in PREFIXES)


def _after_blanks(text: str, position: int) -> int:
    # A NUL is what a serial line has before the kernel speaks.
    while position < len(text) and (text[position].isspace() or text[position] == "\0"):
        position += 1
    return position


def _clean(message: str) -> str:
    return _COLOUR.sub("", message).translate(_UNPRINTED).strip()
