"""The k-commands, each declared once for every prompt. One is imported when it is asked for by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from kplug.commands.base import Command

# The file of each, which has the declaration under the command's name.
_FILES = {
    "where": "where",
    "regs": "regs",
    "stack": "stack",
    "x": "memory_words",
    "sym": "sym",
    "regions": "layout",
    "sections": "layout",
    "segments": "layout",
    "map": "map",
    "mod": "mod",
    "log": "log",
    "info": "info",
    "notes": "notes",
    "kaslr": "status",
    "kplug": "status",
}


class _Commands(Mapping[str, Command]):
    """All of them, by name."""

    def __getitem__(self, name: str) -> Command:
        return _declared(_FILES[name], name)

    def __contains__(self, name: object) -> bool:
        return name in _FILES

    def __iter__(self) -> Iterator[str]:
        return iter(_FILES)

    def __len__(self) -> int:
        return len(_FILES)


@cache
def _declared(file: str, name: str) -> Command:
    command: Command = getattr(import_module(f"{__name__}.{file}"), name.upper())
    return command


COMMANDS = _Commands()
