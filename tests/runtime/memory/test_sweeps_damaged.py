"""Sweeps over dumps that are damaged: pages are not there, links of lists lead anywhere, words are wrong.

What is right then is not certain, so only this is asked: there is an answer to everything, none fails, and none takes
long.
"""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import drgn
import pytest
from drgn.helpers.linux.mm import follow_phys, for_each_vmap_area, pfn_to_page
from drgn.helpers.linux.module import for_each_module
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.slab import find_slab_cache, for_each_slab_cache, slab_cache_for_each_allocated_object
from support.answers import outputs
from support.open_dumps import kernel_in, open_dump
from support.patched import patch_physical, unmap_physical

from kplug.errors import KplugError
from kplug.render.text import TextRenderer
from kplug.runtime.session import kernel_of, session_of

if TYPE_CHECKING:
    from support.sampling import Sampling
    from vmimages import DumpSet

    from kplug.runtime.kernel.kernel import Kernel
    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

SECONDS = 20  # of CPU time, for one answer: the first may walk every list of a damaged kernel
PAGE = 4096
CACHES = ("task_struct", "dentry", "mm_struct", "filp", "kmalloc-64")
COMMANDS = (("stack",), ("regs",), ("mod",), ("map", "-v"), ("x", "8", "jiffies"), ("info",))


class Intact(NamedTuple):
    """What the dump has before it is damaged: addresses to ask about, where links of lists are, the frames of RAM."""

    addresses: Sequence[int]
    links: Sequence[int]  # physical addresses
    frames: int


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12", "amd64-sid"])
def dumps(request: pytest.FixtureRequest) -> DumpSet:
    from vmimages import dumps

    return dumps(request.param, ("elf",), quiet=True)


@pytest.fixture(scope="module")
def intact(dumps: DumpSet, sampling: Sampling) -> Intact:
    prog = kernel_in(dumps).prog
    chosen = random.Random(sampling.seed)
    frames = prog["max_pfn"].value_()
    addresses: list[int] = []
    for name in CACHES:
        found = find_slab_cache(prog, name)
        assert found is not None
        starts = [each.value_() for each in slab_cache_for_each_allocated_object(found, "void")]
        addresses += (start + 8 for start in chosen.sample(starts, min(len(starts), 200)))
    areas = [(area.va_start.value_(), area.va_end.value_()) for area in for_each_vmap_area(prog)]
    addresses += (place for start, end in areas for place in (start, end - 1, end + PAGE))
    addresses += (task.stack.value_() + 0x1F00 for task in for_each_task(prog))
    pages = [pfn_to_page(prog, pfn).value_() for pfn in chosen.sample(range(1, frames), 500)]
    direct = prog["page_offset_base"].value_()
    addresses += (*(page + 8 for page in pages), *(direct + pfn * PAGE for pfn in chosen.sample(range(frames), 500)))
    addresses += (module.mem[0].base.value_() if hasattr(module, "mem") else 0 for module in for_each_module(prog))
    addresses += (prog.symbol(name).address for name in ("schedule", "start_kernel", "init_task", "__per_cpu_start"))
    chosen.shuffle(addresses)
    return Intact(addresses, list(_links(prog)), frames)


def _links(prog: drgn.Program) -> Iterator[int]:
    """Words that lead from one member of a list or tree to the next."""
    found: list[drgn.Object] = []
    for task in for_each_task(prog):
        found += (task.tasks.next, task.thread_node.next, task.stack, task.mm, task.signal)
    for area in for_each_vmap_area(prog):
        found += (area.list.next, area.rb_node.rb_left, area.rb_node.rb_right, area.vm)
    for cache in for_each_slab_cache(prog):
        found += (cache.list.next, cache.name)
    for module in for_each_module(prog):
        found += (module.list.next, module.kallsyms, module.sect_attrs)
    for pfn in range(0, prog["max_pfn"].value_(), 64):
        page = pfn_to_page(prog, pfn)
        found += (page.lru.next, page.mapping)
    top = prog["init_mm"].pgd
    places = [each.address_ for each in found] + [top.value_() + 8 * number for number in range(512)]
    for place in places:
        with contextlib.suppress(drgn.FaultError):
            yield follow_phys(prog["init_mm"].address_of_(), place).value_()


def pages_gone(kernel: Kernel, intact: Intact, chosen: random.Random) -> None:
    """One page in twenty."""
    for pfn in chosen.sample(range(1, intact.frames), intact.frames // 20):
        unmap_physical(kernel, pfn * PAGE, PAGE)


def links_astray(kernel: Kernel, intact: Intact, chosen: random.Random) -> None:
    """One link in ten: to another's place, to nowhere, to what is no address."""
    base = kernel.prog["page_offset_base"].value_()
    for place in chosen.sample(intact.links, len(intact.links) // 10):
        other = base + chosen.choice(intact.links)
        value = chosen.choice((0, base + place, other, other + 1, 0xDEAD000000000100, 0x4141414141414141, 0x1000))
        patch_physical(kernel, place, value.to_bytes(8, "little"))


def words_wrong(kernel: Kernel, intact: Intact, chosen: random.Random) -> None:
    """Some thousand words, anywhere in RAM."""
    for pfn in chosen.sample(range(1, intact.frames), 4000):
        place = pfn * PAGE + 8 * chosen.randrange(PAGE // 8)
        patch_physical(kernel, place, chosen.choice((b"\0", b"\xff", b"A", chosen.randbytes(1))) * 8)


@contextlib.contextmanager
def bounded(what: str) -> Iterator[None]:
    """Fail a question that takes too long, rather than wait."""

    def late(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"{what} took more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("damage", [pages_gone, links_astray, words_wrong])
def test_nothing_fails_on_a_damaged_dump(
    dumps: DumpSet, intact: Intact, sampling: Sampling, damage: Callable[[Kernel, Intact, random.Random], None]
) -> None:
    opened = open_dump(dumps)
    damage(kernel_of(opened), intact, random.Random(sampling.seed))
    with bounded("the session"):
        session = session_of(opened)
    _ask(session, intact.addresses)


def _ask(session: Session, addresses: Sequence[int]) -> None:
    for address in addresses:
        with bounded(f"{address:#x}"):
            answer = session.resolver.where(address)
            assert TextRenderer().annotation(answer).startswith(f"{address:#018x}")
    for name, *words in COMMANDS:
        with bounded(name), contextlib.suppress(KplugError):
            outputs(session, name, *words)
