"""Which bytes are calls, and where they go: instructions as an assembler makes them (Intel SDM, Arm ARM)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplug.arch.calls import call_reach, calls_before

AT = 0xFFFFFFFF81000100
MASK = (1 << 64) - 1


@pytest.mark.parametrize(
    ("code", "length"),
    [
        ("e8 00 01 00 00", 5),  # call rel32
        ("ff d0", 2),  # call *%rax
        ("41 ff d4", 2),  # call *%r12; REX changes nothing behind it
        ("ff 10", 2),  # call *(%rax)
        ("ff 14 24", 3),  # call *(%rsp)
        ("41 ff 14 24", 3),  # call *(%r12)
        ("ff 50 18", 3),  # call *0x18(%rax)
        ("41 ff 55 00", 3),  # call *0x0(%r13)
        ("41 ff 54 24 08", 4),  # call *0x8(%r12)
        ("ff 15 44 33 22 01", 6),  # call *0x1223344(%rip)
        ("ff 90 80 00 00 00", 6),  # call *0x80(%rax)
        ("41 ff 94 24 80 00 00 00", 7),  # call *0x80(%r12)
        ("ff 14 c5 00 11 22 83", 7),  # call *-0x7cddef00(,%rax,8)
    ],
)
def test_x86_calls(code: str, length: int) -> None:
    found = list(calls_before(bytes.fromhex("90" * 8 + code), AT, "x86_64"))
    assert length in [call.length for call in found]
    assert length <= call_reach("x86_64")


@pytest.mark.parametrize(
    "code",
    [
        "ff e0",  # jmp *%rax
        "ff 30",  # push (%rax)
        "ff 18",  # a far call: no code of the kernel
        "e9 00 00 00 00",  # jmp
        "0f 05",  # syscall
        "c3",
        "48 89 e5",
    ],
)
def test_no_x86_calls(code: str) -> None:
    assert list(calls_before(bytes.fromhex("90" * 8 + code), AT, "x86_64")) == []


def test_where_a_call_goes() -> None:
    (call,) = calls_before(bytes.fromhex("e8 f0 ff ff ff"), AT, "x86_64")
    assert call.target == AT - 16
    (call,) = calls_before(bytes.fromhex("fc ff ff 97"), AT, "aarch64")  # bl .-0x10
    assert call.target == AT - 4 - 16


@pytest.mark.parametrize(
    ("instruction", "is_call"),
    [
        (0x94000010, True),  # bl
        (0xD63F0100, True),  # blr x8
        (0xD63F091F, True),  # blraaz x8
        (0xD73F0909, True),  # blraa x8, x9
        (0x14000010, False),  # b
        (0xD61F0100, False),  # br x8
        (0xD65F03C0, False),  # ret
    ],
)
def test_arm64_calls(instruction: int, is_call: bool) -> None:
    code = struct.pack("<I", instruction)
    assert bool(list(calls_before(code, AT, "aarch64"))) is is_call
    assert not list(calls_before(code, AT + 2, "aarch64"))


@given(st.binary(max_size=8), st.sampled_from(["x86_64", "aarch64", "riscv64"]))
def test_any_bytes(code: bytes, machine: str) -> None:
    for call in calls_before(code, AT, machine):
        assert 0 < call.length <= len(code)
        assert call.target is None or 0 <= call.target <= MASK
