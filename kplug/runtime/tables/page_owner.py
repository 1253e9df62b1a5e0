"""Who allocated and freed a page: struct page_owner of mm/page_owner.c, with page_owner=on.

Each page has an entry in an array (mm/page_ext.c): struct page_ext, then what each of its users has, at an offset.
"""

from __future__ import annotations

from collections.abc import Sequence

import drgn

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.clock import since_boot_and_ago
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.nodes import online_nodes
from kplug.runtime.tables.stack_depot import stack_depot
from kplug.runtime.tables.struct_page import pages_of

BOOT_OPTION = "page_owner=on"
_NO_CONFIG = f"CONFIG_PAGE_OWNER=y and {BOOT_OPTION}"

_INVALID = 1  # PAGE_EXT_INVALID, of a section that goes offline
# Handles that stand for no stack: register_early_stack() and the like.
_NO_STACK = {
    "early_handle": "it was before page_owner recorded stacks",
    "failure_handle": "there was no memory for the stack",
    "dummy_handle": "page_owner itself, or the stack depot, called for memory",
}


class Event(NamedTuple):
    """An allocation, or a free. What this kernel does not record is None; so is a PID in `tgid` that is the same.

    `seconds`: since boot; `age`: before now. `no_stack`: why there is none, in words. `problem`: why it cannot be read.
    """

    pid: int | None
    tgid: int | None
    comm: str | None
    seconds: float | None
    age: float | None
    stack: Sequence[int]
    no_stack: str | None
    problem: str | None


class Owner(NamedTuple):
    """What is recorded of a page. A freed page keeps who allocated it last (5.4); `freed` of an allocated one was
    before."""

    is_allocated: bool
    order: int
    gfp: int
    allocated: Event
    freed: Event | None


