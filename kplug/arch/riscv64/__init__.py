"""riscv64: 64-bit RISC-V.

The memory map is that of Documentation/arch/riscv/vm-layout.rst and arch/riscv/include/asm/pgtable.h and fixmap.h, the
same since the image left the direct map (5.13). The kernel chooses the number of page-table levels, and with it the
place of everything below the image, when it boots (arch/riscv/mm/init.c, set_satp_mode()): it is not in the vmlinux.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kplug.arch.types.boundaries import BoundaryRows, row
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import (
    DIRECT_MAP,
    FIXMAP,
    IMAGE_MAPPING,
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
    whole,
)
from kplug.arch.types.page_tables import Paging, PagingSources, Tables
from kplug.arch.types.record import Architecture, ElfMachine, ElfWords, KaslrWindow, Names, VectorTable
from kplug.arch.types.registers import Registers
from kplug.model import RODATA, TEXT
from kplug.named_tuples import NamedTuple

# RISC-V ELF psABI, "Program Property".
ELF_WORDS = ElfWords(
    mapping_symbols=True,
    properties={0xC0000000: ("RISC-V feature", ("CFI_LP_UNLABELED", "CFI_SS", "CFI_LP_FUNC_SIG"))},
)

_SCRIPT = "arch/riscv/kernel/vmlinux.lds.S"


def boundaries() -> BoundaryRows:
    return {
        "text": (
            row("head.text", "_start _text", cls=TEXT, freed=False, where=_SCRIPT, outside=True),
            row("xiprom", "_xiprom _exiprom", where=_SCRIPT, outside=True),
        ),
        "init": (
            row("alternative", "__alt_start __alt_end", where=_SCRIPT, kernels="5.15-"),
            *(
                row(name, f"__{name}_start __{name}_end", where=_SCRIPT, kernels="5.10-")
                for name in ("soc_early_init_table", "soc_builtin_dtb_table")
            ),
        ),
        "data": (
            # riscv's [_sdata, _edata) holds rodata too; writable data starts at _data, to which mark_rodata_ro() goes.
            row("srodata", "__end_rodata _data", cls=RODATA, freed=False, ro=True, where=_SCRIPT, kernels="5.10-"),
            row("data.rw", "_data _edata", where=_SCRIPT, kernels="5.10-"),
        ),
    }


_MIB, _GIB = 1 << 20, 1 << 30
_PAGE = 4096
_STRUCT_PAGE_SHIFT = 6  # STRUCT_PAGE_MAX_SHIFT
_IMAGE_MAP = TOP - 2 * _GIB  # KERNEL_LINK_ADDR
_MODULES_LOWEST = _IMAGE_MAP - 2 * _GIB  # MODULES_LOWEST_VADDR
_BPF = 128 * _MIB
_FIXMAP_SIZE, _PCI_IO_SIZE = 6 * _MIB, 16 * _MIB
_SECTION_ALIGN = 2 * _MIB  # the image, and KASLR's steps


class _Mode(NamedTuple):
    """One depth of page tables, by the bits of an address that they translate."""

    name: str
    bits: int
    page_offset: int  # PAGE_OFFSET_L3, _L4, _L5
    kasan: int

    @property
    def half(self) -> int:
        """The size of each half, the programs' and the kernel's."""
        return 1 << self.bits - 1

    @property
    def direct_map_size(self) -> int:
        return self.half >> 1  # KERN_VIRT_SIZE

    @property
    def vmemmap_size(self) -> int:
        return 1 << self.bits - 12 - 1 + _STRUCT_PAGE_SHIFT


_MODES = (
    _Mode("Sv39", 39, 0xFFFFFFD600000000, 0xFFFFFFF700000000),
    _Mode("Sv48", 48, 0xFFFFAF8000000000, 0xFFFFEF8000000000),
    _Mode("Sv57", 57, 0xFF60000000000000, 0xFFDF000000000000),
)
_SV39_PAGE_OFFSETS = (0xFFFFFFD600000000, 0xFFFFFFD800000000)  # the second up to 6.6


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace:
    mode, page_offset = _mode(facts)
    known = mode is not None
    # Not known: the areas of Sv39 are canonical in all modes; what means something only in the others says so.
    actual = mode or _MODES[0]
    source = f"riscv64 {actual.name} layout" + ("" if known else " (the depth of the page tables is not known)")
    claims = list(_claims(actual, page_offset or actual.page_offset, facts, source))
    if not known:
        claims = [*_only_in_deeper(facts), *claims]
    description = f"riscv64, {actual.name} page tables" + ("" if known else " (assumed)")
    top = _fixmap_top(actual, page_offset or actual.page_offset, facts)
    warnings = (*facts.refused, *_refused(facts, mode))
    return AddressSpace("riscv64", whole(claims), description, facts, top, _PAGE, warnings)


def _mode(facts: AddressSpaceFacts) -> tuple[_Mode | None, int | None]:
    """The depth of the page tables, and PAGE_OFFSET if it is known."""
    for mode in _MODES:
        offsets = _SV39_PAGE_OFFSETS if mode.bits == 39 else (mode.page_offset,)
        page_offset = facts.page_offset_base if facts.page_offset_base in offsets else None
        if page_offset is None and facts.vmalloc_end in offsets:
            page_offset = facts.vmalloc_end  # VMALLOC_END is PAGE_OFFSET
        if facts.va_bits == mode.bits or (facts.va_bits is None and page_offset is not None):
            return mode, page_offset
    return None, None


def _refused(facts: AddressSpaceFacts, mode: _Mode | None) -> Iterator[str]:
    if mode is None and facts.va_bits is not None:
        yield f"VA_BITS is {facts.va_bits}, which is impossible on riscv64: it is not used"


def _vmemmap_and_vmalloc(mode: _Mode, page_offset: int, facts: AddressSpaceFacts) -> tuple[int, int]:
    """Where vmemmap and vmalloc start: from VMCOREINFO if that is possible, else from PAGE_OFFSET."""
    vmemmap, vmalloc = facts.vmemmap_start, facts.vmalloc_start
    if vmemmap is not None and vmalloc is not None and TOP - mode.half <= vmemmap < vmalloc < page_offset:
        return vmemmap, vmalloc
    vmalloc = page_offset - (mode.direct_map_size >> 1)
    return vmalloc - mode.vmemmap_size, vmalloc


def _fixmap_top(mode: _Mode, page_offset: int, facts: AddressSpaceFacts) -> int:
    return _vmemmap_and_vmalloc(mode, page_offset, facts)[0] - _PCI_IO_SIZE


def _claims(mode: _Mode, page_offset: int, facts: AddressSpaceFacts, source: str) -> Iterator[Area]:
    yield Area("user", 0, mode.half, source, kind=USER)
    yield Area(NON_CANONICAL, mode.half, TOP - mode.half, source, kind=NON_CANONICAL)
    if facts.image_start is not None and facts.image_start < _IMAGE_MAP:
        # Up to 5.12 the image lies in the direct map.
        yield Area("kernel (layout not known)", TOP - mode.half, TOP, f"{source}; the image is not in its last 2 GiB")
        return
    yield from _image_and_modules(facts, source)
    if facts.kasan_shadow is not False:
        name = "KASAN shadow" if facts.kasan_shadow else "KASAN shadow (if the kernel has KASAN)"
        yield Area(name, mode.kasan, _MODULES_LOWEST, source)
    fixmap_top = _fixmap_top(mode, page_offset, facts)
    vmemmap, vmalloc = _vmemmap_and_vmalloc(mode, page_offset, facts)
    note = {"note": "up to 6.6 it begins 8 GiB further up, and with it all from the fixmap on"}
    unsure = mode.bits == 39 and page_offset not in (facts.page_offset_base, facts.vmalloc_end)
    yield Area(
        FIXMAP,
        fixmap_top - _FIXMAP_SIZE,
        fixmap_top,
        source,
        parts=fixmap_parts(facts, fixmap_top, _PAGE),
    )
    yield Area("PCI I/O", fixmap_top, fixmap_top + _PCI_IO_SIZE, source)
    yield Area(VMEMMAP, vmemmap, vmalloc, source)
    yield Area(VMALLOC, vmalloc, page_offset, source)
    end = page_offset + mode.direct_map_size
    yield Area(DIRECT_MAP, page_offset, end, source, details=note if unsure else {})


def _image_and_modules(facts: AddressSpaceFacts, source: str) -> Iterator[Area]:
    """The image's mapping, and the modules below the image: within 2 GiB from its end, BPF programs at their end."""
    start, end, known_from = facts.modules_vaddr, facts.modules_end, "vmcoreinfo"
    image = facts.runtime_image
    if (start is None or end is None) and image is not None and image[0] >= _IMAGE_MAP:
        start = -(-image[1] // _PAGE) * _PAGE - 2 * _GIB
        end = image[0] // _SECTION_ALIGN * _SECTION_ALIGN  # _start, whose code precedes _text
        known_from = f"{source}; 2 GiB below the image's end"
    if start is not None and end is not None and _MODULES_LOWEST <= start < end - _BPF < end <= TOP:
        nominal = facts.runtime_image_start == facts.image_start and known_from != "vmcoreinfo"
        bpf = Area("BPF programs", end - _BPF, end, known_from, nominal)
        yield Area(MODULES, start, end, known_from, nominal, parts=(bpf,))
    else:
        yield Area(MODULES, _MODULES_LOWEST, _IMAGE_MAP, source)
    yield Area(IMAGE_MAPPING, _IMAGE_MAP, TOP, source)


def _only_in_deeper(facts: AddressSpaceFacts) -> Iterator[Area]:
    """Addresses that are non-canonical in Sv39 and mean something in Sv48 or Sv57."""
    source = "riscv64 layouts (the depth of the page tables is not known)"
    low = _MODES[0].half
    for mode in _MODES[1:]:
        for area in whole(list(_claims(mode, mode.page_offset, facts, source))):
            for start, end in ((low, mode.half), (TOP - mode.half, TOP - low)):
                first, last = max(area.start, start), min(area.end, end)
                if first >= last or area.kind == NON_CANONICAL:
                    continue
                details = {"if": f"page tables are of {mode.name}", "then": area.name}
                yield Area(NON_CANONICAL, first, last, source, details=details, kind=NON_CANONICAL)
        low = mode.half


def _image_physical(address: int, facts: AddressSpaceFacts) -> int | None:
    return None if facts.kimage_voffset is None else address - facts.kimage_voffset


def _kasan_shadow_offset(_: AddressSpaceFacts) -> int:
    return 0xDFFFFFFF00000000  # arch/riscv/Kconfig


def _paging(sources: PagingSources) -> Paging:
    from kplug.arch.riscv64.page_tables import paging

    return paging(sources)


def _cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    from kplug.arch.riscv64.page_tables import cpu_tables

    return cpu_tables(register, kernel)


# The integer registers by their ABI names, as gdb, drgn and struct pt_regs have them (arch/riscv/include/asm/ptrace.h;
# struct user_regs_struct begins alike: uapi/asm/ptrace.h). The ABI calls s0 fp as well.
_INTEGER = (
    *("ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{number}" for number in range(8)),
    *(f"s{number}" for number in range(2, 12)),
    *(f"t{number}" for number in range(3, 7)),
)
_IN_MEMORY = ("pc", *_INTEGER)
_REGISTERS = Registers(
    order=(*_INTEGER, "pc"),
    aliases={"fp": "s0", "epc": "pc", "lr": "ra"},
    halves={},
    user_regs=_IN_MEMORY,
    pt_regs=_IN_MEMORY,
    monitor={},
)


def _machine_code() -> MachineCode:
    from kplug.arch.riscv64.machine_code import MACHINE_CODE

    return MACHINE_CODE


ARCHITECTURE = Architecture(
    name="riscv64",
    title="riscv64",
    names=Names(
        elf=(ElfMachine(243, 64),),
        kernel="riscv",
        debian=("riscv64",),
        other=("riscv",),
        drgn="RISCV64",
        gdb=("riscv:rv64", "riscv"),
        qemu=("riscv64",),
        flat_image=b"RSC\x05",
        uimage=26,
        pe=0x5064,
        fit=("riscv",),
    ),
    elf=ELF_WORDS,
    head_symbol="_start",
    relative_relocation=3,  # R_RISCV_RELATIVE
    telling_symbols=("relocate_enable_mmu", "do_trap_ecall_u"),
    boundaries=boundaries,
    memory_map=_memory_map,
    registers=lambda: _REGISTERS,
    upper_half=True,
    # A multiple of 2 MiB within 1 GiB from KERNEL_LINK_ADDR (arch/riscv/mm/init.c).
    kaslr_window=KaslrWindow(0xFFFFFFFF80000000, 0xFFFFFFFFC0000000, (2 << 20,)),
    image_physical=_image_physical,
    paging=_paging,
    shared_top_table=True,
    cpu_tables=_cpu_tables,
    # stvec holds the address of the code itself (arch/riscv/kernel/head.S, setup_trap_vector).
    vector_table=VectorTable(
        "stvec", symbols=("handle_exception",), handler=lambda base, _: base or None, registers=("stvec",)
    ),
    # arch_crash_save_vmcoreinfo(), 6.0 and later.
    vmcoreinfo_numbers=("phys_ram_base", "va_kernel_pa_offset"),
    vmcoreinfo_facts=(
        ("VA_BITS", "va_bits"),
        ("PAGE_OFFSET", "page_offset_base"),
        ("MODULES_VADDR", "modules_vaddr"),
        ("MODULES_END", "modules_end"),
        ("VMALLOC_START", "vmalloc_start"),
        ("VMALLOC_END", "vmalloc_end"),
        ("VMEMMAP_START", "vmemmap_start"),
        ("VMEMMAP_END", "vmemmap_end"),
        ("va_kernel_pa_offset", "kimage_voffset"),  # 6.4 and later
    ),
    kasan_shadow_offset=_kasan_shadow_offset,
    poison_deltas=(0xDEAD000000000000, 0),  # 5.10.y, 6.1 and later; 4.19, 5.4 and 5.15
    machine_code=_machine_code,
    char_signed=False,
)
