"""The words of a command line at a prompt: splitting, options, and words that form one expression."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from kplug.commands.base import Command
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.expressions import join_hints
from kplug.log_places import is_log_line
from kplug.named_tuples import NamedTuple

_OPENING, _CLOSING = "([{", ")]}"
# Words that mean nothing alone: operators, what an oops prints around a symbol ("? ", "[ext4]").
_PART = re.compile(r"[-+*/%&|^~!<>=?]+|\[(?![0-9a-fA-F]{8}\]|[0-9a-fA-F]{16}\])[\w.-]+\]")


class Line(NamedTuple):
    """A line as typed: its words, the text they came from, and where its output goes.

    `pipeline` is the shell command after a `|`; `file` and `append` come from `> FILE` and `>> FILE`.
    """

    words: list[str]
    text: str
    pipeline: str | None = None
    file: str | None = None
    append: bool = False


def split(line: str) -> Line:
    """Split a command's line without its name. Quotes keep blanks and are dropped; text in brackets is kept as it is.

    A `|` or `>` counts only outside both, and not in `->` or `[<ffffffff81a114f4>]`. UsageError if a quote is not
    closed or a redirection has no file.
    """
    words: list[str] = []
    word: str | None = None
    depth = position = 0
    while position < len(line):
        character = line[position]
        if character in "\"'":
            end = line.find(character, position + 1)
            if end < 0:
                raise UsageError(f"a {character} is not closed")
            word = (word or "") + (line[position : end + 1] if depth else line[position + 1 : end])
            position = end
        elif character == "\\" and not depth and position + 1 < len(line):
            position += 1
            word = (word or "") + line[position]
        elif not depth and character.isspace():
            words += [word] if word is not None else []
            word = None
        elif not depth and (character == "|" or (character == ">" and _is_redirection(line, position))):
            words += [word] if word is not None else []
            return _with_output(words, line, position)
        else:
            depth += character in _OPENING
            depth = max(0, depth - (character in _CLOSING))
            word = (word or "") + character
        position += 1
    return Line(words + ([word] if word is not None else []), line.strip())


# "<ffffffff81a114f4>" as older logs print an address.
_IN_ANGLES = re.compile(r"<[0-9a-fA-F]+$")


def _is_redirection(line: str, position: int) -> bool:
    return not line.startswith("->", position - 1) and not _IN_ANGLES.search(line, 0, position)


def _with_output(words: list[str], line: str, position: int) -> Line:
    """The line's words, and the redirection that begins at `position`."""
    text, rest = line[:position].strip(), line[position:]
    if rest.startswith("|"):
        if not rest[1:].strip():
            raise UsageError("a shell command is needed after |")
        return Line(words, text, pipeline=rest[1:].strip())
    append = rest.startswith(">>")
    files = split(rest[2 if append else 1 :]).words
    if len(files) != 1:
        raise UsageError(f"one file is needed after {'>>' if append else '>'}")
    return Line(words, text, file=files[0], append=append)


def split_for(command: Command, parser: argparse.ArgumentParser, line: str) -> Line:
    """As `split`, for a command: what asks about addresses takes a line of a log as it is."""
    words = pasted(line, parser) if command.words == "expressions" else None
    return Line(words, line.strip()) if words is not None else split(line)


def pasted(line: str, parser: argparse.ArgumentParser) -> list[str] | None:
    """The words of a command's line that is a line of a log, after options: that is one word, whatever quotes, `>` or
    `-` are in it. None for another line."""
    options, rest = [], line.strip()
    while rest.startswith("-") and _is_flag(rest.split(None, 1)[0], parser):
        option, *following = rest.split(None, 1)
        options.append(option)
        rest = following[0] if following else ""
    return [*options, "--", rest] if is_log_line(rest) else None


def flags(parser: argparse.ArgumentParser) -> list[str]:
    """The parser's options that take no value."""
    return [option for action in parser._actions if action.nargs == 0 for option in action.option_strings]


def _options_with_value(parser: argparse.ArgumentParser) -> list[str]:
    """The parser's options that take a value."""
    return [option for action in parser._actions if action.nargs is None for option in action.option_strings]


def long_options(command: Command, parser: argparse.ArgumentParser | None = None) -> list[str]:
    """The long options that a command takes (its `parser` if the front end added some)."""
    found: list[str] = []
    for action in (parser or command.parser(command.name))._actions:  # argparse has no public list of its options
        if action.help != argparse.SUPPRESS:
            found += [option for option in action.option_strings if option.startswith("--")]
    return sorted(found)


def whole_expression(text: str, parser: argparse.ArgumentParser) -> str:
    """The text without the parser's options, as one expression."""
    for option in _options_with_value(parser):
        text = re.sub(rf"(?<!\S){re.escape(option)}(?:\s+|=)\S+", "", text)
    flag = r"(?<!\S)--?[A-Za-z][\w-]*(?!\S)"
    return re.sub(flag, lambda m: "" if _is_flag(m.group(), parser) else m.group(), text).strip()


def _is_flag(word: str, parser: argparse.ArgumentParser) -> bool:
    """Whether a word is an option without a value as argparse takes them: several letters in one word, a long one
    shortened."""
    known = flags(parser)
    if word.startswith("--"):
        return len(word) > 2 and any(option.startswith(word) for option in known)
    return len(word) > 1 and set(word[1:]) <= set("".join(each[1:] for each in known if not each.startswith("--")))


def with_expressions(
    arguments: argparse.Namespace, text: str, parser: argparse.ArgumentParser, means_something: Callable[[str], object]
) -> argparse.Namespace:
    """The arguments of `where` as a line at a prompt means them: `text` may be one expression, and nothing is $pc."""
    meant = expressions(arguments.expressions, whole_expression(text, parser), means_something)
    return argparse.Namespace(**{**vars(arguments), "expressions": meant or ["$pc"]})


def expressions(words: list[str], whole: str, means_something: Callable[[str], object]) -> list[str]:
    """What the user meant by `words`: each of them, or (`$pc + 4`, `(long)&init_task`) the `whole` text as one.

    The whole counts if a word is only a part of something, or means nothing alone while the whole does.
    `means_something` raises for what means nothing.
    """
    if len(words) == 1 and is_log_line(words[0]):
        return words
    words = join_hints(words)
    if not words or words == [whole]:
        return words
    if any(_PART.fullmatch(word) or not _is_balanced(word) for word in words):
        return [whole]
    if all(_holds(means_something, word) for word in words):
        return words
    return [whole] if _holds(means_something, whole) else words


def _is_balanced(word: str) -> bool:
    return all(word.count(opening) == word.count(closing) for opening, closing in zip(_OPENING, _CLOSING))


def _holds(means_something: Callable[[str], object], text: str) -> bool:
    try:
        means_something(text)
    except (ExpressionError, TargetError):
        return False
    return True
