"""The one-line answer, derived from the layers and what their kinds declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from kplug.kinds import Role, kind_of, name_and_offset, registered
from kplug.model import Annotation, Layer
from kplug.named_tuples import NamedTuple

# Few functions of a kernel are longer, in bytes.
_FAR = 0x1000
# Kept as names of this module: looking them up in the class is slow, and it is done for each layer of a long log.
_NONE, _AREA, _VALUE, _MODULE, _PAGE, _INSTANCE = (
    Role.NONE, Role.AREA, Role.VALUE, Role.MODULE, Role.PAGE, Role.INSTANCE,
)  # fmt: skip
_SECTION, _REGION, _PLACE, _GAP, _MEMBER = Role.SECTION, Role.REGION, Role.PLACE, Role.GAP, Role.MEMBER


class Summary(NamedTuple):
    """What the address is, in the fewest words (`schedule+0x4`, `padding after foo`, `ERR_PTR(-ENOMEM)`), and where it
    lies: section and region path, or the area where it lies in no image."""

    head: str
    tail: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.head, *self.tail))


class Choice(NamedTuple):
    """What the one-line answer says, chosen from the layers: all of it but the offsets.

    `shown` is the layer that it names, `special` one that says what the number itself means. `executable`: whether the
    place is code.
    """

    shown: Layer | None
    special: Layer | None
    member: Layer | None
    executable: bool
    tail: tuple[str, ...]

    def head(self, address: int) -> str:
        """The head of the one-line answer for one of the addresses that have these layers."""
        layer, special, member, executable, _ = self
        if layer is None:
            head = "unknown"
        elif special is None or layer is special:
            head = _words(layer, address, executable)
        else:
            words, is_gap = _words(layer, address), kind_of(layer).role is _GAP
            head = kind_of(special).value.with_other(special, address, words, is_gap)
        return head if member is None else f"{head}, {_words(member, address)}"

    def before_offset(self) -> tuple[str, int] | None:
        """The head up to its offset, and where that counts from, if the head ends in it at each of these addresses."""
        layer, special, member, executable, _ = self
        if layer is None or layer.start is None or member is not None or (special is not None and special is not layer):
            return None
        last = _FAR if layer.end is None else layer.end - layer.start - 1
        if kind_of(layer).phrase is not name_and_offset or _is_far(layer, last, executable):
            return None
        return f"{layer.name}+", layer.start


def summarize(annotation: Annotation) -> Summary:
    """Head and tail of the one-line answer: `schedule+0x4 .text [text > sched.text]`."""
    choice = chosen(annotation)
    return Summary(choice.head(annotation.address), choice.tail)


# What layers are for the one-line answer: how many these are, those of most roles, and the path of regions. A plain
# tuple, as it is made for each address of a long log.
_One = Optional[Layer]
Noted = tuple[int, _One, _One, _One, _One, _One, _One, _One, _One, _One, _One, _One, tuple[str, ...]]
NOTHING_NOTED: Noted = 0, None, None, None, None, None, None, None, None, None, None, None, ()


def noted(layers: Sequence[Layer], address: int, around: Noted = NOTHING_NOTED) -> Noted:
    """What the layers of an answer are for; the first of them are those that were noted as `around`."""
    count, area, part, special, module, section, narrowest, owner, page, percpu, cpu, member, regions = around
    for layer in layers[count:]:
        kind = registered(layer.kind) or kind_of(layer)
        role = kind.role
        if role is _PLACE or role is _SECTION or role is _REGION or role is _GAP:
            # A boundary symbol names its very address, although it holds nothing and a gap begins there.
            if role is not _GAP or narrowest is None or narrowest.end != address:
                narrowest = layer
            if role is _SECTION:
                section = section or layer  # the output section; an input section of the link map comes after it
            elif role is _REGION:
                regions += (layer.name,)
        elif role is _AREA:
            if area is None:
                area = layer
            else:
                part = layer  # a slot of the fixmap, a CPU's entry area
        elif role is _VALUE:
            special = special or layer
        elif role is _MODULE:
            module = layer
        elif role is _PAGE:
            page = layer
        elif role is _INSTANCE:
            percpu, cpu = layer, cpu or layer
        elif role is _MEMBER:
            member = member if layer.details.get("guess") else layer
        elif role is not _NONE and (layer.start is not None or not kind.needs_extent):
            owner = layer
    count = len(layers)
    return count, area, part, special, module, section, narrowest, owner, page, percpu, cpu, member, regions


def chosen(annotation: Annotation, around: Noted = NOTHING_NOTED) -> Choice:
    """What the one-line answer is made of; for all addresses with the same `SharedLayers` it is the same.

    `around`: what was noted of its first layers.
    """
    address = annotation.address
    found = noted(annotation.layers, address, around)
    _, area, part, special, module, section, narrowest, owner, page, percpu, cpu, member, regions = found
    # As the kernel prints it: the module in brackets after the symbol.
    tail: tuple[str, ...] = (f"[{module.name}]",) if module is not None else ()
    if section is not None:
        tail += (section.name,)
    if regions:
        tail += (f"[{' > '.join(regions)}]",)
    if cpu is not None:
        tail += (f"({cpu.name})",)
    if narrowest is not None and annotation.state.freed:
        # arm64 keeps listing the image's own vmap area.
        now = page if owner is None or kind_of(owner).role is Role.MAPPING else owner
        tail += ("freed" if now is None else f"freed; now {_owner_words(now, address)}",)
    if narrowest is not None and owner is not None and kind_of(owner).fills_gaps:
        narrowest = owner if kind_of(narrowest).role is _GAP else narrowest
    if special is not None and owner is not None and kind_of(special).value.gives_way(special):
        special = None
    shown = narrowest or special or percpu or owner or part or page or area
    hidden = special is not None and kind_of(special).value.hides_area(special)
    if not tail and area is not None and shown is not area and not hidden:
        tail = (f"({area.name})",)
    # Without sections, the type letter says it: a list of symbols always has one.
    executable = (
        "X" in section.details["flags"]
        if section is not None
        else narrowest is not None and str(narrowest.details.get("type")).lower() == "t"
    )
    return Choice._make((shown, special, member, executable, tail))


def _words(layer: Layer, address: int, executable: bool = False) -> str:
    start = layer.start
    offset = 0 if start is None else address - start
    words = (registered(layer.kind) or kind_of(layer)).phrase(layer, offset)
    return f"{words} (sizeless)" if start is not None and _is_far(layer, offset, executable) else words


def _is_far(layer: Layer, offset: int, executable: bool) -> bool:
    """Whether the symbol may have ended before that offset.

    Code labels usually have no size. For data, or far into code, it means that the symbol's end is not known.
    """
    return offset >= (_FAR if executable else 1) and bool(layer.details.get("sizeless"))


def _owner_words(layer: Layer, address: int) -> str:
    """The current owner of memory that was freed; for a page, without an offset, which means nothing there."""
    if kind_of(layer).role is not _PAGE:
        return _words(layer, address)
    return f"{'an' if layer.name[:1] in 'aeiou' else 'a'} {layer.name}"
