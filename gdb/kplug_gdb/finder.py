"""Where the target's kernel is: found in the core's ways, remembered, and verified before every answer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

import gdb
from kplug.arch.registry import named
from kplug.errors import MismatchError, TargetError
from kplug.frozen import Frozen, field, replace
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.comparison import checked, compare, disputes, symbols_of
from kplug.image.placement import moved_by
from kplug.lifetimes import UNTIL_FILES_CHANGE, UNTIL_RESUMED, Memo, remembered
from kplug.memory import kaslr_ways as ways
from kplug.memory.image_search import RunningKernel, tells_more
from kplug.memory.kaslr_offset import (
    Attempt,
    Checker,
    Finding,
    Way,
    find_banners,
    find_kaslr_offset,
    link_placement,
    with_warning,
)
from kplug.memory.reading import Read
from kplug_gdb import events, linked, physical, registers, unnamed, vector_tables
from kplug_gdb.corefile import CoreFile, current_core
from kplug_gdb.reading import has_process
from kplug_gdb.settings import SETTINGS
from kplug_gdb.views import CoreView, KernelTablesView, LiveView, PhysicalCoreView, View, may_be_isolated

NOT_STARTED = (
    "the target has not reached its kernel yet (the CPU is at {pc}, in firmware or startup code): answered as linked"
)
STARTUP = "the CPU runs the kernel's startup code at its physical address: addresses are physical ones"
PHYSICAL_ONLY = (
    "this core has physical addresses only: gdb shows the vmlinux's data, not the dump's "
    "(use drgn or crash, or dump by virtual address: QEMU's dump-guest-memory -p)"
)
HARDLY_ANY = "this core does not hold the kernel's memory: the kernel's place is taken from its note"
_NO_TARGET = Attempt("no target", "there is no memory to look in")


class FoundKernel(Frozen):
    """Where the kernel is and how its memory is read now. `view` is None if there is no memory.

    `disputed` is what memory says about single symbols, by name, if the file has them elsewhere.
    """

    finding: Finding
    view: View | None
    disputed: Mapping[str, str] = field(default_factory=dict)


class Finder:
    """Finds the kernel, and finds it again only when it is no longer where it was."""

    def __init__(self) -> None:
        self.memo = Memo()
        self._found: FoundKernel | None = None
        self._checker: Checker | None = None
        self._unnamed: RunningKernel | None = None

    @property
    def found(self) -> FoundKernel | None:
        """What was found last."""
        return self._found

    @property
    def unnamed(self) -> KernelImage | None:
        """The kernel that was last found in memory without a file of it."""
        return self._unnamed.image if self._unnamed is not None else None

    def find(self, image: KernelImage) -> FoundKernel:
        """The kernel's place, verified now. KplugError, worded for the user, if it is not known."""
        self._begin(image)
        if image.banner is None and image.build_id is None and has_process():
            return self._by_its_symbols(image)
        if (self._checker is None or self._checker.image is not image) and has_process():
            self._checker = Checker(image)
        checker = self._checker if has_process() else None
        self._found = self._remembered(checker) or self._look(image, checker)
        return self._found

    def find_unnamed(self) -> tuple[KernelImage, FoundKernel]:
        """The kernel in the target's memory, without a file. TargetError says why there is none."""
        self._begin(None)
        running = self._unnamed
        found = self._remembered(running.checker if running is not None else None)
        view = found.view if found is not None else None
        if running is not None and view is not None and tells_more(view.read, running):
            self.memo.forget(UNTIL_RESUMED)
            found = None
        if running is None or found is None:
            running, found = self._search()
        self._found = found
        return running.image, found

    def _begin(self, image: KernelImage | None) -> None:
        """Forget what was found for another kernel or target, or with other settings."""
        inferior = gdb.selected_inferior()
        key = (image, inferior.num, inferior.connection, SETTINGS.kaslr_offset, SETTINGS.check, SETTINGS.kallsyms)
        if self.memo.notice(UNTIL_FILES_CHANGE, key):
            self.memo.forget(UNTIL_RESUMED)
            self._found = self._unnamed = None
        self.memo.notice(UNTIL_RESUMED, events.generation())

    def _remembered(self, checker: Checker | None) -> FoundKernel | None:
        """What was found, if it still holds."""
        before, self._found = self._found, None  # a failure must not leave the old answer
        return self._still_there(before, checker) if before is not None else None

    def _search(self) -> tuple[RunningKernel, FoundKernel]:
        """The kernel, from the kallsyms in its memory."""
        self._unnamed = None
        outcome = self._outcome()
        if isinstance(outcome, TargetError):
            raise TargetError(str(outcome))
        running, view = outcome
        self._unnamed = running
        tried = (Attempt("search of its memory", running.image.symbols.source),)
        finding = Finding(running.placement, tried, checked=True)
        return running, FoundKernel(_noting_physical(finding, view), view)

    @remembered(UNTIL_RESUMED)
    def _outcome(self) -> tuple[RunningKernel, View] | TargetError:
        """The result of the search, which is not repeated while the target stands still."""
        try:
            return unnamed.search()
        except TargetError as error:
            return error

    def _by_its_symbols(self, image: KernelImage) -> FoundKernel:
        """The place of a kernel of which only symbols are known: from the kallsyms in memory."""
        found = self._remembered(self._checker)
        if found is not None:
            self._found = found
            return found
        if not SETTINGS.check and SETTINGS.kaslr_offset is not None:
            placement = moved_by(image.extents, SETTINGS.kaslr_offset, "given by the user, not checked")
            return FoundKernel(Finding(placement, ()), next(_views()))
        try:
            running, found = self._search()
        except TargetError as error:
            raise TargetError(
                f"{image.path}: symbols alone cannot be distinguished from another kernel's, and {error} "
                "(with `set kplug check off` and `set kplug slide` that is not checked)"
            ) from None
        compared = checked(compare(symbols_of(image), symbols_of(running.image)), image.path, "the kernel in memory")
        mask = image.elf.word.mask
        kaslr_offset = (compared.kaslr_offset or 0) + running.placement.kaslr_offset & mask
        moved_back = running.placement.kaslr_offset - kaslr_offset
        known = [replace(proof, address=proof.address + moved_back & mask) for proof in running.checker.proofs]
        self._checker = Checker(image, known)
        agreeing = compared.common - len(compared.differing)
        outcome = f"{linked.signed(kaslr_offset, image)}: {agreeing:,} of {compared.common:,} common symbols agree"
        trail = (*found.finding.trail, Attempt("compared with those", outcome))
        placement = moved_by(image.extents, kaslr_offset, "compared with the kallsyms in memory")
        finding = replace(found.finding, placement=placement, trail=trail)
        self._found = FoundKernel(finding, found.view, disputes(compared, "the kernel in memory"))
        if not compared.differing:  # they are of one build, according to memory
            image.take_build_of(running.image)
        return self._found

    def _still_there(self, before: FoundKernel, checker: Checker | None) -> FoundKernel | None:
        """What was found before, if one read shows that it still holds; else None."""
        placement = before.finding.placement
        if placement is None or not before.finding.lasting:
            return None
        if before.view is None:
            return None if has_process() else before
        if not before.finding.checked:
            return before
        if not has_process() or checker is None:
            return None
        for view in _views() if not isinstance(before.view, (CoreView, PhysicalCoreView)) else (before.view,):
            if checker.still_matches(view.read, placement.kaslr_offset):
                return before if type(view) is type(before.view) else replace(before, view=view)
        # It moved: a reset that gdb does not know of. Then its registers are outdated too.
        registers.forget()
        physical.begin_question()
        self.memo.forget(UNTIL_RESUMED)
        return None

    def _look(self, image: KernelImage, checker: Checker | None) -> FoundKernel:
        if checker is None:  # there is no process
            if SETTINGS.kaslr_offset is not None:
                way_name = ways.given(SETTINGS.kaslr_offset).name
                placement = moved_by(image.extents, SETTINGS.kaslr_offset, f"{way_name}, not checked")
                trail = (Attempt(way_name, f"{linked.signed(SETTINGS.kaslr_offset, image)}, not checked"),)
                return FoundKernel(Finding(placement, trail), None)
            return FoundKernel(link_placement(image, "there is no target", trail=[_NO_TARGET]), None)
        core = current_core()
        if core is not None:
            return _in_core(image, checker, core)
        return _in_live_target(image, checker)


