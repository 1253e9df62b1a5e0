"""Kernel images made of what there is without a vmlinux: vmlinuz, System.map, kallsyms; and what several of them say
together.

One gives the skeleton (sections, segments, notes, bytes), one the symbols, one the places at run time. Where two know
the same symbols they are compared: sources of different kernels are refused, and single symbols on which they differ
are remembered, for the answers in which they are.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kplug.arch import registry
from kplug.errors import InputError, MismatchError
from kplug.files.opening import open_file
from kplug.image.elf.file import ELF_MAGIC, ElfFile
from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import PACKED_ENDINGS, open_vmlinux
from kplug.image.placement import ADDRESS_MASK, Placement, as_it_runs, slid
from kplug.image.symbols.symbol_list import SymbolList

if TYPE_CHECKING:
    from kplug.files.bounded_output import ProgressCallback
    from kplug.image.boot.boot_image import BootImage

# What the C library's startup code and the linker of programs add, and what every kernel has (some have .interp, too).
_PROGRAM_SECTIONS = frozenset((".note.ABI-tag", ".gnu.version_r", ".init_array"))
_KERNEL_SECTIONS = frozenset((".head.text", ".init.text", ".init.data", "__ksymtab", "__ex_table", "__param"))
_PEEKED_BYTES = 1 << 16
_LINE_BYTES = 1 << 10
_LISTING = re.compile(rb"(?:[0-9a-f]{8}|[0-9a-f]{16}) [A-Za-z?] \S+\n")
# What one of the sources has and another one moved by the slide: fewer agreeing symbols are another kernel's.
_LEAST_AGREEMENT = 0.9
_LEAST_COMMON = 16


# -- one source --------------------------------------------------------------------------------------------------------


def open_vmlinuz(path: str, progress: ProgressCallback | None = None) -> KernelImage:
    """The kernel in a boot image: its sections and segments if it is an ELF file inside, symbols from its kallsyms.

    InputError if there is no kernel in it.
    """
    from kplug.image.boot.boot_image import open_boot_image

    return kernel_in(open_boot_image(path, progress))


def kernel_in(boot: BootImage) -> KernelImage:
    """As `open_vmlinuz`, of a boot image that is open."""
    image = _from_elf(boot) if boot.kind == "ELF" else _from_flat(boot)
    image.on_disk = False
    return image


def _from_elf(boot: BootImage) -> KernelImage:
    elf = ElfFile(boot.path, io.BytesIO(boot.payload))
    if any(section.type == "SYMTAB" for section in elf.sections):
        image = KernelImage(elf, name=os.path.basename(boot.path))
    else:
        image = KernelImage(elf, name=os.path.basename(boot.path), listed=lambda: embedded_symbols(elf, boot.payload))
    image.sections_source = "ELF header of the kernel in the boot image"
    return _refuse_program(image)


def _refuse_program(image: KernelImage) -> KernelImage:
    """The image, unless its sections say that it is a program or a library: InputError."""
    names = {section.name for section in image.sections}
    if names & _PROGRAM_SECTIONS and not names & _KERNEL_SECTIONS:
        raise InputError(f"{image.path}: a program or a library, not a kernel")
    return image


def embedded_symbols(elf: ElfFile, data: bytes) -> SymbolList:
    """The kallsyms in an ELF file, whose bytes are `data`; an empty list that says why, if it has none."""
    from kplug.image.kallsyms.finder import find_tables
    from kplug.image.kallsyms.symbols import decode
    from kplug.image.kallsyms.tables import KallsymsNotFoundError

    held = [s for s in elf.sections if s.occupies_addresses and s.type != "NOBITS"]

    def address_of(position: int) -> int | None:
        for section in held:
            if section.offset <= position < section.offset + section.size:
                return section.address + position - section.offset
        return None

    try:
        return decode(data, find_tables(data, name=elf.path, address_of=address_of), name=elf.path)
    except KallsymsNotFoundError as error:
        return no_symbols(str(error))


def _from_flat(boot: BootImage) -> KernelImage:
    from kplug.image.boot.flat_image import FlatImage, link_base, moved_to
    from kplug.image.kallsyms.finder import find_tables
    from kplug.image.kallsyms.symbols import decode

    data = boot.payload
    machine = boot.machine or ""
    memory_size = boot.header.image_size if boot.header is not None else len(data)
    tables = find_tables(data, name=boot.path)
    symbols = decode(data, tables, name=boot.path)
    base = symbols.address("_text")
    if tables.from_start:
        base = link_base(data, memory_size)
        if base is not None:
            symbols = moved_to(symbols, base)
    elf = FlatImage(boot.path, data, machine, base or 0, lambda: symbols, memory_size=memory_size)
    return KernelImage(elf, name=os.path.basename(boot.path), listed=symbols)


def open_system_map(path: str) -> KernelImage:
    """The kernel that a System.map is of: symbols, and the regions between them."""
    from kplug.image.symbols.listings import read_system_map

    return listed_image(path, read_system_map(path))


def listed_image(path: str, symbols: SymbolList, machine: str | None = None) -> KernelImage:
    """A kernel of which nothing is known but symbols, read from `path`."""
    bits = 64 if symbols.highest >> 32 else 32
    elf = bare_elf(path, machine or machine_of(symbols) or "", bits)
    return KernelImage(elf, name=os.path.basename(path), listed=symbols)


def no_symbols(why: str) -> SymbolList:
    """An empty list; `why` is said as its source."""
    from array import array

    return SymbolList(b"", array("I"), (), b"", why)


def machine_of(symbols: SymbolList) -> str | None:
    """The architecture whose kernel has these symbols; None if none that is known."""
    for architecture in registry.declared():
        if any(map(symbols.holds, architecture.telling_symbols)):
            return architecture.name
    return None


# -- several together --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """The files that a user named, each None where it was not."""

    vmlinux: str | None = None
    vmlinuz: str | None = None
    system_map: str | None = None
    kallsyms: str | None = None

    def __bool__(self) -> bool:
        return any((self.vmlinux, self.vmlinuz, self.system_map, self.kallsyms))


@dataclass(frozen=True)
class Joined:
    """A kernel as several sources know it.

    `image` has the skeleton and symbols of the best of them. `placement` is where it runs, if one of them tells, and
    None otherwise. `modules` are lists of their symbols, by name. `disputed` is what another source says of single
    symbols, by name; `used` says in a line each what was taken from where.
    """

    image: KernelImage
    placement: Placement | None
    modules: Mapping[str, SymbolList]
    disputed: Mapping[str, str]
    used: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def join(given: Given, progress: ProgressCallback | None = None) -> Joined:
    """The kernel in all the files together. InputError if one cannot be read, MismatchError if they do not fit."""
    image, used, disputed = _linked(given, progress)
    if given.kallsyms is None:
        assert image is not None
        return Joined(image, None, {}, disputed, tuple(used), _cut_off(given.system_map or given.vmlinux, image))
    from kplug.image.symbols.listings import read_kallsyms

    listing = read_kallsyms(given.kallsyms)
    running = listing.kernel
    _refuse_system_map(given.kallsyms, running)
    if image is None:
        image = listed_image(given.kallsyms, running)
        placement = as_it_runs(image.extents, f"addresses as {given.kallsyms} has them")
        return Joined(image, placement, listing.modules, {}, (f"symbols: {given.kallsyms}",))
    found = checked(compare(symbols_of(image), running), image.path, given.kallsyms)
    placement = slid(image.extents, found.slide or 0, f"by the addresses in {given.kallsyms}")
    used.append(f"place in memory, modules: {given.kallsyms}")
    return Joined(image, placement, listing.modules, {**disputed, **disputes(found, given.kallsyms)}, tuple(used))


def _cut_off(path: str | None, image: KernelImage) -> tuple[str, ...]:
    """A warning for a System.map, sorted by address as it is, whose last symbols are not there."""
    listed = image.listed if image.has_list_at_hand else None
    if listed is None or not listed.source.startswith("System.map "):
        return ()
    if listed.holds("_text") and not listed.holds("_end"):
        return (f"{path}: it has no _end: it seems to be cut off",)
    return ()


def _refuse_system_map(path: str, listed: SymbolList) -> None:
    """InputError for a list with numbers of the build, which a kernel's own kallsyms never has."""
    for name in (name for architecture in registry.declared() for name in architecture.build_numbers):
        if listed.holds(name) and chr(listed.letters[listed.numbers[name.encode()]]) == "A":
            raise InputError(
                f"{path}: not a /proc/kallsyms but a System.map: it has {name} (give it with --system-map)"
            )


