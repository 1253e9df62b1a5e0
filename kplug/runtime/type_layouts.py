"""The layouts of the types that drgn has, from DWARF or from the BTF that kplug gave it."""

from __future__ import annotations

from collections.abc import Sequence

import drgn
from drgn import TypeKind

from kplug.runtime.finders import types_source
from kplug.runtime.kernel.kernel import Kernel
from kplug.type_layouts import LayoutMember, TypeLayout


class ProgramLayouts:
    """The types of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @property
    def source(self) -> str:
        return types_source(self._kernel)

    def named(self, keyword: str, name: str) -> TypeLayout | None:
        if not self._kernel.has_types:
            return None
        with self._kernel.reading(f"the type {keyword} {name}" if keyword else f"the type {name}"):
            try:
                found = self._kernel.prog.type(f"{keyword} {name}".strip())
            except (LookupError, SyntaxError):
                return None
            return _layout(found)


def _layout(type_: drgn.Type) -> TypeLayout:
    plain = type_
    while plain.kind == TypeKind.TYPEDEF:
        plain = plain.type
    name = type_.type_name()
    if plain.kind in (TypeKind.STRUCT, TypeKind.UNION, TypeKind.CLASS):
        return TypeLayout(name, plain.size, members=lambda: _members(plain))
    if plain.kind == TypeKind.ARRAY:
        element = _layout(plain.type)
        count = plain.length or 0
        size = None if element.size is None else element.size * count
        return TypeLayout(name, size, element=lambda: element, count=count)
    try:
        return TypeLayout(name, drgn.sizeof(type_))
    except TypeError:  # void, a function, an enum that is only declared
        return TypeLayout(name, None)


def _members(plain: drgn.Type) -> Sequence[LayoutMember]:
    return [_member(member) for member in plain.members or ()]


def _member(member: drgn.TypeMember) -> LayoutMember:
    return LayoutMember(member.name or "", member.bit_offset, member.bit_field_size or 0, lambda: _layout(member.type))
