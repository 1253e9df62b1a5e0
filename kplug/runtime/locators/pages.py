"""The page of an address, from the kernel's struct page; or the page that a struct page describes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import drgn

from kplug.arch.types.memory_map import DIRECT_MAP, VMEMMAP
from kplug.errors import TargetError
from kplug.frozen import replace
from kplug.kinds import Kind, Role, name_and_offset, range_words, register
from kplug.memory.reading import FaultError, MissingPartError, TruncatedError
from kplug.model import Layer
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.pseudo_files import pseudo_name_of_inode
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.tracks import (
    ALLOCATED_BY,
    FREED_BY,
    PAGE_ALLOCATORS,
    first_outside,
    stack_words,
    track_lines,
)
from kplug.runtime.locators.vmap import backs_vmalloc
from kplug.runtime.tables.page_owner import Event, page_owners, would_record
from kplug.runtime.tables.struct_page import (
    ANON,
    FILE,
    FREE,
    KERNEL,
    LARGE_KMALLOC,
    MAPPING_BITS,
    PAGE_TABLE,
    RESERVED,
    SLAB,
    VMALLOC,
    Page,
    Pages,
    pages_of,
)
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.tables.zones import zone_of
from kplug.runtime.threads.user_space import UserSpace

SOURCE = "struct page"

_NAMES = {
    FREE: "free page",
    SLAB: "slab page",
    ANON: "anonymous page",
    FILE: "page-cache page",
    PAGE_TABLE: "page-table page",
    RESERVED: "reserved page",
    KERNEL: "kernel page",
    VMALLOC: "vmalloc page",
}

# Nothing else in the kernel says who has such a page, or had it.
_WITHOUT_OWNER = (FREE, KERNEL, LARGE_KMALLOC)


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = [layer.name]
    describes = details.get("describes")
    if describes:
        words[0] += f" ({describes})"
    if details.get("pfn") is not None:
        words += [_block_words(details), f"pfn {details['pfn']:#x}", f"physical {details['physical']}"]
    if details.get("zone") is not None:
        words.append(f"node {details['node']} zone {details['zone']}")
    if details.get("refcount") is not None:
        mapcount = "" if details.get("mapcount") is None else f", mapcount {details['mapcount']}"
        words.append(f"refcount {details['refcount']}{mapcount}")
    if details.get("free_list") not in (None, "buddy"):
        words.append(f"on a {details['free_list']}")
    if "in_dump" in details:
        words.append(_absence_words(details))
    flags = details.get("flags") or ""
    words.append(f"the block's flags {flags}" if flags and details.get("tail") else flags)
    words += [details.get("path") or "", range_words(layer) if describes else ""]
    return "  ".join(filter(None, words)), bool(describes)


def _block_words(details: Mapping[str, Any]) -> str:
    """Which part of its block a page is; nothing of the first, and of one that is in no block."""
    if not details.get("tail"):
        return ""
    if details["state"] == FREE:
        return f"page {details['tail']} of the free block at pfn {details['head']:#x}"
    return f"tail {details['tail']} of the block at pfn {details['head']:#x}"


def _absence_words(details: Mapping[str, Any]) -> str:
    if details["in_dump"] is None:
        return "all zeros, or excluded from the dump"
    if details.get("missing_part"):
        return "in a part of the split dump that is missing"
    return "the dump is truncated or incomplete there" if details.get("truncated") else "excluded from the dump"


def _phrase(layer: Layer, offset: int) -> str:
    details = layer.details
    describes, block = details.get("describes"), _block_words(details)
    if describes:
        # A pointer to a member is fine; one between members is not from a compiler.
        words = [describes, block, "misaligned" if offset % 4 else ""]
        return f"{layer.name}+{offset:#x} ({', '.join(filter(None, words))})"
    if details.get("in_ram") is False:
        return f"pfn {details['pfn']:#x}+{offset:#x} ({layer.name})"
    return f"{name_and_offset(layer, offset)}{f' ({block})' if block else ''}"


KIND = register(
    Kind(
        "page",
        700,
        {
            "pfn": "",
            "physical": "",
            "node": "",
            "zone": "(`Normal`, ...; both `null` where not certain)",
            "struct_page": "",
            "flags": "(of the block's first page, if this is a tail)",
            "refcount": "",
            "mapcount": "",
            "state": "(`free`, `slab`, `anon`, `file`, `pagetable`, `vmalloc`, `reserved`, `kernel`, ...; `null` where"
            " not certain)",
            "order": "",
            "head": "(of a block)",
            "tail": "(which page of the block it is; absent of the first)",
            "free_list": "(`buddy`, `per-CPU list`)",
            "inode": "",
            "device": "",
            "path": "(of a file's page)",
            "in_dump": "(`false`: the dump does not contain the page; `null`: it was excluded, or is a page of zeros:"
            " such dumps do not distinguish these)",
            "truncated": "(the dump is truncated, or incomplete, where it would have the page)",
            "missing_part": "(the page is in a part of a split dump that is missing)",
            "describes": "(the layer is a struct page: what the page is that it describes)",
            "recorded_as": "(`allocated`, `freed`: what page_owner says; absent where it has no record)",
            "allocated_by": "",
            "freed_by": "(by page_owner: `pid`, `tgid` if another, `comm`, `order` and `gfp` of the allocation,"
            " `seconds` since boot, `age` in seconds, `caller` of the allocator, `stack`, and `no_stack` where there is"
            " none: why)",
            "record_with": "(what would record who allocates and frees, of a free page or one of the kernel's own)",
            "in_ram": "(`false`: no RAM has this page frame, so there is no struct page)",
        },
        words=_words,
        more=track_lines,
        role=Role.PAGE,
        phrase=_phrase,
        object_type=lambda layer: "struct page" if layer.details.get("describes") else None,
    )
)


class PageLocator:
    """The page of an address, whatever maps it; the page that a struct page in vmemmap describes.

    `user` is the program that user addresses belong to, None if it is not known.
    """

    def __init__(self, kernel: Kernel, user: UserSpace | None = None) -> None:
        self._kernel = kernel
        self._user = user

    def locate(self, address: int) -> Iterable[Layer]:
        problems: list[str] = []
        yield from self._layers(address, problems)
        if problems:
            raise TargetError("; ".join(problems))

    def _layers(self, address: int, problems: list[str]) -> Iterable[Layer]:
        """`problems` gets what could not be read, and why."""
        pages, tables = pages_of(self._kernel), page_tables(self._kernel)
        paging = tables.paging
        if pages is None or paging is None:
            return
        if paging.is_user(address):
            root = self._user.root(address) if self._user is not None else None
            found = tables.translate(address, root) if root is not None else None
            if found is not None and pages.exists(found.physical >> paging.page_shift):
                page = pages.page(found.physical >> paging.page_shift)
                start = address & -paging.page_size
                yield self._layer(page, start, start + paging.page_size, page_name(page), problems)
            return
        described = pages.described(address)
        if described is not None:
            page = pages.page(described)
            start = pages.base + described * pages.size
            layer = self._layer(page, start, start + pages.size, f"struct page of pfn {described:#x}", problems)
            yield replace(layer, details={**layer.details, "describes": page_name(page)})
            return
        linear = tables.linear_physical(address)
        area = _area_name(self._kernel, address) if linear is None else None
        if area == VMEMMAP and address >= pages.base:
            pfn = (address - pages.base) // pages.size
            start = pages.base + pfn * pages.size
            layer = self._absent(pages, pfn, start, start + pages.size)
            yield replace(
                layer, name=f"struct page of pfn {pfn:#x}", details={**layer.details, "describes": layer.name}
            )
            return
        physical = linear if linear is not None else tables.physical(address)
        if physical is None and area == DIRECT_MAP and paging.direct_offset is not None:
            physical = address - paging.direct_offset  # beyond RAM, where nothing need be mapped
        if physical is None or physical < 0:
            return
        if not pages.exists(physical >> paging.page_shift):
            start = address & -paging.page_size
            yield self._absent(pages, physical >> paging.page_shift, start, start + paging.page_size)
            return
        page = pages.page(physical >> paging.page_shift)
        if page.state == KERNEL and backs_vmalloc(self._kernel, page.pfn, address if linear is None else None):
            page = replace(page, state=VMALLOC)
        start = address & -paging.page_size
        yield self._layer(page, start, start + paging.page_size, page_name(page), problems)

    def _layer(self, page: Page, start: int, end: int, name: str, problems: list[str]) -> Layer:
        paging = page_tables(self._kernel).paging
        pages = pages_of(self._kernel)
        assert paging is not None
        assert pages is not None
        physical, zone = page.pfn << paging.page_shift, zone_of(self._kernel, page.pfn)
        details: dict[str, Any] = {
            "pfn": page.pfn,
            "physical": hex(physical),
            "node": zone.node if zone is not None else None,
            "zone": zone.name if zone is not None else None,
            "flags": pages.flag_text(page.flags),
            "refcount": page.refcount,
            "mapcount": page.mapcount,
            "state": page.state,
            "struct_page": hex(page.address),
        }
        if page.order or page.head != page.pfn:
            details["order"], details["head"] = page.order or None, page.head
        if page.head != page.pfn:
            details["tail"] = page.pfn - page.head
        if page.free_list is not None:
            details["free_list"] = page.free_list
        if page.state == FILE:
            details.update(self._file(page.mapping))
        details.update(self._absence(physical))
        details.update(self._owner(page, problems))
        return Layer(KIND.name, name, start, end, SOURCE, details)

    def _absent(self, pages: Pages, pfn: int, start: int, end: int) -> Layer:
        """What a page frame without a struct page is."""
        paging, limit = page_tables(self._kernel).paging, pages.max_pfn
        assert paging is not None
        name = "no RAM" if limit is None or pfn < limit else f"beyond RAM, which ends at pfn {limit:#x}"
        details = {"pfn": pfn, "physical": hex(pfn << paging.page_shift), "state": None, "in_ram": False}
        return Layer(KIND.name, name, start, end, SOURCE, details)

    def _absence(self, physical: int) -> dict[str, Any]:
        """What the details say of a page that the dump does not contain; nothing of one that it has."""
        if self._kernel.live:
            return {}
        try:
            self._kernel.read_physical(physical, 1)
        except TruncatedError:
            return {"in_dump": False, "truncated": True}
        except MissingPartError:
            return {"in_dump": False, "missing_part": True}
        except FaultError:
            return {"in_dump": False}
        return {"in_dump": None} if self._kernel.is_zero_filled(physical) else {}

    def _owner(self, page: Page, problems: list[str]) -> dict[str, Any]:
        """Who allocated and freed a page, where page_owner recorded it."""
        kernel = self._kernel
        try:
            owners = page_owners(kernel)
            if owners is None:
                missing = would_record(kernel) if page.state in _WITHOUT_OWNER else None
                return {"record_with": missing} if missing is not None else {}
            owner = owners.read(page.pfn) if page.state != RESERVED else None
        except TargetError as error:
            problems.append(f"who allocated the page is not known: {error}")
            return {}
        if owner is None:
            return {}
        allocated = {**self._event(owner.allocated, problems), "order": owner.order, "gfp": hex(owner.gfp)}
        freed = self._event(owner.freed, problems) if owner.freed is not None else None
        recorded_as = "allocated" if owner.is_allocated else "freed"
        return {"recorded_as": recorded_as, ALLOCATED_BY: allocated, FREED_BY: freed}

    def _event(self, event: Event, problems: list[str]) -> dict[str, Any]:
        stack = stack_words(self._kernel, event.stack)
        if event.problem is not None:
            problems.append(event.problem)
        return {
            "pid": event.pid,
            "tgid": event.tgid,
            "comm": event.comm,
            "cpu": None,
            "seconds": event.seconds,
            "age": event.age,
            "caller": first_outside(stack, PAGE_ALLOCATORS),
            "stack": stack,
            **({"no_stack": event.no_stack} if event.no_stack is not None else {}),
        }

    def _file(self, mapping: int) -> dict[str, Any]:
        """The inode that a page-cache page belongs to, its file system's name, and its path there, if any."""
        details: dict[str, Any] = {"inode": None, "device": None, "path": None}
        prog = self._kernel.prog
        # What was read before an error is kept.
        with suppress(TargetError), self._kernel.reading("the file of a page"):
            inode = drgn.Object(prog, "struct address_space *", mapping & ~MAPPING_BITS).host
            details["inode"] = inode.i_ino.value_()
            details["device"] = inode.i_sb.s_id.string_().decode(errors="backslashreplace")
            path = helpers.inode_path(inode)
            if path is not None and not path.strip(b"/"):
                path = pseudo_name_of_inode(self._kernel, inode) or path
            details["path"] = f"/{path.decode(errors='backslashreplace').lstrip('/')}" if path is not None else None
        return details


def _area_name(kernel: Kernel, address: int) -> str | None:
    space = space_of(kernel)
    return space.area_at(address).name if space is not None else None


def page_name(page: Page) -> str:
    """What a page is, in words."""
    return _NAMES.get(page.state or "", f"{page.state} page" if page.state else "page")


locates(KIND, PageLocator)
