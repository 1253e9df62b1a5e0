"""The JSON contract `kplug.where/1`: one object for each address, on one line (docs/json.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kplug.model import SCHEMA, Annotation, Layer
from kplug.render.summary import summary

_encode = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode


def _hex(address: int | None) -> str | None:
    return None if address is None else f"{address:#x}"


class JsonLines:
    """Renders annotations. A layer that serves many addresses is encoded once, all but its offset."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Layer, str, str]] = {}

    def annotation(self, annotation: Annotation) -> str:
        """The object for one address, without a newline."""
        address = annotation.address
        link_address = annotation.link_address
        state = annotation.state
        known = {"mapped": state.mapped, "permissions": state.permissions, "freed": state.freed}
        link = "null" if link_address is None else f'"{link_address:#x}"'
        layers = ", ".join([self._layer(layer, address) for layer in annotation.layers])
        return (
            f'{{"schema": "{SCHEMA}", "input": {_encode(annotation.input)}, "address": "{address:#x}", '
            f'"link_address": {link}, "summary": {_encode(summary(annotation))}, '
            f'"class": "{annotation.region_class}", "layers": [{layers}], '
            f'"state": {_encode(known)}, "warnings": {_encode(list(annotation.warnings))}}}'
        )

    def _layer(self, layer: Layer, address: int) -> str:
        entry = self._layers.get(id(layer))
        if entry is None:  # the entry keeps the layer alive, so its id stays its own
            head = _encode({"kind": layer.kind, "name": layer.name, "start": _hex(layer.start), "end": _hex(layer.end)})
            tail = _encode({"details": dict(layer.details), "source": layer.source})
            entry = self._layers[id(layer)] = (layer, head[:-1] + ', "offset": ', ", " + tail[1:])
        offset = "null" if layer.start is None else f'"{address - layer.start:#x}"'
        return entry[1] + offset + entry[2]

    def record(self, schema: str, fields: Mapping[str, Any]) -> str:
        """The object for one row of a table."""
        return _encode({"schema": schema, **fields})
