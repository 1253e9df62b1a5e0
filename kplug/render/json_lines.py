"""The JSON contract `kplug.where/1`: one object for each address, on one line (docs/json.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from json.encoder import encode_basestring_ascii as _string
from typing import Any

from kplug.model import SCHEMA, UNKNOWN_STATE, Annotation, Layer, State
from kplug.outputs import Brief, Hex, InModule, Range
from kplug.render.remembered import AnswerForms, Form, Shared
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
            "kasan": state.kasan,
        }
    )


def _value(value: Any) -> str:
    """A value of a layer's details, as `_encode` writes it, which takes longer to begin than these types take."""
    kind = type(value)
    if kind is str:
        return _string(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is list:
        return f"[{', '.join(map(_value, value))}]"
    return _encode(value)


def _layer(layer: Layer, moved: int | None) -> Form:
    """One layer. Its offset alone depends on the address."""
    start = layer.start
    details = ", ".join([f"{_string(key)}: {_value(value)}" for key, value in layer.details.items()])
    head = (
        f'{{"kind": "{layer.kind}", "name": {_string(layer.name)}, '
        f'"start": {_hex(start)}, "end": {_hex(layer.end)}, "offset": '
    )
    tail = f', "details": {{{details}}}, "source": {_string(layer.source)}}}'
    return ([f"{head}null{tail}"], []) if start is None else ([f'{head}"', f'"{tail}'], [start])


def _inner(text: str) -> str:
    """The text in a string, without its quotes."""
    return _string(text)[1:-1]


def _frame(annotation: Annotation, tail: tuple[str, ...], around: Sequence[str]) -> Form:
    """What is around the layers, from the input to what `_end` gives."""
    texts, bases = [f'{{"schema": "{SCHEMA}", "input": ', ', "address": "'], [0]
    if annotation.link_address is None:
        texts.append('", "link_address": null, "summary": "')
    else:
        texts += ['", "link_address": "', '", "summary": "']
        bases.append(annotation.address - annotation.link_address)
    words = _inner("".join([f" {word}" for word in tail]))
    texts.append(f'{words}", "class": "{annotation.region_class}", "layers": [{around[0]}')
    return [*texts, *around[1:], "], ", "}"], bases


def _end(state: State, warnings: tuple[str, ...]) -> str:
    """What comes after the layers."""
    return f'"state": {_state(state)}, "warnings": {_encode(warnings) if warnings else "[]"}'


# In a long log it is that of each address.
_UNKNOWN_END = _end(UNKNOWN_STATE, ())


class JsonLines:
    """Renders annotations. What serves many addresses is encoded once, except for its numbers."""

    def __init__(self) -> None:
        self._answers = Shared(AnswerForms(_layer, ", ", _frame, _inner).of)

    def annotation(self, annotation: Annotation) -> str:
        """The object for one address, without a newline."""
        end = _UNKNOWN_END
        if annotation.warnings or annotation.state is not UNKNOWN_STATE:
            end = _end(annotation.state, annotation.warnings)
        form = self._answers.of(annotation)
        return form.filled(annotation.address, _string(annotation.input), end, _inner)

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
