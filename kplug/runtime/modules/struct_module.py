"""The layout of `struct module` in this kernel, and what is read from one: memory, sections, per-CPU area."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import drgn

from kplug.errors import TargetError
from kplug.image.elf.file import build_id_in, notes_in
from kplug.memory.reading import try_read
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.lists import list_nodes
from kplug.runtime.modules.parts import (
    DATA,
    INIT_DATA,
    INIT_TEXT,
    MEMORY_TYPES,
    RO_AFTER_INIT,
    RODATA,
    TEXT,
    MemoryRange,
    ModuleSection,
    PerCpu,
)

# A distribution's kernel loads some hundreds; each takes at least a page, and the largest modules area is 2 GiB.
MAX_MODULES = 20_000
# A module has 20 to 60 sections; one built with -ffunction-sections some thousands.
MAX_SECTIONS = 20_000
# The users of a module; as many as there may be modules.
MAX_USERS = MAX_MODULES
# A module's memory is counted in an unsigned int, and the modules area of any architecture ends before 2 GiB.
MAX_MEMORY_BYTES = 1 << 31
# Names of sections and the text of MODULE_VERSION, in bytes.
MAX_TEXT_BYTES = 512
# A build ID usually has 20 bytes, at most 64; its note also has a header and the owner.
_MAX_NOTE_BYTES = 4096
# MODULE_NAME_LEN: 64 less a pointer.
MAX_NAME_BYTES = 56
# TAINT_FLAGS_COUNT is 20 (7.x); flags are bits of a word, and a table that claims more is not read further.
_MOST_TAINTS = 32
_NOTE_HEADER_BYTES = 12  # Elf_Nhdr: three of 32 bits

_STATES = {0: "live", 1: "coming", 2: "going", 3: "unformed"}  # enum module_state


class Module:
    """One loaded module. A property raises TargetError if its memory cannot be read, and is None if there is none."""

    def __init__(self, layout: ModuleLayout, address: int, data: bytes) -> None:
        self._layout = layout
        self._kernel = layout.kernel
        self._data = data
        #: The address of its `struct module`.
        self.address = address
        #: The name, from memory: not safe to print as it is.
        self.name = layout.text_in(data, "name", layout.name_bytes)
        #: "live", "coming", "going" or "unformed"; an unknown number as it is.
        state = layout.number(data, "state") or 0
        self.state = _STATES.get(state, f"state {state}")
        #: Its current memory, sorted by address. Init memory is freed once the init code has run.
        self.memory = tuple(sorted(layout.memory(data), key=lambda part: part.start))

    def number(self, member: str) -> int | None:
        """An integer or pointer member of its `struct module`, unsigned; None if this kernel has none of that name."""
        return self._layout.number(self._data, member)

    @property
    def identity(self) -> tuple[object, ...]:
        """What identifies it, also against another build that is loaded to its place while the kernel runs."""
        return self.address, self.name, self.state, self.memory, self.build_id

    @property
    def size(self) -> int:
        """The size of all its memory, without per-CPU memory."""
        return sum(part.end - part.start for part in self.memory)

    @property
    def percpu(self) -> PerCpu | None:
        """Its per-CPU memory; None if it has none."""
        base, size = self.number("percpu"), self.number("percpu_size")
        return PerCpu(base, size) if base and size else None

    @property
    def refcount(self) -> int | None:
        """Its reference count, as in lsmod. None if modules cannot be unloaded."""
        count = self.number("refcnt.counter")
        # MODULE_REF_BASE: the module itself holds one (e513cc1c07e2, 3.19); a module that is going has none.
        return None if count is None else max(signed(count) - 1, 0)

    @cached_property
    def users(self) -> tuple[str, ...]:
        """The names of the modules that use it, the last to come first as lsmod has them."""
        return tuple(self._layout.users(self))

    @cached_property
    def taints(self) -> str:
        """The letters of its taints, "" for none (Documentation/admin-guide/tainted-kernels.rst)."""
        return self._layout.taint_letters(self.number("taints") or 0)

    @cached_property
    def version(self) -> str | None:
        """MODULE_VERSION."""
        return self._layout.text_at(self.number("version"))

    @cached_property
    def source_version(self) -> str | None:
        """The checksum of its sources (srcversion)."""
        return self._layout.text_at(self.number("srcversion"))

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build ID in hex, from memory; None if it has none, or it cannot be read."""
        data = self._layout.bytes_in(self._data, "build_id")  # CONFIG_STACKTRACE_BUILD_ID, since 5.14
        if data is not None and any(data):
            return data.hex()
        try:
            sections = self.sections
        except TargetError:
            return None
        for section in sections:
            part = self.part_at(section.start)
            if section.name == ".note.gnu.build-id" and part is not None:
                return self._build_id_at(section.start, part.end)
        return None

    def _build_id_at(self, start: int, end: int) -> str | None:
        """The build ID in the note at `start`, of which nothing lies beyond `end`."""
        word = self._kernel.word
        header = try_read(self._kernel.read, start, _NOTE_HEADER_BYTES)
        if header is None:
            return None
        name_size, description_size, _ = word.numbers(header, 4)
        size = _NOTE_HEADER_BYTES + (name_size + 3 & ~3) + description_size
        if size > min(end - start, _MAX_NOTE_BYTES):
            return None
        note = try_read(self._kernel.read, start, size)
        return build_id_in(notes_in(note, little_endian=word.little_endian)) if note is not None else None

    @cached_property
    def all_sections(self) -> tuple[ModuleSection, ...]:
        """Every section whose address the kernel keeps, in the file's order, including those in freed memory."""
        return tuple(self._layout.sections(self))

    @property
    def sections(self) -> tuple[ModuleSection, ...]:
        """The sections in memory that it still has, in the file's order."""
        return tuple(section for section in self.all_sections if self.part_at(section.start) is not None)

    def part_at(self, address: int) -> MemoryRange | None:
        """The part of its memory that holds the address, or None."""
        return next((part for part in self.memory if part.start <= address < part.end), None)


