"""Rows of annotated values, for the commands that show registers, stacks and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kplug import model
from kplug.errors import UsageError
from kplug.expressions import with_hint
from kplug.kinds import Role, kind_of
from kplug.outputs import Brief, Column
from kplug.small_addresses import as_place

if TYPE_CHECKING:
    from kplug.model import Annotation
    from kplug.session import Session
    from kplug.target import Target

WHAT = Column("WHAT", "summary")
TEXT = Column("TEXT", "text")

# These meanings are shown even for values that are small or outside the kernel's addresses.
_TELLING = frozenset(("errptr", "poison"))
# Layers with these names mean that nothing is known to be there.
_NOTHING = frozenset((Role.AREA, Role.VALUE, Role.GAP))
_LEAST_TEXT = 4


def memory_target(session: Session, command: str) -> Target:
    """The session's target. UsageError, with the remedy, if there is no memory to read."""
    if session.target is None or not session.target.has_memory():
        raise UsageError(with_hint(f"{command}: needs memory, which files alone do not have", session.hints.memory))
    return session.target


def all_ones(session: Session) -> frozenset[int]:
    """What in memory is most likely -1 or a bit mask, not an error pointer: of an int, and of a word."""
    return frozenset(((1 << 32) - 1, session.word.mask))


class Annotator:
    """Answers for values of registers and memory; each value is looked up once. `plain` values count as numbers."""

    def __init__(self, session: Session, plain: frozenset[int] = frozenset()) -> None:
        self._session = session
        self._plain = plain
        self._known: dict[int, Annotation] = {}
        self._word = session.word

    def where(self, value: int) -> Annotation:
        """The whole answer."""
        annotation = self._known.get(value)
        if annotation is None:
            annotation = self._known[value] = self._session.resolver.where(value)
        return annotation

    def telling(self, value: int) -> Annotation | None:
        """The answer for an address; None if the value is probably a plain number."""
        if 0 <= value < 0x1000 or value in self._plain:
            return None
        annotation = self.where(value)
        for layer in annotation.layers:
            details = layer.details
            if layer.kind == model.SPECIAL and details["what"] in _TELLING and not details.get("guess"):
                return annotation
        if value < 1 << self._word.bits // 2:
            return None  # more likely a number than a per-CPU variable's offset
        if any(kind_of(layer).role not in _NOTHING for layer in annotation.layers):
            return annotation
        return annotation if self._session.space is not None and self._in_kernel(annotation) else None

    def plain_return(self, register: str, value: int) -> int:
        """The value of a register, without the signature that may be in arm64's link register."""
        from kplug.commands.return_addresses import ReturnAddresses, is_code  # declaring the commands must stay cheap

        if register not in ("x30", "lr"):
            return value
        plain = ReturnAddresses(self._session, self.where).plain(value)
        return plain if plain != value and is_code(self.where(plain), self._word) else value

    def place(self, value: int) -> Annotation:
        """The answer for a value known to be an address: a small one is near NULL, not a per-CPU variable's offset."""
        return as_place(self.where(value))

    def _in_kernel(self, annotation: Annotation) -> bool:
        """Whether the value is an address in the kernel's half with nothing known at it."""
        if any(layer.details.get("what") in ("user", "non-canonical") for layer in annotation.layers):
            return False
        area = annotation.first(model.AREA)
        return area is not None and self._word.is_kernel(annotation.address)

    def fields(self, annotation: Annotation | None) -> dict[str, Any]:
        """The fields of a row that say what its value is; all None for a plain number."""
        section = annotation.first(model.SECTION) if annotation is not None else None
        return {
            "summary": Brief(annotation) if annotation is not None else None,
            "class": annotation.region_class if annotation is not None else None,
            "section": section.name if section is not None else None,
            "annotation": annotation,
        }


def text_of(data: bytes) -> str | None:
    """The bytes as text, if they are printable ASCII with NULs at the end; None if not, or if there are too few."""
    stripped = data.rstrip(b"\0")
    if len(stripped) < _LEAST_TEXT or not all(0x20 <= byte < 0x7F for byte in stripped):
        return None
    return repr(stripped.decode("ascii"))
