"""Reads what is asked: expressions of the common grammar, lines of logs, the host's own expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kplug.errors import ExpressionError, TargetError, UnplacedError
from kplug.expressions import Hints, Place, TypeHint, fits_word, is_of_kernel, physical_number, places, type_hint
from kplug.log_places import is_log_line, log_line, places_in

if TYPE_CHECKING:
    from kplug.arch.types.word import WordFormat
    from kplug.image.images import Images
    from kplug.log.lines import LogLine
    from kplug.memory.percpu import Instances, Wanted
    from kplug.resolver import LineSource
    from kplug.target import Target

NO_DRGN = "drgn is not used here (`kplug` says why)"


def read_hint(text: str) -> TypeHint | None:
    """As `type_hint`, except that "as" may be a word in a line of a log."""
    hint = type_hint(text)
    return None if hint is not None and is_log_line(text) else hint


class Reader:
    """Finds the addresses that a question means, in the images and with the target. `percpu` finds each CPU's
    variables, `virtual` gives the kernel's addresses of a physical one, `lines` knows source files."""

    def __init__(
        self,
        images: Images,
        target: Target | None,
        hints: Hints,
        percpu: Instances | None,
        virtual: Callable[[int], Sequence[int]] | None,
        word: WordFormat,
        lines: LineSource | None,
    ) -> None:
        self._images = images
        self._target = target
        self._hints = hints
        self._percpu = percpu
        self._virtual = virtual
        self._word = word
        self._lines = lines

    def places(self, expression: str) -> tuple[Place, ...]:
        """The runtime addresses an expression means. The common grammar first, then the host's own evaluation.

        In that order because the host's symbols may still be at their link addresses. The host does not see a line of
        a log at all.
        """
        line = log_line(expression)
        if line is not None and line.whole:
            return self._of_line(line, expression)
        hint = type_hint(expression)
        if hint is not None:
            return self.places(hint.expression)
        if self._target is not None and expression.startswith("$"):
            return (Place(self._target.evaluate(expression)),)
        physical = physical_number(expression)
        if physical is not None:
            return self._of_physical(expression, physical)
        wanted = None
        if "@" in expression:
            from kplug.memory.percpu import wanted_instance  # most expressions name no CPU

            wanted = wanted_instance(expression)
        try:
            found = places(wanted.name if wanted else expression, self._images, self._hints, self._lines)
        except UnplacedError:
            raise
        except ExpressionError:
            if line is not None:
                return self._of_line(line, expression)
            if self._target is None:
                raise
            try:
                if is_of_kernel(expression):
                    raise
                return (Place(self._target.evaluate(expression)),)
            except ExpressionError:
                self._raise_unplaced(expression)
                raise
        return found if wanted is None else self._instances(expression, wanted, found)

    def _of_line(self, line: LogLine, text: str) -> tuple[Place, ...]:
        """The places in a line of a log; UnplacedError for a symbol that only a module's file still has."""
        try:
            return places_in(line, text, self._images, self._hints, self._lines)
        except UnplacedError:
            raise
        except ExpressionError:
            if line.mentions and line.mentions[0].symbol is not None:
                self._raise_unplaced(str(line.mentions[0].symbol))
            raise

    def _of_physical(self, expression: str, physical: int) -> tuple[Place, ...]:
        has_memory = self._target is not None and self._target.has_memory()
        if self._virtual is None or not has_memory:
            lack = f"and {NO_DRGN}" if has_memory else "and there are none here"
            raise ExpressionError(f"{expression}: where a physical address is mapped is known from page tables, {lack}")
        try:
            return tuple(map(Place, self._virtual(physical)))
        except TargetError as error:
            raise TargetError(f"{expression}: {error}") from None

    def _raise_unplaced(self, expression: str) -> None:
        """UnplacedError for a symbol that only a module's file still has: the kernel freed the module's init code."""
        if any(character in expression for character in '()*>"'):
            return  # not a symbol's name, and looking for it would open every module's file
        try:
            places(expression, tuple(self._images), self._hints)
        except UnplacedError:
            raise
        except ExpressionError:
            return

    def _instances(self, expression: str, wanted: Wanted, found: Sequence[Place]) -> tuple[Place, ...]:
        """The places of `NAME@CPU`: those found for the name, on that CPU or on all of them."""
        if self._percpu is None or self._target is None or not self._target.has_memory():
            raise ExpressionError(f"{expression}: a CPU's own copy can only be found in memory, and there is none here")
        instances: list[Place] = []
        fits_word(expression, wanted.offset, self._word.mask)
        try:
            for place in found:
                for start in self._percpu.instances(place.address, wanted.cpu):
                    instances.append(Place(start + wanted.offset & self._word.mask, place.note))
        except ExpressionError as error:
            raise ExpressionError(f"{expression}: {error}") from None
        if not instances:
            raise ExpressionError(f"{expression}: {wanted.name} is not a per-CPU variable")
        return tuple(instances)
