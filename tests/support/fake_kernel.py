"""A kernel in made-up memory, for the unit tests of what needs drgn: 2 MiB of RAM, types, an image, no debug file.

RAM is in the direct map; what else is mapped has real page tables. struct page has the layout of Linux 6.12
(include/linux/mm_types.h), without what no test asks of. The files beside this one add what one kind of question takes:
vmap areas, tasks, ... Each fake is planted first; `kernel` is made of it when it is first asked for.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property

import drgn

from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import moved_by
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.missing_parts import in_missing_parts
from support.elf_builder import FUNC, NOTYPE, OBJECT, SHT_NOBITS, A, Elf, Sec, Seg, Sym, W, X
from support.fake_machines import PAGE, X86_64, Machine

RAM, STRUCT_PAGE = 2 << 20, 64
PG_RESERVED, PG_HEAD = 1 << 11, 1 << 6
MAPCOUNT_NONE, PGTY_BUDDY, PGTY_TABLE, PGTY_SLAB = 0xFFFFFFFF, 0xF0000000, 0xF2000000, 0xF5000000
THREAD_SIZE, CPUS = 0x4000, 2

# The image, from _text on. It is at IMAGE in RAM; what `take` gives out is before it and behind it.
IMAGE, IMAGE_SIZE = 0x100000, 0x11000
RODATA, DATA, VARIABLES, TOP_TABLE, INIT_TASK, INIT_TEXT, PERCPU, INIT_END = (
    0x2000, 0x4000, 0x8000, 0xB000, 0xC000, 0xE000, 0xF000, 0x10000,
)  # fmt: skip
_FIRST_FREE, _BEHIND_IMAGE, _CPU_AREAS, CPU_AREA = 0x10000, 0x120000, 0x1E0000, 0x8000
_SECTIONS = (
    (".text", A | X, 0, RODATA),
    (".rodata", A, RODATA, DATA),
    (".data", A | W, DATA, INIT_TEXT),
    (".init.text", A | X, INIT_TEXT, PERCPU),
    (".data..percpu", A | W, PERCPU, INIT_END),
    (".bss", A | W, INIT_END, IMAGE_SIZE),
)
_SYMBOLS = (
    ("_text", 0, 0, ".text"), ("_stext", 0, 0, ".text"), ("start_kernel", 0x10, 0x20, ".text"),
    ("pcpu_get_vm_areas", 0x100, 0x80, ".text"), ("kernel_clone", 0x200, 0x440, ".text"),
    ("_etext", RODATA, 0, ".text"), ("__start_rodata", RODATA, 0, ".rodata"), ("__end_rodata", DATA, 0, ".rodata"),
    ("words", RODATA + 0x100, 0x40, ".rodata"), ("_sdata", DATA, 0, ".data"),
    ("__start_init_stack", DATA, 0, ".data"), ("init_stack", DATA, 0, ".data"),
    ("__end_init_stack", DATA + THREAD_SIZE, 0, ".data"), ("swapper_pg_dir", TOP_TABLE, PAGE, ".data"),
    ("_edata", INIT_TEXT, 0, ".data"), ("__init_begin", INIT_TEXT, 0, ".init.text"),
    ("_sinittext", INIT_TEXT, 0, ".init.text"), ("setup", INIT_TEXT + 0x100, 0x40, ".init.text"),
    ("_einittext", PERCPU, 0, ".init.text"), ("__per_cpu_start", PERCPU, 0, ".data..percpu"),
    ("__per_cpu_end", INIT_END, 0, ".data..percpu"), ("__init_end", INIT_END, 0, ".bss"),
    ("__bss_start", INIT_END, 0, ".bss"), ("__bss_stop", IMAGE_SIZE, 0, ".bss"), ("_end", IMAGE_SIZE, 0, ".bss"),
)  # fmt: skip
_NUMBERS = {
    "char": (1, True), "int": (4, True), "unsigned int": (4, False), "unsigned short": (2, False),
    "unsigned char": (1, False), "long": (8, True), "unsigned long": (8, False),
}  # fmt: skip


class FakeKernel:
    """All addresses are virtual ones but where a name says otherwise; `take` gives out memory of the direct map."""

    def __init__(self, machine: Machine = X86_64, *, sparse: bool = True) -> None:
        """`sparse`: with CONFIG_SPARSEMEM, RAM being one section; else RAM goes from page frame 0 on."""
        self.machine = machine
        self._sparse = sparse
        self.ram = bytearray(RAM)
        self.pages = bytearray(RAM // PAGE * STRUCT_PAGE)
        self.lost: dict[int, tuple[int, str]] = {}  # physical ranges that cannot be read: start, end, drgn's words
        self.missing: list[range] = []  # of physical memory, in parts of a split dump that are not there
        self._mapped: dict[int, int] = {}
        self._free = _FIRST_FREE
        self._types: dict[str, drgn.Type] = {}
        self._objects: dict[str, drgn.Object] = {}
        self._symbols: list[Sym] = []
        self._next_variable, self._next_percpu = VARIABLES, PERCPU + 0x40
        self.prog = drgn.Program(drgn.Platform(machine.architecture))
        self.prog.add_memory_segment(machine.ram, RAM, self._read_physical, True)
        self.prog.add_memory_segment(0xFFFF << 48, 1 << 48, self._read, False)
        self.prog.register_type_finder("fake", self._find_type, enable_index=0)
        self.prog.register_object_finder("fake", self._find_object, enable_index=0)
        self._basic_types()
        self._boot()

    def _boot(self) -> None:
        """What every kernel has: its direct map, struct pages, and some variables."""
        for pfn in range(RAM // PAGE):
            held = IMAGE <= pfn * PAGE < IMAGE + IMAGE_SIZE
            self.page(self.first_pfn + pfn, flags=PG_RESERVED if held else 0)
        machine = self.machine
        self.direct_table = self.take(PAGE)
        self._word_at(self._top_entry(machine.direct_map), machine.table_entry(self.physical(self.direct_table)))
        # The direct map is one large page.
        self.poke(self.direct_table, machine.page_entry(machine.ram, "rw-", True).to_bytes(8, "little"))
        for place in range(0, IMAGE_SIZE, PAGE):
            rights = "r-x" if place < RODATA or INIT_TEXT <= place < PERCPU else "r--" if place < DATA else "rw-"
            self.map(machine.image + place, self.image_physical + place, rights)
        page_type = self.prog.pointer_type(self._types["page"])
        page_zero = machine.vmemmap - self.first_pfn * STRUCT_PAGE
        self._objects["vmemmap"] = drgn.Object(self.prog, page_type, page_zero)
        self._objects["PAGE_SIZE"] = drgn.Object(self.prog, "unsigned long", PAGE)
        if self._sparse:
            self._sections()
        self.struct("cpumask", 8, bits=("unsigned long [1]", 0))
        for which in ("online", "possible", "present"):
            self.variable(f"__cpu_{which}_mask", "struct cpumask", (1 << CPUS) - 1)
        self.variable("nr_cpu_ids", "unsigned int", CPUS)
        self.variable("max_pfn", "unsigned long", self.first_pfn + RAM // PAGE)
        self.system_state = self.variable("system_state", "unsigned int", 3)
        offsets = self.variable("__per_cpu_offset", "unsigned long [64]", size=512)
        for cpu in range(CPUS):
            distance = self.cpu_area(cpu) - (machine.image + PERCPU)
            self.poke(offsets + 8 * cpu, struct.pack("<Q", distance % (1 << 64)))
        self.variable("early_init_stack", "unsigned long")
        # No module is loaded; include/linux/module.h.
        self.struct("module_memory", 16, base=("void *", 0), size=("unsigned int", 8))
        self.struct(
            "module", 256, state=("unsigned int", 0), list=("struct list_head", 8), name=("char [56]", 24),
            mem=("struct module_memory [7]", 80), percpu=("void *", 192), percpu_size=("unsigned int", 200),
            sect_attrs=("struct module_sect_attrs *", 208),
        )  # fmt: skip
        self.struct("module_sect_attrs", 16, nsections=("unsigned int", 0), attrs=("struct module_sect_attr [0]", 8))
        self.struct("module_sect_attr", 16, name=("char *", 0), address=("unsigned long", 8))
        self.enum("mod_mem_type", MOD_TEXT=0, MOD_DATA=1, MOD_RODATA=2)
        self.modules = self.variable("modules", "struct list_head")
        self.words(self.modules, self.modules, self.modules)

    def _sections(self) -> None:
        """SECTION_SIZE_BITS is 27 in both; here it is as much as RAM has. CONFIG_SPARSEMEM_EXTREME."""
        self.struct("mem_section", 32, section_mem_map=("unsigned long", 0), page_ext=("void *", 16))
        for name, value in (("SECTIONS_PER_ROOT", 128), ("NR_SECTION_ROOTS", 8)):
            self._objects[name] = drgn.Object(self.prog, "unsigned long", value)
        roots, sections = self.take(8 * 8), self.take(128 * 32)
        root, number = divmod(self.machine.ram // RAM, 128)
        self.words(roots + 8 * root, sections)
        self.words(sections + 32 * number, 3)  # SECTION_MARKED_PRESENT, SECTION_HAS_MEM_MAP
        self.variable("mem_section", "struct mem_section **", roots)

    # -- the kernel ----------------------------------------------------------------------------------------------------

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel as locators have it."""
        machine = self.machine
        image = machine.image - self.image_physical  # virtual less physical
        notes = [*machine.notes, "PAGESIZE=4096", f"KERNELOFFSET={machine.kaslr_offset:x}"]
        notes.append(f"NUMBER(kimage_voffset)={image:#x}")
        notes.append(f"NUMBER(phys_base)={0xFFFFFFFF80000000 - image}")
        notes += [f"NUMBER(SECTION_SIZE_BITS)={RAM.bit_length() - 1}"] if self._sparse else []
        notes.append(f"SYMBOL(swapper_pg_dir)={machine.image + TOP_TABLE:x}")
        elf = KernelImage(ElfFile("vmlinux", io.BytesIO(bytes(self._elf()))))
        placed = PlacedImage(elf, moved_by(elf.extents, machine.kaslr_offset, "a test"))
        is_missing = in_missing_parts(self.missing)
        return Kernel(self.prog, placed, vmcoreinfo=VmcoreInfo("\n".join(notes)), is_missing=is_missing)

    def _elf(self) -> Elf:
        linked = self.machine.linked
        sections = [
            Sec(name, SHT_NOBITS, flags, linked + start, size=end - start) for name, flags, start, end in _SECTIONS
        ]
        symbols = [
            Sym(name, linked + place, size, section, (FUNC if section == ".text" else OBJECT) if size else NOTYPE)
            for name, place, size, section in _SYMBOLS
        ]
        segments = [Seg(covers=(name,)) for name, *_ in _SECTIONS]
        return Elf(machine=self.machine.elf, sections=sections, segments=segments, symbols=symbols + self._symbols)

    # -- memory --------------------------------------------------------------------------------------------------------

    @property
    def first_pfn(self) -> int:
        """The page frame number of the first page of RAM."""
        return self.machine.ram // PAGE

    @property
    def image_physical(self) -> int:
        return self.machine.ram + IMAGE

    @property
    def ram_end(self) -> int:
        """The end of the direct map."""
        return self.machine.direct_map + RAM

    def take(self, size: int, align: int = 8) -> int:
        """Memory that nobody has yet, in the direct map; all zeros."""
        start = self._free + -self._free % max(align, PAGE if size >= PAGE else 8)
        if start < IMAGE < start + size:
            start = _BEHIND_IMAGE
        self._free = start + size
        assert self._free <= _CPU_AREAS
        return self.machine.direct_map + start

    def physical(self, address: int) -> int:
        """The physical address of an address of the direct map."""
        return address - self.machine.direct_map + self.machine.ram

    def pfn(self, address: int) -> int:
        return self.physical(address) // PAGE

    def poke(self, address: int, data: bytes) -> None:
        """Plant bytes, wherever they are mapped."""
        for place, at, count in self._pieces(address, len(data)):
            done = at - address
            self.ram[place : place + count] = data[done : done + count]

    def words(self, address: int, *values: int) -> None:
        """Plant 64-bit words."""
        self.poke(address, struct.pack(f"<{len(values)}Q", *(value % (1 << 64) for value in values)))

    def text(self, text: str) -> int:
        """A string, and where it is."""
        place = self.take(len(text) + 1)
        self.poke(place, text.encode() + b"\0")
        return place

    def lose(self, address: int, size: int, why: str = "not present") -> None:
        """Take memory of the direct map away: reads of it fail, with these words of drgn."""
        self.lost[self.physical(address)] = self.physical(address) + size, why

    def map(self, address: int, physical: int, rights: str = "rw-", root: int | None = None) -> None:
        """Map a page: in the kernel's own tables, or those with the top one at `root` (in the direct map)."""
        if root is None:
            self._mapped[address // PAGE] = physical
        entry = self._top_entry(address) if root is None else self._in_ram(root) + address // (1 << 39) % 512 * 8
        for shift in (30, 21, 12):
            table = int.from_bytes(self.ram[entry : entry + 8], "little") & 0xFFFFFFFFF000
            if not table:
                table = self.physical(self.take(PAGE))
                self._word_at(entry, self.machine.table_entry(table))
            entry = table - self.machine.ram + (address >> shift & 0x1FF) * 8
        self._word_at(entry, self.machine.page_entry(physical, rights, False))

    def unmap(self, address: int) -> None:
        """Take a page out of the kernel's tables."""
        physical = self._mapped.pop(address // PAGE)
        entry = self._top_entry(address)
        for shift in (30, 21, 12):
            table = int.from_bytes(self.ram[entry : entry + 8], "little") & 0xFFFFFFFFF000
            entry = table - self.machine.ram + (address >> shift & 0x1FF) * 8
        assert self.ram[entry : entry + 8] != bytes(8), hex(physical)
        self._word_at(entry, 0)

    def lose_pages(self, pfn: int) -> None:
        """Take the struct pages from a page frame on away."""
        del self.pages[(pfn - self.first_pfn) * STRUCT_PAGE :]

    def page(
        self,
        pfn: int,
        *,
        flags: int = 0,
        mapping: int = 0,
        mapcount: int = MAPCOUNT_NONE,
        refcount: int = 1,
        slab_cache: int = 0,
        private: int = 0,
        freelist: int = 0,
        counters: int = 0,
    ) -> None:
        """Plant a struct page, or what struct slab has in its place. `slab_cache` is a tail's link to its head, too."""
        words = (flags, slab_cache, 0, mapping, freelist, counters or private, mapcount | refcount << 32, 0)
        struct.pack_into("<8Q", self.pages, (pfn - self.first_pfn) * STRUCT_PAGE, *words)

    def struct_page(self, pfn: int) -> int:
        """Where the struct page of a page frame is."""
        return self.machine.vmemmap + (pfn - self.first_pfn) * STRUCT_PAGE

    def cpu_area(self, cpu: int) -> int:
        """Where a CPU has its per-CPU memory."""
        return self.machine.direct_map + _CPU_AREAS + cpu * CPU_AREA

    def _top_entry(self, address: int) -> int:
        return IMAGE + TOP_TABLE + self.machine.top_entry(address) * 8

    def _word_at(self, place: int, value: int) -> None:
        struct.pack_into("<Q", self.ram, place, value)

    def _in_ram(self, address: int) -> int:
        return self.physical(address) - self.machine.ram

    def _pieces(self, address: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Place in RAM, address and length of each page's part of what is to be read or written."""
        end = address + count
        while address < end:
            length = min(end, (address | PAGE - 1) + 1) - address
            if self.machine.direct_map <= address < self.ram_end:
                place = self._in_ram(address)
            elif address // PAGE in self._mapped:
                place = self._mapped[address // PAGE] - self.machine.ram + address % PAGE
            else:
                raise drgn.FaultError("not present", address)
            yield place, address, length
            address += length

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        first = self.machine.vmemmap
        if first <= address and address + count <= first + len(self.pages):
            return bytes(self.pages[address - first : address - first + count])
        data = b""
        for place, at, length in self._pieces(address, count):
            data += self._from_ram(place, length, at)
        return data

    def _read_physical(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return self._from_ram(offset, count, address)

    def _from_ram(self, place: int, count: int, address: int) -> bytes:
        physical = place + self.machine.ram
        if place < 0 or place + count > RAM:
            raise drgn.FaultError("not present", address)
        for start, (end, why) in self.lost.items():
            if physical < end and start < physical + count:
                raise drgn.FaultError(why, address)
        return bytes(self.ram[place : place + count])

    # -- types and variables -------------------------------------------------------------------------------------------

    def struct(self, tag: str, size: int, /, **members: tuple[str, int]) -> None:
        """Declare a structure: the type of each member, as C writes it, and its offset. Later ones replace it."""
        made = [
            drgn.TypeMember(lambda kind=kind: self.prog.type(kind), name, 8 * offset)
            for name, (kind, offset) in members.items()
        ]
        self._types[tag] = self.prog.struct_type(tag, size, made)

    def has(self, tag: str) -> bool:
        """Whether a type of that name is declared."""
        return tag in self._types

    def forget(self, name: str) -> None:
        """Take away what is declared by that name: a type, a variable and its symbol."""
        self._types.pop(name, None)
        self._objects.pop(name, None)
        self._symbols = [symbol for symbol in self._symbols if symbol.name != name]

    def enum(self, tag: str, **values: int) -> None:
        """Declare an enumeration; its enumerators are constants of the program."""
        made = [drgn.TypeEnumerator(name, value) for name, value in values.items()]
        kind = self._types[tag] = self.prog.enum_type(tag, self._types["unsigned int"], made)
        self._objects.update({name: drgn.Object(self.prog, kind, value) for name, value in values.items()})

    def put(self, tag: str, address: int, values: Mapping[str, int | bytes]) -> None:
        """Plant members of a structure, by their names as C writes them (`mnt.mnt_root`, `list[1].next`)."""
        whole = drgn.Object(self.prog, self.prog.type(f"struct {tag}"), address=address)
        for path, value in values.items():
            offset = drgn.offsetof(whole.type_, path)
            if isinstance(value, bytes):
                self.poke(address + offset, value)
                continue
            member = whole
            for name in path.replace("]", "").replace("[", ".").split("."):
                member = member[int(name)] if name.isdigit() else member.member_(name)
            size = drgn.sizeof(member)
            self.poke(address + offset, (value % (1 << 8 * size)).to_bytes(size, "little"))

    def make(self, tag: str, values: Mapping[str, int | bytes] | None = None) -> int:
        """A structure in memory that nobody has yet, and where it is."""
        place = self.take(drgn.sizeof(self.prog.type(f"struct {tag}")))
        self.put(tag, place, values or {})
        return place

    def variable(self, name: str, kind: str, value: int = 0, *, size: int | None = None, symbol: bool = True) -> int:
        """A variable of the image, and where it is; a later one of that name replaces it. `size` is for arrays of more
        elements than the type says."""
        size = size or drgn.sizeof(self.prog.type(kind))
        place = self._next_variable
        self._next_variable += size + -size % 8
        assert self._next_variable <= TOP_TABLE
        self.known(name, kind, self.machine.image + place, size if symbol else None)
        self.poke(self.machine.image + place, value.to_bytes(size, "little"))
        return self.machine.image + place

    def known(self, name: str, kind: str | None, address: int, size: int | None = 0) -> None:
        """Tell of a variable at an address of the image: its type, and the size of its symbol (None: it has none)."""
        if kind is not None:
            self._objects[name] = drgn.Object(self.prog, self.prog.type(kind), address=address)
        if size is not None:
            kept = [symbol for symbol in self._symbols if symbol.name != name]
            made = Sym(name, address - self.machine.kaslr_offset, size, ".data", OBJECT if size else NOTYPE)
            self._symbols = [*kept, made]

    def function(self, name: str, address: int) -> None:
        """Tell of a function of the debug information; what it does is nobody's business."""
        self._objects[name] = drgn.Object(
            self.prog, self.prog.function_type(self.prog.void_type(), ()), address=address
        )

    def percpu(self, name: str, kind: str) -> int:
        """A static per-CPU variable, and its offset in a CPU's area."""
        place, size = self._next_percpu, drgn.sizeof(self.prog.type(kind))
        self._next_percpu += size + -size % 8
        assert self._next_percpu <= INIT_END
        address = self.machine.image + place
        self._objects[name] = drgn.Object(self.prog, self.prog.type(kind), address=address)
        self._symbols.append(Sym(name, address - self.machine.kaslr_offset, size, ".data..percpu", OBJECT))
        return place - PERCPU

    def typedef(self, name: str, kind: str) -> None:
        self._types[name] = self.prog.typedef_type(name, self.prog.type(kind))

    def define(self, tag: str, kind: drgn.Type) -> None:
        """Declare a type that the other methods cannot make."""
        self._types[tag] = kind

    def _basic_types(self) -> None:
        prog = self.prog
        for name, (size, signed) in _NUMBERS.items():
            self._types[name] = prog.int_type(name, size, signed)
        self.struct("list_head", 16, next=("struct list_head *", 0), prev=("struct list_head *", 8))
        self.struct(
            "page", STRUCT_PAGE, flags=("unsigned long", 0), lru=("struct list_head", 8),
            compound_head=("unsigned long", 8), mapping=("void *", 24), private=("unsigned long", 40),
            _mapcount=("int", 48), _refcount=("int", 52),
        )  # fmt: skip
        self.struct("folio", 2 * STRUCT_PAGE, page=("struct page", 0), _flags_1=("unsigned long", STRUCT_PAGE))
        self.enum("pageflags", PG_locked=0, PG_head=6, PG_reserved=11, __NR_PAGEFLAGS=22)
        self.enum("pagetype", PGTY_buddy=0xF0, PGTY_table=0xF2, PGTY_slab=0xF5, PGTY_mapcount_underflow=0xFF)

    def _find_type(
        self, prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None
    ) -> drgn.Type | None:
        found = self._types.get(name)
        return found if found is not None and found.kind in kinds else None

    def _find_object(
        self, prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None
    ) -> drgn.Object | None:
        return self._objects.get(name)
