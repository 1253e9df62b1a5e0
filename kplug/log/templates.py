"""Titles and sentences with names in braces, as `kplug.log.kinds.EventKind` has them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OPTIONAL = re.compile(r"\[([^\[\]]{0,200})\]")
_NAME = re.compile(r"\{(\w{1,40})\}")


def filled(template: str, named: Mapping[str, str]) -> str:
    """The template with what is named; of the `|` choices in brackets the first one whose names are all stated."""

    def part(match: re.Match[str]) -> str:
        for choice in match.group(1).split("|"):
            if all(_value(name, named) is not None for name in _NAME.findall(choice)):
                return choice
        return ""

    return _NAME.sub(lambda match: _value(match.group(1), named) or "", _OPTIONAL.sub(part, template)).strip()


def _value(name: str, named: Mapping[str, str]) -> str | None:
    if name in named:
        return named[name]
    lower = name.lower()
    return named[lower].capitalize() if lower in named else None
