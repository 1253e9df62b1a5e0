"""Addresses and symbols in the bytes of many lines, and what an address is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplug.log.finding import Role, found_in, role_of


def texts(data: bytes, bits: int = 64) -> list[str]:
    return [data[start:end].decode() for start, end, _ in found_in(data, bits)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"RIP: 0010:schedule+0x4/0xc7\n", ["schedule+0x4/0xc7"]),
        (b" ? h5_null.isra.0+0x4/0xc7 [h5plant]\n", ["h5_null.isra.0+0x4/0xc7 [h5plant]"]),
        (b"f+0x1/0x2 [m 0123456789abcdef0123456789abcdef01234567]\n", None),
        (b"[<ffffffff81a114f4>] schedule+0x4/0xc7\n", ["ffffffff81a114f4", "schedule+0x4/0xc7"]),
        (b"=0xffffffff81a114f4,ffffffff81a114f5\n", ["ffffffff81a114f4", "ffffffff81a114f5"]),
        (b"xffffffff81a114f4 ffffffff81a114f45 gffffffff81a114f4\n", []),
        (b"8d02af3b9f75dd230deaf4e6abfbf08bd6558ab1\n", []),
        (b"a+0x1/0x2+0x3/0x4 1+0x1/0x2\n", []),
        (b"schedule+0x4/0xc7/0x4 schedule+0x4\n", []),
    ],
)
def test_what_is_found(line: bytes, expected: list[str] | None) -> None:
    assert texts(line) == (expected if expected is not None else [line.decode().strip()])


def test_an_address_of_a_32_bit_kernel_has_8_digits() -> None:
    assert texts(b"[<c0123456>] f0123456 ffffffff81a114f4\n", 32) == ["c0123456", "f0123456"]


@pytest.mark.parametrize(
    ("before", "role"),
    [
        (b"RAX: ", Role.REGISTER),
        (b"RSP: 0018:", Role.REGISTER),
        (b"x29: ", Role.REGISTER),
        (b"CR2: ", Role.FAULT),
        (b"dereference, address: ", Role.FAULT),
        (b"probably for non-canonical address 0x", Role.FAULT),
        (b"CR4: ", None),
        (b"---[ end trace ", None),
        (b"H5|key|0x", Role.TEXT),
        (b"", Role.TEXT),
    ],
)
def test_the_role_of_an_address(before: bytes, role: Role | None) -> None:
    data = b"RAX: first line\n" + before + b"dead000000000100\n"
    assert role_of(data, data.index(b"dead")) is role


@given(st.binary(max_size=300))
def test_any_bytes_are_searched(data: bytes) -> None:
    found = found_in(data, 64)
    assert found == sorted(found)
    assert all(start < end and b"\n" not in data[start:end] for start, end, _ in found)
