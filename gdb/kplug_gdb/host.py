"""The one place that knows what kplug currently works with: a `Session` of the core, made from what gdb has."""

from __future__ import annotations

from collections.abc import Sequence

import gdb
from kplug.assembly import Found, FrontEnd, session_of, unplaced_modules
from kplug.errors import InputError, KplugError, TargetError
from kplug.expressions import Hints
from kplug.frozen import Frozen
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.debug_files import dwarf_file, has_dwarf, missing_dwarf
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement, as_linked
from kplug.lifetimes import FOR_EVER, UNTIL_FILES_CHANGE, UNTIL_RESUMED, Memo, remembered
from kplug.memory.kaslr_offset import Finding, with_warning
from kplug.memory.kernel_note import noted_facts
from kplug.memory.variables import static_facts
from kplug.records import on_demand
from kplug.session import Missing, Session
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space
from kplug_gdb import drgn_kernel, events, machine, physical
from kplug_gdb.current_view import CurrentView
from kplug_gdb.drgn_kernel import COST, DrgnRecords
from kplug_gdb.finder import Finder, FoundKernel
from kplug_gdb.gdb_target import GdbTarget
from kplug_gdb.lines import GdbLines
from kplug_gdb.reading import CLOSED, has_process
from kplug_gdb.settings import SETTINGS
from kplug_gdb.type_layouts import GdbLayouts
from kplug_gdb.views import KernelTablesView
from kplug_gdb.vmlinux import NoVmlinuxError, OpenedImages
from kplug_gdb.waiting import doing

_REMEDIES = (
    "give one with `file VMLINUX` or `set kplug vmlinux FILE`, or what there is of it with `set kplug vmlinuz FILE` or "
    "`set kplug system-map FILE`"
)
_HINTS = Hints(
    vmlinux="file VMLINUX",
    module="add-symbol-file FILE.ko ADDR -s SECTION ADDR",
    kaslr_offset="set kplug slide OFFSET",
    memory="`target remote ...`, or `core VMCORE`",
)


