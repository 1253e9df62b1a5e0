"""What kplug knows about one architecture, as a record.

None, or an empty table, means that nothing is declared: the generic rule applies, or the answer is null and says so.
Tables that take time to load are returned by functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kplug.arch.types.boundaries import BoundaryRows
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, PagingSources, Translator
from kplug.arch.types.registers import Calls, FlagNames, Registers
from kplug.arch.types.special_values import Poison
from kplug.arch.types.word import BIG, LITTLE, ByteOrder, WordFormat, word_format
from kplug.frozen import Frozen, field
from kplug.named_tuples import NamedTuple

__all__ = ("BIG", "LITTLE")  # for the declarations


class ElfMachine(NamedTuple):
    """e_machine and the class, of vmlinux and of dumps."""

    number: int
    bits: int


class Names(Frozen):
    """Other names of the architecture.

    `uname` is the name from `uname -m`, which is also in dumps of makedumpfile's format; a name that ends with "*"
    stands for all names that begin with it. `other` are further names that users type. `kernel` is the folder in the
    kernel's arch/. `drgn` is the name in drgn.Architecture. `qemu` are the suffixes of qemu-system-*. The rest is for
    boot images: the magic at 0x38 of a flat Image (arch/*/include/asm/image.h), that of a zImage
    (arch/*/boot/compressed/head.S), a string and its place (arch/*/boot/head.S), the number in a uImage (U-Boot's
    include/image.h), the machine of a PE header, the name in a FIT (U-Boot's boot/image.c).
    """

    elf: tuple[ElfMachine, ...]
    kernel: str
    uname: tuple[str, ...] = ()
    debian: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    drgn: str | None = None
    gdb: tuple[str, ...] = ()
    qemu: tuple[str, ...] = ()
    flat_image: bytes | None = None
    zimage: int | None = None
    entry_string: tuple[int, bytes] | None = None
    uimage: int | None = None
    pe: int | None = None
    fit: tuple[str, ...] = ()


class ElfWords(Frozen):
    """What readelf prints for the architecture's own numbers in ELF files."""

    segment_types: Mapping[int, str] = {}
    flag_letters: Mapping[int, str] = {}  # of sections, by bit
    mapping_symbols: bool = False  # "$x", "$d": they name nothing
    # Program properties (GNU property notes): the name, and those of its bits, lowest first.
    properties: Mapping[int, tuple[str, tuple[str, ...]]] = {}


_NO_WORDS = ElfWords()


class Freed(Frozen):
    """A gap in the image that is freed after boot: the regions around it, and the sentence that says so."""

    after: str
    before: str
    why: str


class Resource(Frozen):
    """A line of /proc/iomem, and the boundary symbols whose physical addresses it shows; None if that varies.

    `required`: without this line, the other lines have different bounds.
    """

    name: str
    start: str | None
    end: str
    required: bool = False


class KaslrWindow(Frozen):
    """Where KASLR may put the image, `[start, end)`, None if that is too wide to search; `steps` are in bytes."""

    start: int | None
    end: int | None
    steps: tuple[int, ...]


# If an architecture declares nothing: large pages, or the alignment at which firmware may load an image.
ANY_WINDOW = KaslrWindow(None, None, (2 << 20, 64 << 10))


class SecondSource(Frozen):
    """A fact of the address space that is both in a variable and in VMCOREINFO, as NUMBER() or SYMBOL()."""

    fact: str
    number: str | None = None
    symbol: str | None = None


class TypedVariables(Frozen):
    """Kernel variables with the same declaration: the C type, the file that declares them, and their names."""

    type: str
    where: str
    names: str


class LeastVmcoreinfo(Frozen):
    """The names of the kernel's top page table, newest first, and the bytes of a page."""

    top_tables: tuple[str, ...]
    page_size: int


class InterruptStacks(Frozen):
    """A CPU's IRQ stack. `pointers` are per-CPU variables, or `variable.member`, newest first; `at_top`: they point to
    its last word, else to its start. `type` is the structure that has its size; without one it is a task's size.
    """

    pointers: tuple[str, ...]
    at_top: bool = False
    type: str | None = None


class VectorTable(Frozen):
    """The table of a CPU's exception handlers, and how to get from it to a handler with a known name.

    `name` is the architecture's name for the table. Its base is the address `fixed`, or in the register that debuggers
    call by one of the names `registers`, or in the output of QEMU's `info registers` (`monitor`, a pattern whose group
    1 is in hex). `handler` reads the code's address: (base, read of memory or None). `symbols` are names of that code,
    newest first.
    """

    name: str
    symbols: tuple[str, ...]
    handler: Callable[[int, Callable[[int, int], bytes | None]], int | None]
    fixed: int | None = None
    registers: tuple[str, ...] = ()
    monitor: str | None = None


class VariableStack(Frozen):
    """A stack that is a per-CPU variable, or that one points to (then it has the size of a task's stack)."""

    variable: str
    owner: str
    words: str
    is_pointer: bool = False


class Architecture(Frozen):
    """One architecture. Fields that are not declared keep their defaults."""

    name: str
    title: str  # for the user
    names: Names
    bits: int = 64
    byte_orders: tuple[ByteOrder, ...] = (LITTLE,)  # the usual one first

    # -- files ---------------------------------------------------------------------------------------------------------
    elf: ElfWords = _NO_WORDS
    # The page size by bits 1 and 2 of a flat Image's flags.
    flat_image_page_sizes: Mapping[int, int] = field(default_factory=dict)
    # The relocation type that sets a word to "load address plus addend" (R_*_RELATIVE), of kernels that relocate
    # themselves by RELA entries.
    relative_relocation: int | None = None
    # A kernel without a header that says so is linked at a multiple of this.
    link_alignment: int = 2 << 20
    # Symbols that no other architecture has, in kernels from 4.19 on (arch/*/kernel/head*.S, entry*.S).
    telling_symbols: tuple[str, ...] = ()
    # Absolute symbols that scripts/kallsyms.c leaves out (read_symbol(), in all releases): only a System.map has them.
    build_numbers: tuple[str, ...] = ()
    # The rows of the linker script that only this architecture has, by the part of the image.
    boundaries: Callable[[], BoundaryRows] | None = None
    cpu_methods: bool = False  # has entries for the tables of CPU_METHOD_OF_DECLARE and CPUIDLE_METHOD_OF_DECLARE
    freed_gaps: tuple[Freed, ...] = ()
    # Two regions: from the start of the one to that of the other all is mapped read-only after boot, gaps too.
    read_only: tuple[str, str] | None = None
    # Where code precedes _text in the image: the symbol at its start, a function of stated size or not.
    head_symbol: str | None = None
    # Symbols below the image, in kernels that link the per-CPU section at 0, are per-CPU variables.
    percpu_at_zero: bool = False
    # Names in VMCOREINFO's NUMBER(...) that only this architecture's kernels write.
    vmcoreinfo_numbers: tuple[str, ...] = ()
    iomem: tuple[Resource, ...] = ()

    # -- addresses -----------------------------------------------------------------------------------------------------
    # The map of a kernel; None where the facts give nothing of it.
    memory_map: Callable[[AddressSpaceFacts], AddressSpace | None] | None = None
    # Programs have an address space of their own, with the numbers that the kernel has in its own.
    separate_programs: bool = False
    # Kernel addresses have the top bit set: the kernel has nothing in the lower half.
    upper_half: bool = False
    # How a kernel maps its memory, from memory and VMCOREINFO.
    paging: Callable[[PagingSources], Paging] | None = None
    # The direct map's start, from what the kernel's page tables map: (top table, facts, encryption mask, read).
    mapped_page_offset: Callable[[int, AddressSpaceFacts, int, Callable[[int, int], bytes]], int | None] | None = None
    # The physical address of the tables through which a program reaches an address: (top table, address, address bits,
    # page size, read of an entry). None: the top table itself.
    user_root: Callable[[int, int, int, int, Callable[[int], int]], int] | None = None
    # Some vmap areas are in the direct map.
    vmaps_in_direct_map: bool = False
    # Where the first CPU's struct cpu_entry_area is, after the IDT; 0 if its place depends on the configuration.
    cpu_entry_areas: int | None = None
    # What drgn needs for a kernel without VMCOREINFO: the symbols of the top table, and the page size.
    least_vmcoreinfo: LeastVmcoreinfo | None = None
    # The top page table of a program maps the kernel in its upper half as well; else the kernel has a table of its own.
    shared_top_table: bool = False
    # The physical address of an address in the image; None if the facts do not give it.
    image_physical: Callable[[int, AddressSpaceFacts], int | None] | None = None

    # -- the CPU -------------------------------------------------------------------------------------------------------
    registers: Callable[[], Registers] | None = None
    flag_names: Callable[[], FlagNames] | None = None
    calls: Callable[[], Calls] | None = None
    machine_code: Callable[[], MachineCode] | None = None
    calls_push: bool = False  # a call pushes its return address
    # The page tables of a CPU from its control registers, as a debugger shows them: (register by name, whether to
    # return the kernel's tables even if the CPU uses others now). None without paging or without the registers.
    cpu_tables: Callable[[Callable[[str], int | None], bool], Translator | None] | None = None
    # Where in memory is what a CPU reads at a physical address, if a register moves some: (register by name, physical
    # address, bytes wanted); the address, and how many of the bytes follow it there.
    absolute: Callable[[Callable[[str], int | None], int, int], tuple[int, int]] | None = None
    qemu_note: bool = False  # QEMU's dumps have a note of its own with control registers (struct QEMUCPUState)

    # -- stacks --------------------------------------------------------------------------------------------------------
    interrupt_stacks: InterruptStacks | None = None
    # The member of task_struct with the stack pointer of a task that does not run.
    saved_stack_pointer: str | None = None
    # Members of struct cea_exception_stacks, without "_stack", and the purpose of each stack.
    entry_area_stacks: Mapping[str, str] = field(default_factory=dict)
    variable_stacks: tuple[VariableStack, ...] = ()

    # -- where the kernel is, from registers, variables and VMCOREINFO -------------------------------------------------
    kaslr_window: KaslrWindow = ANY_WINDOW
    vector_table: VectorTable | None = None
    # Symbols that tell a fact of the address space: name, the fact, its value if the kernel has the symbol, and if not.
    symbol_facts: tuple[tuple[str, str, bool | None, bool | None], ...] = ()
    # Variables: name, the fact of the address space that each holds, its bytes (negative where the value may be); and
    # where in the variable, if that is a structure, it is.
    variables: tuple[tuple[str, str, int] | tuple[str, str, int, int], ...] = ()
    # Whether this boot moved the kernel, as recorded by its decompressor: from a symbol and a read of memory.
    boot_kaslr: Callable[[Callable[[str], int | None], Callable[[int, int], bytes | None]], bool | None] | None = None
    # NUMBER() entries of VMCOREINFO that hold a fact, and what else its numbers say about the address space.
    vmcoreinfo_facts: tuple[tuple[str, str], ...] = ()
    vmcoreinfo_derived: Callable[[Mapping[str, int]], Mapping[str, object]] | None = None
    second_sources: tuple[SecondSource, ...] = ()
    # The link address of the image's start, from that of _stext and VMCOREINFO's numbers; None if they do not give it.
    image_start: Callable[[int, Mapping[str, int]], int | None] | None = None

    # -- values with a meaning -----------------------------------------------------------------------------------------
    # POISON_POINTER_DELTA (CONFIG_ILLEGAL_POINTER_VALUE); several if it differs by release, which nothing tells.
    poison_deltas: tuple[int, ...] = ()
    # PAGE_OFFSET, where the linear mapping of memory starts; said where that number is a special value elsewhere.
    linear_map: int | None = None
    fills: tuple[Poison, ...] = ()  # bytes that only this architecture fills memory with
    kasan_shadow_offset: Callable[[AddressSpaceFacts], int | None] | None = None  # KASAN_SHADOW_OFFSET of generic KASAN
    top_byte_tags: bool = False  # the top byte of an address may be a tag
    signed_pointers: bool = False  # the bits above an address may be a signature (pointer authentication)

    # -- types ---------------------------------------------------------------------------------------------------------
    typed_variables: tuple[
        TypedVariables, ...
    ] = ()  # for kernels without DWARF: BTF has the types of per-CPU variables only
    char_signed: bool | None = None  # plain char in the kernel, before 6.2 (-funsigned-char from then on)

    @property
    def word_size(self) -> int:
        """The bytes of a pointer, and of the kernel's unsigned long."""
        return self.bits // 8

    @property
    def address_mask(self) -> int:
        return (1 << self.bits) - 1

    def word(self, bits: int | None = None, little_endian: bool | None = None) -> WordFormat:
        """How a target of this architecture has its words; the usual way, where nothing tells."""
        little = self.little_endian if little_endian is None else little_endian
        return word_format(bits or self.bits, little, self.upper_half)

    @property
    def little_endian(self) -> bool:
        """The byte order to assume if there are several and it is not known."""
        return self.byte_orders[0] == LITTLE
