"""Where the target's kernel is: asked of the core's ways, remembered, and made sure of again before every answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import gdb
from kplug import slide_ways as ways
from kplug.errors import MismatchError, TargetError
from kplug.image.kernel_image import KernelImage
from kplug.memory import Read, UnmappedError
from kplug.placement import slid
from kplug.slide import Attempt, Checker, Finding, Way, find_banners, find_slide, link_placement, with_warning
from kplug_gdb import linked, physical, registers
from kplug_gdb.corefile import CoreFile, current_core
from kplug_gdb.reading import NO_ANSWER, has_process, timed_out
from kplug_gdb.settings import SETTINGS
from kplug_gdb.views import CoreView, KernelTablesView, LiveView, PhysicalCoreView, View, may_be_isolated

NOT_STARTED = (
    "the target has not got to its kernel yet (the CPU is at {pc}, in firmware or startup code): answered as linked"
)
STARTUP = "the CPU runs the kernel's startup code at its physical address: addresses are physical ones"
PHYSICAL_ONLY = (
    "this core has physical addresses only: gdb shows the vmlinux's data, not the dump's "
    "(use drgn or crash, or dump by virtual address: QEMU's dump-guest-memory -p)"
)
HARDLY_ANY = "this core does not hold the kernel's memory: its note's word is taken for where the kernel was"
_NO_TARGET = Attempt("no target", "there is no memory to look in")


@dataclass(frozen=True)
class Found:
    """Where the kernel is and how its memory is read now. `view` is None where there is no memory."""

    finding: Finding
    view: View | None


class Finder:
    """Finds the kernel, and finds it again only when it is no longer where it was."""

    def __init__(self) -> None:
        self._key: object = None
        self._found: Found | None = None
        self._checker: Checker | None = None

    @property
    def found(self) -> Found | None:
        """What was found last."""
        return self._found

    def find(self, image: KernelImage) -> Found:
        """The kernel's place, sure at this moment. KplugError, worded for the user, if there is none to be sure of."""
        inferior = gdb.selected_inferior()
        key = (image, inferior.num, inferior.connection, SETTINGS.slide, SETTINGS.check)
        if key != self._key:
            self._key, self._found = key, None
        if self._checker is None or self._checker.image is not image:
            self._checker = Checker(image)
        found = self._still_there(self._found, self._checker) if self._found is not None else None
        self._found = None  # while looking: what fails must not leave the old answer behind
        self._found = found or self._look(image, self._checker)
        return self._found

    def _still_there(self, before: Found, checker: Checker) -> Found | None:
        """What was found before, if one read says that it still holds; else None."""
        placement = before.finding.placement
        if placement is None or not before.finding.lasting:
            return None
        if before.view is None:
            return None if has_process() else before
        if not before.finding.checked:
            return before
        if not has_process():
            return None
        for view in _views() if not isinstance(before.view, (CoreView, PhysicalCoreView)) else (before.view,):
            if checker.still_matches(view.read, placement.slide):
                return before if type(view) is type(before.view) else Found(before.finding, view)
        # It moved: a reset that gdb was not told of. Then its registers are old ones too.
        registers.forget()
        return None

    def _look(self, image: KernelImage, checker: Checker) -> Found:
        if not has_process():
            if SETTINGS.slide is not None:
                finding = find_slide(checker, _nothing, [ways.told(SETTINGS.slide)], check=False)
                return Found(replace(finding, warnings=()), None)
            return Found(link_placement(image, "there is no target", trail=[_NO_TARGET]), None)
        core = current_core()
        if core is not None:
            return _in_core(image, checker, core)
        return _in_live_target(image, checker)


def _nothing(address: int, size: int) -> bytes:
    raise UnmappedError(f"nothing is mapped at {address:#x}")


def _views() -> Iterator[View]:
    """The ways to read a live kernel now, the plain one first; the other one is looked at only if that fails."""
    yield LiveView()
    if may_be_isolated():
        yield KernelTablesView()


def _in_core(image: KernelImage, checker: Checker, core: CoreFile) -> Found:
    if SETTINGS.check and core.build_id and image.build_id and core.build_id != image.build_id:
        raise checker.mismatch(f"Linux version {core.release}".encode(), core.build_id)
    if core.physical_only:
        view: View = PhysicalCoreView(core)
        finding = _search(image, checker, view.read, [ways.vmcoreinfo(core.offset)])
        if finding.placement is None:
            finding = _noted(image, core, finding)
        if finding.placement is None:
            raise TargetError(f"where the kernel was is not known: {PHYSICAL_ONLY}")
        return Found(with_warning(finding, PHYSICAL_ONLY), view)
    view = CoreView(core)
    quick = [ways.not_moved(), ways.vmcoreinfo(core.offset), *_quick_ways(image, view.read)]
    finding = _search(image, checker, view.read, [*quick, _scan(image)])
    if finding.placement is None:
        finding = _noted(image, core, finding)
    if finding.placement is None and core.build_id and core.build_id == image.build_id:
        raise TargetError(f"{core.path}: of this kernel, but holds none of its memory, and does not say where it was")
    if finding.placement is None:
        raise _not_found(checker, view.read, finding)
    return Found(finding, view)


def _noted(image: KernelImage, core: CoreFile, finding: Finding) -> Finding:
    """What the core's note says, where its memory says nothing and the build ID in it is the vmlinux's."""
    if SETTINGS.slide is not None or core.offset is None or not core.build_id or core.build_id != image.build_id:
        return finding
    placement = slid(image.extents, core.offset, "KERNELOFFSET of the core's VMCOREINFO, whose BUILD-ID is the same")
    told = Attempt("VMCOREINFO's word", f"{linked.signed(core.offset)}: its BUILD-ID is the vmlinux's")
    return Finding(placement, (*finding.trail, told), warnings=(HARDLY_ANY,))


