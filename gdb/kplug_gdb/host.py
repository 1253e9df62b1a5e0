"""The one place that knows what kplug works with at this moment: a `Session` of the core, made of what gdb has."""

from __future__ import annotations

from collections.abc import Sequence

import gdb
from kplug.errors import InputError, KplugError, TargetError
from kplug.expressions import Hints
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.memory.kernel_note import kernels_note, with_vmcoreinfo
from kplug.memory.percpu import StaticPercpu
from kplug.memory.variables import memory_facts, static_facts
from kplug.model import Layer, State
from kplug.session import Missing, Session
from kplug.space.address_space import AddressSpaceFacts
from kplug_gdb import watch
from kplug_gdb.drgn_answers import DrgnModules, RuntimeImages, RuntimeInstances, RuntimeLocator, RuntimeStates
from kplug_gdb.drgn_kernel import COST, Runtime, has_types
from kplug_gdb.finder import Finder, FoundKernel
from kplug_gdb.gdb_target import GdbTarget
from kplug_gdb.lines import GdbLines
from kplug_gdb.reading import CLOSED, has_process
from kplug_gdb.settings import SETTINGS
from kplug_gdb.vmlinux import NoVmlinuxError, OpenedImages

_REMEDIES = (
    "give one with `file VMLINUX` or `set kplug vmlinux FILE`, or what there is of it with `set kplug vmlinuz FILE` or "
    "`set kplug system-map FILE`"
)
_HINTS = Hints(
    vmlinux="file VMLINUX",
    module="add-symbol-file FILE.ko ADDR -s SECTION ADDR",
    slide="set kplug slide OFFSET",
    memory="`target remote ...`, or `core VMCORE`",
)