def _linked(given: Given, progress: ProgressCallback | None) -> tuple[KernelImage | None, list[str], Mapping[str, str]]:
    """The image by its link addresses, of vmlinux, vmlinuz and System.map; what was used; and their differences."""
    used: list[str] = []
    image: KernelImage | None = None
    for path, open_it in ((given.vmlinux, open_kernel), (given.vmlinuz, open_vmlinuz)):
        if path is None:
            continue
        opened = open_it(path, progress)
        if image is not None:
            _check_same_build(image, opened)
            used.append(f"compared with: {path}")
            continue
        image = opened
        used.append(f"sections, segments, symbols: {path}")
    if given.system_map is None:
        return image, used, {}
    from kplug.image.symbols.listings import read_system_map

    listed = read_system_map(given.system_map)
    if image is None:
        return listed_image(given.system_map, listed), [f"symbols: {given.system_map}"], {}
    if not image.symbols:
        return image.with_symbols(listed), [*used, f"symbols: {given.system_map}"], {}
    found = _checked_as_linked(image, listed, given.system_map)
    if image.has_symbol_table:
        return image, [*used, f"compared with: {given.system_map}"], disputes(found, given.system_map)
    # It has what kallsyms leaves out.
    used = [f"sections, segments: {image.path}", f"symbols: {given.system_map}"]
    return image.with_symbols(listed), used, disputes(found.turned(), image.path)


