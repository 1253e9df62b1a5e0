"""A Program over memory that is read by a debugger, which has the kernel stopped."""

from __future__ import annotations

from typing import Callable, Protocol

import drgn

from kplug.arch.registry import named
from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.errors import TargetError
from kplug.image.placed import PlacedImage
from kplug.memory.kernel_note import kernels_note, with_offset
from kplug.memory.reading import FaultError, Read
from kplug.memory.variables import memory_facts
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel.platform import platform_of
from kplug.runtime.opening.drgn_calls import heard, switched
from kplug.runtime.opening.opening import PLUGIN_SWITCH
from kplug.runtime.opening.request import Opened
from kplug.runtime.opening.vmlinux import try_file


class Memory(Protocol):
    """Reads the kernel's memory. FaultError if it is not mapped, or cannot be read."""

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a kernel virtual address."""

    def read_physical(self, address: int, size: int) -> bytes:
        """Bytes at a physical address."""


def open_over(memory: Memory, placed: PlacedImage, description: str) -> Opened:
    """The kernel of `placed`, with its current memory. Its types come from its vmlinux, if that has any.

    TargetError, worded for the user, if memory does not have what drgn needs.
    """
    image = placed.image
    platform = platform_of(image.machine)
    if platform is None:
        raise TargetError(f"drgn does not know the architecture {image.machine}")
    info = kernels_note(placed, memory.read)
    how = () if info is not None else ("VMCOREINFO: none in memory; the least that drgn needs, from the vmlinux",)
    info = info if info is not None else _least_note(placed, memory.read)
    info = with_offset(info, placed.placement.signed_kaslr_offset)
    if info.build_id and image.build_id and info.build_id != image.build_id:
        raise TargetError(f"{image.path} has build ID {image.build_id}, the target's kernel {info.build_id}")
    prog, start = drgn.Program(platform), image.elf.word.kernel_start
    prog.add_memory_segment(0, BEYOND_ADDRESSES - 1, _served(memory.read_physical), True)
    # Plug-ins belong to a prompt of drgn's, or look for debug information elsewhere.
    with heard() as messages, switched(PLUGIN_SWITCH, "*"):
        prog.set_linux_kernel_custom(info.text, is_live=True)
        # drgn takes a size of 64 bits, which is not enough for all addresses where the kernel has no half of its own.
        size = min(image.elf.word.mask + 1 - start, BEYOND_ADDRESSES - 1)
        prog.add_memory_segment(start, size, _served(memory.read), False)
        if start:
            prog.add_memory_segment(0, start, _nothing, False)
        main = next(iter(prog.loaded_modules()))[0]
        if image.on_disk:
            try_file(main, image.path)
            if main.wants_debug_file() and image.symbols_path != image.path:
                try_file(main, image.symbols_path)
        has_dwarf = _has_types(prog)
    warnings = tuple(f"drgn: {message}" for message in messages)
    path = image.path if image.on_disk else None
    return Opened(prog, description, True, path, info, how, warnings, image=image, has_dwarf=has_dwarf)


def _has_types(prog: drgn.Program) -> bool:
    """Whether there is debug information. All of it is read now, so that later questions need not wait."""
    try:
        prog.type("struct page")
    except LookupError:
        return False
    return True


def _served(read: Read) -> Callable[[int, int, int, bool], bytes]:
    """The reader as drgn calls it. Errors other than unmapped memory pass through drgn to its caller."""

    def serve(address: int, size: int, offset: int, physical: bool) -> bytes:
        try:
            return read(address, size)
        except FaultError as error:
            raise drgn.FaultError(str(error), address) from None

    return serve


def _nothing(address: int, size: int, offset: int, physical: bool) -> bytes:
    raise drgn.FaultError("address is not mapped", address)


# -- VMCOREINFO --------------------------------------------------------------------------------------------------------


def _least_note(placed: PlacedImage, read: Read) -> VmcoreInfo:
    """What drgn needs, from the vmlinux and the kernel's variables. TargetError if these do not have it."""
    image = placed.image
    least = named(image.machine).least_vmcoreinfo
    if least is None:
        raise TargetError("the kernel has no VMCOREINFO in its memory, without which drgn cannot work")
    facts = memory_facts(placed, read)
    top = [symbol for name in least.top_tables for symbol in image.symbols.exact(name)]
    if facts.phys_base is None or not top:
        raise TargetError("the kernel has no VMCOREINFO in its memory, and its phys_base cannot be read")
    kaslr_offset = placed.placement.signed_kaslr_offset
    lines = (
        f"OSRELEASE={image.release or ''}",
        f"PAGESIZE={least.page_size}",
        f"SYMBOL(swapper_pg_dir)={placed.symbol_address(top[0]):x}",
        f"NUMBER(phys_base)={facts.phys_base}",
        f"NUMBER(pgtable_l5_enabled)={int(bool(facts.pgtable_l5_enabled))}",
        f"KERNELOFFSET={'-' if kaslr_offset < 0 else ''}{abs(kaslr_offset):x}",
    )
    return VmcoreInfo("\n".join(lines) + "\n")