def _in_live_target(image: KernelImage, checker: Checker) -> Found:
    pc = registers.program_counter()
    low = bool(registers.privileged()) and pc is not None and not pc >> 63
    finding = Finding(None, ())
    views = list(_views())
    for view in views:
        quick = [ways.not_moved(), *_quick_ways(image, view.read)]
        finding = _search(image, checker, view.read, quick, finding.trail, view.label)
        if finding.placement is not None:
            return Found(finding, view)
    if low:
        finding = _search(
            image, checker, views[0].read, [ways.identity(image, views[0].read, pc, checker)], finding.trail
        )
        if finding.placement is not None:
            return Found(with_warning(finding, STARTUP, lasting=False), views[0])
    for view in views if registers.paging() else ():
        finding = _search(image, checker, view.read, [_scan(image)], finding.trail, view.label)
        if finding.placement is not None:
            return Found(finding, view)
    if low:
        warning = NOT_STARTED.format(pc=f"{pc:#x}")
        why = "the kernel does not run yet"
        return Found(link_placement(image, why, warning, finding.trail, lasting=False), views[0])
    raise _not_found(checker, views[-1].read, finding)


def _search(
    image: KernelImage,
    checker: Checker,
    read: Read,
    chosen: list[Way],
    trail: Iterable[Attempt] = (),
    label: str = "",
) -> Finding:
    """The user's word alone if there is one, else the given ways."""
    if SETTINGS.slide is None:
        chosen = [replace(way, name=f"{way.name}{label}") for way in chosen]
        return find_slide(checker, read, chosen, check=SETTINGS.check, trail=tuple(trail))
    told = ways.told(SETTINGS.slide)
    finding = find_slide(checker, read, [told], check=SETTINGS.check)
    if finding.placement is None:
        raise MismatchError(
            f"{image.path}: the kernel is not at slide {SETTINGS.slide:#x} (`set kplug slide auto` looks for it; "
            "`set kplug check off` takes your word)"
        )
    return finding


def _quick_ways(image: KernelImage, read: Read) -> list[Way]:
    """The ways that cost a read or two."""
    chosen = [ways.already_moved(_applied(image))]
    if image.machine == "x86_64":
        chosen.append(ways.exception_table(image, read, "IDT at its fixed address", (ways.X86_64_IDT,)))
        chosen.append(ways.exception_table(image, read, "IDT, its base told by QEMU's monitor", _monitor_idt()))
    elif image.machine == "aarch64":
        chosen.append(ways.vector_table(image, _vector_bases()))
    return chosen


def _scan(image: KernelImage) -> Way:
    return ways.search(image, registers.program_counter())


def _applied(image: KernelImage) -> int | None:
    """How far gdb's own symbols are moved; None if they are not."""
    return linked.applied_slide(image) or None


def _vector_bases() -> Iterator[int]:
    base = registers.register("VBAR_EL1", "VBAR")
    if base is not None:
        yield base


def _monitor_idt() -> Iterator[int]:
    """IDT bases from QEMU's `info registers`; other stubs are not asked."""
    if not physical.stub_has_it():
        return
    started = time.monotonic()
    try:
        text = gdb.execute("monitor info registers", to_string=True)
    except UnicodeDecodeError:
        raise TargetError(NO_ANSWER) from None
    except gdb.error:
        if timed_out(started):
            raise TargetError(NO_ANSWER) from None
        return
    for match in re.finditer(r"^IDT=\s+([0-9a-f]+) [0-9a-f]+", text, re.MULTILINE):
        yield int(match.group(1), 16)


def _not_found(checker: Checker, read: Read, finding: Finding) -> Exception:
    """Why the kernel is not there, as far as that can be told."""
    ours = checker.image.banner or b""
    for banner in find_banners(read, _where_kernels_are(checker.image, read), _CHUNK):
        if banner not in ours:
            return checker.mismatch(banner)
    if physical.stub_has_it() and physical.mode_on():
        return TargetError("QEMU is in physical memory mode: `maintenance packet Qqemu.PhyMemMode:0` puts it back")
    if registers.privileged() is False:
        return TargetError(
            "the CPU is in user mode, where the kernel is not mapped, and this stub cannot read physical memory: "
            "let it run on and stop it in the kernel"
        )
    tried = ", ".join(dict.fromkeys(attempt.way for attempt in finding.trail))
    return TargetError(
        f"{checker.image.path}: not found in the target's memory; is it another kernel? (tried: {tried})"
    )


_CHUNK = 64 << 10
_LOOK_SECONDS = 2.0


def _where_kernels_are(image: KernelImage, read: Read) -> Iterator[int]:
    """Where another kernel's read-only data may be: behind its exception handlers, and behind the code that runs, which
    may be a module's. For as long as a person would wait.
    """
    starts = [ways.first_handler(read, ways.X86_64_IDT)] if image.machine == "x86_64" else [*_vector_bases()]
    deadline = time.monotonic() + _LOOK_SECONDS
    for start in (*starts, registers.program_counter()):
        for number in range((64 << 20) // _CHUNK) if start is not None and start >> 63 else ():
            if time.monotonic() > deadline:
                return
            # A banner that lies across the edge of two chunks is in the overlap.
            yield (start & ~(_CHUNK - 1)) + number * (_CHUNK - 512)
