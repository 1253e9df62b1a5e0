"""The data types of a memory map. The tables are in each architecture's file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from kplug.frozen import Frozen, field, replace

TOP = 1 << 64

# Which half of the address space an area belongs to.
USER = "user"
KERNEL = "kernel"
NON_CANONICAL = "non-canonical"

# Names of areas that other code depends on.
DIRECT_MAP = "direct map"
VMALLOC = "vmalloc"
VMEMMAP = "vmemmap"
MODULES = "modules"
FIXMAP = "fixmap"
IMAGE_MAPPING = "kernel image mapping"  # x86_64; arm64 has the image in vmalloc
CPU_ENTRY_AREA = "cpu_entry_area"
IOREMAP = "ioremap"  # ppc64; elsewhere in vmalloc
LOWMEM = "lowmem"  # what the direct map is called where it does not hold all memory
# Of what is below PAGE_OFFSET, if that is assumed.
LOWER_PAGE_OFFSET: Mapping[str, str] = {"if": "PAGE_OFFSET is lower", "then": "the kernel's, from there on"}

# Enumerators of `enum fixed_addresses` that are bounds, not slots.
PERMANENT_SLOTS_END = "__end_of_permanent_fixed_addresses"
SLOTS_END = "__end_of_fixed_addresses"


class AddressSpaceFacts(Frozen):
    """What is known about one kernel, all of it optional: None is "not known", never "no".

    The comment of each field says where it can be read. "vmcoreinfo" is the note in a dump, its NUMBER(...) entries;
    "variable" is the value in memory of the kernel variable of that name.
    """

    # Any architecture.
    image_start: int | None = None  # link address of _text
    image_end: int | None = None  # link address of _end
    runtime_image_start: int | None = None  # image_start + the KASLR offset
    runtime_image_end: int | None = None  # if that is known although the link addresses are not
    has_randomize_base: bool | None = None  # CONFIG_RANDOMIZE_BASE; a KASLR offset that is not 0 is proof too
    kaslr_disabled: bool | None = None  # "nokaslr" on the command line (variable saved_command_line)
    kasan_shadow: bool | None = None  # KASAN with shadow memory: symbol kasan_early_shadow_page
    page_size: int | None = None  # vmcoreinfo PAGESIZE; arm64: swapper_pg_dir - reserved_pg_dir
    max_pfn: int | None = None  # variable max_pfn: one past the last page frame of RAM
    struct_page_size: int | None = None  # vmcoreinfo SIZE(page)
    fixed_addresses: tuple[tuple[str, int], ...] = ()  # the enumerators of enum fixed_addresses, from debug information
    refused: tuple[str, ...] = ()  # sentences: what was read and is impossible, or could not be read

    # x86_64.
    has_randomize_memory: bool | None = None  # CONFIG_RANDOMIZE_MEMORY: symbol kernel_randomize_memory
    has_vsyscall: bool | None = None  # CONFIG_X86_VSYSCALL_EMULATION: symbol map_vsyscall
    # vmcoreinfo; variable __pgtable_l5_enabled (no such symbol: the kernel cannot do 5 levels); CR4.LA57 (bit 12)
    pgtable_l5_enabled: bool | None = None
    page_offset_base: int | None = None  # variable
    vmalloc_base: int | None = None  # variable
    vmemmap_base: int | None = None  # variable
    direct_map_physmem_end: int | None = None  # variable; named physmem_end up to 6.12: last physical address
    kernel_image_size: int | None = None  # vmcoreinfo KERNEL_IMAGE_SIZE
    fixmap_start: int | None = None  # FIXADDR_TOP - (enumerator __end_of_permanent_fixed_addresses << 12)
    kmsan: bool | None = None  # symbol kmsan_init_runtime
    phys_base: int | None = None  # vmcoreinfo, variable: physical - virtual + __START_KERNEL_map; may be negative
    # (CPU, start) of each struct cpu_entry_area, and (name, offset, size) of its members, from debug information and
    # the per-CPU variable _cea_offset (6.2 and later, and backports; before, in the order of the CPUs)
    cpu_entry_areas: tuple[tuple[int, int], ...] = ()
    cpu_entry_area_size: int | None = None
    cpu_entry_area_members: tuple[tuple[str, int, int], ...] = ()

    # arm64.
    va_bits: int | None = None  # vmcoreinfo VA_BITS: the most that the kernel was built for
    vabits_actual: int | None = None  # variable up to 6.8; 64 - vmcoreinfo TCR_EL1_T1SZ
    has_early_init_stack: bool | None = None  # symbol early_init_stack: 6.9 and later
    modules_vaddr: int | None = None  # vmcoreinfo MODULES_VADDR; the next five likewise, from 6.1 on
    modules_end: int | None = None  # x86_64: only if it is below ffffffffff000000 (DEBUG_KMAP_LOCAL_FORCE_MAP)
    vmalloc_start: int | None = None
    vmalloc_end: int | None = None
    vmemmap_start: int | None = None
    vmemmap_end: int | None = None
    kernel_pac_mask: int | None = None  # vmcoreinfo KERNELPACMASK; 0: no pointer authentication
    kimage_voffset: int | None = None  # vmcoreinfo, variable: virtual - physical of the image
    phys_offset: int | None = None  # vmcoreinfo PHYS_OFFSET, variable memstart_addr: physical address of PAGE_OFFSET

    # arm, i386.
    high_memory: int | None = None  # variable: where lowmem ends
    has_highmem: bool | None = None  # CONFIG_HIGHMEM: symbol pkmap_page_table
    fixaddr_top: int | None = None  # variable __FIXADDR_TOP
    pae: bool | None = None  # CONFIG_X86_PAE: symbol initial_pg_pmd
    most_cpus: int | None = None  # NR_CPUS: the length of __per_cpu_offset, from debug information

    # ppc64.
    radix: bool | None = None  # vmcoreinfo RADIX_MMU
    is_server: bool | None = None  # CONFIG_PPC_BOOK3S_64: symbol __vmalloc_start

    # s390x.
    image_is_apart: bool | None = None  # the image is in no mapping of memory: symbol vm_layout, 6.10 and later
    identity_size: int | None = None  # vm_layout.identity_size
    vmemmap_size: int | None = None  # variable
    abs_lowcore: int | None = None  # variable __abs_lowcore
    memcpy_real_area: int | None = None  # variable __memcpy_real_area

    @property
    def runtime_image(self) -> tuple[int, int] | None:
        """The image's place in memory, if it is known."""
        if self.runtime_image_start is None:
            return None
        if self.runtime_image_end is not None:
            return self.runtime_image_start, self.runtime_image_end
        if self.image_start is None or self.image_end is None:
            return None
        return self.runtime_image_start, self.runtime_image_start + self.image_end - self.image_start