def _noting_physical(finding: Finding, view: View) -> Finding:
    return with_warning(finding, PHYSICAL_ONLY) if isinstance(view, PhysicalCoreView) else finding


def _views() -> Iterator[View]:
    """The ways to read a live kernel now, the plain one first; the other one is only tried if that fails."""
    yield LiveView()
    if may_be_isolated():
        yield KernelTablesView()


def _in_core(image: KernelImage, checker: Checker, core: CoreFile) -> FoundKernel:
    if SETTINGS.check and core.build_id and image.build_id and core.build_id != image.build_id:
        raise checker.mismatch(f"Linux version {core.release}".encode(), core.build_id)
    if core.physical_only:
        view: View = PhysicalCoreView(core)
        finding = _search(image, checker, view.read, [ways.vmcoreinfo(core.offset)])
        if finding.placement is None:
            finding = _noted(image, core, finding)
        if finding.placement is None:
            raise TargetError(f"where the kernel was is not known: {PHYSICAL_ONLY}")
        return FoundKernel(with_warning(finding, PHYSICAL_ONLY), view)
    view = CoreView(core)
    quick = [ways.not_moved(), ways.vmcoreinfo(core.offset), *_quick_ways(image, view.read)]
    finding = _search(image, checker, view.read, [*quick, _scan(image)])
    if finding.placement is None:
        finding = _noted(image, core, finding)
    if finding.placement is None and core.build_id and core.build_id == image.build_id:
        raise TargetError(f"{core.path}: of this kernel, but holds none of its memory, and does not say where it was")
    if finding.placement is None:
        raise _not_found(checker, view.read, finding)
    return FoundKernel(finding, view)


