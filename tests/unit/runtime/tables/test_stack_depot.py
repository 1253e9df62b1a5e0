"""The stack depot (kplug/runtime/tables/stack_depot.py). What is expected is what was planted in its pool."""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import FakeKernel
from support.fake_tracks import FORMS, POOL, FakeTracks

from kplug.errors import TargetError
from kplug.runtime.tables.stack_depot import StackDepot

STACK = (0xFFFFFFFF81000010, 0xFFFFFFFF81000020)


@pytest.mark.parametrize("form", FORMS)
def test_stacks_by_their_handles(form: str) -> None:
    tracks = FakeTracks(FakeKernel(), form)
    handles = [tracks.stack(number, STACK[:count]) for number, count in ((0, 1), (3, 2))]
    depot = StackDepot(tracks.fake.kernel)
    assert [depot.stack(handle) for handle in handles] == [STACK[:1], STACK]


@pytest.mark.parametrize("wrong", [0x20000, 0x1, 0x4, 0xFFFFFFFF, 0x1FFFF, 0x07FE0002, 0])
def test_handles_that_are_none(wrong: int) -> None:
    """Another place in the pool, other pools, ends of everything."""
    tracks = FakeTracks(FakeKernel())
    handle = tracks.stack(2, STACK)
    with pytest.raises(TargetError, match="the stack depot has no stack of handle"):
        StackDepot(tracks.fake.kernel).stack(handle ^ wrong if wrong else 0)


@pytest.mark.parametrize("count", [0, 257, 0xFFFFFFFF])
def test_a_record_of_an_impossible_length(count: int) -> None:
    tracks = FakeTracks(FakeKernel())
    handle = tracks.stack(2, STACK, count=count)
    with pytest.raises(TargetError, match="the stack depot has no stack of handle"):
        StackDepot(tracks.fake.kernel).stack(handle)


def test_a_record_that_would_end_behind_its_pool() -> None:
    tracks = FakeTracks(FakeKernel())
    handle = tracks.stack(POOL // 0x100 - 1, STACK, count=29)
    with pytest.raises(TargetError, match="the stack depot has no stack of handle"):
        StackDepot(tracks.fake.kernel).stack(handle)


def test_memory_that_cannot_be_read() -> None:
    tracks = FakeTracks(FakeKernel())
    handle = tracks.stack(0x20, STACK)
    tracks.fake.lose(tracks.pool + 0x2020, 16)
    with pytest.raises(TargetError, match=r"the stack of handle .* cannot be read"):
        StackDepot(tracks.fake.kernel).stack(handle)
    tracks.fake.lose(tracks.pool, POOL)
    with pytest.raises(TargetError, match="the stack depot has no stack of handle"):
        StackDepot(tracks.fake.kernel).stack(handle)


def test_a_kernel_without_a_depot() -> None:
    fake = FakeKernel()
    with pytest.raises(TargetError, match="the stack depot: "):
        StackDepot(fake.kernel)
    tracks = FakeTracks(FakeKernel())
    tracks.fake.forget("stack_pools")
    with pytest.raises(TargetError, match="neither stack_pools nor stack_slabs"):
        StackDepot(tracks.fake.kernel)
