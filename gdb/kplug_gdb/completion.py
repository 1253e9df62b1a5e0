"""Completion: options, and symbols from the vmlinux's table. The target is never read."""

from __future__ import annotations

import re

import gdb
from kplug.commands.base import Command
from kplug.commands.words import long_options
from kplug_gdb.words import parser_of

# gdb asks on every Tab; more than a screenful of names does not help.
LIMIT = 200

# Registers and gdb's own variables, and members: gdb knows those.
_GDBS = re.compile(r"\$\w*$|[\w)\]](?:\.|->)\w*$")
_WORD = re.compile(r"[\w.$]*$")


def complete(command: Command, text: str, word: str) -> list[str] | int:
    """The continuations of the last word of `text`. gdb wants them from where its own `word` starts."""
    last = text.rpartition(" ")[2]
    if last.startswith("-"):
        # gdb breaks words at "-", so that its word may begin in the middle of an option.
        skipped = len(last) - len(word)
        return [option[skipped:] for option in options(command) if option.startswith(last)]
    if not command.takes_symbols:
        return gdb.COMPLETE_NONE
    match = _WORD.search(word)
    stem = match.group() if match else word
    prefix = word[: len(word) - len(stem)]
    if _GDBS.search(last):
        # gdb breaks words at "." too: schedule.cold is one name.
        whole = _WORD.findall(last)[0]
        if "$" in whole:
            return gdb.COMPLETE_NONE  # gdb offers symbols there
        names = symbols(whole) if whole.endswith(word) else []
        return [name[len(whole) - len(word) :] for name in names] or gdb.COMPLETE_EXPRESSION
    return [prefix + name for name in symbols(stem)]


def options(command: Command) -> list[str]:
    """The long options that the command takes."""
    return long_options(command, parser_of(command))


def symbols(stem: str) -> list[str]:
    """Names of the kernel, also those in its source, that begin with the stem; none for an empty one, as all do."""
    from kplug.image.symbols.source_names import with_source_names
    from kplug_gdb.host import HOST

    image = HOST.known_image() if stem else None
    names = with_source_names(image.symbols.prefix(stem, LIMIT)) if image is not None else ()
    return [name for name in dict.fromkeys(names) if name.startswith(stem)][:LIMIT]
