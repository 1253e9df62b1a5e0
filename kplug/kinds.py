"""Kinds of layers: what each kind of address declares, once, beside what locates it. No kind is named here.

The resolver orders layers by their kinds, the renderers take the words of a line and of the one-line answer from them,
docs/json.md has their details (docs/kinds_table.py writes its tables).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter

from kplug.model import Layer

# What has no extent or a short name leaves the column of the ranges where it is.
NAME_WIDTH = 26


class Role(Enum):
    """What a layer is for the one-line answer."""

    NONE = "not named in it"
    AREA = "where it lies, if nothing narrower says that"
    VALUE = "what the number itself means"
    MODULE = "in brackets behind the name"
    SECTION = "a place in an image, and the section in the tail"
    REGION = "a place in an image, and part of the path of regions in the tail"
    PLACE = "a place in an image: the narrowest one is the answer"
    GAP = "a place in an image where nothing is"
    MAPPING = "what is mapped there; an owner, but not of memory that the image freed"
    OWNER = "who has the memory; the narrowest one is the answer where no image has a place"
    PAGE = "what the memory is, where no owner is known"
    INSTANCE = "the CPU whose copy it is"


def range_words(layer: Layer) -> str:
    """The range of a layer, `start-end`; nothing where it has none."""
    if layer.start is None or layer.end is None:
        return ""
    return f"{layer.start:#018x}-{layer.end:#018x}"


def before_range(words: str, layer: Layer) -> str:
    """The words of a line, with the layer's range in its column behind them."""
    return f"{words:<{NAME_WIDTH}} {range_words(layer)}".rstrip()


def name_and_range(layer: Layer) -> tuple[str, bool]:
    """The line of a kind that has no words of its own."""
    return before_range(layer.name, layer), True


def name_and_offset(layer: Layer, offset: int) -> str:
    """The phrase of a kind that has none of its own: `name+0x10`; what has no extent is named."""
    return layer.name if layer.start is None else f"{layer.name}+{offset:#x}"


@dataclass(frozen=True)
class Value:
    """How the one-line answer goes where a layer says what the number itself means (`Role.VALUE`).

    `gives_way`: whether it is left out where somebody has the address; `hides_area`: whether the area says nothing
    more beside it; `beside`: the answer where something else is there too, for which there are words already (the
    address, the words, and whether they are those of a gap).
    """

    gives_way: Callable[[Layer], bool] = lambda layer: False
    hides_area: Callable[[Layer], bool] = lambda layer: False
    beside: Callable[[Layer, int, str, bool], str] = lambda layer, address, words, is_gap: f"{layer.name}, or {words}"


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    `order` is its place from wide to narrow: the kinds of kplug are a hundred apart, for others to stand between.
    `details` are the keys of its details, each with its meaning (docs/json.md; empty where the key says it), and
    `remark` what else is to be said of them there.

    `words` is its line in the text, and whether the offset follows; `label` stands before it, where that is not the
    name; `sized`: the size follows the offset; `linked`: the link address follows where no offset does; `more` are
    lines that come after it.

    `phrase` is what the one-line answer calls an address so far from the start of a layer, in the `role` that the kind
    has there (`value` is what else a Role.VALUE says); with `needs_extent` a layer without one is not named; with
    `fills_gaps` it is the answer in a gap of an image, too. `implies` is the class of what lies in no image.

    `among` chooses, of several layers of the kind, those that stand. `replaces` names the kinds that have nothing to
    say where this one has: the memory only looks like theirs.
    """

    name: str
    order: int
    details: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    words: Callable[[Layer], tuple[str, bool]] = name_and_range
    label: str = ""
    sized: bool = False
    linked: bool = False
    more: Callable[[Layer], Iterable[str]] | None = None
    role: Role = Role.OWNER
    value: Value = Value()
    phrase: Callable[[Layer, int], str] = name_and_offset
    needs_extent: bool = False
    fills_gaps: bool = False
    implies: str | None = None
    among: Callable[[Sequence[Layer]], Sequence[Layer]] | None = None
    replaces: frozenset[str] = frozenset()


_KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Make a kind known. ValueError if another one has its name."""
    if kind.name in _KINDS and _KINDS[kind.name] != kind:
        raise ValueError(f"there is a kind {kind.name} already")
    _KINDS[kind.name] = kind
    return kind


def kind_of(layer: Layer) -> Kind:
    """The declaration of a layer's kind; of one that nobody declared, what can be said without one."""
    return _KINDS.get(layer.kind) or Kind(layer.kind, _UNDECLARED, role=Role.NONE)


def all_kinds() -> list[Kind]:
    """The kinds that are known so far, from wide to narrow."""
    return sorted(_KINDS.values(), key=lambda kind: kind.order)


_UNDECLARED = 1 << 30  # behind all others
_by_order = itemgetter(0)


def in_order(groups: Iterable[Iterable[Layer]]) -> list[Layer]:
    """The layers of several locators from the widest to the narrowest.

    A locator yields its layers widest first, so one that comes after another lies in that: it stays behind it.
    """
    placed: list[tuple[int, Layer]] = []
    choosing: dict[str, Kind] = {}
    for group in groups:
        order = 0
        for layer in group:
            kind = _KINDS.get(layer.kind)
            own = kind.order if kind is not None else _UNDECLARED
            if own > order:
                order = own
            placed.append((order, layer))
            if kind is not None and (kind.among is not None or kind.replaces):
                choosing[kind.name] = kind
    placed.sort(key=_by_order)
    layers = [layer for _, layer in placed]
    for kind in choosing.values():
        layers = _chosen(layers, kind)
    return layers


def _chosen(layers: list[Layer], kind: Kind) -> list[Layer]:
    """The layers that stand beside those of a kind that replaces others, or chooses among its own."""
    layers = [layer for layer in layers if layer.kind not in kind.replaces]
    of_it = [layer for layer in layers if layer.kind == kind.name]
    if kind.among is None or len(of_it) < 2:
        return layers
    standing = kind.among(of_it)
    return [layer for layer in layers if layer.kind != kind.name or any(layer is each for each in standing)]


def details_text(kind: Kind) -> str:
    """The details of a kind as docs/json.md has them."""
    words = ", ".join(f"`{key}` {meaning}".rstrip() for key, meaning in kind.details.items())
    return "; ".join(filter(None, (words, kind.remark)))
