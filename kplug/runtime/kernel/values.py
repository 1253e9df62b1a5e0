"""The address that a value of Python or drgn means."""

from __future__ import annotations

import operator
from typing import Any

import drgn

from kplug.arch.types.word import WordFormat
from kplug.errors import ExpressionError
from kplug.runtime.kernel.kernel import Kernel

_PLACES = (
    drgn.TypeKind.ARRAY,
    drgn.TypeKind.FUNCTION,
    drgn.TypeKind.STRUCT,
    drgn.TypeKind.UNION,
    drgn.TypeKind.CLASS,
    drgn.TypeKind.VOID,
)


def address_of(value: Any, text: str, kernel: Kernel) -> int:
    """The address that a value means: numbers and pointers are one; a struct, array or function in memory has one.

    `text` is what was evaluated. ExpressionError for anything else, and for what cannot be read.
    """
    if isinstance(value, drgn.Object):
        return _object_address(value, text, kernel)
    if isinstance(value, drgn.Symbol):
        return int(value.address)
    try:
        number = operator.index(value)
    except TypeError:
        raise ExpressionError(f"{text}: is a Python {type(value).__name__}, not an address") from None
    return _unsigned(number, text, kernel.word)


def _object_address(value: drgn.Object, text: str, kernel: Kernel) -> int:
    if value.type_.unaliased_kind() in _PLACES:
        if value.absent_ or value.address_ is None:
            raise ExpressionError(f"{text}: {value.type_.type_name()} is in no memory, so it has no address")
        return int(value.address_)
    try:
        return _unsigned(operator.index(value), text, kernel.word)
    except drgn.FaultError as error:
        raise ExpressionError(f"{text}: {kernel.fault_words(error)}") from None
    except (TypeError, drgn.ObjectAbsentError) as error:
        raise ExpressionError(f"{text}: {error}") from None


def _unsigned(number: int, text: str, word: WordFormat) -> int:
    if not -(1 << word.bits - 1) <= number <= word.mask:
        raise ExpressionError(f"{text}: more than {word.bits} bits")
    return number & word.mask
