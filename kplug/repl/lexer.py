"""Syntax colours of typed text: k-commands by their own grammar, everything else as Python."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer

_PYTHON = re.compile(
    r"""(?P<comment>\#.*)
    |(?P<string>[rbfuRBFU]{0,2}(?:\"\"\"(?:.|\n)*?(?:\"\"\"|$)|'''(?:.|\n)*?(?:'''|$)|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?))
    |(?P<number>\b(?:0[xX][0-9a-fA-F_]+|0[bBoO][0-7_]+|\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?)\b)
    |(?P<register>\$\w+)
    |(?P<name>[A-Za-z_]\w*)""",
    re.VERBOSE,
)
_COMMAND = re.compile(
    r"""(?P<shell>[|!].*|>>?.*)
    |(?P<string>"[^"]*"?|'[^']*'?)
    |(?P<option>(?<!\S)--?[A-Za-z][\w-]*)
    |(?P<number>(?<![\w.])(?:0[xX][0-9a-fA-F]+|[0-9a-f]{16}|\d+)\b)
    |(?P<register>\$\w+)""",
    re.VERBOSE,
)
_BUILTINS = frozenset(dir(builtins))
STYLE = {
    "k.command": "bold ansigreen",
    "k.option": "ansicyan",
    "k.number": "ansiblue",
    "k.string": "ansiyellow",
    "k.register": "ansimagenta",
    "k.shell": "ansibrightblack",
    "k.comment": "ansibrightblack",
    "k.keyword": "bold",
    "k.builtin": "ansicyan",
    "auto-suggestion": "ansibrightblack",
    "bottom-toolbar": "noreverse",
    "bottom-toolbar.text": "ansibrightblack",
}


class LineLexer(Lexer):
    """Colours each line of the buffer. `is_command` says whether the buffer is a command."""

    def __init__(self, is_command: Callable[[str], bool]) -> None:
        self._is_command = is_command

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        lines = document.lines
        if len(lines) == 1 and self._is_command(lines[0]):
            return lambda number: command_colours(lines[number]) if number < len(lines) else []
        return lambda number: python_colours(lines[number]) if number < len(lines) else []


def command_colours(line: str) -> StyleAndTextTuples:
    """A command: its name, options, numbers, registers, and the shell part."""
    name = re.match(r"\s*[\w?]*", line)
    end = name.end() if name else 0
    return [("class:k.command", line[:end]), *_coloured(_COMMAND, line, end)]


def python_colours(line: str) -> StyleAndTextTuples:
    """A line of Python."""
    return _coloured(_PYTHON, line, 0)


def _coloured(pattern: re.Pattern[str], line: str, start: int) -> StyleAndTextTuples:
    found: StyleAndTextTuples = []
    for match in pattern.finditer(line, start):
        if match.start() > start:
            found.append(("", line[start : match.start()]))
        found.append((_style(match), match.group()))
        start = match.end()
    found.append(("", line[start:]))
    return found


def _style(match: re.Match[str]) -> str:
    kind, text = match.lastgroup, match.group()
    if kind == "name":
        if keyword.iskeyword(text):
            return "class:k.keyword"
        return "class:k.builtin" if text in _BUILTINS else ""
    return f"class:k.{kind}"