def open_kernel(path: str, progress: ProgressCallback | None = None) -> KernelImage:
    """The kernel at `path`, whatever kind of file that is: a vmlinux, a boot image, a System.map."""
    with open_file(path) as file:
        head = file.read(_PEEKED_BYTES)
    if head.startswith(ELF_MAGIC):
        return _refuse_program(open_vmlinux(path))
    from kplug.image.symbols.listings import stub_package

    if _LISTING.match(head) or stub_package(head) is not None:
        return open_system_map(path)
    from kplug.image.boot.containers import HEAD_BYTES, is_boot_image

    _refuse_packed_listing(path, head)
    if not is_boot_image(head[:HEAD_BYTES]) or _is_packed_vmlinux(path, head):
        return open_vmlinux(path)
    return open_vmlinuz(path, progress)


def _refuse_packed_listing(path: str, head: bytes) -> None:
    """InputError for a System.map that is packed."""
    from kplug.files.bounded_output import UnpackError
    from kplug.files.compression import decompressed_start, recognise
    from kplug.image.symbols.listings import refuse_packed

    packed = recognise(head)
    try:
        if packed is not None and _LISTING.match(decompressed_start(packed, head, _LINE_BYTES)):
            refuse_packed(path, head)
    except UnpackError:
        return  # what opens it says why


def _is_packed_vmlinux(path: str, head: bytes) -> bool:
    """Whether the file is named as a packed one, and what is in it is an ELF file, or broken; not an Image.gz."""
    from kplug.files.bounded_output import UnpackError
    from kplug.files.compression import decompressed_start, recognise

    packed = recognise(head)
    if packed is None or os.path.splitext(path)[1] not in PACKED_ENDINGS:
        return False
    try:
        start = decompressed_start(packed, head, len(ELF_MAGIC))
    except UnpackError:
        return True
    return not start or start == ELF_MAGIC


