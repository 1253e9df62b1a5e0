"""What tests take out of an answer."""

from __future__ import annotations

from typing import Any

from kplug import model
from kplug.commands import COMMANDS
from kplug.model import Annotation, Layer
from kplug.outputs import Output, Problem, Table
from kplug.session import Session


def only(annotation: Annotation, kind: str) -> Layer:
    """The one layer of a kind."""
    (layer,) = [layer for layer in annotation.layers if layer.kind == kind]
    return layer


def kinds(annotation: Annotation) -> list[str]:
    return [layer.kind for layer in annotation.layers]


def names(annotation: Annotation) -> set[str]:
    """The symbol's names, with those that it shares its address with; none in padding."""
    layer = annotation.last(model.SYMBOL)
    return {layer.name, *layer.details["aliases"]} if layer is not None else set()


def outputs(session: Session, name: str, *words: str) -> list[Output]:
    """What a k-command gives for the words of its line."""
    command = COMMANDS[name]
    return list(command.run(session, command.parser(command.host_name).parse_args(words)))


def rows(session: Session, name: str, *words: str) -> list[dict[str, Any]]:
    """The rows of a k-command's tables, where it has no problem to tell."""
    found = outputs(session, name, *words)
    assert not [output for output in found if isinstance(output, Problem)], found
    return [dict(row) for output in found if isinstance(output, Table) for row in output.rows]
