"""Per-CPU records that a crash, or somebody hostile, has left broken: what can be told still is, the rest is said."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support import patched as patching
from support.open_dumps import kernel_in
from support.patched import unmap

from kplug import model
from kplug.model import Annotation
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.percpu import Percpu
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


@pytest.fixture(scope="module")
def shared(dumps_612: DumpSet) -> Kernel:
    return kernel_in(dumps_612)


@pytest.fixture
def kernel(shared: Kernel) -> Iterator[Kernel]:
    """The kernel in the dump, whose memory is as it was once a test is over."""
    yield shared
    while _replaced:
        patching.patch(shared, *_replaced.pop())


@pytest.fixture
def expendable(dumps_612: DumpSet) -> Kernel:
    """One of its own for a test: what is taken out of a dump cannot be put back."""
    return kernel_in(dumps_612)


_replaced: list[tuple[int, bytes]] = []


def patch(kernel: Kernel, address: int, data: bytes) -> None:
    _replaced.append((address, kernel.read(address, len(data))))
    patching.patch(kernel, address, data)


def session(kernel: Kernel) -> Session:
    assert kernel.image is not None
    percpu = Percpu(kernel, kernel.image)
    return Session([kernel.image], locators=(percpu,), percpu=percpu)


def where(kernel: Kernel, address: int) -> Annotation:
    return session(kernel).resolver.where(address)


def dynamic(kernel: Kernel) -> int:
    """An address in a chunk of vmalloc space: CPU 0's copy of an allocation there."""
    return int(vmalloc_chunk(kernel).base_addr.value_())


def vmalloc_chunk(kernel: Kernel):  # type: ignore[no-untyped-def]
    from drgn.helpers.linux.list import list_for_each_entry

    prog = kernel.prog
    for number in range(prog["pcpu_nr_slots"].value_()):
        for chunk in list_for_each_entry("struct pcpu_chunk", prog["pcpu_chunk_lists"][number].address_of_(), "list"):
            if not chunk.immutable:
                return chunk
    raise AssertionError("no chunk in vmalloc space")


def static(kernel: Kernel) -> int:
    """CPU 1's runqueues."""
    return int(kernel.prog["__per_cpu_offset"][1].value_() + kernel.prog["runqueues"].address_)


def stands(kernel: Kernel) -> None:
    """Static variables are told whatever the chunks are like."""
    found = where(kernel, static(kernel))
    symbol = found.last(model.SYMBOL)
    assert symbol is not None
    assert (symbol.name, found.warnings) == ("runqueues", ())


def number(value: int) -> bytes:
    return struct.pack("<Q", value & (1 << 64) - 1)


@pytest.mark.parametrize("nowhere", [0, 0x10, 0xDEAD000000000100, 0xFFFFC90000000000, (1 << 64) - 8])
def test_a_list_that_points_nowhere(kernel: Kernel, nowhere: int) -> None:
    address = dynamic(kernel)
    for slot in range(kernel.prog["pcpu_nr_slots"].value_()):
        patch(kernel, kernel.prog["pcpu_chunk_lists"][slot].address_, number(nowhere))
    found = where(kernel, address)
    assert found.first(model.PERCPU) is None
    (warning,) = found.warnings
    assert re.fullmatch(r"per-CPU chunks: a list could not be read: address is not mapped: 0x[0-9a-f]+", warning)
    stands(kernel)


def test_a_list_that_loops(kernel: Kernel) -> None:
    chunk = vmalloc_chunk(kernel)
    patch(kernel, chunk.list.next.address_, number(chunk.list.address_))
    address = dynamic_of(chunk)
    layer = where(kernel, address).first(model.PERCPU)
    assert layer is not None  # it was read before the loop was met
    (warning,) = where(kernel, 0xFFFF888000000000).warnings
    assert warning == f"per-CPU chunks: the list loops at {chunk.list.address_:#x}"
    stands(kernel)


def dynamic_of(chunk) -> int:  # type: ignore[no-untyped-def]
    return int(chunk.base_addr.value_())