class Host:
    """Holds what is costly to make, and makes it again when what it was made of is no longer so."""

    def __init__(self) -> None:
        self.images = OpenedImages()
        self.finder = Finder()
        self.target = GdbTarget()
        self.runtime = Runtime(self.target)
        self.target.records = self.runtime
        self._placed: tuple[object, list[PlacedImage]] = (None, [])
        self._known: tuple[object, AddressSpaceFacts] = (None, AddressSpaceFacts())
        self._session: tuple[object, Session] | None = None

    def session(self) -> Session:
        """The session for a question asked now: the kernel is where it says. KplugError, worded for the user."""
        # What is known of another inferior, or of a moment ago, is nothing to go by if this fails.
        self.target.view, self.target.kernel, self.target.images = None, None, ()
        image, found = self._kernel()
        self.target.view = found.view
        placed = self._images(image, found)
        facts = self._address_space(placed, found)
        if found.view is not None and not has_process():
            raise TargetError(CLOSED)  # just now: what could not be read for that reason is not known to be absent
        self.target.kernel, self.target.images = placed[0], placed
        asks_drgn = self.runtime.prepare(placed[0], found, facts)
        key = (placed, found.finding, facts, SETTINGS.lines, asks_drgn)
        if self._session is None or self._session[0] != key:
            self._session = (key, self._make(placed, facts, found, asks_drgn))
        return self._session[1]

    def _kernel(self) -> tuple[KernelImage, FoundKernel]:
        """The kernel by its file and where that is in memory; or, where no file is there, as memory has it."""
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
        """The kernel as far as it is known without asking the target. InputError if its file cannot be read."""
        try:
            return self.images.kernel()
        except NoVmlinuxError:
            return self.finder.unnamed

    def _images(self, image: KernelImage, found: FoundKernel) -> list[PlacedImage]:
        """The images in their places; the same objects as long as they are there."""
        placement = found.finding.placement
        assert placement is not None  # Finder raises where there is none
        modules = self.images.modules()
        key = (placement, image, *modules)
        if self._placed[0] != key:
            placed = [PlacedImage(image, placement)]
            placed[0].disputed = {**self.images.disputed, **found.disputed}
            placed += [PlacedImage(module, as_linked(module.sections, "add-symbol-file")) for module in modules]
            self._placed = (key, placed)
        return self._placed[1]

    def _address_space(self, placed: list[PlacedImage], found: FoundKernel) -> AddressSpaceFacts:
        """What memory says of the address space; read again when the target ran on."""
        if found.view is None or not found.finding.lasting:
            return static_facts(placed[0])
        key = (watch.generation(), found)
        if self._known[0] != key:
            facts = memory_facts(placed[0], found.view.read)
            # What is no variable: arm64's 52-bit addresses (since 6.9), its pointer authentication, its areas' bounds.
            note = kernels_note(placed[0], found.view.read)
            if note is not None:
                facts = with_vmcoreinfo(facts, note, placed[0].image.machine)
            self._known = (key, facts)
        return self._known[1]

    def status_session(self) -> Session:
        """The session, or one without images that says in its warnings why there is none."""
        try:
            session = self.session()
            session.host_facts = self._facts()
            session.missing = tuple(self._missing(session.images.given[0]))
            return session
        except KplugError as error:
            facts = self._facts()
            path = self.images.path()
            if path is not None:
                facts["vmlinux"] = path
            missing = self.runtime.absent()
            return Session([], target=self.target, host_facts=facts, warnings=[str(error)], missing=missing)

    def _facts(self) -> dict[str, str]:
        facts = {"gdb": gdb.VERSION}
        if self.target.view is not None:
            facts["memory"] = self.target.view.description
        drgn = self.runtime.description()
        if drgn is not None:
            facts["drgn"] = drgn
        return facts

    def _make(
        self, placed: list[PlacedImage], facts: AddressSpaceFacts, found: FoundKernel, asks_drgn: bool
    ) -> Session:
        percpu, runtime = _Percpu(placed[0], self.target), self.runtime
        locator = RuntimeLocator(runtime, percpu) if asks_drgn else percpu
        return Session(
            RuntimeImages(placed, runtime) if asks_drgn else placed,
            target=self.target,
            locators=(locator,) if found.finding.lasting else (),
            percpu=RuntimeInstances(runtime, percpu) if asks_drgn else percpu,
            modules=DrgnModules(runtime) if asks_drgn else None,
            contents=runtime.areas if asks_drgn else None,
            facts=facts,
            lines=GdbLines() if SETTINGS.lines else None,
            states=RuntimeStates(runtime, self.target) if asks_drgn else _States(self.target),
            warnings=found.finding.warnings,
            ways=[f"{attempt.way}: {attempt.outcome}" for attempt in found.finding.trail],
            hints=_HINTS,
        )

    def _missing(self, placed: PlacedImage) -> list[Missing]:
        """What answers lack, with what gdb has."""
        found = self.finder.found
        lacking = []
        if not placed.image.on_disk and not placed.image.sections:
            lacking.append(Missing("a vmlinux", "sections, segments", "`file VMLINUX`, or `set kplug vmlinuz FILE`"))
        if not any(section.name in (".debug_info", ".debug_line") for section in placed.image.sections):
            has_records = found is None or found.view is None or has_types(placed.image)
            cost = "source lines" if has_records else f"source lines; {COST}"
            lacking.append(Missing("debug information", cost, "load the vmlinux of the kernel's debug package"))
        return lacking + (self.runtime.missing(placed, found) if found is not None else [])


class _Percpu(StaticPercpu):
    """The CPUs' own variables, by the memory of the moment; read at the first address that may be one's."""

    def __init__(self, placed: PlacedImage, target: GdbTarget) -> None:
        super().__init__(placed, target.read, watch.generation)
        self._target = target

    def locate(self, address: int) -> Sequence[Layer]:
        return super().locate(address) if self._target.view is not None else ()


class _States:
    """What memory says of an address, by the view of the moment."""

    def __init__(self, target: GdbTarget) -> None:
        self._target = target

    def state(self, address: int) -> State:
        view = self._target.view
        return view.state(address) if view is not None else State()


HOST = Host()
