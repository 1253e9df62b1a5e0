"""A `Session` over a drgn Program: the vmlinux in its place, and what the locators share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kplug import assembly
from kplug.arch.types.word import WIDEST_MASK
from kplug.assembly import Found, FrontEnd
from kplug.errors import TargetError
from kplug.expressions import Hints
from kplug.frozen import replace
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement, as_it_runs, moved_by
from kplug.lifetimes import Memo
from kplug.memory.crash_notes import saved_notes
from kplug.memory.kallsyms_image import image_from_memory
from kplug.memory.kernel_note import kaslr_offset_of
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.records import Records
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.finders import finders_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.opening.debugger_memory import Memory, open_over
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Opened, Request
from kplug.runtime.records import records_of
from kplug.runtime.tables.missing_parts import in_missing_parts
from kplug.runtime.threads.cpu_registers import CpuRegisters, NoteRegisters
from kplug.runtime.threads.task_on_cpu import Selected, TaskOnCpu
from kplug.runtime.threads.user_space import UserSpace
from kplug.session import Session

_KERNEL_OFFSET = "KERNELOFFSET in VMCOREINFO"
HINTS = Hints(vmlinux="give one with -s FILE", module="--module-dir DIR", kaslr_offset="--vmcoreinfo FILE")


def open_session(request: Request, *, lines: bool = False) -> Session:
    """Open what the user named and make its session; a warning says why there are no source `lines` if wanted.

    KplugError, worded for the user, if it cannot be opened.
    """
    return session_of(open_kernel(request), lines=lines)


def session_of(opened: Opened, hints: Hints = HINTS, *, lines: bool = False) -> Session:
    """The session of an open kernel. `hints` are the front end's words for how to supply what is missing."""
    kernel = kernel_of(opened)
    core_path = opened.header.path if opened.header is not None else None
    why_nameless = "; ".join(opened.warnings) if kernel.image is None else ""
    target = DrgnTarget(kernel, opened.description, _cpu_registers(opened, kernel), core_path, why_nameless)
    given = [kernel.image] if kernel.image is not None else []
    missing: Sequence[str] = ()
    if lines:
        from kplug.runtime.types.lines import DrgnLines

        missing = DrgnLines(given).warnings
    found = Found(
        given,
        kernel.machine,
        _placement(opened.vmcoreinfo) if kernel.image is None else None,
        warnings=(*opened.warnings, *missing),
        ways=opened.how,
    )
    records = records_of(kernel, UserSpace(kernel, target.selection))
    return assembly.session_of(found, target, records, front_end=FrontEnd(hints))


def records_over(
    memory: Memory,
    memo: Memo,
    placed: PlacedImage,
    core: str | None,
    description: str,
    selected: Selected,
    cpus: CpuRegisters,
) -> Records:
    """The records of a kernel that a debugger holds, of which it reads the `memory` and the registers of the `cpus`, or
    of the dump `core` that it has open. `selected` says which CPU the user has selected. TargetError, worded for the
    user, if they cannot be had."""
    if core is None:
        opened = open_over(memory, placed, description)
    else:
        opened = open_kernel(Request(core=core, symbols=(placed.image.path,) if placed.image.on_disk else ()))
        if kaslr_offset_of(opened.vmcoreinfo, placed.image) - placed.placement.kaslr_offset & placed.placement.mask:
            raise TargetError(f"{core}: its VMCOREINFO says that the kernel was elsewhere")
    kernel = kernel_of(opened, placed, memo)
    if not kernel.has_types:  # which reads all of the debug information, in threads of drgn's
        raise TargetError(f"{placed.image.path}: drgn finds no types in it")
    known = _cpu_registers(opened, kernel) if core is not None else cpus
    return records_of(kernel, UserSpace(kernel, TaskOnCpu(kernel, selected, known), known))


def kernel_of(opened: Opened, placed: PlacedImage | None = None, memo: Memo | None = None) -> Kernel:
    """What the locators share, of a kernel that is open; `placed` is its vmlinux and `memo` what is remembered of it,
    where the front end has these."""
    kernel = Kernel(
        opened.prog,
        placed or _placed_vmlinux(opened),
        live=opened.live,
        vmcoreinfo=opened.vmcoreinfo,
        has_dwarf=opened.has_dwarf,
        module_directories=opened.module_directories,
        is_zero_filled=opened.header.is_zero_filled if opened.header is not None else lambda physical: False,
        is_missing=in_missing_parts(opened.missing),
        memo=memo,
    )
    if not opened.has_dwarf:
        finders_of(kernel)
    return kernel


def _cpu_registers(opened: Opened, kernel: Kernel) -> CpuRegisters | None:
    """The registers that drgn does not give: a guest's, or those in a dump's notes. /proc/kcore's are of no CPU as it
    runs: they are the reader's own."""
    if opened.header is None or opened.live:
        return opened.cpus

    path = opened.header.path

    def saved() -> Mapping[int, bytes]:
        placed = kernel.image
        if placed is None and kernel.machine:  # drgn's prompt without debug information
            image = image_from_memory(kernel.read, opened.vmcoreinfo, kernel.machine, path)
            placed = _placed_vmlinux(replace(opened, image=image))
        if placed is None:
            raise TargetError("crash_notes in memory says so, and where that is needs symbols (give a vmlinux with -s)")
        return saved_notes(placed, kernel.read)

    return NoteRegisters(path, opened.header.machine, saved)


def _placement(info: VmcoreInfo) -> Placement | None:
    """Where a kernel without a vmlinux is, as far as it tells."""
    return Placement(info.kaslr_offset & WIDEST_MASK, _KERNEL_OFFSET) if info.kaslr_offset is not None else None


def _placed_vmlinux(opened: Opened) -> PlacedImage | None:
    image, info = opened.image, opened.vmcoreinfo
    if image is None and opened.vmlinux is not None:
        image = open_vmlinux(opened.vmlinux)
    if image is None:
        return None
    if not image.on_disk and info.kaslr_offset is None:  # i386's and arm's do not say
        placement = as_it_runs(image.extents, "its symbols in memory, which say nothing of link addresses")
        return PlacedImage(image, placement, disputed=opened.disputed)
    source = _KERNEL_OFFSET if info.kaslr_offset is not None else "SYMBOL(_stext) in VMCOREINFO"
    return PlacedImage(image, moved_by(image.extents, kaslr_offset_of(info, image), source), disputed=opened.disputed)
