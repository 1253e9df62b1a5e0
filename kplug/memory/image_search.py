"""A kernel in memory without a file or note: finds its image, its symbols, its KASLR offset.

The search starts at one address of its code, from a register or table of the processor. drgn is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kplug.arch import registry
from kplug.arch.types.word import WordFormat
from kplug.errors import InputError
from kplug.frozen import Frozen
from kplug.image.elf.file import build_id_in, notes_in
from kplug.image.elf.header_only import bare_elf
from kplug.image.kallsyms.in_memory import find_in_memory
from kplug.image.kallsyms.tables import KallsymsNotFoundError
from kplug.image.kernel_image import Build, KernelImage, release_of
from kplug.image.placement import Placement, as_it_runs, moved_by
from kplug.image.symbols.symbol_list import SymbolList
from kplug.memory.kallsyms_image import banner_at, linked
from kplug.memory.kaslr_offset import Checker, Proof, proofs
from kplug.memory.reading import Read, try_read
from kplug.memory.vmcoreinfo import VmcoreInfo, note_in_memory

# Called with the number of bytes searched, and the number there may be.
Progress = Callable[[int, int], None]

# Both architectures map the image by blocks of 2 MiB, or by pages within a multiple of it.
_STEP = 2 << 20
# Init memory is unmapped once it is freed: 7 MiB of Debian's arm64 kernel, and up to 2 MiB of alignment around it.
_HOLE_STEPS = 12
# Text is 20 MiB in distributions' kernels, with KASAN 60; x86_64 gives an image no more than 1 GiB.
_MOST_BELOW, _MOST_ABOVE = 64 << 20, 192 << 20
_MOST_NOTES = 1 << 16
# If there is no symbol for the banner (no KALLSYMS_ALL): code that is not patched, after the place that ftrace patches.
_UNPATCHED, _UNPATCHED_BYTES = ("kallsyms_lookup_name", 16), 32


class RunningKernel(Frozen):
    """A kernel that was found in memory: its image, its place, and what identifies it.

    The addresses of `image` are link addresses if the kernel has recorded its KASLR offset (`placement.link_known`),
    else runtime addresses.
    """

    image: KernelImage
    placement: Placement
    checker: Checker


def tells_more(read: Read, running: RunningKernel) -> bool:
    """Whether a kernel that was found before it recorded its KASLR offset has done so by now."""
    symbols = running.image.listed
    return (
        not running.placement.link_known
        and symbols is not None
        and _noted(read, symbols, running.image.machine).kaslr_offset is not None
    )


def image_around(read: Read, address: int, word: WordFormat) -> range | None:
    """The mapped addresses around one in the kernel's code, in steps of 2 MiB; None if nothing is mapped there.

    The range may have holes, and may reach beyond the image.
    """

    def mapped(start: int) -> bool:
        return word.is_kernel(start) and try_read(read, start, 1) is not None

    if not mapped(address):
        return None
    start = address // _STEP * _STEP
    while address - start < _MOST_BELOW and mapped(start - 1):
        start -= _STEP
    end, hole = (address // _STEP + 1) * _STEP, 0
    for place in range(end, min(address + _MOST_ABOVE, word.mask), _STEP):
        hole = 0 if mapped(place) else hole + 1
        if hole > _HOLE_STEPS:
            break
        end = end if hole else place + _STEP
    return range(start, end)


def find_kernel(
    read: Read,
    machine: str,
    near: Iterable[int],
    target: str,
    *,
    kaslr_offset: int | None = None,
    progress: Progress | None = None,
) -> RunningKernel:
    """The kernel whose code is at one of the addresses in `near`, by the kallsyms in its memory.

    `kaslr_offset` is the one that the user gave; `target` names the memory for errors and answers. `progress` may raise
    to end the search. KallsymsNotFoundError says why there is none; TargetError if memory cannot be read at all.
    """
    why = problem = ""
    searched: list[range] = []
    for address in near:
        if any(address in each for each in searched):
            continue
        around = image_around(read, address, registry.named(machine).word())
        if around is None:
            why = "nothing is mapped where its code would be"
            continue
        searched.append(around)
        try:
            symbols = find_in_memory(read, around.start, around.stop, progress=progress, name=target)
            return _running(read, machine, symbols, around, target, kaslr_offset)
        except InputError as error:
            problem = problem or str(error)
    raise KallsymsNotFoundError(problem or why or "the address of its code is not known")


def _running(
    read: Read, machine: str, symbols: SymbolList, around: range, target: str, given: int | None
) -> RunningKernel:
    start = symbols.address("_stext")
    if start is None or start not in around:
        raise KallsymsNotFoundError(f"{target}: the kallsyms there are not those of the running kernel")
    info = _noted(read, symbols, machine)
    kaslr_offset = given if given is not None else info.kaslr_offset
    listed = linked(symbols, kaslr_offset) if kaslr_offset is not None else symbols
    banner = banner_at(read, symbols.address("linux_banner"))
    elf = bare_elf(target, machine)
    build = Build(_build_id(read, symbols, elf.little_endian), banner, release_of(banner))
    image = KernelImage(elf, name="vmlinux", listed=listed, on_disk=False, build=build)
    if kaslr_offset is None:
        placement = as_it_runs(image.extents, "read from the kernel's memory, which does not have the KASLR offset")
    else:
        how = "given by the user" if given is not None else "KERNELOFFSET of the VMCOREINFO in its memory"
        placement = moved_by(image.extents, kaslr_offset, how)
    return RunningKernel(image, placement, Checker(image, _proofs(read, image, placement)))


def _proofs(read: Read, image: KernelImage, placement: Placement) -> tuple[Proof, ...]:
    """What identifies this kernel: its banner, else some of its code."""
    found = proofs(image)
    if found:
        return found
    name, offset = _UNPATCHED
    for symbol in image.symbols.exact(name):
        data = try_read(read, placement.runtime(symbol.address + offset), _UNPATCHED_BYTES)
        if data is not None:
            return (Proof("code", symbol.address + offset, data),)
    return ()


def _build_id(read: Read, symbols: SymbolList, little_endian: bool) -> str | None:
    start, end = symbols.address("__start_notes"), symbols.address("__stop_notes")
    if start is None or end is None or not 0 < end - start <= _MOST_NOTES:
        return None
    data = try_read(read, start, end - start)
    return build_id_in(notes_in(data, little_endian)) if data is not None else None


def _noted(read: Read, symbols: SymbolList, machine: str) -> VmcoreInfo:
    """The kernel's VMCOREINFO; empty if it has none, or not yet."""
    word = registry.named(machine).word()
    info = note_in_memory(
        read,
        symbols.address("vmcoreinfo_data"),
        symbols.address("vmcoreinfo_size"),
        word,
    )
    # It has the image's start as well, which proves that it is this kernel's.
    ours = info is not None and info.symbols.get("_stext") == symbols.address("_stext")
    return info if info is not None and ours else VmcoreInfo("")
