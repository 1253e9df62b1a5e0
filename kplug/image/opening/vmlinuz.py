"""The kernel in a boot image (vmlinuz, Image): its sections if it is an ELF file inside, its symbols from kallsyms."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kplug.arch.registry import named
from kplug.arch.types.word import LITTLE
from kplug.errors import InputError
from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage

if TYPE_CHECKING:
    from kplug.files.bounded_output import ProgressCallback
    from kplug.image.boot.boot_image import BootImage
    from kplug.image.symbols.symbol_list import SymbolList

# Sections added by the C library's startup code and the linker of programs; sections of every kernel (some have
# .interp, too).
_PROGRAM_SECTIONS = frozenset((".note.ABI-tag", ".gnu.version_r", ".init_array"))
_KERNEL_SECTIONS = frozenset((".head.text", ".init.text", ".init.data", "__ksymtab", "__ex_table", "__param"))


def open_vmlinuz(path: str, progress: ProgressCallback | None = None) -> KernelImage:
    """The kernel in a boot image: its sections and segments if it is an ELF file inside, symbols from its kallsyms.

    InputError if there is no kernel in it.
    """
    from kplug.image.boot.boot_image import open_boot_image

    return kernel_in(open_boot_image(path, progress))


def kernel_in(boot: BootImage) -> KernelImage:
    """As `open_vmlinuz`, for a boot image that is already open."""
    return _from_elf(boot) if boot.kind == "ELF" else _from_flat(boot)


def _from_elf(boot: BootImage) -> KernelImage:
    elf = ElfFile(boot.path, io.BytesIO(boot.payload))
    symbols: Callable[[], SymbolList] | None = None
    if not elf.has_symbol_table:
        from kplug.image.kallsyms.embedded import embedded_symbols

        symbols = partial(embedded_symbols, elf, boot.payload)
    source = "ELF header of the kernel in the boot image"
    image = KernelImage(elf, name=os.path.basename(boot.path), listed=symbols, on_disk=False, sections_source=source)
    return refuse_program(image)


def refuse_program(image: KernelImage) -> KernelImage:
    """The image. InputError if its sections show that it is a program or a library."""
    names = {section.name for section in image.sections}
    if names & _PROGRAM_SECTIONS and not names & _KERNEL_SECTIONS:
        raise InputError(f"{image.path}: a program or a library, not a kernel")
    return image


def unpacks_itself(image: KernelImage) -> bool:
    """Whether an ELF file looks like code around a packed kernel: it has neither symbols nor a kernel's sections, and
    no banner.
    """
    if image.elf.has_symbol_table or image.is_module or image.has_dwarf:
        return False
    if {section.name for section in image.sections} & _KERNEL_SECTIONS:
        return False
    from kplug.image.banner import START

    return bool(image.elf.loaded) and not image.elf.holds(START)


def _from_flat(boot: BootImage) -> KernelImage:
    from kplug.image.boot.flat_image import FlatImage, address_of_start, link_base, moved_to, start_by_pointers
    from kplug.image.kallsyms.finder import find_tables, relocated_base
    from kplug.image.kallsyms.symbols import decode
    from kplug.image.opening.symbol_list_kernel import machine_of

    data = boot.payload
    memory_size = boot.header.image_size if boot.header is not None else len(data)
    tables = find_tables(data, name=boot.path)
    symbols = decode(data, tables, name=boot.path)
    machine = boot.machine or machine_of(symbols) or ""
    architecture = named(machine)
    word = architecture.word(8 * tables.word_size, tables.byte_order == LITTLE)
    if tables.from_start:
        if boot.header is not None:
            base = link_base(data, memory_size, word)
        else:
            base = start_by_pointers(data, symbols, word, architecture.link_alignment)
        if base is None:
            raise InputError(f"{boot.path}: its kallsyms count from where it is linked, which nothing in it tells")
        # Without CONFIG_KALLSYMS_ALL they count from the first function, which is not at the start.
        symbols = moved_to(symbols, base, relocated_base(tables, data, base.__add__) or base)
    else:
        base = address_of_start(data, symbols, word)
    elf = FlatImage(boot.path, data, machine, word, base or 0, lambda: symbols, memory_size=memory_size)
    return KernelImage(elf, name=os.path.basename(boot.path), listed=symbols, on_disk=False)
