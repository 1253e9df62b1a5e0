"""What renderers keep laid out: of layers the form, in which only the numbers that depend on the address are open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from kplug.model import UNKNOWN_STATE, Annotation, Layer, SharedLayers

# Layers of images are few and come again; those of special values are made for each address.
MAX_REMEMBERED = 200_000

_T = TypeVar("_T")


# A text with `%#x` for each number that depends on the address, and what to subtract from the address for each.
Form = tuple[str, Sequence[int]]


def verbatim(text: str) -> str:
    """The text as it must be in a form."""
    return text.replace("%", "%%")


class Shared(Generic[_T]):
    """What `make` makes of an answer, but for the addresses in it: once for all answers with the same shared layers."""

    def __init__(self, make: Callable[[Annotation], _T]) -> None:
        self._make = make
        # By the layers' id; the layers with it, so that their id stays their own.
        self._kept: dict[int, tuple[SharedLayers, _T]] = {}

    def of(self, annotation: Annotation) -> _T:
        """What was made of these layers; made anew where they are those of one address."""
        layers = annotation.layers
        kept = self._kept.get(id(layers))
        if kept is not None and annotation.state is UNKNOWN_STATE:
            return kept[1]
        made = self._make(annotation)
        if isinstance(layers, SharedLayers) and annotation.state is UNKNOWN_STATE:
            if len(self._kept) > MAX_REMEMBERED:
                self._kept.clear()
            self._kept[id(layers)] = layers, made
        return made


class LayerForms:
    """Answers' layers as text, with `between` two of them.

    `lay_out` gives the form of one layer, for an image that was moved by so many bytes (None: that is not known).
    """

    def __init__(self, lay_out: Callable[[Layer, int | None], Form], between: str) -> None:
        self._lay_out = lay_out
        self._between = between
        # By id, and how far the image was moved; with what has that id, so that it stays its own.
        self._layers: dict[tuple[int, int | None], tuple[Layer, Form]] = {}
        self._outer: dict[tuple[int, int | None], tuple[Sequence[Layer], Form]] = {}

    def of(self, annotation: Annotation) -> Sequence[Form]:
        """The forms of an answer's layers; one for all those around a stretch."""
        layers, link_address = annotation.layers, annotation.link_address
        moved = None if link_address is None else annotation.address - link_address
        if not isinstance(layers, SharedLayers):
            return [self._form(layer, moved) for layer in layers]
        own = [self._lay_out(layer, moved) for layer in layers[len(layers.outer) :]]  # these do not come again
        return [self._outer_form(layers.outer, moved), *own] if layers.outer else own

    def _outer_form(self, layers: tuple[Layer, ...], moved: int | None) -> Form:
        """One form for all layers around a stretch."""
        kept = self._outer.get((id(layers), moved))
        if kept is None:
            forms = [self._form(layer, moved) for layer in layers]
            text = self._between.join([text for text, _ in forms])
            kept = self._outer[id(layers), moved] = layers, (text, [base for _, bases in forms for base in bases])
        return kept[1]

    def _form(self, layer: Layer, moved: int | None) -> Form:
        kept = self._layers.get((id(layer), moved))
        if kept is None:
            if len(self._layers) > MAX_REMEMBERED:
                self._layers.clear()
            kept = self._layers[id(layer), moved] = layer, self._lay_out(layer, moved)
        return kept[1]
