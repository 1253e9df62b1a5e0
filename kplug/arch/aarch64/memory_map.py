"""The virtual memory map of arm64.

The map changed often. Which one a kernel has is found from the facts, never from its version: the link address of the
image gives the era and the smallest VA_BITS, and vmcoreinfo's own figures come before any table. The figures are those
of arch/arm64/include/asm/memory.h, pgtable.h and fixmap.h and of Documentation/arch/arm64/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

from kplug.arch.types.memory_map import (
    DIRECT_MAP,
    FIXMAP,
    MODULES,
    NON_CANONICAL,
    TOP,
    USER,
    VMALLOC,
    VMEMMAP,
    AddressSpace,
    AddressSpaceFacts,
    Area,
    fixmap_parts,
    permanent_slots,
    whole,
)
from kplug.frozen import replace
from kplug.named_tuples import NamedTuple

MACHINE = "aarch64"

_KIB, _MIB, _GIB = (1 << shift for shift in (10, 20, 30))
_STRUCT_PAGE = 64
_VA_BITS_MIN = (36, 39, 42, 47, 48)  # possible values of VA_BITS_MIN; 52-bit kernels have 48 (47 with 16 KiB pages)
_PAGE_SHIFTS = (12, 14, 16)
_IF_52 = "the CPU has 52-bit addresses"


class _Shape(NamedTuple):
    """The parameters that one kernel's constants are computed from."""

    va_bits: int
    va_min: int
    va_actual: int
    page_shift: int

    def linear_start(self) -> int:
        return TOP - (1 << self.va_bits)

    def page_end(self) -> int:
        """_PAGE_END(VA_BITS_MIN)."""
        return TOP - (1 << (self.va_min - 1))

    def vmemmap_size(self, span: int) -> int:
        return (span >> self.page_shift) * _STRUCT_PAGE

    def pud_size(self) -> int:
        per_table = self.page_shift - 3
        levels = -(-(self.va_bits - self.page_shift) // per_table)
        return 1 << (self.page_shift + per_table * (2 if levels > 2 else 1))


class _Upper(NamedTuple):
    """The areas above vmalloc."""

    vmalloc_end: int
    vmemmap: tuple[int, int]
    pci_io: tuple[int, int]
    fixmap_top: int


def _upper_4_19(shape: _Shape) -> _Upper:
    page_offset = TOP - (1 << (shape.va_bits - 1))
    size = shape.vmemmap_size(1 << (shape.va_bits - 1))
    start = page_offset - size
    pci_end = start - 2 * _MIB
    pci_start = pci_end - 16 * _MIB
    vmalloc_end = page_offset - shape.pud_size() - size - 64 * _KIB
    return _Upper(vmalloc_end, (start, page_offset), (pci_start, pci_end), pci_start - 2 * _MIB)


def _upper_5_4(shape: _Shape) -> _Upper:
    size = shape.vmemmap_size(1 << (shape.va_bits - 1))
    end = TOP - 2 * _MIB
    start = end - size
    pci_end = start - 2 * _MIB
    pci_start = pci_end - 16 * _MIB
    vmalloc_end = TOP - shape.pud_size() - size - 64 * _KIB
    return _Upper(vmalloc_end, (start, end), (pci_start, pci_end), pci_start - 2 * _MIB)


def _upper_5_15(shape: _Shape) -> _Upper:
    start = TOP - (1 << (shape.va_bits - (shape.page_shift - 6)))
    end = start + shape.vmemmap_size(shape.page_end() - shape.linear_start())
    pci_end = start - 8 * _MIB
    return _Upper(start - 256 * _MIB, (start, end), (pci_end - 16 * _MIB, pci_end), start - 32 * _MIB)


def _upper_6_9(shape: _Shape) -> _Upper:
    end = TOP - _GIB
    start = end - shape.vmemmap_size(shape.page_end() - shape.linear_start())
    # A 52-bit kernel on a 48-bit CPU gives vmalloc the part of vmemmap that it cannot use.
    start += shape.vmemmap_size(TOP - (1 << shape.va_actual) - shape.linear_start())
    pci_start = end + 8 * _MIB
    return _Upper(start - 8 * _MIB, (start, end), (pci_start, pci_start + 16 * _MIB), TOP - 8 * _MIB)


class _Era(NamedTuple):
    """A span of versions with one map. Offsets are from the bottom of the part that holds the modules."""

    name: str
    linear_above: bool  # the linear map is the top half of the kernel's addresses, not the bottom half
    bpf: int  # size of a BPF JIT area below the modules
    modules: int  # size of the modules' area
    text_offsets: tuple[int, ...]  # possible positions of _text in the image's area
    shadow_below: bool  # with KASAN, the shadow pushes the modules up
    upper: Callable[[_Shape], _Upper]
    early_init_stack: bool | None = None  # whether the symbol exists; None: not decisive


_ERAS = (
    _Era("4.19", True, 0, 128 * _MIB, (0x80000,), True, _upper_4_19),
    _Era("5.4-5.10", False, 128 * _MIB, 128 * _MIB, (0x80000, 0), True, _upper_5_4),
    _Era("5.11-5.14", False, 128 * _MIB, 128 * _MIB, (0,), False, _upper_5_15),
    _Era("5.15-6.1", False, 0, 128 * _MIB, (0,), False, _upper_5_15),
    _Era("6.5-6.8", False, 0, 2 * _GIB, (0,), False, _upper_5_15, early_init_stack=False),
    _Era("6.9 and later", False, 0, 2 * _GIB, (0,), False, _upper_6_9, early_init_stack=True),
)


class _Fit(NamedTuple):
    """An era and a VA_BITS_MIN that put the image where it is."""

    era: _Era
    va_min: int
    modules: int  # MODULES_VADDR
    shadow: int  # size of a KASAN shadow below the modules, 0 if none


def address_space(facts: AddressSpaceFacts) -> AddressSpace:
    """The map of an arm64 kernel."""
    reported, facts = facts, _possible(facts)
    fits = _fits(facts)
    shapes = _shapes(facts, fits)
    tops = {upper.fixmap_top for upper in _uppers(facts, shapes)}
    shifts = {shape.page_shift for _, shape in shapes}
    return AddressSpace(
        MACHINE,
        whole(list(_claims(facts, fits, shapes, _source(facts, fits)))),
        f"arm64, {_width_text(facts, fits)}",
        facts,
        fixmap_top=tops.pop() if len(tops) == 1 else None,
        page_size=1 << shifts.pop() if len(shifts) == 1 else facts.page_size,
        warnings=(*facts.refused, *_refused(reported, facts)),
    )


def _possible(facts: AddressSpaceFacts) -> AddressSpaceFacts:
    """The facts without those that are impossible on arm64."""
    bits = range(36, 53)
    va_bits = facts.va_bits if facts.va_bits in bits else None
    actual = facts.vabits_actual if facts.vabits_actual in bits else None
    if va_bits is not None and actual is not None and actual > va_bits:
        actual = None
    page_size = facts.page_size if facts.page_size in [1 << shift for shift in _PAGE_SHIFTS] else None
    return replace(facts, va_bits=va_bits, vabits_actual=actual, page_size=page_size)


def _refused(reported: AddressSpaceFacts, used: AddressSpaceFacts) -> Iterator[str]:
    """Which facts were not used, and why."""
    for name, value, kept in (
        ("VA_BITS", reported.va_bits, used.va_bits),
        ("vabits_actual", reported.vabits_actual, used.vabits_actual),
        ("PAGESIZE", reported.page_size, used.page_size),
    ):
        if value != kept:
            yield f"{name} is {value}, which is impossible on arm64: it is not used"
    for name, start, end in _reported_ranges(used):
        if start is not None and end is not None and not _possible_range(start, end):
            yield f"{name} is reported as {start:#x}-{end:#x}, not a range in the kernel's half: it is not used"


def _bottom(era: _Era, va_min: int) -> int:
    """The start of the part of the address space with the modules."""
    return TOP - (1 << va_min) if era.linear_above else TOP - (1 << (va_min - 1))


def _fits(facts: AddressSpaceFacts) -> list[_Fit]:
    """The eras that link the image at this address; one, except for eras that differ only further up."""
    if facts.image_start is None:
        return []
    return [
        _Fit(era, va_min, modules, shadow)
        for era in _ERAS
        if era.early_init_stack in (None, facts.has_early_init_stack) or facts.has_early_init_stack is None
        for va_min in _VA_BITS_MIN
        if facts.va_bits is None or va_min in _va_bits_min(facts.va_bits)
        for shadow in ((0, 1 << (va_min - 3), 1 << (va_min - 4)) if era.shadow_below else (0,))
        for modules in (_bottom(era, va_min) + shadow + era.bpf,)
        if facts.image_start - modules - era.modules in era.text_offsets
    ]


def _va_bits_min(va_bits: int) -> tuple[int, ...]:
    return (47, 48) if va_bits > 48 else (va_bits,)


def _shapes(facts: AddressSpaceFacts, fits: Sequence[_Fit]) -> list[tuple[_Fit, _Shape]]:
    """Every combination of parameters that the facts leave open."""
    return [
        (fit, _Shape(va_bits, fit.va_min, actual, shift))
        for fit in fits
        for va_bits in _possible_va_bits(facts, fit)
        for shift in _PAGE_SHIFTS
        if facts.page_size in (None, 1 << shift) and shift in _page_shifts(va_bits, fit.va_min)
        for actual in _possible_actual(facts, fit, va_bits)
    ]


def _possible_va_bits(facts: AddressSpaceFacts, fit: _Fit) -> tuple[int, ...]:
    if facts.va_bits is not None:
        return (facts.va_bits,)
    return (fit.va_min, 52) if fit.va_min >= 47 and not fit.era.linear_above else (fit.va_min,)


def _possible_actual(facts: AddressSpaceFacts, fit: _Fit, va_bits: int) -> tuple[int, ...]:
    if va_bits <= 48:
        return (va_bits,)
    return (fit.va_min, va_bits) if facts.vabits_actual is None else (facts.vabits_actual,)


# The page shifts that Kconfig offers for each VA_BITS (from arch/arm64/Kconfig).
_SHIFTS_OF = {36: (14,), 39: (12,), 42: (16,), 47: (14,), 48: (12, 14, 16)}


def _page_shifts(va_bits: int, va_min: int) -> tuple[int, ...]:
    if va_bits == 52:
        return (14,) if va_min == 47 else (12, 16)
    return _SHIFTS_OF.get(va_bits, ())


def _source(facts: AddressSpaceFacts, fits: Sequence[_Fit]) -> str:
    if not fits:
        why = "_text is not known" if facts.image_start is None else "_text is where no known layout has it"
        return f"arm64, layout not known ({why})"
    eras = " or ".join(dict.fromkeys(fit.era.name for fit in fits))
    bits = f"VA_BITS {facts.va_bits}" if facts.va_bits else f"VA_BITS_MIN {fits[0].va_min}"
    return f"arm64 layout of {eras}, {bits}, from the link address of _text"


def _width_text(facts: AddressSpaceFacts, fits: Sequence[_Fit]) -> str:
    sure, possible = _width(facts, fits)
    return f"{sure}-bit addresses" if sure == possible else f"{sure}-bit addresses (assumed)"


def _claims(
    facts: AddressSpaceFacts, fits: Sequence[_Fit], shapes: Sequence[tuple[_Fit, _Shape]], source: str
) -> Iterator[Area]:
    sure, possible = _width(facts, fits)
    high, low = 1 << sure, 1 << possible
    yield Area("user", 0, high, source, kind=USER)
    if possible > sure:
        yield Area(NON_CANONICAL, high, low, source, details={"if": _IF_52, "then": "user"}, kind=NON_CANONICAL)
        details = {"if": _IF_52, "then": DIRECT_MAP}
        yield Area(NON_CANONICAL, TOP - low, TOP - high, source, details=details, kind=NON_CANONICAL)
    yield Area(NON_CANONICAL, low, TOP - low, source, kind=NON_CANONICAL)
    yield from _told(facts)
    if not shapes:
        yield Area("kernel (layout not known)", TOP - high, TOP, source)
        return
    yield from _above_vmalloc(facts, shapes, source)
    yield from _modules_and_vmalloc(facts, shapes, source)
    yield from _linear(facts, fits[0], TOP - high, source)


def _width(facts: AddressSpaceFacts, fits: Sequence[_Fit]) -> tuple[int, int]:
    """Bits of an address: the certain number, and the possible one."""
    if facts.vabits_actual is not None and 36 <= facts.vabits_actual <= 52:
        return facts.vabits_actual, facts.vabits_actual
    if facts.va_bits is not None and 36 <= facts.va_bits <= 48:
        return facts.va_bits, facts.va_bits
    if fits:
        va_min = fits[0].va_min
        return va_min, 52 if va_min >= 47 and not fits[0].era.linear_above else va_min
    return 48, 52


def _told(facts: AddressSpaceFacts) -> Iterator[Area]:
    """The areas that vmcoreinfo states.

    On a 52-bit kernel on a 48-bit CPU, the end of vmalloc lies in the unused start of vmemmap: vmalloc comes first.
    """
    for name, start, end in _reported_ranges(facts):
        if start is not None and end is not None and _possible_range(start, end):
            nominal = name == MODULES and _image_may_move(facts)
            if name == VMEMMAP and facts.vmalloc_end is not None and start < facts.vmalloc_end < end:
                start = facts.vmalloc_end + 8 * _MIB
            yield Area(name, start, end, "vmcoreinfo", nominal, details=_NOTES.get(name, {}))


def _reported_ranges(facts: AddressSpaceFacts) -> tuple[tuple[str, int | None, int | None], ...]:
    return (
        (VMALLOC, facts.vmalloc_start, facts.vmalloc_end),
        (VMEMMAP, facts.vmemmap_start, facts.vmemmap_end),
        (MODULES, facts.modules_vaddr, facts.modules_end),
    )


def _possible_range(start: int, end: int) -> bool:
    return TOP - (1 << 52) <= start < end <= TOP


_NOTES = {
    VMALLOC: {"note": "holds the kernel image as well"},
    MODULES: {"note": "where modules go without KASLR; with it they are near the image, in vmalloc"},
    FIXMAP: {"note": "filled from the top down; FIXADDR_START depends on the configuration and is not known"},
}


def _image_may_move(facts: AddressSpaceFacts) -> bool:
    if facts.has_randomize_base is False or facts.kaslr_disabled:
        return False
    return facts.runtime_image_start is None or facts.runtime_image_start != facts.image_start


def _above_vmalloc(facts: AddressSpaceFacts, shapes: Sequence[tuple[_Fit, _Shape]], source: str) -> Iterator[Area]:
    """What all possible shapes agree on, and one area for the rest."""
    uppers = _uppers(facts, shapes)
    first = uppers[0]
    unsure = []
    if all(upper.vmemmap == first.vmemmap for upper in uppers):
        yield Area(VMEMMAP, *first.vmemmap, source)
    else:
        unsure.append(VMEMMAP)
    if all(upper.pci_io == first.pci_io for upper in uppers):
        yield Area("PCI I/O", *first.pci_io, source)
    else:
        unsure.append("PCI I/O")
    if all((upper.fixmap_top, _fixmap_floor(upper)) == (first.fixmap_top, _fixmap_floor(first)) for upper in uppers):
        yield _fixmap(facts, {shape.page_shift for _, shape in shapes}, first, source)
    else:
        unsure.append(FIXMAP)
    if unsure:
        listed = " or ".join([VMALLOC, *unsure])
        lowest = min(upper.vmalloc_end for upper in uppers)
        highest = max(max(upper.vmemmap[1], upper.pci_io[1], upper.fixmap_top) for upper in uppers)
        yield Area(f"{listed} (page size, VA_BITS or era not known)", lowest, highest, source)


def _fixmap(facts: AddressSpaceFacts, page_shifts: set[int], upper: _Upper, source: str) -> Area:
    floor, start, top = _fixmap_floor(upper), facts.fixmap_start, upper.fixmap_top
    parts: tuple[Area, ...] = ()
    if len(page_shifts) == 1:
        page_size = 1 << min(page_shifts)
        parts = fixmap_parts(facts, top, page_size)
        slots = permanent_slots(facts)
        if start is None and slots is not None:
            start = top - slots * page_size
    if start is not None and floor <= start < top:
        # The slots used early in boot lie below FIXADDR_START.
        return Area(FIXMAP, start, top, "FIXADDR_START", parts=parts)
    return Area(FIXMAP, floor, top, source, details=_NOTES[FIXMAP], parts=parts)


def _uppers(facts: AddressSpaceFacts, shapes: Sequence[tuple[_Fit, _Shape]]) -> list[_Upper]:
    """The possible areas above vmalloc; vmcoreinfo's VMALLOC_END selects the right ones."""
    uppers = [fit.era.upper(shape) for fit, shape in shapes]
    return [upper for upper in uppers if upper.vmalloc_end == facts.vmalloc_end] or uppers


def _fixmap_floor(upper: _Upper) -> int:
    """The end of the areas below the fixmap."""
    below = (upper.vmalloc_end, upper.vmemmap[1], upper.pci_io[1])
    return max(end for end in below if end <= upper.fixmap_top)


def _modules_and_vmalloc(
    facts: AddressSpaceFacts, shapes: Sequence[tuple[_Fit, _Shape]], source: str
) -> Iterator[Area]:
    fit = shapes[0][0]
    modules_end = fit.modules + fit.era.modules
    yield Area(MODULES, fit.modules, modules_end, source, _image_may_move(facts), details=_NOTES[MODULES])
    if fit.era.bpf:
        yield Area("BPF JIT", fit.modules - fit.era.bpf, fit.modules, source)
    vmalloc_end = min(upper.vmalloc_end for upper in _uppers(facts, shapes))
    yield Area(VMALLOC, modules_end, vmalloc_end, source, details=_NOTES[VMALLOC])


def _linear(facts: AddressSpaceFacts, fit: _Fit, bottom: int, source: str) -> Iterator[Area]:
    """The direct map (called linear map on arm64), and a KASAN shadow."""
    middle = TOP - (1 << (fit.va_min - 1))
    if fit.era.linear_above:
        yield Area(DIRECT_MAP, middle, TOP, source)
        if fit.shadow:
            yield Area("KASAN shadow", bottom, bottom + fit.shadow, source)
        return
    if fit.shadow:
        yield Area("KASAN shadow", middle, middle + fit.shadow, source)
    elif facts.kasan_shadow:
        # Generic KASAN has a byte for 8, tag-based KASAN one for 16; the facts do not say which one it is.
        yield Area("KASAN shadow or direct map", middle - ((TOP - bottom) >> 3), middle, source)
    details = {"also_called": "linear map"}
    if fit.era.shadow_below and TOP - bottom > 1 << 48:
        # Up to 5.10 it is half of the addresses in use; sources differ, so neither is claimed.
        half = TOP - ((TOP - bottom) >> 1)
        yield Area("direct map or the hole above it", half, middle, source)
    yield Area(DIRECT_MAP, bottom, middle, source, details=details)
