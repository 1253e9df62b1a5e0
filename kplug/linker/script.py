"""The linker script of a build tree (`arch/*/kernel/vmlinux.lds`, preprocessed), as far as regions need it.

A script does not determine addresses: these depend on the sizes of everything that was linked. It gives the names:
which symbols the linker assigns, in which order, and what lies between them.
"""

from __future__ import annotations

from collections.abc import Iterator

from kplug.frozen import Frozen


class Assignment(Frozen):
    """`symbol = expression;`; `here` says that the expression is the location counter itself."""

    symbol: str
    expression: str
    line: int
    here: bool


class Input(Frozen):
    """An input section statement, with its patterns: `*(.sched.text)` or `KEEP(*(SORT(.ctors.*)))`."""

    patterns: tuple[str, ...]
    line: int


class OutputSection(Frozen):
    """An output section with what its braces hold, in order."""

    name: str
    line: int
    statements: tuple[Assignment | Input, ...]

    @property
    def discarded(self) -> bool:
        return self.name == "/DISCARD/"


class LinkerScript(Frozen):
    """The content of a linker script, in its order. `name` is what answers and errors call it."""

    name: str
    statements: tuple[Assignment | OutputSection, ...]

    @property
    def sections(self) -> tuple[OutputSection, ...]:
        """The output sections that the linker writes."""
        return tuple(item for item in self.statements if isinstance(item, OutputSection) and not item.discarded)

    def assignments(self) -> Iterator[Assignment]:
        """Every assignment to a symbol, those inside output sections too; not those to the location counter."""
        for item in self.statements:
            if isinstance(item, Assignment):
                if item.symbol != ".":
                    yield item
            else:
                yield from (inner for inner in item.statements if isinstance(inner, Assignment) and inner.symbol != ".")

    def order(self) -> dict[str, int]:
        """The position of each symbol's assignment."""
        return {assignment.symbol: position for position, assignment in enumerate(self.assignments())}