class PlacedKernel:
    """A kernel, valid while its files, its place and its target are the same."""

    def __init__(self, images: Sequence[PlacedImage], current: CurrentView, asks_drgn: bool) -> None:
        self.memo = Memo()
        self.images = images
        self._current = current
        core = drgn_kernel.core_path_of(current.view)
        self.drgn = DrgnRecords(images[0], core, current, self.memo, self._direct_map) if asks_drgn else None
        self.target = GdbTarget(current, self.memo, images, self.drgn, self._space)

    @remembered(UNTIL_RESUMED)
    def facts(self, lasting: bool) -> AddressSpaceFacts:
        """What is known about the address space; memory is read again after the target ran."""
        if self._current.view is None or not lasting:
            return static_facts(self.images[0])
        return noted_facts(self.images[0], self._current.view.read)

    @remembered(UNTIL_RESUMED)
    def _space(self) -> AddressSpace | None:
        return address_space(self.images[0].image.machine, self.facts(True))

    @remembered(FOR_EVER)
    def missing_file(self) -> str | None:
        """Which file with debug information is not there, for the user; None if there is no such file, or gdb found it
        at a place of its own."""
        image = self.images[0].image
        try:
            missing = missing_dwarf(image.elf) if image.on_disk else None
        except InputError as error:
            missing = str(error)
        return None if missing is None or self._has_lines() else missing

    @remembered(FOR_EVER)
    def lacks_debug_information(self) -> bool:
        """Whether neither kplug nor gdb found any."""
        image = self.images[0].image
        return self.missing_file() is not None or not (
            image.on_disk and (has_dwarf(image.elf) or self._has_lines() or dwarf_file(image.elf) is not None)
        )

    def _has_lines(self) -> bool:
        """Whether gdb has source lines of the kernel."""
        placed = self.images[0]
        known = placed.image.symbols.exact("start_kernel")
        return any(GdbLines().line_layers(placed.symbol_address(each), each.address, placed) for each in known)

    @remembered(UNTIL_RESUMED)  # or until gdb reads a file
    def _unread_file(self) -> str | None:
        """That gdb has not read a debug file that kplug found, for the user: gdb takes the name of one from a link."""
        image = self.images[0].image
        if not image.on_disk or has_dwarf(image.elf) or self._has_lines():
            return None
        found = dwarf_file(image.elf)
        if found is None:
            return None
        if SETTINGS.vmlinux:  # gdb's lines are taken for the file that has this name
            remedy = f"`symbol-file {found.path}` and `set kplug vmlinux {found.path}` have it do so"
        else:
            remedy = f"`symbol-file {found.path}` has it do so"
        return f"they are in {found.path}, which gdb has not read ({remedy})"

    def _without_lines(self, lines: bool) -> tuple[str, ...]:
        missing = self.missing_file() or self._unread_file() if lines else None
        return () if missing is None else (f"no source lines: {missing}",)

    def _direct_map(self) -> int | None:
        return self.facts(True).page_offset_base

    def session(self, finding: Finding, lines: bool) -> Session:
        """The session of this kernel, as it was found."""
        return self._session(finding, lines, self._without_lines(lines))

    @remembered(FOR_EVER)
    def _session(self, finding: Finding, lines: bool, without_lines: tuple[str, ...]) -> Session:
        """One for each warning: gdb may read debug information later."""
        return self.session_as(finding, lines, FrontEnd(_HINTS))

    def session_as(self, finding: Finding, lines: bool, front_end: FrontEnd) -> Session:
        """The session of a front end with these facts."""
        found = Found(
            self.images,
            facts=lambda: self.facts(finding.lasting),
            warnings=(*finding.warnings, *self._without_lines(lines)),
            ways=[f"{attempt.way}: {attempt.outcome}" for attempt in finding.trail],
            lasting=finding.lasting,
            # A kernel in memory says itself which modules it has.
            module_files=unplaced_modules((), self.images[0]) if self._current.view is None else None,
        )
        records = on_demand(self.images, self.target, self.drgn) if self.drgn is not None else None
        return session_of(
            found,
            self.target,
            records,
            lines=GdbLines() if lines else None,
            types=(GdbLayouts(),),
            front_end=front_end,
        )


class _Place(Frozen):
    """What identifies a kernel: its files, its place, and its target."""

    image: KernelImage
    placement: Placement
    modules: tuple[KernelImage, ...]
    target: tuple[object, ...]
    asks_drgn: bool


