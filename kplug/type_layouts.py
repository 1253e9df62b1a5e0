"""C types as far as their layout goes: sizes, members, elements. Sources of types give them in this form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kplug.frozen import Frozen
from kplug.named_tuples import NamedTuple

#: As C programmers write them: compilers write the first into DWARF, and BTF has it from there.
USUAL_NAMES = {
    "long unsigned int": "unsigned long",
    "long int": "long",
    "short unsigned int": "unsigned short",
    "short int": "short",
    "long long unsigned int": "unsigned long long",
    "long long int": "long long",
}


class LayoutMember(NamedTuple):
    """A member of a struct or union: `name` is empty for an anonymous one, `bit_size` 0 unless it is a bit-field."""

    name: str
    bit_offset: int
    bit_size: int
    layout: Callable[[], TypeLayout]


class TypeLayout(Frozen):
    """The layout of a type, qualifiers and typedefs resolved; `name` is as the source has it.

    `size` is None for a type that is only declared. A struct or union has `members`, an array an `element` and its
    `count` (0 for `[]`); a type with neither is a single value.
    """

    name: str
    size: int | None
    members: Callable[[], Sequence[LayoutMember]] | None = None
    element: Callable[[], TypeLayout] | None = None
    count: int = 0


class TypeLayouts(Protocol):
    """A source of types."""

    @property
    def source(self) -> str:
        """How its types are known, for the user."""

    def named(self, keyword: str, name: str) -> TypeLayout | None:
        """The type `struct NAME` or `union NAME`, or with an empty keyword the typedef or basic type of that name; None
        if there is none, or several that differ. TargetError or InputError if the types cannot be read."""


class Found(NamedTuple):
    """Where an offset leads in a type: the member's `path` (`se.load.weight`, empty for the type itself), its own
    offset and size, and its type. `bits` are the offset and size of a bit-field in its bytes. `padding`: no member is
    there, and the path is that of the one before (empty if there is none)."""

    path: str
    offset: int
    size: int | None
    type_name: str
    bits: tuple[int, int] | None = None
    padding: bool = False


# C allows more, but no compiler does; a type that is made of itself would go on for ever.
_MAX_DEPTH = 63
_MAX_FOUND = 64


def at_offset(layout: TypeLayout, offset: int) -> list[Found]:
    """What is at an offset of a type: one member, or several in a union or among bit-fields, in their order."""
    found: list[Found] = []
    _collect(layout, offset, "", 0, found, _MAX_DEPTH)
    return found


def _collect(layout: TypeLayout, offset: int, path: str, base: int, found: list[Found], depth: int) -> None:
    if len(found) >= _MAX_FOUND or depth <= 0:
        return
    if layout.members is not None:
        _among(layout.members(), layout, offset, path, base, found, depth)
        return
    element = layout.element() if layout.element is not None else None
    if element is None or not element.size:
        found.append(Found(path, base, layout.size, layout.name))
        return
    index = offset // element.size
    start = index * element.size
    _collect(element, offset - start, f"{path}[{index}]", base + start, found, depth - 1)


def _among(
    members: Sequence[LayoutMember],
    layout: TypeLayout,
    offset: int,
    path: str,
    base: int,
    found: list[Found],
    depth: int,
) -> None:
    """The members that hold an offset; where none does, the padding there."""
    holds = False
    before, end_before, flexible = "", -1, None
    for member in members:
        start = member.bit_offset // 8
        name = f"{path}.{member.name}" if path and member.name else path or member.name
        if member.bit_size:
            end = (member.bit_offset + member.bit_size + 7) // 8
            if start <= offset < end:
                holds = True
                bits = member.bit_offset - 8 * start, member.bit_size
                found.append(Found(name, base + start, end - start, member.layout().name, bits))
        else:
            of = member.layout()
            end = start + (of.size or 0)
            if start <= offset < end:
                holds = True
                _collect(of, offset - start, name, base + start, found, depth - 1)
            elif of.element is not None and not of.size and start <= offset:
                flexible = of, start, name  # the last one counts: only at the end of a struct has it elements
        if end_before <= end <= offset:
            before, end_before = name, end
    if holds:
        return
    if flexible is not None and flexible[1] >= end_before and flexible[0].element is not None:
        of, start, name = flexible
        if offset >= (layout.size or 0) or start >= (layout.size or 0):
            _collect(of, offset - start, name, base + start, found, depth - 1)
            return
    begin = max(end_before, 0)
    nearest = [m.bit_offset // 8 for m in members if m.bit_offset // 8 > offset]
    end = min(
        [*nearest, *([layout.size] if layout.size is not None and layout.size > offset else [])], default=offset + 1
    )
    found.append(Found(before, base + begin, end - begin, layout.name, padding=True))
