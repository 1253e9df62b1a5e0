"""A `Session` of the core over a drgn Program: the images in their places, the facts of memory, and the locators."""

from __future__ import annotations

from collections.abc import Sequence

from kplug.expressions import Hints
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import ADDRESS_MASK, Placement, slid
from kplug.memory.kernel_note import slide_of
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.finders import finders_of
from kplug.runtime.kernel.facts import facts_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.page_state import MemoryState
from kplug.runtime.locators.percpu import Percpu
from kplug.runtime.locators.registry import locators
from kplug.runtime.modules.debug_files import ProgramLines, debug_files_of
from kplug.runtime.modules.images import images_of
from kplug.runtime.modules.listing import RuntimeModules
from kplug.runtime.modules.module_list import module_areas
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Opened, Request
from kplug.runtime.threads.user_space import UserSpace
from kplug.session import Session

_KERNEL_OFFSET = "KERNELOFFSET in VMCOREINFO"
HINTS = Hints(vmlinux="give one with -s FILE", module="--module-dir DIR", slide="--vmcoreinfo FILE")


def open_session(request: Request, *, lines: bool = False) -> Session:
    """Open what the user named and make a session of it; say why there are no source `lines` if they are wanted.

    KplugError, worded for the user, if that cannot be.
    """
    return session_of(open_kernel(request), lines=lines)


def session_of(opened: Opened, hints: Hints = HINTS, *, lines: bool = False) -> Session:
    """The session of a kernel that is open. `hints` are the front end's words for what a person can do."""
    kernel = kernel_of(opened)
    core_path = opened.header.path if opened.header is not None else None
    target = DrgnTarget(kernel, opened.description, opened.cpus, core_path)
    user = UserSpace(kernel, target.selection)
    asked = locators(kernel, user)
    missing: Sequence[str] = ()
    if lines:
        from kplug.runtime.types.lines import DrgnLines

        missing = DrgnLines([kernel.image] if kernel.image is not None else []).warnings
    return Session(
        images_of(kernel),
        target=target,
        facts=lambda: facts_of(kernel),
        machine=kernel.machine,
        contents=lambda: module_areas(kernel),
        locators=asked,
        states=MemoryState(kernel, user),
        percpu=next((locator for locator in asked if isinstance(locator, Percpu)), None),
        modules=RuntimeModules(kernel),
        placement=_placement(opened.vmcoreinfo) if kernel.image is None else None,
        lines=ProgramLines(kernel, debug_files_of(kernel)),
        warnings=(*opened.warnings, *missing),
        ways=opened.how,
        hints=hints,
    )


def kernel_of(opened: Opened, placed: PlacedImage | None = None) -> Kernel:
    """What the locators share, of a kernel that is open; `placed` is its vmlinux, where the front end has that."""
    kernel = Kernel(
        opened.prog,
        placed or _placed_vmlinux(opened),
        live=opened.live,
        vmcoreinfo=opened.vmcoreinfo,
        has_dwarf=opened.has_dwarf,
        module_directories=opened.module_directories,
        left_out=opened.header.is_left_out if opened.header is not None else lambda physical: False,
    )
    if not opened.has_dwarf:
        finders_of(kernel)
    return kernel


def _placement(info: VmcoreInfo) -> Placement | None:
    """Where a kernel without a vmlinux is, as far as it tells."""
    return Placement(info.slide & ADDRESS_MASK, _KERNEL_OFFSET) if info.slide is not None else None


def _placed_vmlinux(opened: Opened) -> PlacedImage | None:
    image, info = opened.image, opened.vmcoreinfo
    if image is None and opened.vmlinux is not None:
        image = open_vmlinux(opened.vmlinux)
    if image is None:
        return None
    source = _KERNEL_OFFSET if info.slide is not None else "SYMBOL(_stext) in VMCOREINFO"
    placed = PlacedImage(image, slid(image.extents, slide_of(info, image), source))
    placed.disputed = opened.disputed
    return placed
