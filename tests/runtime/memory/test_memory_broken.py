"""Memory that lies, or is not there: what could not be read is said, and the rest of the answer stands.

Dumps are real ones with some bytes replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import drgn
import pytest
from drgn.helpers.linux.mm import compound_head, pfn_to_page, virt_to_page
from drgn.helpers.linux.pid import find_task
from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object
from support.open_dumps import kernel_in
from support.patched import patch, unmap

from kplug import model
from kplug.arch.registry import named
from kplug.lifetimes import Memo
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.model import Annotation, Layer
from kplug.render.text import TextRenderer
from kplug.resolver import Resolver
from kplug.runtime.kernel.facts import facts_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.address_state import MemoryState
from kplug.runtime.locators.registry import locators
from kplug.runtime.locators.vmap import vmap_areas
from kplug.runtime.modules.images import images_of
from kplug.runtime.tables.translation import page_tables
from kplug.summary import summarize

if TYPE_CHECKING:
    from vmimages import DumpSet

real_dump = [pytest.mark.kernel, pytest.mark.boot]


@pytest.fixture(scope="module")
def shared(dumps: DumpSet) -> Kernel:
    """For tests that put back what they changed."""
    return kernel_in(dumps)


def where(kernel: Kernel, address: int) -> Annotation:
    return Resolver(images_of(kernel), locators=locators(kernel), states=MemoryState(kernel)).where(address)


def layer(annotation: Annotation, kind: str) -> Layer:
    found = annotation.last(kind)
    assert found is not None, annotation
    return found


def symbol(kernel: Kernel, name: str) -> int:
    address = kernel.symbol(name)
    assert address is not None
    return address


class Changed:
    """Bytes of memory, replaced until the end of the block."""

    def __init__(self, kernel: Kernel, address: int, data: bytes) -> None:
        self._kernel, self._address, self._data = kernel, address, data

    def __enter__(self) -> None:
        self._before = self._kernel.read(self._address, len(self._data))
        patch(self._kernel, self._address, self._data)

    def __exit__(self, *_: object) -> None:
        patch(self._kernel, self._address, self._before)


def word(number: int) -> bytes:
    return number.to_bytes(8, "little")


class TestLists:
    pytestmark = real_dump

    def third(self, kernel: Kernel) -> int:
        """The address of the third element on a list of vmap areas, that of its `list` member."""
        prog = kernel.prog
        try:
            head = prog["vmap_area_list"].address_of_()
        except KeyError:
            head = prog["vmap_nodes"][0].busy.head.address_of_()
        place: int = head.next.next.next.value_()
        return place

    def test_a_list_of_areas_that_loops(self, shared: Kernel) -> None:
        place = self.third(shared)
        with Changed(shared, place, word(place)):
            areas = vmap_areas(shared)
            assert areas.problem == f"the list of vmap areas loops at {place:#x}"
            assert areas.areas
            found = where(shared, areas.areas[0].start)
            assert layer(found, "vmap").start == areas.areas[0].start  # what was read before stands
            missing = facts_of(shared).vmalloc_base
            assert missing is not None
            answer = where(shared, missing + (1 << 40))
            assert f"the list of vmap areas loops at {place:#x}" in answer.warnings
            assert answer.last(model.GAP) is None  # a hole is only one if all areas are known
            assert answer.state.mapped is False
        assert vmap_areas(shared).problem is None

    @pytest.mark.parametrize("pointer", [0x10, 0xFFFF800000000000, 0x4141414141414141, (1 << 64) - 8])
    def test_a_list_of_areas_that_points_nowhere(self, shared: Kernel, pointer: int) -> None:
        with Changed(shared, self.third(shared), word(pointer)):
            problem = vmap_areas(shared).problem
            assert problem is not None
            assert problem.startswith("the list of vmap areas could not be read at 0x")
            stack = find_task(shared.prog, 1).stack.value_()
            answer = where(shared, stack + 0x3000)
            assert answer.state.permissions == "rw-"
            assert layer(answer, "stack").details["pid"] == 1

    def test_per_cpu_lists_of_free_pages_that_loop(self, shared: Kernel) -> None:
        frames = range(0x100, shared.prog["max_pfn"].value_())
        free = next(frame for frame in frames if _is_free_per_cpu(shared, frame))
        entry = pfn_to_page(shared.prog, free).lru.next
        with Changed(shared, entry.address_, word(entry.address_)):
            answer = where(shared, _direct(shared, free))
            assert layer(answer, "page").details["pfn"] == free


def _direct(kernel: Kernel, frame: int) -> int:
    base: int = kernel.prog["page_offset_base"].value_()
    return base + frame * 4096


def _is_free_per_cpu(kernel: Kernel, frame: int) -> bool:
    from kplug.runtime.tables.struct_page import pages_of

    pages = pages_of(kernel)
    assert pages is not None
    return pages.page(frame).free_list == "per-CPU list"


class TestSlabs:
    pytestmark = real_dump

    def free_object(self, kernel: Kernel) -> tuple[drgn.Object, int, int]:
        """A cache, a free object on its slab's own list, and where its link to the next is."""
        for name in ("vm_area_struct", "filp", "anon_vma", "inode_cache", "dentry", "task_struct", "kmalloc-512"):
            cache = find_slab_cache(kernel.prog, name)
            assert cache is not None
            for address in slab_cache_for_each_allocated_object(cache, "void"):
                slab = drgn.cast("struct slab *", compound_head(virt_to_page(kernel.prog, address)))
                if slab.freelist:
                    first = slab.freelist.value_()
                    return cache, first, first + cache.offset.value_()
        raise AssertionError("no slab with a free object")

    def test_a_freelist_that_leads_out_of_its_slab(self, shared: Kernel) -> None:
        cache, free, link = self.free_object(shared)
        assert layer(where(shared, free), "slab").details["state"] == "free"
        with Changed(shared, link, b"A" * 8):
            answer = where(shared, free + 8)
            details = layer(answer, "slab").details
            assert (details["object"], details["state"]) == (hex(free), "corrupted")
            name = cache.name.string_().decode()
            assert str(summarize(answer)).startswith(f"corrupted slab object {name}+0x8")

    def test_a_cache_that_makes_no_sense(self, shared: Kernel) -> None:
        cache, free, _ = self.free_object(shared)
        with Changed(shared, cache.size.address_, b"\0\0\0\0"):
            answer = where(shared, free)
            assert any("slab cache" in warning and "corrupted" in warning for warning in answer.warnings)
            assert layer(answer, "page").details["state"] == "slab"

    def test_a_page_whose_head_is_nowhere(self, shared: Kernel) -> None:
        task = find_task(shared.prog, 1).value_()
        page = next(
            candidate
            for candidate in (virt_to_page(shared.prog, task & -4096) + step for step in range(8))
            if compound_head(candidate) != candidate
        )
        with Changed(shared, page.compound_head.address_, word(0x1235)):
            frame = (page.value_() - pfn_to_page(shared.prog, 0).value_()) // 64
            answer = where(shared, _direct(shared, frame))
            assert any("its head is said to be at 0x1234" in warning for warning in answer.warnings)
            assert answer.state.mapped is True


