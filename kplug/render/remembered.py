"""What renderers keep laid out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kplug.model import UNKNOWN_STATE, Annotation, Layer
from kplug.named_tuples import NamedTuple

# Layers of images are few and come again; those of special values are made for each address.
MAX_REMEMBERED = 200_000
# An image has some hundred pieces.
_MOST_FORMS = 4096


class _Kept(NamedTuple):
    layers: tuple[Layer, ...]
    moved: int | None
    form: str
    bases: Sequence[int]


class OuterLayers:
    """The text of all layers but the narrowest: with files alone they are the same for a whole section or region.

    `lay_out` gives a text with `%#x` for each number that depends on the address, and what to subtract from the address
    for each.
    """

    def __init__(self, lay_out: Callable[[Annotation, Sequence[Layer]], tuple[str, Sequence[int]]]) -> None:
        self._lay_out = lay_out
        self._kept: dict[int, _Kept] = {}  # by the id of the narrowest one, which it keeps alive

    def text(self, annotation: Annotation) -> str | None:
        """None where the layers are those of this address alone, or there is only one."""
        layers, address, link_address = annotation.layers, annotation.address, annotation.link_address
        if annotation.state is not UNKNOWN_STATE or len(layers) < 2:
            return None
        moved = None if link_address is None else address - link_address
        kept = self._kept.get(id(layers[-2]))
        if kept is None or kept.layers != layers[:-1] or kept.moved != moved:
            if len(self._kept) > _MOST_FORMS:
                self._kept.clear()
            kept = self._kept[id(layers[-2])] = _Kept(layers[:-1], moved, *self._lay_out(annotation, layers[:-1]))
        return kept.form % tuple([address - base for base in kept.bases])


def verbatim(text: str) -> str:
    """The text as it must be in a form."""
    return text.replace("%", "%%")
