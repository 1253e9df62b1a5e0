"""Sparse memory: its sections, for each of which there are struct pages or none (include/linux/mmzone.h)."""

from __future__ import annotations

import drgn

# SECTION_HAS_MEM_MAP, 29751f6991e8 (2.6.13), where it is a macro.
_HAS_MEM_MAP = 1 << 1
# section_mem_map's flags: six at most up to 7.x.
_FLAGS = (1 << 6) - 1


def has_struct_pages(prog: drgn.Program, number: int) -> bool:
    """Whether the section with that number has struct pages. Errors are drgn's."""
    section = _section(prog, number)
    return section is not None and bool(section.section_mem_map.value_() & _flag(prog))


def first_struct_page(prog: drgn.Program) -> int | None:
    """The struct page of page frame 0, whether there is one or not; None where no section has struct pages.

    For SPARSEMEM_VMEMMAP, whose sections all have it: each has where its own struct pages are, less its first frame.
    """
    rows, in_row = prog["mem_section"], prog["SECTIONS_PER_ROOT"].value_()
    for row in range(prog["NR_SECTION_ROOTS"].value_() if not _is_null(rows) else 0):
        for place in range(in_row if not _is_null(rows[row]) else 0):
            coded: int = rows[row][place].section_mem_map.value_()
            if coded & _flag(prog):
                return coded & ~_FLAGS
    return None


def _section(prog: drgn.Program, number: int) -> drgn.Object | None:
    """The struct mem_section; None where nothing of it is there."""
    row, place = divmod(number, prog["SECTIONS_PER_ROOT"].value_())
    if row >= prog["NR_SECTION_ROOTS"].value_():
        return None
    # A pointer to rows since 4.15, an array of pointers to them before; without SPARSEMEM_EXTREME the rows themselves.
    rows = prog["mem_section"]
    if _is_null(rows) or _is_null(rows[row]):
        return None
    return rows[row][place]


def _is_null(rows: drgn.Object) -> bool:
    return rows.type_.unaliased_kind() == drgn.TypeKind.POINTER and not rows.value_()


def _flag(prog: drgn.Program) -> int:
    try:
        bit: int = prog["SECTION_HAS_MEM_MAP_BIT"].value_()  # ed7802dd48f7 (6.0)
    except LookupError:
        return _HAS_MEM_MAP
    return 1 << bit
