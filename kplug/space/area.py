"""What a map of an address space is made of. Data, no tables: those are in the file of each architecture."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

TOP = 1 << 64

# Which half of the address space an area belongs to.
USER = "user"
KERNEL = "kernel"
NON_CANONICAL = "non-canonical"

# Area names that other parts go by.
DIRECT_MAP = "direct map"
VMALLOC = "vmalloc"
VMEMMAP = "vmemmap"
MODULES = "modules"
FIXMAP = "fixmap"
IMAGE_MAPPING = "kernel image mapping"  # x86_64; arm64 has the image in vmalloc


@dataclass(frozen=True)
class Facts:
    """What is known of one kernel, all of it optional: None is "not known", never "no".

    The comment of each field says where it can be read. "vmcoreinfo" is the note in a dump, its NUMBER(...) entries;
    "variable" is the value in memory of the kernel variable of that name.
    """

    # Any architecture.
    image_start: int | None = None  # link address of _text
    image_end: int | None = None  # link address of _end
    runtime_image_start: int | None = None  # image_start + slide
    has_randomize_base: bool | None = None  # CONFIG_RANDOMIZE_BASE; a slide that is not 0 is proof too
    kaslr_disabled: bool | None = None  # "nokaslr" on the command line (variable saved_command_line)
    kasan_shadow: bool | None = None  # KASAN with shadow memory: symbol kasan_early_shadow_page
    page_size: int | None = None  # vmcoreinfo PAGESIZE; arm64: swapper_pg_dir - reserved_pg_dir
    max_pfn: int | None = None  # variable max_pfn: one past the last page frame of RAM

    # x86_64.
    has_randomize_memory: bool | None = None  # CONFIG_RANDOMIZE_MEMORY: symbol kernel_randomize_memory
    # vmcoreinfo; variable __pgtable_l5_enabled (no such symbol: the kernel cannot do 5 levels); CR4.LA57 (bit 12)
    pgtable_l5_enabled: bool | None = None
    page_offset_base: int | None = None  # variable
    vmalloc_base: int | None = None  # variable
    vmemmap_base: int | None = None  # variable
    direct_map_physmem_end: int | None = None  # variable; named physmem_end up to 6.12: last physical address
    kernel_image_size: int | None = None  # vmcoreinfo KERNEL_IMAGE_SIZE
    fixmap_start: int | None = None  # FIXADDR_TOP - (enumerator __end_of_permanent_fixed_addresses << 12)
    kmsan: bool | None = None  # symbol kmsan_init_runtime

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

    @property
    def runtime_image(self) -> tuple[int, int] | None:
        """Where the image is in memory, if that is known."""
        if self.runtime_image_start is None or self.image_start is None or self.image_end is None:
            return None
        return self.runtime_image_start, self.runtime_image_start + self.image_end - self.image_start


@dataclass(frozen=True)
class Area:
    """A range of the address space, `[start, end)`, that the architecture gives to one use.

    `source` says how it is known. `nominal`: the range is as compiled; the running kernel may have randomised it, and
    nothing told where. `hole`: the architecture puts nothing here. `kind` is USER, KERNEL or NON_CANONICAL. `details`
    is JSON-ready: note, end_note, ram_end (direct map), also_called; and `if` and `then` where the area would be
    another one if a fact that is not known turned out so.
    """

    name: str
    start: int
    end: int
    source: str
    nominal: bool = False
    hole: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    kind: str = KERNEL


@dataclass(frozen=True, eq=False, repr=False)
class AddressSpace:
    """The whole 64-bit space of one kernel as areas: sorted, disjoint, without a gap."""

    machine: str
    areas: tuple[Area, ...]
    description: str = ""  # for people: architecture and paging mode
    facts: Facts = Facts()
    fixmap_top: int | None = None  # FIXADDR_TOP: address of slot 0
    page_size: int | None = None

    @cached_property
    def _starts(self) -> list[int]:
        return [area.start for area in self.areas]

    def area_at(self, address: int) -> Area:
        """The one area that holds `address` (0 <= address < 2**64)."""
        if not 0 <= address < TOP:
            raise ValueError(f"not a 64-bit address: {address:#x}")
        return self.areas[bisect_right(self._starts, address) - 1]

    def fixmap_slot(self, address: int) -> int | None:
        """The index in `enum fixed_addresses` of the fixmap page at `address`; None where it has none."""
        if self.fixmap_top is None or self.page_size is None or self.area_at(address).kind != KERNEL:
            return None
        slot = (self.fixmap_top - address // self.page_size * self.page_size) // self.page_size
        return slot if slot >= 0 and FIXMAP in self.area_at(address).name else None

    def is_canonical(self, address: int) -> bool:
        """Whether the hardware can translate the address at all, with no tag taken off."""
        return self.area_at(address).kind != NON_CANONICAL

    def is_kernel(self, address: int) -> bool:
        """Whether the address is canonical and in the kernel's half."""
        return self.area_at(address).kind == KERNEL

    def is_user(self, address: int) -> bool:
        """Whether the address is canonical and in the half of user programs."""
        return self.area_at(address).kind == USER


def whole(claims: Sequence[Area]) -> tuple[Area, ...]:
    """The whole 64-bit space from `claims`, the surest first: where two overlap, the earlier keeps the bytes.

    What nobody claims becomes holes named after their neighbours. Facts read from a broken dump can put a claim
    anywhere; the result covers the space once whatever they say.
    """
    taken: list[Area] = []
    for claim in claims:
        taken.extend(_free_parts(claim, taken))
        taken.sort(key=lambda area: area.start)
    return tuple(_with_holes(taken))


def _free_parts(claim: Area, taken: Sequence[Area]) -> list[Area]:
    """The parts of `claim` that lie in no area of `taken` (sorted)."""
    parts: list[Area] = []
    cursor, end = max(claim.start, 0), min(claim.end, TOP)
    for area in taken:
        if area.end <= cursor:
            continue
        if area.start >= end:
            break
        if area.start > cursor:
            parts.append(replace(claim, start=cursor, end=area.start))
        cursor = area.end
    if cursor < end:
        parts.append(replace(claim, start=cursor, end=end))
    return parts


def _with_holes(areas: Sequence[Area]) -> Iterable[Area]:
    cursor = 0
    below = "the bottom of the address space"
    for area in [*areas, None]:
        start = TOP if area is None else area.start
        if cursor < start:
            above = "the top of the address space" if area is None else _short(area.name)
            yield Area(f"hole between {below} and {above}", cursor, start, "no area of the layout is here", hole=True)
        if area is not None:
            yield area
            cursor, below = area.end, _short(area.name)


def _short(name: str) -> str:
    """The name without the remark in brackets."""
    return name.partition(" (")[0]