class Host:
    """Holds what is expensive to make, and makes it again when its inputs have changed."""

    def __init__(self) -> None:
        self.memo = Memo()
        self.images = OpenedImages()
        self.finder = Finder()
        self._current = CurrentView()

    def session(self) -> Session:
        """The session for a question, with the kernel's place verified now. KplugError, worded for the user."""
        known, found = self._known()
        finding = _of_program(found)
        if not finding.lasting:
            return known.session_as(finding, SETTINGS.lines, FrontEnd(_HINTS))
        return known.session(finding, SETTINGS.lines)

    def finding(self) -> Finding:
        """How the kernel's place was found, verified now. KplugError, worded for the user."""
        return self._known()[1].finding

    def _known(self) -> tuple[PlacedKernel, FoundKernel]:
        """The kernel, verified now, and how it was found."""
        physical.begin_question()
        # If this fails, what is known about another inferior, or from earlier, must not be used.
        self._current.look(None)
        with doing("looking for the kernel"):
            image, found = self._kernel()
        self._current.look(found.view)
        place = self._place(image, found)
        self.memo.notice(UNTIL_FILES_CHANGE, place)
        known = self._known_at(place)
        known.memo.notice(UNTIL_RESUMED, events.generation())
        known.facts(found.finding.lasting)
        if found.view is not None and not has_process():
            raise TargetError(CLOSED)  # just now: what could not be read for this reason may still exist
        return known, found

    def _place(self, image: KernelImage, found: FoundKernel) -> _Place:
        placement, inferior = found.finding.placement, gdb.selected_inferior()
        assert placement is not None  # Finder raises where there is none
        return _Place(
            image,
            placement,
            tuple(self.images.modules(image.elf.word)),
            (inferior.num, inferior.connection, found.view is None, drgn_kernel.core_path_of(found.view)),
            drgn_kernel.is_wanted(image, found.view, found.finding.lasting),
        )

    @remembered(UNTIL_FILES_CHANGE)
    def _known_at(self, place: _Place) -> PlacedKernel:
        disputed = {**self.images.disputed, **(self.finder.found.disputed if self.finder.found is not None else {})}
        placed = [PlacedImage(place.image, place.placement, disputed=disputed)]
        placed += [PlacedImage(module, as_linked(module.sections, "add-symbol-file")) for module in place.modules]
        return PlacedKernel(placed, self._current, place.asks_drgn)

    def _kernel(self) -> tuple[KernelImage, FoundKernel]:
        """The kernel from its file and its place in memory; without a file, from memory."""
        try:
            image = self.images.kernel()
        except NoVmlinuxError as error:
            if not has_process():
                raise InputError(f"{error}; {_REMEDIES}") from None
            try:
                return self.finder.find_unnamed()
            except TargetError as why:
                raise TargetError(f"{error}, and {why}; {_REMEDIES}") from None
        return image, self.finder.find(image)

    def known_image(self) -> KernelImage | None:
        """The kernel as far as it is known without reading the target. InputError if its file cannot be read."""
        try:
            return self.images.kernel()
        except NoVmlinuxError:
            return self.finder.unnamed

    def status_session(self) -> Session:
        """The session, or one without images whose warnings say why there is none."""
        try:
            known, found = self._known()
            front_end = FrontEnd(_HINTS, self._facts(known.drgn), _missing(known, found))
            return known.session_as(found.finding, SETTINGS.lines, front_end)
        except KplugError as error:
            facts, path = self._facts(None), self.images.path()
            if path is not None:
                facts["vmlinux"] = path
            target = GdbTarget(self._current, Memo())
            return session_of(
                Found(warnings=[str(error)]), target, front_end=FrontEnd(facts=facts, missing=drgn_kernel.absent())
            )

    def _facts(self, drgn: DrgnRecords | None) -> dict[str, str]:
        """What `kplug` reports about gdb."""
        facts = {"gdb": gdb.VERSION}
        if self._current.view is not None:
            facts["memory"] = self._current.view.description
        description = drgn.description() if drgn is not None else None
        if SETTINGS.drgn == "off":
            description = "off (set kplug drgn auto)"
        return facts if description is None else {**facts, "drgn": description}


def _of_program(found: FoundKernel) -> Finding:
    """The finding, with a warning where the CPU's registers are a program's, and could be taken for the kernel's."""
    architecture = machine.architecture()
    if architecture is None or not architecture.separate_programs or not isinstance(found.view, KernelTablesView):
        return found.finding
    said = f"the CPU runs a program, which has its own addresses on {architecture.title}; what is said is the kernel's"
    return with_warning(found.finding, said)


def _missing(known: PlacedKernel, found: FoundKernel) -> list[Missing]:
    """What is missing for full answers."""
    image = known.images[0].image
    lacking = []
    if not image.on_disk and not image.sections:
        lacking.append(Missing("a vmlinux", "sections, segments", "`file VMLINUX`, or `set kplug vmlinuz FILE`"))
    file = known.missing_file()
    if known.lacks_debug_information():
        cost = "source lines" if found.view is None or image.has_types else f"source lines; {COST}"
        what = "debug information" if file is None else f"debug information: {file}"
        lacking.append(Missing(what, cost, "load the vmlinux of the kernel's debug package"))
    return lacking + drgn_kernel.missing(image, found.view, known.drgn)


HOST = Host()