class TestTasks:
    pytestmark = real_dump

    def test_a_hostile_name(self, shared: Kernel) -> None:
        """A task names itself as it likes; nothing of it reaches a terminal as an escape."""
        task = find_task(shared.prog, 1)
        with Changed(shared, task.comm.address_, b"\x1b[31m\xff\n\x07evil\0"):
            answer = where(shared, task.stack.value_() + 8)
            assert layer(answer, "stack").details["comm"] == "\x1b[31m\\xff\n\x07evil"
            text = TextRenderer().annotation(answer)
            assert "\x1b" not in text
            assert "\x07" not in text
            assert len(text.splitlines()) == len(answer.layers) + 2

    def test_a_name_without_an_end(self, shared: Kernel) -> None:
        task = find_task(shared.prog, 1)
        with Changed(shared, task.comm.address_, b"x" * 16):
            assert layer(where(shared, task.value_()), "task").details["comm"] == "x" * 16


class TestBoot:
    pytestmark = real_dump

    def test_memory_that_is_not_set_up_yet(self, shared: Kernel) -> None:
        """Very early in boot a struct page that is not reserved does not mean that its page was freed."""
        address = symbol(shared, "setup_arch")
        assert where(shared, address).state.freed is True
        with Changed(shared, symbol(shared, "system_state"), bytes(4)):
            assert where(shared, address).state.freed is None
            assert where(shared, symbol(shared, "jiffies")).state.freed is False