def _noted(image: KernelImage, core: CoreFile, finding: Finding) -> Finding:
    """The offset in the core's note, if its memory shows nothing and the note's build ID is the vmlinux's."""
    if SETTINGS.kaslr_offset is not None or core.offset is None or not core.build_id or core.build_id != image.build_id:
        return finding
    placement = moved_by(
        image.extents, core.offset, "KERNELOFFSET of the core's VMCOREINFO, whose BUILD-ID is the same"
    )
    attempt = Attempt("VMCOREINFO, not checked", f"{linked.signed(core.offset, image)}: its BUILD-ID is the vmlinux's")
    return Finding(placement, (*finding.trail, attempt), warnings=(HARDLY_ANY,))


def _in_live_target(image: KernelImage, checker: Checker) -> FoundKernel:
    pc = registers.program_counter()
    low = registers.in_startup()
    finding = Finding(None, ())
    views = list(_views())
    for view in views:
        quick = [ways.not_moved(), *_quick_ways(image, view.read)]
        finding = _search(image, checker, view.read, quick, finding.trail, view.label)
        if finding.placement is not None:
            return FoundKernel(finding, view)
    if low:
        finding = _search(
            image, checker, views[0].read, [ways.identity(image, views[0].read, pc, checker)], finding.trail
        )
        if finding.placement is not None:
            return FoundKernel(with_warning(finding, STARTUP, lasting=False), views[0])
    for view in views if registers.paging() else ():
        finding = _search(image, checker, view.read, [_scan(image)], finding.trail, view.label)
        if finding.placement is not None:
            return FoundKernel(finding, view)
    if low:
        warning = NOT_STARTED.format(pc=f"{pc:#x}")
        why = "the kernel does not run yet"
        return FoundKernel(link_placement(image, why, warning, finding.trail, lasting=False), views[0])
    raise _not_found(checker, views[-1].read, finding)


