"""The one-line answer, derived from the layers."""

from __future__ import annotations

from typing import NamedTuple

from kplug import model
from kplug.model import Annotation, Layer

_IMAGE_KINDS = frozenset((model.SYMBOL, model.GAP, model.SECTION, model.REGION, model.SEGMENT))


class Summary(NamedTuple):
    """What the address is, in the fewest words (`schedule+0x4`, `padding after foo`, `ERR_PTR(-ENOMEM)`), and where it
    lies: section and region path, or the area where it lies in no image."""

    head: str
    tail: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.head, *self.tail))


def plus(offset: int) -> str:
    """An offset as it follows a name: `+0x10`."""
    return f"+{offset:#x}"


def summarize(annotation: Annotation) -> Summary:
    """Head and tail of the one-line answer: `schedule+0x4 .text [text > sched.text]`."""
    area = special = module = section = narrowest = None
    regions = []
    for layer in annotation.layers:  # one pass: this is done for each address of a long log
        kind = layer.kind
        if kind in _IMAGE_KINDS:
            narrowest = layer
            if kind == model.SECTION:
                section = section or layer  # the output section; an input section of the link map comes after it
            elif kind == model.REGION:
                regions.append(layer.name)
        elif kind == model.AREA:
            area = area or layer
        elif kind == model.SPECIAL:
            special = special or layer
        elif kind == model.MODULE:
            module = layer
    # As the kernel prints it: the module in brackets behind the symbol.
    tail: tuple[str, ...] = (f"[{module.name}]",) if module is not None else ()
    if section is not None:
        tail += (section.name,)
    if regions:
        tail += (f"[{' > '.join(regions)}]",)
    shown = narrowest or special or area
    if not tail and area is not None and shown is not area:
        tail = (f"({area.name})",)
    executable = section is not None and "X" in section.details["flags"]
    return Summary(_head(shown, special, annotation.address, executable), tail)


def _head(layer: Layer | None, special: Layer | None, address: int, executable: bool) -> str:
    if layer is None:
        return "unknown"
    if special is None or layer is special:
        return _words(layer, address, executable)
    if special.details["what"] == "percpu-offset":
        return f"per-CPU offset of {_words(layer, address)}"
    # A small number has two readings, and both are told.
    return f"{special.name}, or per-CPU offset of {_words(layer, address)}"


def _words(layer: Layer, address: int, executable: bool = False) -> str:
    if layer.kind == model.GAP:
        after, before = layer.details["after"], layer.details["before"]
        return f"padding after {after}" if layer.name == "padding" else f"between {after} and {before}"
    if layer.kind == model.SPECIAL or layer.start is None:
        return layer.name
    words = f"{layer.name}+{address - layer.start:#x}"
    # Code labels have no size as a rule; of data it means that nobody says how far it goes.
    unsure = layer.kind == model.SYMBOL and layer.details["sizeless"] and address != layer.start and not executable
    return f"{words} (sizeless)" if unsure else words
