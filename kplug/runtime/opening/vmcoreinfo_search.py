"""Finding VMCOREINFO in the memory of a kernel, if a dump or guest does not provide it.

The kernel keeps the text at the start of a page of its own (vmcoreinfo_data, from get_zeroed_page), and after a crash
once more as an ELF note. Memory may contain other copies, too: of a kernel that ran before (kexec), of a capture
kernel, in user programs. So a text counts only if the kernel that it describes is in memory where it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import drgn

from kplug.arch.registry import by_drgn
from kplug.image.kernel_image import KernelImage
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.vmcoreinfo import MAX_BYTES, VmcoreInfo, is_plausible
from kplug.progress import Progress
from kplug.space.address_space import AddressSpaceFacts

_START = b"OSRELEASE="
_PAGE = 4096
# Python handles Ctrl-C in between.
_STEP = 1 << 26
_HOLE = 1 << 20
_MAX_FAULTS = 1 << 20
_MAX_CANDIDATES = 256
_NAME_BYTES = 65  # a field of struct new_utsname


def bootstrap(release: str | None = None) -> str:
    """The smallest VMCOREINFO with which drgn opens a dump, for physical memory only.

    Without the level of x86's page tables libkdumpfile does not even read physical memory.
    """
    return (
        f"OSRELEASE={release or '6.0.0'}\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1000\n"
        "NUMBER(pgtable_l5_enabled)=0\nNUMBER(phys_base)=0\n"
    )


def find_notes(prog: drgn.Program, ranges: Sequence[tuple[int, int]], *, scattered: bool) -> Iterator[VmcoreInfo]:
    """The plausible VMCOREINFO texts in ranges (start, end) of physical memory, each once, as they are found.

    `scattered`: any single page may be missing, so every page is tried; else holes are skipped by the megabyte.
    """
    seen: set[str] = set()
    total = sum(end - start for start, end in ranges) or 1
    before = 0
    with Progress("searching VMCOREINFO in memory") as progress:
        for start, end in ranges:
            for address in _hits(prog, start, end, scattered, progress, (before, total)):
                info = VmcoreInfo(_text_at(prog, address))
                if info.text not in seen and is_plausible(info):
                    seen.add(info.text)
                    yield info
                    if len(seen) >= _MAX_CANDIDATES:
                        return
            before += end - start


def _hits(
    prog: drgn.Program, start: int, end: int, scattered: bool, progress: Progress, done: tuple[int, int]
) -> Iterator[int]:
    """The addresses in a range where the text may begin. Unreadable memory is skipped. `done` are the bytes searched
    before, and the total.
    """

    def search(first: int, stop: int) -> Iterator[int]:
        yield from prog.search_memory(_START).set_address_range(first, stop - 1, physical=True)

    position, hole, faults = start, 0, 0
    while position < end and faults < _MAX_FAULTS:
        progress.update((done[0] + position - start) / done[1])
        stop = min(end, (position // _STEP + 1) * _STEP)
        try:
            yield from search(position, stop)
            position = stop
            continue
        except drgn.FaultError as error:
            faults += 1
            missing = max(error.address, position) // _PAGE * _PAGE
        # That page is the first of several that drgn read at once, of which any may be missing.
        with suppress(drgn.FaultError):
            yield from search(max(missing, position), min(missing + _PAGE, end))
        hole = hole + _PAGE if missing // _PAGE * _PAGE <= position else _PAGE
        position = missing + _PAGE
        if not scattered and hole >= _HOLE:
            position = (missing // _HOLE + 1) * _HOLE


def _text_at(prog: drgn.Program, address: int) -> str:
    """The text at a physical address up to its end."""
    data = b""
    while b"\0" not in data and len(data) < MAX_BYTES:
        size = _PAGE - (address + len(data)) % _PAGE
        try:
            data += prog.read(address + len(data), size, True)
        except drgn.FaultError:
            break
    return data.split(b"\0", 1)[0].decode("ascii", "replace")


def stands_in_memory(prog: drgn.Program, info: VmcoreInfo) -> bool:
    """Whether the kernel's own name (init_uts_ns) is where `info`, with which `prog` was opened, says it is."""
    return name_is_there(prog, info, lambda address, size: _kernel_memory(prog, info, address, size))


def name_is_there(prog: drgn.Program, info: VmcoreInfo, read: Callable[[int, int], bytes | None] | None = None) -> bool:
    """The same, by one way of reading virtual memory: drgn's, if none is given."""
    address, offset = info.symbols.get("init_uts_ns"), info.offsets.get("uts_namespace.name")
    if address is None or offset is None:
        return False
    try:
        data = (read or prog.read)(address + offset, 3 * _NAME_BYTES)
    except (drgn.FaultError, ValueError, OverflowError):
        return False
    if data is None:
        return False
    system, _, release = (data[i : i + _NAME_BYTES].split(b"\0", 1)[0] for i in range(0, len(data), _NAME_BYTES))
    return system == b"Linux" and release.decode("ascii", "replace") == info.release


def _kernel_memory(prog: drgn.Program, info: VmcoreInfo, address: int, size: int) -> bytes | None:
    """The bytes at an address of the kernel's image, through its page tables, or if drgn cannot walk these (riscv64, in
    0.3), at the physical address that follows from `info`. None if they cannot be read.
    """
    try:
        return bytes(prog.read(address, size))
    except (drgn.FaultError, ValueError, OverflowError):
        pass
    architecture = by_drgn(prog.platform.arch.name) if prog.platform is not None else None
    if architecture is None or architecture.image_physical is None:
        return None
    physical = architecture.image_physical(address, with_vmcoreinfo(AddressSpaceFacts(), info, architecture.name))
    try:
        return None if physical is None else bytes(prog.read(physical, size, True))
    except (drgn.FaultError, ValueError, OverflowError):
        return None


def best_first(candidates: Iterable[VmcoreInfo], build_id: str | None, release: str | None) -> list[VmcoreInfo]:
    """The candidates, sorted: first those with the wanted build ID, then those with the wanted release."""
    return sorted(
        candidates,
        key=lambda info: (
            build_id is not None and info.build_id != build_id,
            release is not None and info.release != release,
        ),
    )


def candidates(
    prog: drgn.Program,
    ranges: Sequence[tuple[int, int]],
    scattered: bool,
    image: KernelImage | None,
    release: str | None,
) -> Iterator[VmcoreInfo]:
    """Candidates for the kernel's VMCOREINFO, in the order to try. Without a vmlinux to compare, the first is used."""
    build_id = image.build_id if image is not None else None
    later: list[VmcoreInfo] = []
    for info in find_notes(prog, ranges, scattered=scattered):
        if build_id is None or info.build_id == build_id:
            yield info
        else:
            later.append(info)
    yield from best_first(later, build_id, release)


def not_found(rejected: Sequence[VmcoreInfo], likely: str) -> str:
    if not rejected:
        return f"no VMCOREINFO in it, nor in its memory: {likely}, or give it with --vmcoreinfo FILE"
    releases = ", ".join(dict.fromkeys(str(info.release) for info in rejected))
    return (
        f"no VMCOREINFO in it; that of {releases} is in its memory, but no such kernel is where it says: "
        "give it with --vmcoreinfo FILE"
    )
