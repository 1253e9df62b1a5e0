"""Kinds of layers. Each is declared once, next to the locator that makes such layers; no kind is named here.

The resolver orders layers by their kinds, the renderers take the text of lines and one-line answers from them, and
docs/kinds_table.py writes the tables of docs/json.md from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

from kplug.frozen import Frozen, field
from kplug.model import Layer

# Names up to this width keep the ranges in one column.
NAME_WIDTH = 26


class Role(Enum):
    """What a layer is for the one-line answer."""

    NONE = "not named in it"
    AREA = "where it lies, if nothing narrower says that"
    VALUE = "what the number itself means"
    MODULE = "in brackets after the name"
    SECTION = "a place in an image, and the section in the tail"
    REGION = "a place in an image, and part of the path of regions in the tail"
    PLACE = "a place in an image: the narrowest one is the answer"
    GAP = "a place in an image where nothing is"
    MAPPING = "what is mapped there; an owner, but not of memory that the image freed"
    OWNER = "who has the memory; the narrowest one is the answer where no image has a place"
    PAGE = "what the memory is, where no owner is known"
    INSTANCE = "the CPU whose copy it is"
    MEMBER = "the member of a structure, after the rest of the answer"


def range_words(layer: Layer) -> str:
    """The range of a layer, `start-end`; nothing where it has none."""
    if layer.start is None or layer.end is None:
        return ""
    return f"{layer.start:#018x}-{layer.end:#018x}"


def before_range(words: str, layer: Layer) -> str:
    """The text of a line, followed by the layer's range in its column."""
    return f"{words:<{NAME_WIDTH}} {range_words(layer)}".rstrip()


def name_and_range(layer: Layer) -> tuple[str, bool]:
    """The line of a kind that declares none."""
    return before_range(layer.name, layer), True


def name_and_offset(layer: Layer, offset: int) -> str:
    """The phrase of a kind that declares none: `name+0x10`, or the name alone for a layer without an extent."""
    return layer.name if layer.start is None else f"{layer.name}+{offset:#x}"


class Value(Frozen):
    """How the one-line answer shows a layer that says what the number itself means (`Role.VALUE`).

    `gives_way`: whether it is left out where the address has an owner. `hides_area`: whether the area adds nothing to
    it. `with_other`: the text where the address also has another meaning; it takes the layer, the address, the other
    meaning's text, and whether that is a gap's.
    """

    gives_way: Callable[[Layer], bool] = lambda layer: False
    hides_area: Callable[[Layer], bool] = lambda layer: False
    with_other: Callable[[Layer, int, str, bool], str] = lambda layer, address, words, is_gap: (
        f"{layer.name}, or {words}"
    )


class Kind(Frozen):
    """One kind of layer.

    `order` is its place from wide to narrow. kplug's own kinds are a hundred apart, so that others fit between them.
    `details` are the keys of its details, each with its meaning (for docs/json.md; empty where the key is clear), and
    `remark` is added to them there.

    `words` is its line in the text, and whether the offset follows. `label` starts the line, if it is not the kind's
    name. `sized`: the size follows the offset. `linked`: the link address follows where there is no offset. `more` are
    the lines after it.

    `phrase` is the text for an address at an offset into the layer, in the one-line answer; `role` says how that answer
    uses it, and `value` has more for Role.VALUE. With `needs_extent`, a layer without an extent is not named there.
    With `fills_gaps`, it is the answer in a gap of an image, too. `implies` is the class of an address in no image.

    `object_type` is for a layer that is a single object, which begins where the layer does: its type ("struct page"),
    "" where that is not known; None for other layers.

    `among` chooses the layers to keep when there are several of the kind. `replaces` names kinds whose layers are
    dropped where this one has a layer: the memory only looks like theirs.
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
    object_type: Callable[[Layer], str | None] = lambda layer: None
    among: Callable[[Sequence[Layer]], Sequence[Layer]] | None = None
    replaces: frozenset[str] = frozenset()


_KINDS: dict[str, Kind] = {}
#: The kind of a name, None if it is not registered.
registered = _KINDS.get


def register(kind: Kind) -> Kind:
    """Register a kind. ValueError if another one has its name."""
    if kind.name in _KINDS and _KINDS[kind.name] != kind:
        raise ValueError(f"there is a kind {kind.name} already")
    _KINDS[kind.name] = kind
    return kind


def kind_of(layer: Layer) -> Kind:
    """The declaration of a layer's kind; a default one for a kind that was not declared."""
    return _KINDS.get(layer.kind) or Kind(layer.kind, _UNDECLARED, role=Role.NONE)


def all_kinds() -> list[Kind]:
    """The kinds registered so far, from wide to narrow."""
    return sorted(_KINDS.values(), key=lambda kind: kind.order)


_UNDECLARED = 1 << 30  # after all others


def in_order(groups: Iterable[Iterable[Layer]]) -> list[Layer]:
    """The layers of several locators from the widest to the narrowest.

    A locator yields its layers widest first, so each lies inside the one before it; that order is kept.
    """
    layers: list[Layer] = []
    orders: list[int] = []
    choosing: dict[str, Kind] = {}
    highest, is_sorted = 0, True
    for group in groups:  # this is done for each address of a long log
        order = 0
        for layer in group:
            kind = registered(layer.kind)
            own = kind.order if kind is not None else _UNDECLARED
            if own > order:
                order = own
            if order < highest:
                is_sorted = False
            else:
                highest = order
            orders.append(order)
            layers.append(layer)
            if kind is not None and (kind.among is not None or kind.replaces):
                choosing[kind.name] = kind
    if not is_sorted:
        layers = [layers[number] for number in sorted(range(len(layers)), key=orders.__getitem__)]
    for kind in choosing.values():
        layers = _chosen(layers, kind)
    return layers


def _chosen(layers: list[Layer], kind: Kind) -> list[Layer]:
    """The layers that remain after kinds replaced others or chose among their own."""
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


def as_pointer(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """What the layers of a small number say of it as a pointer near NULL: nothing of a per-CPU variable's offset."""
    standing = (layer for layer in layers if kind_of(layer).role in (Role.AREA, Role.VALUE))
    return tuple(layer for layer in standing if layer.details.get("what") != "percpu-offset")


def of_program(layer: Layer) -> bool:
    """Whether a layer still holds for an address that is known to be a program's: not what a small number may mean
    otherwise. A gap of the image has its source's name; the hole between two mappings that of the mappings."""
    kind = registered(layer.kind)
    if kind is None:
        return True
    role = kind.role
    if role is Role.VALUE:
        return layer.details.get("what") in ("user", "non-canonical")
    return role in (Role.AREA, Role.MAPPING, Role.OWNER, Role.PAGE) or (role is Role.GAP and layer.name == "hole")
