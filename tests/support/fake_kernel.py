"""A kernel in made-up memory, for the unit tests of what needs drgn: a few bytes, a handful of types, no debug file.

The types have the layout of Linux 6.12 on x86_64 (include/linux/mm_types.h, mm/slab.h), without what no test asks of.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import drgn

from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel.kernel import Kernel

DIRECT_MAP = 0xFFFF888000000000
VMEMMAP = 0xFFFFEA0000000000
RAM = 1 << 20
TOP_TABLE, DIRECT_TABLE, ONLINE_MASK = 0x1000, 0x2000, 0x3000  # physical
PG_RESERVED, PG_HEAD = 1 << 11, 1 << 6
PRESENT, WRITE, LARGE, NO_EXECUTE = 1, 2, 1 << 7, 1 << 63
MAPCOUNT_NONE, PGTY_BUDDY, PGTY_TABLE, PGTY_SLAB = 0xFFFFFFFF, 0xF0000000, 0xF2000000, 0xF5000000
PAGE_SIZE, STRUCT_PAGE_SIZE = 4096, 64


class FakeKernel:
    """1 MiB of RAM that the direct map shows, page tables with that map, and struct pages. Tests plant the rest."""

    def __init__(self, *, lost: Mapping[int, int] | None = None) -> None:
        """`lost` are physical ranges that cannot be read, as start and end."""
        self.ram = bytearray(RAM)
        self.pages = bytearray(RAM // PAGE_SIZE * STRUCT_PAGE_SIZE)
        self.lost = dict(lost or {})
        for pfn in range(RAM // PAGE_SIZE):
            self.page(pfn)
        self.word(TOP_TABLE + 273 * 8, DIRECT_TABLE | PRESENT | WRITE)
        self.word(DIRECT_TABLE, 0 | PRESENT | WRITE | LARGE | NO_EXECUTE)
        self.word(ONLINE_MASK, 1)
        prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        prog.add_memory_segment(0, RAM, self._read_ram, True)
        prog.add_memory_segment(DIRECT_MAP, RAM, self._read_direct_map, False)
        prog.add_memory_segment(VMEMMAP, len(self.pages), self._read_pages, False)
        self._types = _types(prog)
        self._objects = {
            "vmemmap": drgn.Object(prog, prog.pointer_type(self._types["page"]), VMEMMAP),
            "nr_cpu_ids": drgn.Object(prog, self._types["int"], 1),
            "__cpu_online_mask": drgn.Object(prog, self._types["cpumask"], address=DIRECT_MAP + ONLINE_MASK),
        }
        prog.register_type_finder("fake", self._find_type, enable_index=0)
        prog.register_object_finder("fake", self._find_object, enable_index=0)
        root = 0xFFFFFFFF80000000 + TOP_TABLE
        note = f"NUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\nSYMBOL(swapper_pg_dir)={root:x}"
        self.kernel = Kernel(prog, None, vmcoreinfo=VmcoreInfo(note))

    def word(self, physical: int, value: int) -> None:
        """Plant a 64-bit word of RAM."""
        struct.pack_into("<Q", self.ram, physical, value)

    def page(
        self,
        pfn: int,
        *,
        flags: int = 0,
        mapping: int = 0,
        mapcount: int = MAPCOUNT_NONE,
        refcount: int = 1,
        slab_cache: int = 0,
        freelist: int = 0,
        counters: int = 0,
    ) -> None:
        """Plant a struct page, or what struct slab has in its place."""
        words = (flags, slab_cache, 0, mapping, freelist, counters, mapcount | refcount << 32, 0)
        struct.pack_into("<8Q", self.pages, pfn * STRUCT_PAGE_SIZE, *words)

    def _read_ram(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        for start, end in self.lost.items():
            if offset < end and start < offset + count:
                raise drgn.FaultError("not present", address)
        return bytes(self.ram[offset : offset + count])

    _read_direct_map = _read_ram

    def _read_pages(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return bytes(self.pages[offset : offset + count])

    def _find_type(
        self, prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None
    ) -> drgn.Type | None:
        found = self._types.get(name)
        return found if found is not None and found.kind in kinds else None

    def _find_object(
        self, prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None
    ) -> drgn.Object | None:
        return self._objects.get(name)


def _types(prog: drgn.Program) -> dict[str, drgn.Type]:
    """By tag or name."""
    word, signed = prog.int_type("unsigned long", 8, False), prog.int_type("int", 4, True)
    unsigned, char = prog.int_type("unsigned int", 4, False), prog.int_type("char", 1, True)

    def structure(tag: str, length: int, /, **members: tuple[drgn.Type, int]) -> drgn.Type:
        made = [drgn.TypeMember(kind, name, 8 * offset) for name, (kind, offset) in members.items()]
        return prog.struct_type(tag, length, made)

    def enumeration(tag: str, **values: int) -> drgn.Type:
        return prog.enum_type(tag, unsigned, [drgn.TypeEnumerator(name, value) for name, value in values.items()])

    pointer = prog.pointer_type(prog.void_type())
    links = structure("list_head", 16, next=(pointer, 0), prev=(pointer, 8))
    named = [
        links,
        structure(
            "page",
            STRUCT_PAGE_SIZE,
            flags=(word, 0),
            lru=(links, 8),
            compound_head=(word, 8),
            mapping=(pointer, 24),
            private=(word, 40),
            _mapcount=(signed, 48),
            _refcount=(signed, 52),
        ),
        structure("slab", 64, slab_cache=(pointer, 8), freelist=(pointer, 32), counters=(word, 40)),
        structure(
            "kmem_cache",
            64,
            name=(prog.pointer_type(char), 0),
            size=(unsigned, 8),
            object_size=(unsigned, 12),
            offset=(unsigned, 16),
            refcount=(signed, 20),
            red_left_pad=(unsigned, 24),
            random=(word, 32),
        ),
        structure("cpumask", 8, bits=(prog.array_type(word, 1), 0)),
        enumeration("pageflags", PG_locked=0, PG_head=6, PG_reserved=11, __NR_PAGEFLAGS=22),
        enumeration("pagetype", PGTY_buddy=0xF0, PGTY_table=0xF2, PGTY_slab=0xF5, PGTY_mapcount_underflow=0xFF),
    ]
    return {"int": signed, "unsigned long": word, **{kind.tag: kind for kind in named if kind.tag}}
