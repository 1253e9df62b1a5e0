"""Answers for the addresses and symbols of a log, from the session of its kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Union

from kplug import model
from kplug.arch.types.word import WIDEST_BITS
from kplug.errors import ExpressionError, KplugError, TargetError
from kplug.frozen import replace
from kplug.log.finding import Role
from kplug.model import Annotation, Layer
from kplug.outputs import InModule, Problem
from kplug.small_addresses import as_place
from kplug.space.special import NON_CANONICAL_VALUE, NULL, USER_ADDRESS

if TYPE_CHECKING:
    from kplug.image.placed import PlacedImage
    from kplug.session import Session
    from kplug.stretches import Known

AS_LINKED = "the KASLR offset is not known: addresses are taken as linked (--kaslr OFFSET)"
# Of a long log, a kernel has some ten thousand stretches; each takes kilobytes.
_MOST_STRETCHES = 4096
# Reasons that are kept.
_MOST_REASONS = 100

Answer = Union[Annotation, InModule]

_PERCPU = ("percpu-offset", "percpu-pointer", "percpu-template")

# The special values that are not said of a number there, which may be anything: a small one, or one in the user's half,
# is not said to be an address.
_NOT_IN = {
    Role.TEXT: frozenset((NULL, USER_ADDRESS, NON_CANONICAL_VALUE, *_PERCPU)),
    Role.REGISTER: frozenset((NULL, *_PERCPU)),
    Role.FAULT: frozenset(),
}


class LogAnswers:
    """Answers what a log names. `unresolved` takes the first reasons why something was not answered, `assumed` what the
    answers take for granted."""

    def __init__(
        self,
        session: Session,
        unresolved: dict[str, None] | None = None,
        assumed: dict[str, None] | None = None,
    ) -> None:
        self._session = session
        self._lines = session.resolver.lines
        self._plain = session.resolver.without_lines()
        self.has_lines = self._lines is not None
        self.has_kernel = session.main is not None or bool(session.images)
        self.bits = session.word.bits if session.machine else WIDEST_BITS
        self.machine = session.machine if self.has_kernel else ""
        self.assumed: dict[str, None] = {} if assumed is None else assumed
        self._is_unmoved = session.main is not None and not session.main.placement.known
        self.unresolved: dict[str, None] = {} if unresolved is None else unresolved

    def stretch(self, address: int) -> tuple[int, Known] | None:
        """The start, and what is known of all addresses from there on but for their lines; None where each has an
        answer of its own."""
        stretches = self._plain.stretches
        if stretches is None:
            return None
        if len(stretches) >= _MOST_STRETCHES:  # whoever asks keeps what it needs of them
            stretches.forget()
        found = stretches.around(address)
        if found is not None and self._is_unmoved:
            self.assumed[AS_LINKED] = None
        return found

    def places(self, address: int) -> Iterable[Layer]:
        """The source line of an address in an image."""
        if self._lines is None:
            return ()
        try:
            held = self._session.images.holding(address)
            if held is None:
                return ()
            placed: PlacedImage = held[0]
            return self._lines.line_layers(address, placed.placement.link(address), placed)
        except KplugError:
            return ()

    def of_address(self, address: int, role: Role) -> Annotation | None:
        """The answer for an address; None for a number of which there is nothing to say."""
        if not address or not self._session.machine:
            return None
        annotation = self._plain.where(address)
        specials = {layer.details["what"] for layer in annotation.layers if layer.kind == model.SPECIAL}
        if not self.has_kernel and specials == {NON_CANONICAL_VALUE}:
            return None  # how many bits its addresses have is not known
        if not self._session.word.is_kernel(address):
            if not _is_told(annotation, role):
                return None
            return as_place(annotation) if role is Role.FAULT else annotation
        if annotation.first(model.IMAGE) is not None or annotation.first(model.MODULE) is not None:
            if self._is_unmoved:
                self.assumed[AS_LINKED] = None
            return replace(annotation, layers=(*annotation.layers, *self.places(address)), warnings=())
        if specials:
            return annotation if _is_told(annotation, role) else None
        if self._session.space is None or not self.has_kernel:
            return None
        if not self._session.word.kernel_start and address < 1 << self.bits // 2:
            return None  # more likely a number: s390x maps memory from 0 on
        return None if self._session.space.area_at(address).hole else annotation

    def of_symbol(self, text: str) -> Sequence[Answer]:
        """The answers for `symbol+0xoffset/0xsize [module]`; none if it could not be resolved."""
        if not self.has_kernel:
            return ()
        try:
            found: list[Answer] = []
            for output in self._session.in_modules(text) or self._session.where(text):
                if isinstance(output, Problem):
                    self._failed(output.message)
                elif isinstance(output, InModule):
                    found.append(InModule(self._quieter(output.annotation), output.section))
                else:
                    found.append(self._quieter(output))
            return found
        except (ExpressionError, TargetError) as error:
            self._failed(str(error))
            return ()

    def _quieter(self, annotation: Annotation) -> Annotation:
        """The answer without what is said of all of them."""
        warnings = [each for each in annotation.warnings if each not in self._session.warnings]
        return replace(annotation, warnings=tuple(warnings)) if annotation.warnings else annotation

    def _failed(self, why: str) -> None:
        if len(self.unresolved) < _MOST_REASONS:
            self.unresolved[why] = None


def _is_told(annotation: Annotation, role: Role) -> bool:
    """Whether what the number means as a value is said of it there."""
    found = [layer.details for layer in annotation.layers if layer.kind == model.SPECIAL]
    told = [each for each in found if each["what"] not in _NOT_IN[role]]
    return bool(told) and not (role is Role.TEXT and told[0].get("guess"))