class PageOwners:
    """Reads the records of a kernel that has them (`offset` is not 0). TargetError without the types."""

    def __init__(self, kernel: Kernel, offset: int) -> None:
        self._kernel = kernel
        self.memo = kernel.memo
        self._offset = offset
        with kernel.reading("page_owner's records"):
            prog = kernel.prog
            self._type = prog.type("struct page_owner")
            self._members = {member.name for member in self._type.members or ()}
            self._length: int = drgn.sizeof(self._type)
            self._flags: int = drgn.offsetof(prog.type("struct page_ext"), "flags")
            bits = {each.name: each.value for each in prog.type("enum page_ext_flags").enumerators or ()}
            self._owned = 1 << bits["PAGE_EXT_OWNER"]
            # "mm, page_owner: keep owner info when freeing the page" (5.4) called it PAGE_EXT_OWNER_ACTIVE. Before, a
            # freed page had no record.
            names = ("PAGE_EXT_OWNER_ALLOCATED", "PAGE_EXT_OWNER_ACTIVE", "PAGE_EXT_OWNER")
            self._allocated = 1 << next(bits[name] for name in names if name in bits)
            # Before 5556cfe8d994 (5.4) what comes after struct page_ext alone.
            places = [kernel.symbol(name) for name in ("page_ext_size", "extra_mem")]
            place = next((place for place in places if place is not None), None)
            if place is None:
                raise LookupError("neither page_ext_size nor extra_mem is known")
            head: int = 0 if places[0] is not None else drgn.sizeof(prog.type("struct page_ext"))
            self._size = head + kernel.read_word(place)
            handles = {name: kernel.symbol(name) for name in _NO_STACK}
            self._no_stack = {
                kernel.read_unsigned(place, 4): _NO_STACK[name] for name, place in handles.items() if place is not None
            }

    def read(self, pfn: int) -> Owner | None:
        """The record of a page; None if there is none. TargetError if it cannot be read, or is corrupted."""
        kernel, word = self._kernel, self._kernel.word
        entry = self._entry(pfn)
        if entry is None:
            return None
        try:
            flags = word.at(kernel.read(entry + self._flags, word.size), 0)
            data = kernel.read(entry + self._offset, self._length)
        except FaultError as error:
            raise TargetError(f"page_owner's record of page frame {pfn:#x} cannot be read: {error}") from None
        if not flags & self._owned:
            return None
        record = drgn.Object.from_bytes_(kernel.prog, self._type, data)
        order = record.order.value_()
        allocated = self._event(record, "", "handle")
        if order >= word.bits or allocated is None:
            raise TargetError(f"page_owner's record of page frame {pfn:#x} is corrupted")
        freed = self._event(record, "free_", "free_handle")
        is_allocated = bool(flags & self._allocated)
        return Owner(is_allocated, order, record.gfp_mask.value_(), allocated, freed)

    def _entry(self, pfn: int) -> int | None:
        """Where the struct page_ext of a page is."""
        base = self._base(pfn)
        return base + self._size * pfn & self._kernel.word.mask if base is not None else None

    def _base(self, pfn: int) -> int | None:
        """Where the entry of page frame 0 would be, if the array of a page went so far down."""
        prog, pages = self._kernel.prog, pages_of(self._kernel)
        section = pages.section(pfn) if pages is not None else None
        with self._kernel.reading("the page extensions"):
            if section is not None:  # CONFIG_SPARSEMEM: an array for each section
                value: int = helpers.nr_to_section(prog, section).page_ext.value_()
                return value if value and not value & _INVALID else None
            for node in online_nodes(prog):
                first: int = node.node_start_pfn.value_()
                if first <= pfn < first + node.node_spanned_pages.value_():
                    block = 1 << (node.node_zones[0].free_area.type_.length or 1) - 1  # MAX_ORDER_NR_PAGES
                    value = node.node_page_ext.value_()
                    return value - (first & -block) * self._size if value else None
        return None

    def _event(self, record: drgn.Object, prefix: str, handle_name: str) -> Event | None:
        """One of the two events of a record; None if it never was."""
        if handle_name not in self._members:
            return None
        handle = record.member_(handle_name).value_()
        if not handle and prefix:
            return None
        pid, tgid, when = (self._number(record, prefix + name) for name in ("pid", "tgid", "ts_nsec"))
        comm = None
        if not prefix and "comm" in self._members:
            comm = record.comm.string_().decode(errors="backslashreplace")
        stack: Sequence[int] = ()
        problem, no_stack = None, self._no_stack.get(handle)
        if handle and no_stack is None:
            try:
                stack = stack_depot(self._kernel).stack(handle)
            except TargetError as error:
                problem = str(error)
        seconds, age = since_boot_and_ago(self._kernel, when) if when is not None else (None, None)
        return Event(pid, tgid if tgid != pid else None, comm, seconds, age, stack, no_stack, problem)

    def _number(self, record: drgn.Object, name: str) -> int | None:
        value: int | None = record.member_(name).value_() if name in self._members else None
        return value


def would_record(kernel: Kernel) -> str | None:
    """What would record who allocates pages; None of a kernel that does."""
    if kernel.symbol("page_owner_ops") is None:
        return _NO_CONFIG
    return None if _offset(kernel) else BOOT_OPTION


@remembered(UNTIL_RESUMED)
def page_owners(kernel: Kernel) -> PageOwners | None:
    """The one PageOwners of a kernel; None of one that does not record. TargetError without the types."""
    offset = _offset(kernel)
    return PageOwners(kernel, offset) if offset else None


@remembered(UNTIL_RESUMED)
def _offset(kernel: Kernel) -> int:
    """Where struct page_owner is in an entry: after the flags. 0 if it is not there: this boot does not record."""
    place = kernel.symbol("page_owner_ops")
    if place is None:
        return 0
    with kernel.reading("whether page_owner records"):
        # Not by the variable: BTF has types alone.
        offset: int = drgn.Object(kernel.prog, "struct page_ext_operations", address=place).offset.value_()
        return offset
