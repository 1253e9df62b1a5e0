"""drgn inside gdb: the kernel's own records (`kplug.records`), of the target that gdb has.

drgn is imported, and a Program made, at the first question that needs it. If that fails, answers are as they are
without drgn, and `kplug` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gdb
from kplug.errors import KplugError, TargetError
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.lifetimes import UNTIL_FILES_CHANGE, UNTIL_RESUMED, Memo, is_remembered, remembered
from kplug.memory.variables import begins_to_boot
from kplug.records import Records, first_line
from kplug.session import Missing
from kplug_gdb import cpus, dependencies, physical, registers
from kplug_gdb.current_view import CurrentView
from kplug_gdb.gdb_target import description
from kplug_gdb.kernel_memory import KernelMemory
from kplug_gdb.settings import SETTINGS
from kplug_gdb.views import CORES, View
from kplug_gdb.waiting import doing

COST = "modules, slab objects, vmalloc, pages, stacks and tasks, allocated per-CPU memory"


class DrgnRecords:
    """The kernel's records through drgn (`kplug.records.Supply`), or why there are none.

    `placed` is the vmlinux in its place, `core` the path of the dump that gdb has open, None for a live target.
    `direct_map` gives the place where the kernel maps physical memory.
    """

    own_errors: tuple[type[Exception], ...] = (gdb.error,)

    def __init__(
        self,
        placed: PlacedImage,
        core: str | None,
        current: CurrentView,
        memo: Memo,
        direct_map: Callable[[], int | None],
    ) -> None:
        self.memo = memo
        self._placed = placed
        self._core = core
        self._current = current
        self._memory = KernelMemory(current, memo, self._reads_blocks, direct_map)

    def records(self) -> Records | None:
        return self._outcome()[0]

    def needed(self) -> Records:
        records, failure = self._outcome()
        if records is None:
            raise TargetError(f"the kernel's records cannot be read through drgn: {failure}")
        return records

    @property
    def failure(self) -> str | None:
        """Why they could not be made, if that was tried."""
        return self._outcome()[1] if is_remembered(self._outcome, self) else None

    def description(self) -> str | None:
        """For `kplug`: the state of drgn; None if it failed. Starts nothing."""
        if self.failure is not None:
            return None
        is_started = is_remembered(self._started, self)
        return dependencies.import_drgn() if is_started else "not started: no question needed it yet"

    @remembered(UNTIL_RESUMED)
    def _outcome(self) -> tuple[Records | None, str | None]:
        """The records, or why there are none. A failure is retried after the target ran."""
        if self._core is None and begins_to_boot(self._placed, self._current.read):
            return None, "the kernel has only begun to boot: its records are not set up"
        try:
            with dependencies.gdbs_signals_held_back(), doing("reading the kernel's records through drgn"):
                return self._started(), None
        except KplugError as error:
            return None, str(error)
        except Exception as error:  # the import, or a library that met something unknown, may raise anything
            return None, f"{type(error).__name__}: {first_line(error)}"

    @remembered(UNTIL_FILES_CHANGE)
    def _started(self) -> Records:
        dependencies.import_drgn()
        from kplug import progress
        from kplug.runtime.session import records_over

        progress.without_threads()  # gdb can only be used from its own thread
        selected = cpus.selected_cpu if self._core is None else _selected_registers
        of_guest = cpus.GuestRegisters(self._placed.image.machine)
        return records_over(self._memory, self.memo, self._placed, self._core, description(), selected, of_guest)

    @remembered(UNTIL_RESUMED)
    def _reads_blocks(self) -> bool:
        return is_fast()


def _selected_registers() -> Mapping[str, int] | None:
    """The registers pc and sp of the selected thread, as the core has them."""
    try:
        frame = gdb.newest_frame()
        return {name: registers.number(frame.read_register(name)) for name in ("pc", "sp")}
    except (gdb.error, ValueError):
        return None


def is_fast() -> bool:
    """Whether the stub is fast: QEMU's, while the CPU uses the kernel's address space."""
    return registers.paging() and physical.stub_has_it()


def is_wanted(image: KernelImage, view: View | None, lasting: bool) -> bool:
    """Whether to use drgn on this target; starts nothing."""
    if SETTINGS.drgn == "off" or not lasting or not image.has_types or not dependencies.has_drgn():
        return False
    return _fits(view)


def _fits(view: View | None) -> bool:
    """Whether the target is one that drgn is used on by default."""
    return view is not None and (isinstance(view, CORES) or SETTINGS.drgn == "on" or is_fast())


def missing(image: KernelImage, view: View | None, drgn: DrgnRecords | None) -> list[Missing]:
    """Why drgn is not used, or could not be started."""
    if not dependencies.has_drgn():
        return absent()
    if SETTINGS.drgn == "off" or view is None or not image.has_types:
        return []  # as the user said; no memory; said of the debug information
    if drgn is not None and drgn.failure is not None:
        return [Missing(f"drgn: {drgn.failure}", COST, "`set kplug drgn off` leaves it out")]
    if not _fits(view):
        return [Missing("drgn: not used on this stub", COST, "set kplug drgn on (reads some hundred times)")]
    return []


def absent() -> list[Missing]:
    """What drgn would add, and the command that installs it, if it is not installed."""
    if SETTINGS.drgn == "off" or dependencies.has_drgn():
        return []
    return [Missing("drgn", f"of a target's memory: {COST}", dependencies.drgn_remedy())]


def core_path_of(view: View | None) -> str | None:
    """The path of the dump of a view; None for a live target."""
    return view.core.path if isinstance(view, CORES) else None
