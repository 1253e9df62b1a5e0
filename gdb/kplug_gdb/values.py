"""gdb's values as addresses."""

from __future__ import annotations

import gdb
from kplug.errors import ExpressionError

_MASK = (1 << 64) - 1

_NUMBERS = (
    gdb.TYPE_CODE_INT,
    gdb.TYPE_CODE_PTR,
    gdb.TYPE_CODE_CHAR,
    gdb.TYPE_CODE_BOOL,
    gdb.TYPE_CODE_ENUM,
    gdb.TYPE_CODE_FLAGS,
    gdb.TYPE_CODE_RANGE,
)
_PLACES = (gdb.TYPE_CODE_ARRAY, gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_METHOD)


def as_address(value: gdb.Value, text: str) -> int:
    """The address that a value means: numbers and pointers are one; arrays and functions have one.

    ExpressionError for anything else. gdb.error if the value cannot be read.
    """
    kind = value.type.strip_typedefs()
    if kind.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
        value = value.referenced_value()
        kind = value.type.strip_typedefs()
    if kind.code in _NUMBERS:
        return int(value) & _MASK
    if kind.code in _PLACES and value.address is not None:
        return int(value.address) & _MASK
    if kind.code == gdb.TYPE_CODE_VOID:
        raise ExpressionError(f"{text}: has no value here")
    # `info symbol` has no type to go by, and neither has a symbol without debug information.
    if value.address is not None and kind.code == gdb.TYPE_CODE_ERROR:
        return int(value.address) & _MASK
    hint = " (take its address with &)" if value.address is not None else ""
    raise ExpressionError(f"{text}: is of type {kind}, not an address{hint}")
