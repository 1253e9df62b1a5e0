"""The layouts of the types in BTF."""

from __future__ import annotations

from collections.abc import Sequence

from kplug.errors import InputError
from kplug.image import btf
from kplug.image.btf import Btf, BtfType
from kplug.type_layouts import USUAL_NAMES, LayoutMember, TypeLayout

_TRANSPARENT = frozenset((btf.TYPEDEF, btf.VOLATILE, btf.CONST, btf.RESTRICT, btf.TYPE_TAG, btf.DECL_TAG))
_KEYWORDS = {btf.STRUCT: "struct", btf.UNION: "union", btf.ENUM: "enum", btf.ENUM64: "enum"}
_QUALIFIERS = {btf.VOLATILE: "volatile", btf.CONST: "const", btf.RESTRICT: "restrict"}
_MAX_DEPTH = 63
_IN_BTF = {usual: name for name, usual in USUAL_NAMES.items()}


class BtfLayouts:
    """The types of `types`; numbers have words of `word_size` bytes."""

    def __init__(self, types: Btf, word_size: int) -> None:
        self._btf = types
        self._word_size = word_size
        self.source = types.where

    def named(self, keyword: str, name: str) -> TypeLayout | None:
        kinds = [kind for kind, word in _KEYWORDS.items() if word == keyword]
        if not keyword:
            name = _IN_BTF.get(name, name)
        numbers = self._btf.named(name, kinds or (btf.TYPEDEF, btf.INT, btf.FLOAT))
        return self._layout(numbers[0]) if numbers and self._btf.alike(numbers) else None

    def _layout(self, number: int) -> TypeLayout:
        name, entry = self._name(number, 0), self._plain(number)
        if entry.kind in (btf.STRUCT, btf.UNION):
            return TypeLayout(name, entry.number, members=lambda: self._members(entry))
        if entry.kind == btf.ARRAY:
            element, count = self._btf.array(entry)
            size = self._size(element, 0)
            return TypeLayout(name, size * count if size else size, element=lambda: self._layout(element), count=count)
        return TypeLayout(name, self._size(number, 0))

    def _members(self, entry: BtfType) -> Sequence[LayoutMember]:
        return [self._member(*member) for member in self._btf.members(entry)]

    def _member(self, name: str, number: int, bit_offset: int, bit_size: int) -> LayoutMember:
        entry = self._plain(number)
        if not bit_size and entry.kind == btf.INT:  # BTF without kind_flag has bit-fields as integers of few bits
            integer = self._btf.integer(entry)
            if integer.bits < 8 * entry.number and not integer.boolean:
                bit_offset, bit_size = bit_offset + integer.bit_offset, integer.bits
        return LayoutMember(name, bit_offset, bit_size, lambda: self._layout(number))

    def _plain(self, number: int) -> BtfType:
        """The type without typedefs and qualifiers."""
        entry = self._btf.type(number)
        for _ in range(_MAX_DEPTH):
            if entry.kind not in _TRANSPARENT:
                return entry
            entry = self._btf.type(entry.number)
        raise InputError(f"{self._btf.where}: type {number} of the BTF is made of itself")

    def _size(self, number: int, depth: int) -> int | None:
        """The size in bytes; None for what is only declared, or has none."""
        entry = self._plain(number)
        if entry.kind == btf.PTR:
            return self._word_size
        if entry.kind == btf.ARRAY and depth < _MAX_DEPTH:
            element, count = self._btf.array(entry)
            size = self._size(element, depth + 1)
            return size * count if size is not None else None
        return entry.number if entry.kind in (*_KEYWORDS, btf.INT, btf.FLOAT) else None

    def _name(self, number: int, depth: int) -> str:
        """The type as C has it, near enough to be recognised."""
        entry = self._btf.type(number)
        if depth > _MAX_DEPTH:
            return "..."
        if entry.kind in _KEYWORDS:
            return f"{_KEYWORDS[entry.kind]} {entry.name or '<anonymous>'}"
        if entry.kind == btf.PTR:
            target = self._btf.type(entry.number)
            if target.kind == btf.FUNC_PROTO:
                parameters = [number for _, number in self._btf.parameters(target)]
                names = ", ".join(self._name(each, depth + 1) if each else "..." for each in parameters) or "void"
                return f"{self._name(target.number, depth + 1)} (*)({names})"
            name = self._name(entry.number, depth + 1)
            return f"{name}*" if name.endswith("*") else f"{name} *"
        if entry.kind == btf.ARRAY:
            element, count = self._btf.array(entry)
            name, dimensions = self._name(element, depth + 1), ""
            if "[" in name:
                name, bracket, dimensions = name.partition("[")
                name, dimensions = name.rstrip(), bracket + dimensions
            return f"{name} [{count or ''}]{dimensions}"
        if entry.kind in _QUALIFIERS:
            return f"{_QUALIFIERS[entry.kind]} {self._name(entry.number, depth + 1)}"
        if entry.kind == btf.FWD:
            return f"{'union' if entry.flag else 'struct'} {entry.name}"
        if entry.kind in (btf.TYPE_TAG, btf.DECL_TAG):
            return self._name(entry.number, depth + 1)
        return USUAL_NAMES.get(entry.name, entry.name) or "void"
