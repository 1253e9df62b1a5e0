"""gdb's values as addresses."""

from __future__ import annotations

import gdb
from kplug.arch.types.word import WordFormat
from kplug.errors import ExpressionError

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


def as_address(value: gdb.Value, text: str, word: WordFormat) -> int:
    """The address that a value means: numbers and pointers are addresses, arrays and functions have one.

    ExpressionError for anything else. gdb.error if the value cannot be read. `word` is the kernel's: gdb's machine is
    an i386 as long as it has neither a file nor a target.
    """
    kind = value.type.strip_typedefs()
    if kind.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
        value = value.referenced_value()
        kind = value.type.strip_typedefs()
    if kind.code in _NUMBERS:
        number = int(value)
        if not -(1 << word.bits - 1) <= number <= word.mask:
            raise ExpressionError(f"{text}: more than {word.bits} bits")
        return number & word.mask
    if kind.code in _PLACES and value.address is not None:
        return int(value.address) & word.mask
    if kind.code == gdb.TYPE_CODE_VOID:
        raise ExpressionError(f"{text}: has no value here")
    # `info symbol` gives no type, and a symbol without debug information has none.
    if value.address is not None and kind.code == gdb.TYPE_CODE_ERROR:
        return int(value.address) & word.mask
    hint = " (take its address with &)" if value.address is not None else ""
    raise ExpressionError(f"{text}: is of type {kind}, not an address{hint}")


def string_of(value: gdb.Value) -> str | None:
    """The text of a typed string or of a convenience variable; None for anything else, including arrays in memory."""
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_STRING or (
        kind.code == gdb.TYPE_CODE_ARRAY and kind.target().sizeof == 1 and value.address is None
    ):
        return str(value.string("utf-8", "replace")).rstrip("\0")
    return None


def symbol_address(value: gdb.Value, mask: int) -> int | None:
    """The address by which a value depends on gdb's symbols, as far as its type shows that; None if it does not.

    That is where it was, or would be, read from, or what it points to. Registers and numbers do not depend on symbols,
    and neither do the types of $pc and $sp, `void (*)()` and `void *`.
    """
    if value.address is not None:
        return int(value.address) & mask
    kind = value.type.strip_typedefs()
    if kind.code != gdb.TYPE_CODE_PTR:
        return None
    target = kind.target().strip_typedefs()
    if target.code == gdb.TYPE_CODE_VOID or str(kind) == "void (*)()":
        return None
    return int(value) & mask


def is_place(value: gdb.Value) -> bool:
    """Whether the value stands for its own address: a function, an array, a symbol of unknown type."""
    return value.type.strip_typedefs().code in (*_PLACES, gdb.TYPE_CODE_ERROR)