def symbols_of(image: KernelImage) -> SymbolList:
    """An image's symbols as a list, whatever they are from."""
    return image.listed if image.listed is not None else image.symbols.as_list()


def _checked_as_linked(image: KernelImage, listed: SymbolList, path: str) -> Comparison:
    """The comparison of an image with the list at `path`, both by link addresses. MismatchError for two kernels."""
    found = checked(compare(symbols_of(image), listed), image.path, path)
    if found.slide:
        raise MismatchError(f"{image.path} and {path} are linked at different addresses")
    return found


def _check_same_build(image: KernelImage, other: KernelImage) -> None:
    """MismatchError for two kernels: by their build IDs, or, where one has none, by their symbols."""
    if image.build_id is None or other.build_id is None:
        if len(image.symbols) and len(other.symbols):
            _checked_as_linked(image, symbols_of(other), other.path)
    elif image.build_id != other.build_id:
        raise MismatchError(
            f"{image.path} (build ID {image.build_id}) and {other.path} (build ID {other.build_id}) "
            "are different kernels"
        )


@dataclass(frozen=True)
class Comparison:
    """Two lists of one kernel's symbols: by how much the second one is moved, and the symbols that are elsewhere.

    `slide` is modulo 2**64, None where they have too few names in common. `differing` has the addresses in both.
    """

    slide: int | None
    common: int
    differing: Mapping[bytes, tuple[int, int]]

    def turned(self) -> Comparison:
        """The comparison of the second list with the first."""
        slide = None if self.slide is None else -self.slide & ADDRESS_MASK
        return Comparison(slide, self.common, {name: (other, one) for name, (one, other) in self.differing.items()})


def compare(symbols: SymbolList, others: SymbolList) -> Comparison:
    """What two lists say of the symbols whose name each of them has once.

    Per-CPU variables that are linked at 0 do not move with the others.
    """
    ours, theirs = _unique(symbols), _unique(others)
    pairs = [(name, address, theirs[name]) for name, address in ours.items() if name in theirs]
    if len(pairs) < _LEAST_COMMON:
        return Comparison(None, len(pairs), {})
    moves = Counter([other - address for _, address, other in pairs])
    slide = moves.most_common(1)[0][0]
    differing = {
        name: (address, other)
        for name, address, other in pairs
        if other - address != slide and not (other == address and address >> 32 == 0)
    }
    return Comparison(slide & ADDRESS_MASK, len(pairs), differing)


def _unique(symbols: SymbolList) -> dict[bytes, int]:
    numbers = symbols.numbers
    if len(numbers) == len(symbols.names):
        return dict(zip(symbols.names, symbols.addresses))
    counts = Counter(symbols.names)
    return {name: address for name, address in zip(symbols.names, symbols.addresses) if counts[name] == 1}


def checked(comparison: Comparison, one: str, other: str) -> Comparison:
    """The comparison, if the two can be of one kernel. MismatchError names both sources."""
    if comparison.slide is None:
        raise MismatchError(f"{one} and {other} have hardly a symbol in common: they are of different kernels")
    agreeing = comparison.common - len(comparison.differing)
    if agreeing < _LEAST_AGREEMENT * comparison.common:
        raise MismatchError(
            f"{one} and {other} are of different kernels: of {comparison.common:,} symbols that both have, "
            f"only {agreeing:,} are at the same distance"
        )
    return comparison


def disputes(comparison: Comparison, other: str) -> dict[str, str]:
    """What `other` says of the symbols on which the two differ, in words for the answers, by name."""
    slide = comparison.slide or 0
    return {
        name.decode("utf-8", "backslashreplace"): f"{other} has {name.decode('utf-8', 'backslashreplace')} elsewhere, "
        f"at {theirs:#x} ({ours + slide & ADDRESS_MASK:#x} by the source used)"
        for name, (ours, theirs) in comparison.differing.items()
    }
