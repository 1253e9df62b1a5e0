"""Any command's output, as text or JSON: the one place that chooses between them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from kplug.model import Annotation
from kplug.outputs import InModule, Log, NamedFacts, Output, Problem, Table
from kplug.render.style import PLAIN, Style
from kplug.render.text import TextRenderer


class Renderer:
    """Renders the outputs of one command call. `arguments` are the command's own (`--json`, `--brief`, `--lines`).

    `width` is the width of the terminal, if there is one: lines of tables are cut there.
    """

    def __init__(self, arguments: argparse.Namespace, style: Style = PLAIN, width: int | None = None) -> None:
        self._width = width
        self._json = None
        if getattr(arguments, "json", False):
            from kplug.render.json_lines import JsonLines  # costs a text answer as much as its whole layout

            self._json = JsonLines()
        self._brief = getattr(arguments, "brief", False)
        self._lines = getattr(arguments, "lines", False)
        self._style = style
        self._text = TextRenderer(style)
        self._blocks = 0

    def lines(self, output: Output) -> Iterable[str]:
        """The lines to print for one output, without newlines."""
        if not isinstance(output, Annotation):
            return self._other_lines(output)
        self._blocks += 1
        if self._json is not None:
            return (self._json.annotation(output),)
        return (self._text.annotation(output, self._brief, self._lines),)

    def _other_lines(self, output: Output) -> Iterator[str]:
        if isinstance(output, InModule):
            if self._json is not None:
                yield self._json.in_module(output)
            else:
                yield self._text.in_module(output, self._brief, self._lines)
        elif isinstance(output, Table):
            if self._json is not None:
                yield from (self._json.record(output.schema, row) for row in output.rows)
            else:
                if self._blocks:
                    yield ""
                yield from self._text.table(output, self._width)
        elif isinstance(output, NamedFacts):
            if self._json is not None:
                yield self._json.record(output.schema, output.facts)
            else:
                yield from self._text.facts(output)
        elif isinstance(output, Log):
            from kplug.render.log_output import log_lines  # few commands have a log

            yield from log_lines(output, self._style, self._json is not None)
        elif isinstance(output, Problem):
            yield self._text.problem(output)
        self._blocks += 1