class ModuleLayout:
    """The layout of `struct module` and related structures. `__init__` raises LookupError without the types."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._word = kernel.word
        prog = kernel.prog
        self._type = prog.type("struct module")
        self._size = drgn.sizeof(self._type)
        self._members: dict[str, tuple[int, int] | None] = {}
        self.name_bytes = self._extent("name")[1]
        self._memory = self._memory_reader()

    # -- members -------------------------------------------------------------------------------------------------------

    def _member(self, path: str) -> tuple[int, int] | None:
        """Offset and size of a member of `struct module`, as C writes it; None if there is none of that name."""
        if path not in self._members:
            try:
                null = drgn.Object(self.kernel.prog, self._type, address=0)
                for part in path.split("."):
                    null = null.member_(part)
                self._members[path] = drgn.offsetof(self._type, path), drgn.sizeof(null.type_)
            except (LookupError, TypeError):
                self._members[path] = None
        return self._members[path]

    def _extent(self, path: str) -> tuple[int, int]:
        found = self._member(path)
        if found is None:
            raise LookupError(f"struct module has no member {path}")
        return found

    def offset(self, path: str) -> int:
        """The offset of a member in `struct module`."""
        return self._extent(path)[0]

    def number(self, data: bytes, path: str) -> int | None:
        """An unsigned number among the bytes of a `struct module`; None if there is no such member."""
        extent = self._member(path)
        return None if extent is None else self._word.unsigned(data, *extent)

    def bytes_in(self, data: bytes, path: str) -> bytes | None:
        extent = self._member(path)
        return None if extent is None else data[extent[0] : sum(extent)]

    def text_in(self, data: bytes, path: str, size: int) -> str:
        offset = self.offset(path)
        return text_of(data[offset : offset + size])

    # -- memory --------------------------------------------------------------------------------------------------------

    def text_at(self, address: int | None) -> str | None:
        """The string at that address; None for NULL, or if it cannot be read. TargetError as for `read`."""
        if not address:
            return None
        with self.kernel.reading(f"the string at {address:#x}"):
            try:
                data: bytes = self.kernel.prog.read_c_string(address, False, max_size=MAX_TEXT_BYTES)
            except (drgn.FaultError, ValueError, OverflowError):
                return None
        return data.decode("utf-8", "backslashreplace")

    def module(self, address: int) -> Module:
        """The module at that address. TargetError if it cannot be read."""
        return Module(self, address, self.kernel.read(address, self._size))

    def memory(self, data: bytes) -> Iterator[MemoryRange]:
        """The parts of a module's memory that are there."""
        for kind, start, size in self._memory(data):
            if start and 0 < size <= MAX_MEMORY_BYTES and start + size <= self._word.mask:
                yield MemoryRange(kind, start, start + size)

    def _memory_reader(self) -> Callable[[bytes], Iterator[tuple[str, int, int]]]:
        """The function that reads type, start and size of each part of a module's memory."""
        if self._member("mem") is not None:  # ac3b43283923 (6.4): one allocation for each type
            return self._typed_memory()
        if self._member("core_layout") is not None:  # 7523e4dc5057 (4.5)
            return self._layouts("core_layout.{}", "init_layout.{}")
        return self._layouts("core_{}", "init_{}")

    def _typed_memory(self) -> Callable[[bytes], Iterator[tuple[str, int, int]]]:
        prog = self.kernel.prog
        offset, size = self._extent("mem")
        memory = prog.type("struct module_memory")
        step = drgn.sizeof(memory)
        base_at, size_at = drgn.offsetof(memory, "base"), drgn.offsetof(memory, "size")
        bytes_of_size, word = drgn.sizeof(memory.member("size").type), self._word
        types: dict[int, str] = {}
        for name, kind in MEMORY_TYPES.items():
            try:
                types[prog.constant(name).value_()] = kind
            except LookupError:
                continue

        def read(data: bytes) -> Iterator[tuple[str, int, int]]:
            for number in range(size // step):
                at = offset + number * step
                start, length = word.at(data, at + base_at), word.unsigned(data, at + size_at, bytes_of_size)
                yield types.get(number, f"memory {number}"), start, length

        return read

    def _layouts(self, core: str, init: str) -> Callable[[bytes], Iterator[tuple[str, int, int]]]:
        """One range for core memory and one for init, each divided where its types begin: text, rodata, and so on."""
        base = "base" if "." in core else None

        def member(form: str, name: str) -> str:
            # Before 4.5 there were module_core and core_size, module_init and init_size.
            return f"module_{form[:4]}" if name == "base" and base is None else form.format(name)

        names = [member(form, name) for form in (core, init) for name in ("base", "size")]
        for name in names:
            self._extent(name)

        def read(data: bytes) -> Iterator[tuple[str, int, int]]:
            def value(form: str, name: str) -> int | None:
                return self.number(data, member(form, name))

            start, whole = value(core, "base") or 0, value(core, "size") or 0
            done = 0
            ends = ((TEXT, "text_size"), (RODATA, "ro_size"), (RO_AFTER_INIT, "ro_after_init_size"))
            for kind, name in ends:
                end = value(core, name)
                if end is not None and done < end <= whole:
                    yield kind, start + done, end - done
                    done = end
            yield DATA, start + done, whole - done
            yield from self._init_parts(value(init, "base"), value(init, "size"), value(init, "text_size"))
            # CONFIG_ARCH_WANTS_MODULES_DATA_IN_VMALLOC (5.18 to 6.3; 01dc0386efb7): data apart from text.
            if self._member("data_layout") is not None:
                yield (
                    DATA,
                    self.number(data, "data_layout.base") or 0,
                    self.number(data, "data_layout.size") or 0,
                )

        return read

    def _init_parts(self, start: int | None, size: int | None, text: int | None) -> Iterator[tuple[str, int, int]]:
        """Init memory of kernels before 6.4: its text, then read-only and other data, which are not distinguished."""
        if not start or not size:
            return
        text = text if text is not None and text <= size else 0
        if text:
            yield INIT_TEXT, start, text
        if text < size:
            yield INIT_DATA, start + text, size - text

    # -- what hangs on it ----------------------------------------------------------------------------------------------

    def sections(self, module: Module) -> Iterator[ModuleSection]:
        """The sections of `mod->sect_attrs`, in its order."""
        attributes = module.number("sect_attrs")
        if not attributes:
            return
        with self.kernel.reading(f"the sections of module {module.name}"):
            yield from self._section_reader(attributes)

    @cached_property
    def _section_reader(self) -> Callable[[int], Iterator[ModuleSection]]:
        prog, pointer, word = self.kernel.prog, self.kernel.read_word, self._word
        attributes = prog.type("struct module_sect_attrs")
        try:
            count_at = drgn.offsetof(attributes, "nsections")
            bytes_of_count = drgn.sizeof(attributes.member("nsections").type)
        except LookupError:  # d8959b947a8d (6.14): an attribute group's NULL-terminated array
            group_at = drgn.offsetof(attributes, "grp.bin_attrs")
            attribute = prog.type("struct bin_attribute")
            name_at, value_at = drgn.offsetof(attribute, "attr.name"), drgn.offsetof(attribute, "private")

            def read_group(address: int) -> Iterator[ModuleSection]:
                array = pointer(address + group_at)
                for number in range(MAX_SECTIONS):
                    entry = pointer(array + word.size * number)
                    if not entry:
                        return
                    name = self.text_at(pointer(entry + name_at)) or ""
                    yield ModuleSection(name, pointer(entry + value_at))
                raise TargetError(f"it claims more than {MAX_SECTIONS} sections")

            return read_group
        entry = prog.type("struct module_sect_attr")
        size, address_at = drgn.sizeof(entry), drgn.offsetof(entry, "address")
        first = drgn.offsetof(attributes, "attrs")
        try:
            name_at = drgn.offsetof(entry, "battr.attr.name")  # ed66f991bb19 (5.8)
        except LookupError:
            name_at = drgn.offsetof(entry, "name")

        def read_array(address: int) -> Iterator[ModuleSection]:
            count = self.kernel.read_unsigned(address + count_at, bytes_of_count)
            if count > MAX_SECTIONS:
                raise TargetError(f"it claims {count} sections")
            data = self.kernel.read(address + first, count * size)
            for at in range(0, len(data), size):
                name = self.text_at(word.at(data, at + name_at)) or ""
                yield ModuleSection(name, word.at(data, at + address_at))

        return read_array

    def users(self, module: Module) -> Iterator[str]:
        """The names of the modules that use it: `struct module_use` on `source_list`."""
        if self._member("source_list") is None:  # without CONFIG_MODULE_UNLOAD
            return
        with self.kernel.reading(f"the users of module {module.name}"):
            use = self.kernel.prog.type("struct module_use")
            link_at, source_at = drgn.offsetof(use, "source_list"), drgn.offsetof(use, "source")
            head = module.address + self.offset("source_list")
            try:
                for node in list_nodes(self.kernel, head, MAX_USERS):
                    source = self.kernel.read_word(node - link_at + source_at)
                    yield text_of(self.kernel.read(source + self.offset("name"), self.name_bytes))
            except TargetError as error:
                raise TargetError(f"the users of module {module.name} could not be read: {error}") from None

    def taint_letters(self, taints: int) -> str:
        """The letters of a module's taints, from the kernel's own table."""
        return "".join(letter for bit, letter in enumerate(self._taint_table) if taints & (1 << bit)) if taints else ""

    @cached_property
    def _taint_table(self) -> str:
        with self.kernel.reading("the letters of taints"):
            flags = self.kernel.prog["taint_flags"]  # 7fd8329ba502 (4.10)
            # BTF does not have the number of entries; no module has the bits after the last one.
            count = flags.type_.length or _MOST_TAINTS
            return "".join(chr(flags[bit].c_true.value_() & 0x7F) for bit in range(count))


def text_of(data: bytes) -> str:
    """The string at the start of the bytes, up to its NUL."""
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def signed(number: int) -> int:
    """An int as C has it, from its unsigned value."""
    return number - (1 << 32) if number >> 31 else number
