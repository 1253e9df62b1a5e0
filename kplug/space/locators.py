"""What an address means without any image or memory: the area that it lies in, and special values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kplug import model
from kplug.arch.types.word import WordFormat
from kplug.kinds import Kind, Role, Value, name_and_range, register
from kplug.model import Layer
from kplug.space.address_space import AddressSpace, Area

# Special values to which the area adds nothing.
_WHOLE_AREAS = frozenset(("user", "non-canonical", "percpu-offset", "null", "errptr", "poison"))


def _area_words(layer: Layer) -> tuple[str, bool]:
    unsure = "  (as compiled; the kernel may have randomised it)" if layer.details.get("nominal") else ""
    return name_and_range(layer)[0] + unsure, not unsure


def _special_words(layer: Layer) -> tuple[str, bool]:
    guess = " (a guess)" if layer.details.get("guess") else ""
    return f"{layer.name}: {layer.details['meaning']}{guess}", False


def _with_other_meaning(layer: Layer, address: int, words: str, is_gap: bool) -> str:
    if layer.details["what"] == "user":
        return words
    if layer.details["what"] == "percpu-template":
        return f"per-CPU template of {words}"
    # A number may have two readings; both are shown.
    if layer.details["what"] == "percpu-pointer":
        return f"{words}, or {layer.name}"
    offset = f"per-CPU offset {f'{address:#x} ({words})' if is_gap else f'of {words}'}"
    return offset if layer.details["what"] == "percpu-offset" else f"{layer.name}, or {offset}"


def _standing(layers: Sequence[Layer]) -> Sequence[Layer]:
    """ "A user address" says nothing that "a per-CPU variable's offset" does not say better."""
    if not any(layer.details.get("what") == "percpu-offset" for layer in layers):
        return layers
    return [layer for layer in layers if layer.details.get("what") != "user"]


AREA = register(
    Kind(
        model.AREA,
        100,
        {
            "nominal": "(as compiled; the kernel may have randomised it)",
            "compiled_start": "",
            "hole": "",
            "part_of": "(a named part of an area, such as a fixmap slot or a CPU's entry area, is a further layer)",
            "slot": "",
            "cpu": "",
        },
        "and what the table of areas adds",
        words=_area_words,
        role=Role.AREA,
    )
)
SPECIAL = register(
    Kind(
        model.SPECIAL,
        300,
        {
            "what": "(`null`, `errptr`, `poison`, `non-canonical`, `percpu-offset`, `percpu-pointer`,"
            " `percpu-template`, `user`)",
            "meaning": "",
            "guess": "",
            "meant": "(where they apply)",
            "kind": "",
            "offset": "",
            "chunk": "",
            "pointer": "",
            "allocated": "",
            "populated": "(of a `__percpu` pointer, as `percpu` has them)",
        },
        words=_special_words,
        role=Role.VALUE,
        value=Value(
            gives_way=lambda layer: bool(layer.details["what"] == "user"),  # whose it is says more
            hides_area=lambda layer: layer.details["what"] in _WHOLE_AREAS,
            with_other=_with_other_meaning,
        ),
        phrase=lambda layer, offset: layer.name,
        among=_standing,
    )
)


class AreaLocator:
    """The area of the architecture's virtual memory map."""

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._layers: dict[int, Layer] = {}

    def locate(self, address: int) -> Iterable[Layer]:
        if not self._space.holds(address):
            return ()
        area = self._space.area_at(address)
        layer = self._layers.get(area.start)
        if layer is None:
            details = {"nominal": area.nominal, "hole": area.hole, **area.details}
            layer = Layer(model.AREA, area.name, area.start, area.end, area.source, details)
            self._layers[area.start] = layer
        return (layer, *area_parts(self._space, area, address)) if area.parts else (layer,)


def area_parts(space: AddressSpace, area: Area, address: int) -> Iterable[Layer]:
    """The parts of the area that hold the address: a slot of the fixmap, a CPU's entry area."""
    if area.parts:
        for part in space.parts_at(address):
            details = {"part_of": area.name, "nominal": part.nominal, "hole": part.hole, **part.details}
            yield Layer(model.AREA, part.name, part.start, part.end, part.source, details)


class SpecialLocator:
    """Values that are not places: NULL and near it, error pointers, poison, non-canonical ones."""

    def __init__(self, machine: str, space: AddressSpace | None, word: WordFormat | None = None) -> None:
        self._machine = machine
        self._space = space
        self._word = word

    def locate(self, address: int) -> Iterable[Layer]:
        from kplug.space.special import specials  # most addresses are ordinary and do not need its tables

        for special in specials(address, self._machine, self._space, self._word):
            details: dict[str, Any] = {"what": special.what, "meaning": special.meaning}
            if special.guess:
                details["guess"] = True
            if special.meant is not None:
                details["meant"] = hex(special.meant)
            yield Layer(model.SPECIAL, special.name, special.base, None, "table of special values", details)


PERCPU_OFFSET = Layer(
    model.SPECIAL,
    "per-CPU offset",
    None,
    None,
    "the per-CPU section is linked at 0",
    {"what": "percpu-offset", "meaning": "A per-CPU variable's offset: each CPU has it at its own base plus this."},
)


PERCPU_TEMPLATE = Layer(
    model.SPECIAL,
    "per-CPU template",
    None,
    None,
    "the per-CPU section is linked inside the image",
    {"what": "percpu-template", "meaning": "The initial value of a per-CPU variable; each CPU has its own elsewhere."},
)
