"""The words of a command line: options by the command's own parser, expressions as gdb users type them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

import gdb
from kplug.commands.base import Command, Parser
from kplug.errors import ExpressionError, TargetError, UsageError

# kwhere's and ksym's options; what is left of the line without them may be one expression with blanks in it.
_OPTIONS = re.compile(r"(?:(?<=\s)|^)(?:--json|--brief|--prefix|-b|-p)(?=\s|$)")


def parse(command: Command, parser: Parser, line: str) -> argparse.Namespace:
    """The arguments of a line. UsageError if they are wrong."""
    if line.count('"') % 2:
        raise UsageError(f'{parser.prog}: a " is not closed')
    return parser.parse_args(gdb.string_to_argv(line))


def whole_expression(line: str) -> str:
    """The line without its options, as one expression."""
    return _OPTIONS.sub("", line).strip()


# Words that mean nothing alone: operators, what an oops prints around a symbol ("? ", "[ext4]").
_PART = re.compile(r"[-+*/%&|^~!<>=?]+|\[(?![0-9a-fA-F]{8}\]|[0-9a-fA-F]{16}\])[\w.-]+\]")


def expressions(words: list[str], line: str, means_something: Callable[[str], object]) -> list[str]:
    """What the user meant by `words`: each of them, or (`$pc + 4`, `(long)&init_task`) the whole line as one.

    The line counts where a word is only a part of something, or means nothing alone and the whole line does.
    `means_something` raises if not.
    """
    whole = whole_expression(line)
    if not words or words == [whole]:
        return words
    if any(_PART.fullmatch(word) or not _is_balanced(word) for word in words):
        return [whole]
    if all(_holds(means_something, word) for word in words):
        return words
    return [whole] if _holds(means_something, whole) else words


def _is_balanced(word: str) -> bool:
    return all(word.count(opening) == word.count(closing) for opening, closing in ("()", "[]", "{}"))


def _holds(means_something: Callable[[str], object], text: str) -> bool:
    try:
        means_something(text)
    except (ExpressionError, TargetError):
        return False
    return True
