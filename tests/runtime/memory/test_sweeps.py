"""Whole lists of the kernel, asked about at addresses of each member: kind, owner and bounds are drgn's helpers'."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import drgn
import pytest
from drgn.helpers.linux.mm import for_each_vmap_area, page_to_pfn, pfn_to_page
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object
from support.open_dumps import open_dump

from kplug.runtime.session import session_of

if TYPE_CHECKING:
    from support.sampling import Sampling

    from kplug.model import Annotation
    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

CACHES = {
    "task_struct": "task_struct",
    "dentry": "dentry",
    "mm_struct": "mm_struct",
    "filp": "file",
    "kmalloc-64": "int",
}
STACK = 16384
PAGES = 10_000


class Opened(NamedTuple):
    prog: drgn.Program
    session: Session

    def where(self, address: int) -> Annotation:
        return self.session.resolver.where(address)


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12"])
def opened(request: pytest.FixtureRequest) -> Opened:
    from vmimages import dumps

    found = open_dump(dumps(request.param, ("elf",), quiet=True))
    return Opened(found.prog, session_of(found))


@pytest.mark.parametrize("cache", CACHES)
def test_every_object_of_a_cache(opened: Opened, cache: str) -> None:
    found = find_slab_cache(opened.prog, cache)
    assert found is not None
    kind = CACHES[cache] if CACHES[cache] == "int" else f"struct {CACHES[cache]}"
    starts = [each.value_() for each in slab_cache_for_each_allocated_object(found, kind)]
    assert starts
    for start in starts:
        offset = random.Random(start).randrange(found.object_size.value_())
        layer = opened.where(start + offset).first("slab")
        assert layer is not None
        assert (layer.name, layer.start, layer.details["state"]) == (cache, start, "allocated")


def test_every_vmap_area(opened: Opened) -> None:
    areas = [(area.va_start.value_(), area.va_end.value_()) for area in for_each_vmap_area(opened.prog)]
    assert len(areas) > 50
    for start, end in areas:
        for address in (start, (start + end) // 2, end - 1):
            layer = opened.where(address).first("vmap")
            assert layer is not None, hex(address)
            assert (layer.start, layer.end) == (start, end)


def test_every_tasks_stack(opened: Opened) -> None:
    tasks = [(task.pid.value_(), task.stack.value_()) for task in for_each_task(opened.prog)]
    assert len(tasks) > 40
    for pid, stack in tasks:
        for offset in (0, STACK // 2, STACK - 8):
            layer = opened.where(stack + offset).first("stack")
            assert layer is not None, (pid, hex(stack))
            assert (layer.start, layer.details["pid"]) == (stack, pid)


def test_pages_by_their_struct_page(opened: Opened, sampling: Sampling) -> None:
    last = opened.prog["max_pfn"].value_()
    chosen = random.Random(sampling.seed).sample(range(1, last), sampling.count(PAGES))
    for pfn in chosen:
        page = pfn_to_page(opened.prog, pfn)
        layer = opened.where(page.value_() + 8).first("page")
        assert layer is not None
        assert (layer.start, layer.details["pfn"]) == (page.value_(), page_to_pfn(page).value_())