class TestAbsent:
    pytestmark = real_dump

    @pytest.fixture
    def kernel(self, dumps: DumpSet) -> Kernel:
        return kernel_in(dumps)

    def test_a_page_table_that_is_not_in_the_dump(self, kernel: Kernel) -> None:
        """Not known, and said; never "not mapped"."""
        address = symbol(kernel, "schedule")
        before = where(kernel, address)
        assert before.state.mapped is True
        unmap(kernel, symbol(kernel, "level2_kernel_pgt"), 4096)
        answer = where(kernel, address)
        assert (answer.state.mapped, answer.state.permissions, answer.state.freed) == (None, None, False)
        # Whatever else of the image's data is needed cannot be read through that table either.
        assert any(warning.startswith("the page table entry at physical 0x") for warning in answer.warnings)
        told = [layer for layer in before.layers if layer.kind in (model.SECTION, model.REGION, model.SYMBOL)]
        assert [layer for layer in answer.layers if layer.kind in (model.SECTION, model.REGION, model.SYMBOL)] == told
        assert answer.last("alias") == before.last("alias")
        text = TextRenderer().annotation(answer)
        assert "not mapped" not in text
        assert "  state    not freed" in text

    def test_struct_pages_that_are_not_in_the_dump(self, kernel: Kernel) -> None:
        """Whether init memory was freed is then not known; it is still said what was linked there."""
        address = symbol(kernel, "setup_arch")
        frame = page_tables(kernel).physical(address)
        assert frame is not None
        page = pfn_to_page(kernel.prog, frame // 4096).value_()
        unmap(kernel, page & -4096, 4096)
        answer = where(kernel, address)
        assert answer.state.freed is None
        assert answer.state.mapped is True
        assert layer(answer, model.SYMBOL).name == "setup_arch"
        assert any(f"struct page of page frame {frame // 4096:#x}" in warning for warning in answer.warnings)

    def test_a_page_that_is_not_in_the_dump(self, kernel: Kernel) -> None:
        address = symbol(kernel, "jiffies") & -4096
        unmap(kernel, address, 4096)
        answer = where(kernel, address)
        found = layer(answer, "page")
        assert found.details["in_dump"] is False
        assert found.name == "reserved page"
        assert answer.state.mapped is True


@pytest.mark.kernel
@pytest.mark.boot
@pytest.mark.parametrize("name", ["amd64-6.1", "amd64-6.12"])
def test_a_dump_without_free_and_user_pages(name: str) -> None:
    """makedumpfile -d 31: what was left out is known from its struct page, and that it was left out is said."""
    from vmimages import dumps

    found = dumps(name, ("makedumpfile-zlib-d31",), quiet=True)
    kernel = kernel_in(found, "makedumpfile-zlib-d31")
    states = set()
    for frame in range(0x100, kernel.prog["max_pfn"].value_(), 101):
        answer = where(kernel, _direct(kernel, frame))
        details = layer(answer, "page").details
        states.add((details["state"], details.get("in_dump", True)))
        assert answer.state.mapped is True
    assert {("free", False), ("file", False), ("reserved", True), ("slab", True)} <= states
    answer = where(kernel, symbol(kernel, "setup_arch"))
    assert answer.state.freed is True
    assert answer.state.mapped is True


def test_the_state_of_a_kernel_on_arm64() -> None:
    """Where arm64's tables and linear map are, by VMCOREINFO; the walk itself: tests/unit/arch/test_page_tables.py."""

    class Fake:
        machine = "aarch64"
        image = None
        has_types = False
        vmcoreinfo = VmcoreInfo(
            "PAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffff800082000000\nNUMBER(VA_BITS)=48\nNUMBER(TCR_EL1_T1SZ)=0x10\n"
            "NUMBER(kimage_voffset)=0xffff800040000000\nNUMBER(PHYS_OFFSET)=0x40000000\n"
        )

        def __init__(self) -> None:
            self.memo = Memo()
            self.prog = drgn.Program()
            self.word = named("aarch64").word()

        def symbol(self, name: str) -> int | None:
            return None

        def read_physical(self, address: int, size: int) -> bytes:
            # Two tables, and in the second a block of 1 GiB that is not executable.
            return word({0x42000800: 0x42001003, 0x42001000: 0x60000040000701}.get(address, 0))

    kernel: Kernel = Fake()  # type: ignore[assignment]
    tables = page_tables(kernel)
    assert tables.direct_address(0x40001234) == 0xFFFF000000001234
    assert tables.linear_physical(0xFFFF000000001234) == 0x40001234
    state = MemoryState(kernel).state(0xFFFF800000123456)
    assert (state.mapped, state.permissions, state.page_size) == (True, "rw-", 1 << 30)
    assert tables.physical(0xFFFF800000123456) == 0x40123456
    assert MemoryState(kernel).state(0xFFFF900000123456).mapped is False
    assert MemoryState(kernel).state(0x0000000000400000).mapped is None  # whose user address?
