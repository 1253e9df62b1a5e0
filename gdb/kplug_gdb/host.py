"""The one place that knows what kplug works with at this moment: a `Session` of the core, made of what gdb has."""

from __future__ import annotations

import gdb
from kplug.errors import KplugError
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.model import State
from kplug.placement import Placement, as_linked
from kplug.session import Missing, Session
from kplug_gdb.finder import Finder, Found
from kplug_gdb.lines import GdbLines
from kplug_gdb.settings import SETTINGS
from kplug_gdb.target import GdbTarget
from kplug_gdb.vmlinux import Images


class Host:
    """Holds what is costly to make, and makes it again when what it was made of is no longer so."""

    def __init__(self) -> None:
        self.images = Images()
        self.finder = Finder()
        self.target = GdbTarget()
        self._key: object = None
        self._session: Session | None = None

    def session(self) -> Session:
        """The session for a question asked now: the kernel is where it says. KplugError, worded for the user."""
        image = self.images.vmlinux()
        found = self.finder.find(image)
        self.target.view, self.target.kernel = found.view, None
        placement = found.finding.placement
        assert placement is not None  # Finder raises where there is none
        modules = self.images.modules()
        key = (image, found.finding, tuple(modules), SETTINGS.lines)
        if self._session is None or key != self._key:
            self._session = self._make(image, placement, modules, found)
            self._key = key
        self.target.kernel = self._session.main
        return self._session

    def status_session(self) -> Session:
        """The session, or one without images that says in its warnings why there is none."""
        try:
            return self.session()
        except KplugError as error:
            facts = self._facts()
            image = self.images.vmlinux_if_open()
            if image is not None:
                facts["vmlinux"] = image.path
            return Session([], target=self.target, host_facts=facts, warnings=[str(error)])

    def _facts(self) -> dict[str, str]:
        facts = {"gdb": gdb.VERSION}
        if self.target.view is not None:
            facts["memory"] = self.target.view.description
        return facts

    def _make(self, image: KernelImage, placement: Placement, modules: list[KernelImage], found: Found) -> Session:
        placed = [PlacedImage(image, placement)]
        placed += [PlacedImage(module, as_linked(module.sections, "add-symbol-file")) for module in modules]
        return Session(
            placed,
            target=self.target,
            lines=GdbLines() if SETTINGS.lines else None,
            states=_States(self.target),
            warnings=found.finding.warnings,
            ways=[f"{attempt.way}: {attempt.outcome}" for attempt in found.finding.trail],
            host_facts=self._facts(),
            missing=_missing(image),
        )


def _missing(image: KernelImage) -> list[Missing]:
    """What answers lack, with what gdb has."""
    if any(section.name in (".debug_info", ".debug_line") for section in image.sections):
        return []
    return [Missing("debug information", "source lines", "load the vmlinux of the kernel's debug package")]


class _States:
    """What memory says of an address, by the view of the moment."""

    def __init__(self, target: GdbTarget) -> None:
        self._target = target

    def state(self, address: int) -> State:
        view = self._target.view
        return view.state(address) if view is not None else State()


HOST = Host()
