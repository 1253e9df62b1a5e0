"""What renderers keep laid out: of answers the form, in which only what depends on the address is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from kplug.model import UNKNOWN_STATE, Annotation, Layer, SharedLayers
from kplug.named_tuples import NamedTuple
from kplug.summary import NOTHING_NOTED, Choice, Noted, chosen, noted

# Layers of images are few and come again; those of special values are made for each address.
MAX_REMEMBERED = 200_000
# An image has some hundred paths of sections and regions.
MAX_FRAMES = 4096

_T = TypeVar("_T")


# Texts, and between each two of them a number that depends on the address, in hexadecimal: what to subtract from that.
Form = tuple[Sequence[str], Sequence[int]]
NOTHING: Form = ("",), ()


def _joined(forms: Sequence[Form], between: str) -> Form:
    """One form of several."""
    if len(forms) < 2:
        return forms[0] if forms else NOTHING
    texts, bases = [""], list[int]()
    for number, (more, numbers) in enumerate(forms):
        texts[-1] += f"{between}{more[0]}" if number else more[0]
        texts += more[1:]
        bases += numbers
    return texts, bases


def _filled(form: Form, address: int) -> str:
    """The text of a form."""
    texts, bases = form
    if len(bases) == 1:  # nearly always
        return f"{texts[0]}{address - bases[0]:#x}{texts[1]}"
    return "".join([texts[0], *[f"{address - base:#x}{text}" for base, text in zip(bases, texts[1:])]])


class Frame(NamedTuple):
    """What many answers have in common: all but the head of the one-line answer and the layers of their stretch.

    `parts` are its texts, with a place between each two of them: the first and the last place for what the renderer
    puts there; the others for the numbers `before` the head, the head, the numbers of the layers `around`, and the
    stretch's own layers.
    """

    parts: list[str]
    before: Sequence[int]
    around: Sequence[int]


class AnswerForm:
    """The form of a stretch's answers. The head of the one-line answer is `name`, and the offset from `start`; if there
    is a `choice`, it is what that says.
    """

    __slots__ = "_choice", "_frame", "_name", "_own", "_start"

    def __init__(self, frame: Frame, name: str, start: int, choice: Choice | None, own: Form) -> None:
        self._frame, self._name, self._start, self._choice, self._own = frame, name, start, choice, own

    def filled(self, address: int, first: str, last: str, word: Callable[[str], str]) -> str:
        """The text for an address; `word` makes a head fit to be shown."""
        parts, before, around = self._frame
        parts = parts[:]
        parts[1::2] = (
            first,
            *[hex(address - base) for base in before],
            f"{self._name}{address - self._start:#x}" if self._choice is None else word(self._choice.head(address)),
            *[hex(address - base) for base in around],
            _filled(self._own, address),
            last,
        )
        return "".join(parts)


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


class _Around(NamedTuple):
    """The layers around many stretches."""

    layers: tuple[Layer, ...]
    form: Form
    noted: Noted


_NOTHING_AROUND = _Around((), NOTHING, NOTHING_NOTED)


class AnswerForms:
    """The forms of answers, with `between` two layers.

    `lay_out` gives the form of one layer, for an image that was moved by so many bytes (None: that is not known).
    `frame` gives the texts of a frame, and what its numbers before the head count from; it takes an answer, the tail of
    the one-line answer, and the texts of the layers around. `word` makes a head fit to be shown.
    """

    def __init__(
        self,
        lay_out: Callable[[Layer, int | None], Form],
        between: str,
        frame: Callable[[Annotation, tuple[str, ...], Sequence[str]], Form],
        word: Callable[[str], str],
    ) -> None:
        self._lay_out = lay_out
        self._between = between
        self._frame = frame
        self._word = word
        # By id, and how far the image was moved; with what has that id, so that it stays its own.
        self._layers: dict[tuple[int, int | None], tuple[Layer, Form]] = {}
        self._around: dict[tuple[int, int | None], _Around] = {}
        self._frames: dict[tuple[int, int | None, str, tuple[str, ...], bool], tuple[_Around, Frame]] = {}

    def of(self, annotation: Annotation, brief: bool = False) -> AnswerForm:
        """The form of an answer; `brief`: without its layers."""
        layers, link_address = annotation.layers, annotation.link_address
        moved = None if link_address is None else annotation.address - link_address
        around = _NOTHING_AROUND
        if isinstance(layers, SharedLayers):
            around = self._around.get((id(layers.outer), moved)) or self._make_around(layers.outer, moved)
        choice = chosen(annotation, around.noted)
        key = id(around), moved, annotation.region_class, choice.tail, brief
        kept = self._frames.get(key)
        if kept is None:
            if len(self._frames) > MAX_FRAMES:
                self._frames.clear()
            kept = self._frames[key] = around, self._make_frame(annotation, choice, NOTHING if brief else around.form)
        own = NOTHING if brief else self._own(layers, moved)
        name = choice.before_offset()
        if name is None:
            return AnswerForm(kept[1], "", 0, choice, own)
        return AnswerForm(kept[1], self._word(name[0]), name[1], None, own)

    def _own(self, layers: Sequence[Layer], moved: int | None) -> Form:
        """The form of the layers that are not around a stretch."""
        if not isinstance(layers, SharedLayers):
            return _joined([self._form(layer, moved) for layer in layers], self._between)
        # These do not come again.
        own = _joined([self._lay_out(layer, moved) for layer in layers[len(layers.outer) :]], self._between)
        if not self._between or not layers.outer or own is NOTHING:
            return own
        return [f"{self._between}{own[0][0]}", *own[0][1:]], own[1]

    def _make_around(self, layers: tuple[Layer, ...], moved: int | None) -> _Around:
        form = _joined([self._form(layer, moved) for layer in layers], self._between)
        made = self._around[id(layers), moved] = _Around(layers, form, noted(layers, 0))
        return made

    def _make_frame(self, annotation: Annotation, choice: Choice, around: Form) -> Frame:
        texts, before = self._frame(annotation, choice.tail, around[0])
        parts = [""] * (2 * len(texts) - 1)
        parts[::2] = texts
        return Frame(parts, before, around[1])

    def _form(self, layer: Layer, moved: int | None) -> Form:
        kept = self._layers.get((id(layer), moved))
        if kept is None:
            if len(self._layers) > MAX_REMEMBERED:
                self._layers.clear()
            kept = self._layers[id(layer), moved] = layer, self._lay_out(layer, moved)
        return kept[1]
