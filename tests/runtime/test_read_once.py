"""What is read of a whole kernel is read once, as long as the kernel stands still: its tasks, stacks, areas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from support.open_dumps import kernel_in

from kplug.runtime.kernel.facts import facts_of, space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.executable_allocations import executable_allocations, probes
from kplug.runtime.locators.stacks import stacks_of
from kplug.runtime.locators.tasks import tasks_of
from kplug.runtime.locators.vmap import vmap_areas
from kplug.runtime.modules.images import images_of
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.tables.struct_page import pages_of
from kplug.runtime.tables.translation import page_tables

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


@pytest.fixture(scope="module")
def kernel(dumps_61: DumpSet) -> Kernel:
    return kernel_in(dumps_61)


UNTIL_IT_MOVES: list[Callable[[Kernel], object]] = [
    executable_allocations,
    facts_of,
    modules_of,
    page_tables,
    pages_of,
    probes,
    space_of,
    stacks_of,
    tasks_of,
    vmap_areas,
]


@pytest.mark.parametrize("read", UNTIL_IT_MOVES, ids=lambda read: read.__name__)
def test_until_the_kernel_moves(kernel: Kernel, read: Callable[[Kernel], object]) -> None:
    first = read(kernel)
    assert first is not None
    assert read(kernel) is first
    kernel.resumed()
    assert read(kernel) is not first


def test_the_images_stay(kernel: Kernel) -> None:
    first = images_of(kernel)
    kernel.resumed()
    assert images_of(kernel) is first
