"""Searching finds what bytes.find() does, in a text and in memory that it was read into."""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplug.files import text_search
from kplug.files.text_search import find, positions

FEW_BYTES = st.lists(st.sampled_from(b"ab\n\0"), max_size=60).map(bytes)
BOUND = st.integers(0, 70)


@pytest.fixture(params=["by the C library", "by Python"])
def searcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    text_search._memmem.cache_clear()
    if request.param == "by Python":
        monkeypatch.setattr(text_search, "ctypes", None)
    yield
    text_search._memmem.cache_clear()


def _in_memory(data: bytes) -> mmap:
    memory = mmap(-1, len(data))
    memory[:] = data
    return memory


@pytest.mark.usefixtures("searcher")
@given(data=FEW_BYTES.filter(bool), wanted=FEW_BYTES.filter(bool), start=BOUND, end=BOUND)
def test_as_bytes_find(data: bytes, wanted: bytes, start: int, end: int) -> None:
    assert find(data, wanted, start, end) == data.find(wanted, start, end)
    assert find(_in_memory(data), wanted, start, end) == data.find(wanted, start, end)


@pytest.mark.usefixtures("searcher")
def test_every_position_of_a_part() -> None:
    memory = _in_memory(b"aa-aa-aaa")
    assert list(positions(memory, b"aa", range(1, 9))) == [3, 6, 7]
    assert list(positions(memory, b"aa", range(1, 8))) == [3, 6]


@pytest.mark.usefixtures("searcher")
def test_the_memory_can_be_resized_afterwards() -> None:
    memory = _in_memory(b"text" * 4096)
    assert find(memory, b"text", 1, len(memory)) == 4
    memory.resize(4)
    assert find(memory, b"t", 1, 4) == 3