def _search(
    image: KernelImage,
    checker: Checker,
    read: Read,
    chosen: list[Way],
    trail: Iterable[Attempt] = (),
    label: str = "",
) -> Finding:
    """The user's KASLR offset alone if there is one, else the given ways."""
    if SETTINGS.kaslr_offset is None:
        chosen = [replace(way, name=f"{way.name}{label}") for way in chosen]
        return find_kaslr_offset(checker, read, chosen, check=SETTINGS.check, trail=tuple(trail))
    given = ways.given(SETTINGS.kaslr_offset)
    finding = find_kaslr_offset(checker, read, [given], check=SETTINGS.check)
    if finding.placement is None:
        raise MismatchError(
            f"{image.path}: the kernel is not at the KASLR offset {SETTINGS.kaslr_offset:#x} "
            "(`set kplug slide auto` looks for it; "
            "with `set kplug check off` it is not checked)"
        )
    return finding


def _quick_ways(image: KernelImage, read: Read) -> list[Way]:
    """The ways that take a read or two."""
    chosen = [ways.already_moved(_applied(image))]
    table = named(image.machine).vector_table
    if table is None:
        return chosen
    if table.fixed is not None:
        chosen.append(ways.by_vector_table(image, read, f"{table.name} at its fixed address", (table.fixed,)))
    if table.registers:
        chosen.append(ways.by_vector_table(image, read, table.name, vector_tables.register_bases(table)))
    if table.monitor is not None:
        name = f"{table.name}, its base from QEMU's monitor"
        chosen.append(ways.by_vector_table(image, read, name, vector_tables.monitor_bases(table)))
    return chosen


def _scan(image: KernelImage) -> Way:
    return ways.search(image, registers.program_counter())


def _applied(image: KernelImage) -> int | None:
    """The KASLR offset of gdb's own symbols; None if they are not moved."""
    return linked.applied_offset(image) or None


def _not_found(checker: Checker, read: Read, finding: Finding) -> Exception:
    """Why the kernel was not found, as far as that is known."""
    ours = checker.image.banner or b""
    for banner in find_banners(read, _where_kernels_are(checker.image, read), _CHUNK):
        if banner not in ours:
            return checker.mismatch(banner)
    if physical.stub_has_it() and physical.mode_on():
        return TargetError("QEMU is in physical memory mode: `maintenance packet Qqemu.PhyMemMode:0` puts it back")
    if registers.privileged() is False:
        return TargetError(
            f"the CPU is in user mode, where the kernel may not be mapped, and {physical.why_not_walked()}: "
            "let it run and stop it in the kernel"
        )
    tried = ", ".join(dict.fromkeys(attempt.way for attempt in finding.trail))
    return TargetError(
        f"{checker.image.path}: not found in the target's memory; is it another kernel? (tried: {tried})"
    )


_CHUNK = 64 << 10
_LOOK_SECONDS = 2.0


def _where_kernels_are(image: KernelImage, read: Read) -> Iterator[int]:
    """Where another kernel's read-only data may be: after its exception handlers, and after the running code, which may
    be a module's. Limited to a time that a user would wait.
    """
    deadline = time.monotonic() + _LOOK_SECONDS
    pc = registers.program_counter()
    in_kernel = pc is not None and image.elf.word.is_kernel(pc) and registers.privileged() is not False
    running = (pc,) if pc is not None and in_kernel else ()
    for start in (*vector_tables.handlers(named(image.machine), read), *running):
        for number in range((64 << 20) // _CHUNK):
            if time.monotonic() > deadline:
                return
            # The overlap catches a banner across the edge of two chunks.
            yield (start & ~(_CHUNK - 1)) + number * (_CHUNK - 512)
