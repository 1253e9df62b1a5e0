"""The JSON contract `kplug.where/1`: one object for each address, on one line (docs/json.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from json.encoder import encode_basestring_ascii as _string
from typing import Any

from kplug.model import SCHEMA, UNKNOWN_STATE, Annotation, Layer, State
from kplug.outputs import Brief, Hex, InModule, Range
from kplug.render.remembered import MAX_REMEMBERED, OuterLayers, verbatim
from kplug.summary import summarize

_encode = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode


def _hex(address: int | None) -> str:
    return "null" if address is None else f'"{address:#x}"'


def _plain(value: Any) -> Any:
    """A value of a table or of facts, as a JSON value."""
    if isinstance(value, Hex):
        return f"{value:#x}"
    if isinstance(value, Range):
        return {"start": f"{value.start:#x}", "end": f"{value.end:#x}"}
    if isinstance(value, Brief):
        return str(summarize(value.annotation))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


@cache
def _state(state: State) -> str:
    return _encode(
        {
            "mapped": state.mapped,
            "permissions": state.permissions,
            "freed": state.freed,
            "page_size": state.page_size,
        }
    )


# Its hash costs, and in a long log it is that of each address.
_UNKNOWN = _state(UNKNOWN_STATE)


class JsonLines:
    """Renders annotations. A layer that serves many addresses is encoded once, except for its offset."""

    def __init__(self) -> None:
        # By the layer's id: the layer (which keeps it alive, so its id stays its own), its start, and the text around
        # the offset.
        self._layers: dict[int, tuple[Layer, int | None, str, str]] = {}
        self._outer = OuterLayers(self._encode_outer)

    def annotation(self, annotation: Annotation) -> str:
        """The object for one address, without a newline."""
        address = annotation.address
        encoded, outer = self._layers, self._outer.text(annotation)
        layers = [] if outer is None else [outer]
        for layer in annotation.layers if outer is None else annotation.layers[-1:]:
            _, start, head, tail = encoded.get(id(layer)) or self._encode_layer(layer)
            layers.append(f'{head}"{address - start:#x}"{tail}' if start is not None else f"{head}null{tail}")
        state = _UNKNOWN if annotation.state is UNKNOWN_STATE else _state(annotation.state)
        warnings = _encode(annotation.warnings) if annotation.warnings else "[]"
        return (
            f'{{"schema": "{SCHEMA}", "input": {_string(annotation.input)}, "address": "{address:#x}", '
            f'"link_address": {_hex(annotation.link_address)}, "summary": {_string(str(summarize(annotation)))}, '
            f'"class": "{annotation.region_class}", "layers": [{", ".join(layers)}], '
            f'"state": {state}, "warnings": {warnings}}}'
        )

    def _encode_layer(self, layer: Layer) -> tuple[Layer, int | None, str, str]:
        if len(self._layers) > MAX_REMEMBERED:
            self._layers.clear()
        head = (
            f'{{"kind": "{layer.kind}", "name": {_string(layer.name)}, '
            f'"start": {_hex(layer.start)}, "end": {_hex(layer.end)}, "offset": '
        )
        tail = f', "details": {_encode(layer.details)}, "source": {_string(layer.source)}}}'
        entry = self._layers[id(layer)] = layer, layer.start, head, tail
        return entry

    def _encode_outer(self, annotation: Annotation, layers: Sequence[Layer]) -> tuple[str, Sequence[int]]:
        texts, bases = [], []
        for layer in layers:
            _, start, head, tail = self._layers.get(id(layer)) or self._encode_layer(layer)
            texts.append(verbatim(head) + ("null" if start is None else '"%#x"') + verbatim(tail))
            bases += [] if start is None else [start]
        return ", ".join(texts), bases

    def in_module(self, output: InModule) -> str:
        """As `annotation`, without what would be runtime addresses."""
        answer = json.loads(self.annotation(output.annotation))
        answer["address"] = None
        for layer in answer["layers"]:
            layer["start"] = layer["end"] = None
        return _encode(answer)

    def record(self, schema: str, fields: Mapping[str, Any]) -> str:
        """The object for one row of a table, or for facts. An Annotation in it is written as kwhere writes it."""
        encoded = (
            f"{_string(key)}: {self.annotation(value) if isinstance(value, Annotation) else _encode(_plain(value))}"
            for key, value in {"schema": schema, **fields}.items()
        )
        return f"{{{', '.join(encoded)}}}"
