"""Pages that are page tables: their level and owner."""

from __future__ import annotations

from collections.abc import Iterable

import drgn

from kplug.arch.registry import named
from kplug.errors import TargetError
from kplug.kinds import Kind, before_range, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import try_read
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import owned_address
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.tasks import Task, tasks_of
from kplug.runtime.tables import struct_page
from kplug.runtime.tables.struct_page import pages_of
from kplug.runtime.tables.translation import PageTables, page_tables

# The limit on the kernel's tables, and on those of all programs. Tables beyond it stay without an owner.
_MAX_TABLES = 1 << 14

# Levels by the kernel's names, from the lowest; the top one is always the pgd.
_LEVELS = ("pte", "pmd", "pud", "p4d")


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    first = "" if details["level"] == "pgd" else f"  maps from {details['maps_from']}"
    return before_range(f"{layer.name}  mm {details['mm']}{first}", layer), True


KIND = register(
    Kind(
        "pagetable",
        940,
        {
            "level": "(`pte` to `pgd`)",
            "mm": "",
            "pid": "",
            "comm": "",
            "maps_from": "(the first address that it maps)",
            "isolated": "(the top table for user mode under page-table isolation)",
        },
        words=_words,
        label="table",
    )
)


class _Table(NamedTuple):
    """A page table: its level, the first address it maps, and its mm_struct (None: the kernel's own) and task.

    `isolated`: the top table that the CPU uses in user mode under page-table isolation, without the kernel's half.
    """

    level: int
    first: int
    task: Task | None
    isolated: bool = False


class TablePageLocator:
    """The page table in a page of the direct map, of the image, or in memory that the image freed."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.memo = kernel.memo

    def locate(self, address: int) -> Iterable[Layer]:
        kernel, tables = self._kernel, page_tables(self._kernel)
        pages, paging = pages_of(kernel), tables.paging
        place = owned_address(kernel, address)
        if place is None and tables.in_image(address):
            place = address  # swapper_pg_dir and the other tables in the image
        physical = tables.linear_physical(place) if place is not None else None
        if pages is None or paging is None or physical is None or not pages.exists(physical >> paging.page_shift):
            return
        page = pages.page(physical >> paging.page_shift)
        # The kernel's own tables are not marked as page tables; a marked page may belong to any program.
        # The second page of a block that is no compound page has no state. arm64's programs have short top tables,
        # which are slab objects (pgd_cache).
        if page.state not in (struct_page.PAGE_TABLE, struct_page.RESERVED, struct_page.KERNEL, struct_page.SLAB, None):
            return
        size = paging.page_size
        if page.state == struct_page.SLAB:
            size = paging.tables(0, True).top_entries * paging.entry_size
        start = physical & -size
        table = self._kernels_own().get(start)
        if table is None and page.state != struct_page.RESERVED:
            table = self._programs().get(start)
        if table is None:
            return
        levels = paging.tables(0, False).levels
        level = "pgd" if table.level == levels - 1 else _LEVELS[table.level]
        task = table.task
        details = {
            "level": level,
            "mm": "init_mm" if task is None else hex(task.mm),
            "pid": task.pid if task is not None else None,
            "comm": task.comm if task is not None else None,
            "maps_from": hex(table.first),
        }
        name = f"{level} table of {'the kernel' if task is None else task.name}"
        if table.isolated:
            name += " for user mode"
            details["isolated"] = True
        first = address & -size
        yield Layer(KIND.name, name, first, first + size, "page tables", details)

    @remembered(UNTIL_RESUMED)
    def _kernels_own(self) -> dict[int, _Table]:
        """The kernel's tables by physical address."""
        tables = page_tables(self._kernel)
        paging = tables.paging
        if paging is None or paging.root is None:
            return {}
        top = paging.tables(paging.root, False)
        # One table for both halves, or a separate one for the kernel.
        first = top.top_entries // 2 if named(self._kernel.machine).shared_top_table else 0
        upper = paging.first_address(self._kernel.word.mask)
        found: dict[int, _Table] = {}
        _collect(found, tables, paging.root, first, top.top_entries, upper, None)
        return found

    @remembered(UNTIL_RESUMED)
    def _programs(self) -> dict[int, _Table]:
        """The tables of programs' halves by physical address, with one task for each mm."""
        tables = page_tables(self._kernel)
        paging = tables.paging
        found: dict[int, _Table] = {}
        if paging is None:
            return found
        entries = paging.tables(0, True).top_entries
        last = entries // 2 if named(self._kernel.machine).shared_top_table else entries
        leaders: dict[int, Task] = {}
        for task in sorted(tasks_of(self._kernel).tasks, key=lambda task: task.pid):
            if task.mm:
                leaders.setdefault(task.mm, task)
        for mm, task in leaders.items():
            root = user_root(self._kernel, mm)
            if root is not None:
                _collect(found, tables, root, 0, last, 0, task)
                isolated = self._isolated(root, last)
                if isolated is not None and len(found) < _MAX_TABLES:
                    found.setdefault(isolated, _Table(paging.tables(0, True).levels - 1, 0, task, True))
        return found

    def _isolated(self, root: int, last: int) -> int | None:
        """The top table of user mode that goes with a program's, if it has one."""
        tables, user_root = page_tables(self._kernel), named(self._kernel.machine).user_root
        paging = tables.paging
        if user_root is None or paging is None:
            return None
        shift = paging.shift(paging.tables(0, True).levels - 1)
        data = try_read(self._kernel.read_physical, root, last * paging.entry_size)
        entries = self._kernel.word.numbers(data or b"", paging.entry_size)
        slot = next((number for number, entry in enumerate(entries) if entry), None)
        if slot is None:
            return None
        try:
            found = user_root(root, slot << shift, paging.address_bits, paging.page_size, tables.entry)
        except TargetError:
            return None
        return found if found != root else None


def user_root(kernel: Kernel, mm: int) -> int | None:
    """The physical address of the top page table of an mm_struct; None if it cannot be read."""
    try:
        with kernel.reading(f"the memory at {mm:#x}"):
            pgd: int = drgn.Object(kernel.prog, "struct mm_struct *", mm).pgd.value_()
    except TargetError:
        return None
    return page_tables(kernel).linear_physical(pgd)


def _collect(
    found: dict[int, _Table], tables: PageTables, root: int, first: int, last: int, upper: int, task: Task | None
) -> None:
    for physical, level, place in tables.tables_from(root, first, last):
        if len(found) >= _MAX_TABLES:
            return
        found.setdefault(physical, _Table(level, upper | place if physical != root else upper, task))


locates(KIND, lambda kernel, user: TablePageLocator(kernel))
