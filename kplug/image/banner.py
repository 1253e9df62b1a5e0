"""The kernel's banner (linux_banner, /proc/version): finding it in an image, and the facts in it.

Its form: init/version-timestamp.c (before 6.2 init/version.c), with the values from scripts/mkcompile_h
and init/build-version; the linker is named since 5.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kplug.named_tuples import NamedTuple

START = b"Linux version "
LIMIT = 512
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d (?:[A-Z][\w+-]* )?\d{4}|\(?\d{4}-\d\d-\d\d\)?"
)
_VERSION = re.compile(r"(?<![\w.])v?(\d+(?:\.\d+)+)\S*")


class Banner(NamedTuple):
    """The facts in a banner; None if one is missing.

    `text` is the whole line, `version` the part from #1 on (uname -v), `compiler` and `linker` their own names.
    """

    text: str
    release: str
    built_by: str | None = None
    compiler: str | None = None
    compiler_version: str | None = None
    linker: str | None = None
    linker_version: str | None = None
    version: str | None = None
    built: str | None = None


def parse_banner(line: bytes) -> Banner | None:
    """The facts in a banner, which may end with a newline; None if the bytes are not a banner."""
    text = line[:LIMIT].split(b"\0", 1)[0].split(b"\n", 1)[0].decode("utf-8", "backslashreplace")
    match = re.match(r"Linux version (\S+)(?: (.*))?", text)
    if match is None:
        return None
    rest = match.group(2) or ""
    built_by, rest = _bracketed(rest)
    tools, rest = _bracketed(rest)
    compiler, linker = _tools(tools) if tools is not None else (None, None)
    version = rest if rest.startswith("#") else None
    dates = _DATE.findall(version or "")
    return Banner(
        text,
        match.group(1),
        built_by,
        compiler,
        _tool_version(compiler),
        linker,
        _tool_version(linker),
        version,
        dates[-1].strip("()") if dates else None,
    )


def _bracketed(text: str) -> tuple[str | None, str]:
    """The content of the brackets that a text begins with, and the rest; (None, text) if it begins otherwise."""
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return (text[1:position], text[position + 1 :].lstrip()) if position else (None, text)
    return None, text


def _outside_brackets(text: str) -> str:
    """The text with the content of brackets blanked, at the same length."""
    depth, kept = 0, ""
    for character in text:
        depth += character == "("
        kept += character if not depth else " "
        depth -= character == ")" and depth > 0
    return kept


def _tools(text: str) -> tuple[str, str | None]:
    """The compiler and the linker, separated by a comma outside brackets."""
    comma = _outside_brackets(text).rfind(", ")
    return (text, None) if comma < 0 else (text[:comma], text[comma + 2 :])


def _tool_version(tool: str | None) -> str | None:
    """The first number with a point in a tool's name, outside brackets."""
    match = _VERSION.search(_outside_brackets(tool)) if tool is not None else None
    return match.group(1) if match else None


def banners_in(data: bytes) -> list[bytes]:
    """The different banners in some bytes, without their newlines."""
    return list(dict.fromkeys(line for _, line in banners_at(data)))


def banners_at(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The banners in some bytes, without their newlines, and their positions.

    The kernel has other strings that begin the same way: the format of /proc/version, and since 6.2 a banner without a
    build number (the weak one in init/version.c, which init/version-timestamp.c replaces at the last link).
    """
    position = data.find(START)
    while position >= 0:
        line, newline, _ = data[position : position + LIMIT].partition(b"\0")[0].partition(b"\n")
        if newline and re.match(rb"Linux version [^\s%]+ \(.* #\d", line) and line.isascii():
            yield position, line
        position = data.find(START, position + len(START))


def only_banner(pieces: Iterable[bytes]) -> Banner | None:
    """The banner in the pieces of an image; None if there is none, or several that differ."""
    found = {line for piece in pieces for line in banners_in(piece)}
    return parse_banner(found.pop()) if len(found) == 1 else None
