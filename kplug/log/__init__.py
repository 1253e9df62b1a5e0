"""The kernel's log as text: what its lines have around an address or a symbol, and its events. No I/O.

`forms` declares the forms, a row each; `lines` reads a line with them. `kinds` and `event_kinds` declare the events;
`event_reader` finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kplug.log.event import Event


def events(lines: Iterable[str | bytes]) -> Iterator[Event]:
    """The events in a log's lines, each as soon as its end is seen: `for event in events(open("dmesg", "rb")): ...`"""
    from kplug.log.event_reader import read_events  # who reads one line only needs none of it

    return read_events(lines)
