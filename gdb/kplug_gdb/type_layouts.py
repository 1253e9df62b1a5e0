"""The layouts of the types that gdb knows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import gdb
from kplug.type_layouts import USUAL_NAMES, LayoutMember, TypeLayout

_COMPILERS_NAME = re.compile(rf"\b({'|'.join(sorted(USUAL_NAMES, key=len, reverse=True))})\b")
_STRUCTURED = (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION)


class GdbLayouts:
    """The types in the symbols that gdb has read."""

    source = "gdb's debug information"

    def named(self, keyword: str, name: str) -> TypeLayout | None:
        try:
            return _layout(gdb.lookup_type(f"{keyword} {name}".strip()))
        except gdb.error:  # "No struct type named foo."
            return None


def _layout(type_: gdb.Type) -> TypeLayout:
    plain = type_.strip_typedefs()
    # gdb has 0 or 1 byte for a type that is only declared.
    is_declared = plain.code in _STRUCTURED and not plain.fields() and plain.sizeof <= 1
    size = None if is_declared or plain.code in (gdb.TYPE_CODE_VOID, gdb.TYPE_CODE_FUNC) else plain.sizeof
    if plain.code in _STRUCTURED:
        return TypeLayout(_name(type_), size, members=lambda: _members(plain))
    if plain.code == gdb.TYPE_CODE_ARRAY:
        first, last = plain.range()
        return TypeLayout(
            _name(type_), plain.sizeof, element=lambda: _layout(plain.target()), count=max(0, last - first + 1)
        )
    return TypeLayout(_name(type_), size)


def _name(type_: gdb.Type) -> str:
    """gdb 12 and older give the compiler's names."""
    return _COMPILERS_NAME.sub(lambda found: USUAL_NAMES[found[0]], str(type_))


def _members(plain: gdb.Type) -> Sequence[LayoutMember]:
    return [_member(field) for field in plain.fields() if hasattr(field, "bitpos")]


def _member(field: gdb.Field) -> LayoutMember:
    kind = field.type
    assert kind is not None
    return LayoutMember(field.name or "", field.bitpos or 0, field.bitsize, lambda: _layout(kind))


def pointed_types() -> Sequence[str]:
    """The structures that variables of the selected frame point to, of the functions inlined there too."""
    found: list[str] = []
    try:
        block: gdb.Block | None = gdb.selected_frame().block()
        while block is not None and not block.is_static and not block.is_global:
            for symbol in block:
                kind = symbol.type.strip_typedefs() if symbol.type is not None and not symbol.is_function else None
                if kind is not None and kind.code == gdb.TYPE_CODE_PTR:
                    target = kind.target().unqualified().strip_typedefs()
                    if target.code in _STRUCTURED and target.tag:
                        found.append(f"{'union' if target.code == gdb.TYPE_CODE_UNION else 'struct'} {target.tag}")
            block = block.superblock
    except (gdb.error, RuntimeError):  # no frame, or no debug information for it
        pass
    return list(dict.fromkeys(found))
