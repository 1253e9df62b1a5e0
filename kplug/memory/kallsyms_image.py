"""The kernel's image without a vmlinux: its symbols from the kallsyms tables in its memory."""

from __future__ import annotations

from array import array

from kplug.arch import registry
from kplug.arch.types.word import WIDEST_MASK
from kplug.errors import InputError, TargetError
from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import Build, KernelImage, release_of
from kplug.image.symbols.symbol_list import SymbolList
from kplug.memory.kaslr_offset import BANNER_PATTERN
from kplug.memory.reading import Read
from kplug.memory.vmcoreinfo import VmcoreInfo

# How far after the start of its text the tables are sought if the kernel does not name them, and their approximate
# place in distributions' kernels, whose text and rodata are 20 to 40 MB.
_SEARCHED_BYTES = 1 << 27
_USUAL_DISTANCE = 18 << 20
_BANNER_BYTES = 512


def image_from_memory(read: Read, info: VmcoreInfo, machine: str, target: str) -> KernelImage | None:
    """The image of the kernel that `info` describes, made from its kallsyms; None if these are not found.

    Its addresses are link addresses. `target` names the dump or guest for the user.
    """
    symbols = symbols_in_memory(read, info, machine)
    if symbols is None or not len(symbols):
        return None
    kaslr_offset = info.kaslr_offset or 0
    elf = bare_elf(f"memory of {target}", machine)
    banner = banner_at(read, symbols.address("linux_banner"))
    # kallsyms of functions alone (no CONFIG_KALLSYMS_ALL) does not say where the banner is.
    build = Build(info.build_id, banner, release_of(banner) or info.release)
    return KernelImage(elf, name="vmlinux", listed=linked(symbols, kaslr_offset), on_disk=False, build=build)


def symbols_in_memory(read: Read, info: VmcoreInfo, machine: str) -> SymbolList | None:
    """The kernel's kallsyms at their runtime addresses; None if they are not found."""
    from kplug.image.kallsyms.in_memory import find_in_memory, from_symbols

    architecture = registry.named(machine)
    for byte_order in architecture.byte_orders:
        try:
            # VMCOREINFO names the tables since 6.0 (5fd8fea935a1, f09bddbd8661).
            return from_symbols(info.symbols, read, word_size=architecture.word_size, byte_order=byte_order)
        except (InputError, TargetError):
            pass
    start = info.symbols.get("_stext")
    if start is None:
        return None
    try:
        return find_in_memory(read, start, start + _SEARCHED_BYTES, near=start + _USUAL_DISTANCE)
    except (InputError, TargetError):
        return None


def linked(symbols: SymbolList, kaslr_offset: int) -> SymbolList:
    """The symbols at their link addresses: moved back, except numbers below the image (x86's per-CPU variables up to
    6.14 are linked at 0, and do not move)."""
    starts = [address for name in ("_text", "_stext") if (address := symbols.address(name)) is not None]
    if not kaslr_offset or not starts:
        return symbols
    first, mask = min(starts), WIDEST_MASK
    addresses = array("Q", [at if at < first else at - kaslr_offset & mask for at in symbols.addresses])
    return SymbolList(symbols.strings, symbols.name_offsets, addresses, symbols.letters, symbols.source)


def banner_at(read: Read, address: int | None) -> bytes | None:
    """The banner at an address in memory, without its newline; None if there is none."""
    try:
        data = read(address, _BANNER_BYTES) if address is not None else b""
    except TargetError:
        return None
    match = BANNER_PATTERN.match(data)
    return match.group() if match else None
