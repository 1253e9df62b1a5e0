"""Masks made of bytes beside the loops that they spare."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kplug.image.symbols import byte_columns
from kplug.image.symbols.byte_columns import BLOCK_BITS, ByteColumns
from kplug.image.symbols.masks import both, either, entries_of, without_mask

_masks = st.lists(st.sampled_from([0, 1]), max_size=80).map(bytes)


def _columns(code: str, numbers: Sequence[int]) -> ByteColumns:
    """The columns of numbers that lie between other bytes in each entry."""
    form = struct.Struct(f"{code[0]}3s{code[1]}s")
    data = b"".join(form.pack(b"\1\0\2", number, b"\3") for number in numbers)
    return ByteColumns(data, 3, form.size - 4, form.size, little=code[0] == "<")


@pytest.mark.parametrize(("code", "bits"), [("<I", 32), (">I", 32), ("<Q", 64), (">Q", 64)])
@given(data=st.data())
def test_what_lies_in_which_block(code: str, bits: int, data: st.DataObject) -> None:
    top = 1 << bits
    # Few blocks, far apart and beside each other, so that some are hit; the highest byte carries into the next.
    near = st.integers(0, 7).flatmap(lambda n: st.integers(0, 0xFFFF).map(lambda low: (0xFC + n << 16 | low) % top))
    numbers = data.draw(st.lists(st.one_of(near, near.map(lambda n: top - 1 - n), st.integers(0, top - 1))))
    first = data.draw(st.one_of(st.integers(0xFA, 0x104), st.integers((top >> 16) - 0x105, (top >> 16) - 1)))
    blocks = range(first - 300 * data.draw(st.booleans()), first + data.draw(st.integers(0, 5)))
    found = _columns(code, numbers).in_blocks(blocks)
    inside = bytes(number >> BLOCK_BITS in blocks for number in numbers)
    assert both(found, inside) == inside
    few = data.draw(st.integers(0, 2))
    with patch.object(byte_columns, "FEW", few):
        found = _columns(code, numbers).in_blocks(blocks)
    assert both(found, inside) == inside
    assert without_mask(found, inside).count(1) <= few * (1 + len(blocks) // 256 + 1)


@pytest.mark.parametrize(("code", "bits"), [("<I", 32), (">I", 32), ("<Q", 64), (">Q", 64)])
@given(data=st.data())
def test_what_is_not_zero(code: str, bits: int, data: st.DataObject) -> None:
    powers = st.integers(0, bits - 1).map(lambda shift: 1 << shift)
    numbers = data.draw(st.lists(st.one_of(st.just(0), powers, st.integers(0, (1 << bits) - 1))))
    columns = _columns(code, numbers)
    for lowest in range(bits // 8):
        assert list(columns.nonzero(lowest)) == [int(number >> 8 * lowest != 0) for number in numbers]


@given(mask=_masks)
@example(mask=b"")
@example(mask=bytes(100) + b"\1" + bytes(100) + b"\1")
def test_entries_of_a_mask(mask: bytes) -> None:
    assert entries_of(mask) == [number for number, bit in enumerate(mask) if bit]


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_masks_combined(pairs: list[tuple[bool, bool]]) -> None:
    one, other = (bytes(pair[n] for pair in pairs) for n in (0, 1))
    assert list(both(one, other)) == [a and b for a, b in pairs]
    assert list(either(one, other)) == [a or b for a, b in pairs]
    assert list(without_mask(one, other)) == [a and not b for a, b in pairs]