@pytest.mark.parametrize("slots", [0, -1, 1 << 30])
def test_a_number_of_lists_that_cannot_be(kernel: Kernel, slots: int) -> None:
    address = dynamic(kernel)
    patch(kernel, kernel.prog["pcpu_nr_slots"].address_, struct.pack("<i", slots))
    assert where(kernel, address).warnings == (f"per-CPU chunks: pcpu_nr_slots is {slots}",)
    stands(kernel)


@pytest.mark.parametrize(
    ("member", "value"),
    [("nr_pages", 0), ("nr_pages", -5), ("nr_pages", 1 << 30), ("start_offset", 1 << 30), ("end_offset", -1)],
)
def test_a_chunk_that_is_none(kernel: Kernel, member: str, value: int) -> None:
    chunk = vmalloc_chunk(kernel)
    address = dynamic_of(chunk)
    patch(kernel, getattr(chunk, member).address_, struct.pack("<i", value))
    assert where(kernel, address).warnings == (f"per-CPU chunks: what is at {chunk.value_():#x} is not a chunk",)
    stands(kernel)


def test_a_chunk_over_static_variables_does_not_hide_them(kernel: Kernel) -> None:
    chunk = vmalloc_chunk(kernel)
    address = dynamic_of(chunk)
    patch(kernel, chunk.base_addr.address_, number(kernel.prog["pcpu_base_addr"].value_()))
    assert where(kernel, address).warnings == (
        f"per-CPU chunks: what is at {chunk.value_():#x} overlaps something else",
    )
    stands(kernel)


def test_a_chunk_that_ends_beyond_all_addresses_is_none(kernel: Kernel) -> None:
    chunk = vmalloc_chunk(kernel)
    patch(kernel, chunk.base_addr.address_, number(-4096))
    assert where(kernel, (1 << 64) - 4096).first(model.PERCPU) is None
    stands(kernel)


def test_one_broken_list_leaves_the_others(kernel: Kernel) -> None:
    chunk = vmalloc_chunk(kernel)
    address = dynamic_of(chunk)
    patch(kernel, kernel.prog["pcpu_chunk_lists"][1].address_, number(0))
    assert where(kernel, address).first(model.PERCPU) is not None
    (warning,) = where(kernel, 0xFFFF888000000000).warnings
    assert warning == "per-CPU chunks: a list could not be read: address is not mapped: 0x0"


@pytest.mark.parametrize("member", ["alloc_map", "bound_map"])
def test_maps_that_the_dump_lacks_leave_the_bounds_unknown(expendable: Kernel, member: str) -> None:
    chunk = vmalloc_chunk(expendable)
    address = dynamic_of(chunk)
    unmap(expendable, getattr(chunk, member).value_() & ~0xFFF, 4096)
    found = where(expendable, address)
    layers = [layer for layer in found.layers if layer.kind == model.PERCPU]
    assert [layer.name for layer in layers] == ["CPU 0"]
    assert (layers[0].details["kind"], layers[0].details["allocated"]) == ("dynamic", None)
    stands(expendable)


def test_maps_full_of_nonsense_give_bounds_within_the_chunk(kernel: Kernel) -> None:
    chunk = vmalloc_chunk(kernel)
    address, size = dynamic_of(chunk), chunk.nr_pages.value_() * 4096
    patch(kernel, chunk.alloc_map.value_(), b"\xff" * 64)
    patch(kernel, chunk.bound_map.value_(), bytes(64))
    for offset in (0, 4, 2044, size - 1):
        run = where(kernel, address + offset).last(model.PERCPU)
        assert run is not None
        assert run.start is not None
        assert run.end is not None
        assert address <= run.start <= address + offset < run.end <= address + size


def test_offsets_that_the_dump_lacks(expendable: Kernel) -> None:
    address = static(expendable)
    unmap(expendable, expendable.prog["__per_cpu_offset"].address_ & ~0xFFF, 4096)
    found = where(expendable, address)
    assert found.first(model.PERCPU) is None
    (warning,) = found.warnings
    assert warning.startswith("per-CPU areas: memory was not saved in the dump")