class Area(Frozen):
    """A range of the address space, `[start, end)`, that the architecture gives to one use.

    `source` says how it is known. `nominal`: the range is as compiled; the running kernel may have randomised it, and
    the new place is not known. `hole`: the architecture puts nothing here. `kind` is USER, KERNEL or NON_CANONICAL.
    `details` is JSON-ready: note, end_note, ram_end (direct map), also_called, compiled_start (if the base is a
    variable: its value without randomisation); and `if` and `then` if the area would be another one, should an unknown
    fact turn out to be true. `parts` are sorted and disjoint; they need not fill the area.
    """

    name: str
    start: int
    end: int
    source: str
    nominal: bool = False
    hole: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    kind: str = KERNEL
    parts: tuple[Area, ...] = ()

    def part_at(self, address: int) -> Area | None:
        """The part that holds the address."""
        low, high = 0, len(self.parts)
        while low < high:  # bisect takes a key only from Python 3.10 on
            middle = (low + high) // 2
            if self.parts[middle].start <= address:
                low = middle + 1
            else:
                high = middle
        return self.parts[low - 1] if low and address < self.parts[low - 1].end else None


class AddressSpace(Frozen):
    """The whole space of one kernel, of 64 or 32 bits, as areas: sorted, disjoint, without gaps.

    `warnings` are sentences about impossible facts that were not used.
    """

    machine: str
    areas: tuple[Area, ...]
    description: str = ""  # for the user: architecture and paging mode
    facts: AddressSpaceFacts = AddressSpaceFacts()
    fixmap_top: int | None = None  # FIXADDR_TOP: address of slot 0
    page_size: int | None = None
    warnings: tuple[str, ...] = ()

    # One is compared, and hashed, as the object that it is.
    __eq__ = object.__eq__
    __hash__ = object.__hash__
    __repr__ = object.__repr__

    @property
    def bits(self) -> int:
        """The bits of an address."""
        return self.areas[-1].end.bit_length() - 1

    def holds(self, address: int) -> bool:
        """Whether an address has no more bits than the machine's."""
        return address < self.areas[-1].end

    @cached_property
    def _beyond(self) -> Area:
        why = f"more than {self.bits} bits"
        return Area(f"no address: {why}", self.areas[-1].end, TOP, why, hole=True, kind=NON_CANONICAL)

    @cached_property
    def _starts(self) -> list[int]:
        return [area.start for area in self.areas]

    def area_at(self, address: int) -> Area:
        """The one area that holds `address` (0 <= address < 2**64); a hole, if it has more bits than the machine's."""
        if not 0 <= address < TOP:
            raise ValueError(f"not a 64-bit address: {address:#x}")
        return self.areas[bisect_right(self._starts, address) - 1] if self.holds(address) else self._beyond

    def parts_at(self, address: int) -> Iterator[Area]:
        """The parts of the area that hold `address`, widest first; in the fixmap, its slot."""
        part = self.area_at(address).part_at(address)
        while part is not None:
            yield self._slot(part, address) if "slot" in part.details else part
            part = part.part_at(address)

    def _slot(self, part: Area, address: int) -> Area:
        """The one page of a range of fixmap slots."""
        slot, size = self.fixmap_slot(address), self.page_size
        if slot is None or size is None or part.end - part.start == size:
            return part
        start = address // size * size
        first = part.details["slot"]
        name = part.details["first"] + (f"[{slot - first}]" if slot > first else "")
        return replace(part, name=name, start=start, end=start + size, details={"slot": slot, "range": part.name})

    def fixmap_slot(self, address: int) -> int | None:
        """The index in `enum fixed_addresses` of the fixmap page at `address`; None where it has none."""
        if self.fixmap_top is None or self.page_size is None or self.area_at(address).kind != KERNEL:
            return None
        slot = (self.fixmap_top - address // self.page_size * self.page_size) // self.page_size
        return slot if slot >= 0 and FIXMAP in self.area_at(address).name else None

    def is_canonical(self, address: int) -> bool:
        """Whether the hardware can translate the address at all, without removing a tag."""
        return self.area_at(address).kind != NON_CANONICAL

    def is_memory(self, address: int) -> bool:
        """Whether an address is in an area of memory alone: in vmalloc, say, it may be a device's."""
        return self.area_at(address).name in (DIRECT_MAP, IMAGE_MAPPING, MODULES)

    def is_user(self, address: int) -> bool:
        """Whether the address is canonical and in the half of user programs."""
        return self.area_at(address).kind == USER


def whole(claims: Sequence[Area], bits: int = 64) -> tuple[Area, ...]:
    """The whole space of `bits` from `claims`, the most certain first: where two overlap, the earlier keeps the bytes.

    Unclaimed ranges become holes named after their neighbours. Facts read from a broken dump can put a claim anywhere;
    the result always covers the space exactly once.
    """
    taken: list[Area] = []
    for claim in claims:
        taken.extend(_free_parts(claim, taken, 1 << bits))
        taken.sort(key=lambda area: area.start)
    return tuple(_with_holes(taken, 1 << bits))


def _free_parts(claim: Area, taken: Sequence[Area], top: int) -> list[Area]:
    """The parts of `claim` below `top` that lie in no area of `taken` (sorted)."""
    parts: list[Area] = []
    cursor, end = max(claim.start, 0), min(claim.end, top)
    for area in taken:
        if area.end <= cursor:
            continue
        if area.start >= end:
            break
        if area.start > cursor:
            parts.append(_clipped(claim, cursor, area.start))
        cursor = area.end
    if cursor < end:
        parts.append(_clipped(claim, cursor, end))
    return parts


def _clipped(area: Area, start: int, end: int) -> Area:
    parts = (_clipped(part, max(start, part.start), min(end, part.end)) for part in area.parts)
    return replace(area, start=start, end=end, parts=tuple(part for part in parts if part.start < part.end))


def _with_holes(areas: Sequence[Area], top: int) -> Iterable[Area]:
    cursor = 0
    below = "the bottom of the address space"
    for area in [*areas, None]:
        start = top if area is None else area.start
        if cursor < start:
            above = "the top of the address space" if area is None else _short(area.name)
            yield Area(f"hole between {below} and {above}", cursor, start, "no area of the layout is here", hole=True)
        if area is not None:
            yield area
            cursor, below = area.end, _short(area.name)


def fixmap_parts(facts: AddressSpaceFacts, top: int, page_size: int) -> tuple[Area, ...]:
    """The slots of `enum fixed_addresses`, sorted by address; those between the two names of a range as one part.

    Slot 0 is the page at `top`, and the others go down from there.
    """
    slots: dict[int, str] = {}
    for name, slot in facts.fixed_addresses:
        if not name.startswith("__"):
            slots.setdefault(slot, name)
    parts = []
    numbers = sorted(slots)
    ended = -1
    for number, following in zip(numbers, [*numbers[1:], -1]):
        if number <= ended:
            continue
        first, last, name = slots[number], number, slots[number]
        if following >= 0 and _stem(first) == _stem(slots[following]):
            last, name = following, f"{first} .. {slots[following]}"
        ended = last
        details = {"slot": number, "last_slot": last, "first": first}
        start, end = top - last * page_size, top - (number - 1) * page_size
        if start >= 0:
            parts.append(Area(name, start, end, "enum fixed_addresses", details=details))
    return tuple(reversed(parts))


def _stem(name: str) -> str:
    """The common stem of a slot range's two names: FIX_BTMAP_END .. FIX_BTMAP_BEGIN, FIX_FDT_END .. FIX_FDT."""
    for ending in ("_0", "_BEGIN", "_END"):
        if name.endswith(ending):
            return name[: -len(ending)]
    return name


def permanent_slots(facts: AddressSpaceFacts) -> int | None:
    """The number of slots of the fixmap that stay after boot; None if it is not known."""
    return dict(facts.fixed_addresses).get(PERMANENT_SLOTS_END)


def _short(name: str) -> str:
    """The name without the remark in brackets."""
    return name.partition(" (")[0]
