"""The addresses that a line of a log means, as people paste it: read by `kplug.log`, looked up in the images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from kplug import model
from kplug.errors import ExpressionError, TargetError
from kplug.expressions import MAX_LENGTH, Hints, Place, places, with_hint
from kplug.image.images import as_images

if TYPE_CHECKING:
    from kplug.image.placed import PlacedImage
    from kplug.log.lines import LogLine, Mention
    from kplug.resolver import LineSource

# A line of a log has one of these: nearly all expressions have none, and need no parser of lines.
_IN_LINES = frozenset(" \t/[<{")
_MOST_NAMED = 4


@lru_cache(maxsize=1)  # who asks, asks more than once
def log_line(text: str) -> LogLine | None:
    """The line of a log that a question is; None for an expression."""
    if text.isalnum() or _IN_LINES.isdisjoint(text) or len(text) > MAX_LENGTH:
        return None
    from kplug.log.lines import read_line  # most questions are no lines

    return read_line(text)


def is_log_line(text: str) -> bool:
    """Whether the whole text is one line of a log, not some words or an expression."""
    line = log_line(text)
    return line is not None and line.whole


def places_in(
    line: LogLine, text: str, images: Sequence[PlacedImage], hints: Hints, lines: LineSource | None = None
) -> tuple[Place, ...]:
    """The runtime addresses that the line means. ExpressionError if it names none, or several."""
    if not line.mentions:
        raise ExpressionError(f"{_shortened(text)}: no address or symbol in it")
    if len(line.mentions) > 1:
        named = [mention.register or mention.text for mention in line.mentions]
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        raise ExpressionError(f"{_shortened(text)}: it names {', '.join(named[:_MOST_NAMED])}{more}: ask about one")
    mention = line.mentions[0]
    if mention.unplaced is not None:
        raise ExpressionError(f"{_shortened(text)}: {mention.unplaced}")
    if mention.symbol is None:
        return (Place(mention.address or 0),)
    if mention.offset is None and mention.address is not None:
        return (Place(mention.address, _elsewhere(mention, images)),)
    return _of_symbol(mention, images, hints, lines)


def _of_symbol(
    mention: Mention, images: Sequence[PlacedImage], hints: Hints, lines: LineSource | None
) -> tuple[Place, ...]:
    """The places of the symbol: its start if the line states no offset."""
    core = str(mention.symbol)
    if mention.offset is not None:
        core += f"+{mention.offset:#x}" + (f"/{mention.size:#x}" if mention.size is not None else "")
    try:
        found = places(core, _searched(mention, core, images, hints), hints, lines)
    except ExpressionError as error:
        if mention.address is None:
            raise
        return (Place(mention.address, f"{error}: the answer is for the address in the line"),)
    note = mention.note
    if note is None and mention.address is not None:
        same = tuple(place for place in found if place.address == mention.address)
        if same:
            return same
        if images and images[0].image.elf.word.is_kernel(mention.address):  # else it is hashed (%p)
            note = f"{core}: the line has it at {mention.address:#x}: moved otherwise (KASLR), or another build?"
    return found if note is None else tuple(each._replace(note=_joined(each.note, note)) for each in found)


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note is not None)


def _searched(mention: Mention, core: str, images: Sequence[PlacedImage], hints: Hints) -> Sequence[PlacedImage]:
    """The images that may have the symbol: the module, if the line names one."""
    if mention.module is None:
        return images
    named = as_images(images).named(mention.module)
    if named is None:
        message = f"{core} [{mention.module}]: module {mention.module} is not loaded here"
        raise ExpressionError(with_hint(message, "; ".join(filter(None, (hints.module, hints.module_file)))))
    return [named]


def _elsewhere(mention: Mention, images: Sequence[PlacedImage]) -> str | None:
    """A note if the line's own symbol is not the one at its address."""
    assert mention.address is not None
    try:
        held = as_images(images).holding(mention.address)
    except TargetError:
        return None
    layers = held[0].layers(mention.address, held[1]) if held is not None else ()
    names = {name for layer in layers if layer.kind == model.SYMBOL for name in (layer.name, *layer.details["aliases"])}
    if any(name == mention.symbol or name.startswith(f"{mention.symbol}.") for name in names):
        return None
    return f"{mention.symbol} in the line is not at {mention.address:#x} here: moved (KASLR), or another build?"


def _shortened(text: str) -> str:
    text = text.strip().rstrip(":")
    return text if len(text) <= 200 else text[:60] + "..."
