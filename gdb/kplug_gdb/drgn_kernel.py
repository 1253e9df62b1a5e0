"""drgn inside gdb: what the kernel's own records say (`kplug.runtime`), of the target that gdb has.

drgn is imported, and a Program made, at the first question that needs it. If that fails, answers are as they are
without drgn, and `kplug` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import gdb
from kplug import model
from kplug.errors import KplugError, TargetError
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.resolver import Locator
from kplug.session import Missing
from kplug.space.address_space import AddressSpaceFacts, Area
from kplug.target import StackBounds
from kplug_gdb import dependencies, physical, registers, watch
from kplug_gdb.gdb_target import GdbTarget, KernelRecords
from kplug_gdb.kernel_memory import KernelMemory
from kplug_gdb.settings import SETTINGS
from kplug_gdb.views import CoreView, PhysicalCoreView, View

if TYPE_CHECKING:
    from kplug.runtime.kernel.kernel import Kernel
    from kplug.runtime.modules.images import LoadedImages
    from kplug.runtime.opening.request import Opened
    from kplug_gdb.finder import FoundKernel

COST = "modules, slab objects, vmalloc, pages, stacks and tasks, allocated per-CPU memory"
# What the kernel never frees and nobody writes to: nothing in memory tells more of it than the vmlinux does.
_CONSTANT = frozenset((model.TEXT, model.RODATA, model.PERCPU_CLASS))
CORES = (CoreView, PhysicalCoreView)
_FIRST_PAGE, _LAST_PAGE = 4096, (1 << 64) - 4096


class Runtime(KernelRecords):
    """The kernel through drgn, or why it is not there. `prepare` comes before every question."""

    def __init__(self, target: GdbTarget) -> None:
        self._target = target
        self._memory = KernelMemory(target)
        self._placed: PlacedImage | None = None
        self._key: object = None
        self._generation: object = None
        self._kernel: Kernel | None = None
        self._locators: tuple[Locator, ...] = ()
        self._has_drgn: bool | None = None
        self._booting: bool | None = None
        self._version: str | None = None
        self.failure: str | None = None

    def prepare(self, placed: PlacedImage, found: FoundKernel, facts: AddressSpaceFacts) -> bool:
        """Whether drgn is to be asked of this target; nothing of it is started. `facts` are those of its memory."""
        if found.view is None or not self._is_wanted(placed.image, found):
            self._drop()
            return False
        inferior = gdb.selected_inferior()
        key = (placed, inferior.num, inferior.connection, _core_path(found.view))
        if key != self._key:
            self._drop()
            self._key, self._placed = key, placed
        if watch.generation() != self._generation:
            self._generation = watch.generation()
            self._memory.forget()
            self._booting = self.failure = None  # it may have by now what was missing
            if self._kernel is not None:
                self._kernel.moved()
        self._memory.direct_map = facts.page_offset_base
        return True

    def _drop(self) -> None:
        self._key = self._placed = self._kernel = self._booting = self.failure = None
        self._locators = ()
        self._memory.forget()

    # -- whether -------------------------------------------------------------------------------------------------------

    def _is_wanted(self, image: KernelImage, found: FoundKernel) -> bool:
        if SETTINGS.drgn == "off" or not found.finding.lasting or not has_types(image) or not self._is_there():
            return False
        return self._fits(found.view)

    def _is_there(self) -> bool:
        if self._has_drgn is None:
            self._has_drgn = dependencies.has_drgn()
        return self._has_drgn

    def _fits(self, view: View | None) -> bool:
        """Whether the target is one that drgn is asked about without a word of the user's."""
        if view is None:
            return False
        if isinstance(view, CORES):
            return True
        self._memory.whole_blocks = registers.paging() and physical.stub_has_it()
        return SETTINGS.drgn == "on" or self._memory.whole_blocks

    def missing(self, placed: PlacedImage, found: FoundKernel) -> list[Missing]:
        """Why drgn is not asked, or could not be started."""
        if not self._is_there():
            return self.absent()
        if SETTINGS.drgn == "off" or found.view is None or not has_types(placed.image):
            return []  # as the user said; no memory; said of the debug information
        if self.failure is not None:
            return [Missing(f"drgn: {self.failure}", COST, "`set kplug drgn off` leaves it out")]
        if not self._fits(found.view):
            return [Missing("drgn: not asked on this stub", COST, "set kplug drgn on (reads some hundred times)")]
        return []

    def absent(self) -> list[Missing]:
        """What drgn would add, and the command that installs it, where it is not there."""
        if SETTINGS.drgn == "off" or self._is_there():
            return []
        return [Missing("drgn", f"of a target's memory: {COST}", dependencies.drgn_remedy())]

    def description(self) -> str | None:
        """For `kplug`: what there is of drgn; None if it is not asked, although the user has not said so."""
        if SETTINGS.drgn == "off":
            return "off (set kplug drgn auto)"
        if self._key is None or self.failure is not None:
            return None
        return self._version if self._kernel is not None else "not started: no question needed it yet"

    # -- the kernel ----------------------------------------------------------------------------------------------------

    def kernel(self) -> Kernel | None:
        """The kernel; made at the first call. None if it cannot be: `failure` says why."""
        if self._placed is None:
            return None
        if self._begins_to_boot(self._placed):
            self.failure = "the kernel has only begun to boot: its records are not set up"
            return None
        if self._kernel is None and self.failure is None:
            try:
                with dependencies.gdbs_signals_held_back():
                    self._kernel = self._start(self._placed)
            except KplugError as error:
                self.failure = str(error)
            except Exception as error:  # of the import, and of a library that meets what it does not know
                self.failure = f"{type(error).__name__}: {first_line(error)}"
        return self._kernel

    def _begins_to_boot(self, placed: PlacedImage) -> bool:
        """Whether it has not come to SYSTEM_SCHEDULING (enum system_states): then its records mislead."""
        if self._booting is None:
            symbols = placed.image.symbols.exact("system_state")
            live = not isinstance(self._target.view, CORES)
            try:
                self._booting = (
                    live and bool(symbols) and not any(self._target.read(placed.symbol_address(symbols[0]), 4))
                )
            except TargetError:
                self._booting = False
        return self._booting

    def images(self) -> LoadedImages | None:
        """The kernel's image and its modules, as the kernel has them; None without a kernel."""
        kernel = self.kernel()
        if kernel is None:
            return None
        from kplug.runtime.modules.images import images_of

        return images_of(kernel)

    def needed(self) -> Kernel:
        """The kernel. TargetError if it cannot be had."""
        kernel = self.kernel()
        if kernel is None:
            raise TargetError(f"the kernel's records cannot be read through drgn: {self.failure}")
        return kernel

    def _start(self, placed: PlacedImage) -> Kernel:
        self._version = dependencies.import_drgn()
        from kplug import progress
        from kplug.runtime.locators.registry import locators
        from kplug.runtime.session import kernel_of

        progress.without_threads()  # gdb answers in its own thread only
        opened = self._open(placed)
        kernel = kernel_of(opened, placed)
        if not kernel.has_types:  # which reads all of the debug information, in threads of drgn's
            raise TargetError(f"{placed.image.path}: drgn finds no types in it")
        self._locators = locators(kernel)
        return kernel

    def _open(self, placed: PlacedImage) -> Opened:
        from kplug.memory.kernel_note import slide_of
        from kplug.runtime.opening.debugger_memory import open_over
        from kplug.runtime.opening.opening import open_kernel
        from kplug.runtime.opening.request import Request

        path = _core_path(self._target.view)
        if path is None:
            return open_over(self._memory, placed, self._target.description())
        files = (placed.image.path,) if placed.image.on_disk else ()
        opened = open_kernel(Request(core=path, symbols=files))
        if (slide_of(opened.vmcoreinfo, placed.image) - placed.placement.slide) % (1 << 64):
            raise TargetError(f"{path}: its VMCOREINFO says that the kernel was elsewhere")
        return opened

    @property
    def locators(self) -> Sequence[Locator]:
        """What is asked of an address. Empty without a kernel."""
        return self._locators if self.kernel() is not None else ()

    def concerns(self, address: int) -> bool:
        """Whether the kernel's records may tell more of an address than the vmlinux does."""
        if not _FIRST_PAGE <= address < _LAST_PAGE or self._placed is None:
            return False
        piece = self._placed.piece(address)
        return piece is None or piece.region_class not in _CONSTANT or piece.freed_after_boot is True

    def stack_bounds(self, address: int) -> StackBounds | None:
        """The stack that holds an address, by the kernel's own record of it."""
        kernel = self.kernel() if self._key is not None else None
        if kernel is None:
            return None
        from kplug.runtime.locators.stacks import stacks_of

        try:
            stack = stacks_of(kernel).at(address) if kernel.has_types else None
        except TargetError:
            return None
        if stack is None:
            return None
        return StackBounds(stack.start, stack.end, stack.name, "the kernel's own record of it")

    def left_out(self, address: int) -> bool:
        """Whether an address reads as zeros because the core file has nothing of the page."""
        kernel = self.kernel() if self._key is not None and isinstance(self._target.view, CORES) else None
        if kernel is None:
            return False
        from kplug.runtime.tables.translation import is_left_out

        return is_left_out(kernel, address)

    def areas(self) -> Iterator[Area]:
        """The memory of the loaded modules, for `kmap -v`."""
        kernel = self.needed()
        from kplug.runtime.modules.module_list import module_areas

        return module_areas(kernel)


def has_types(image: KernelImage) -> bool:
    """Whether the vmlinux, or its separate debug file, has the kernel's types; or its memory, as BTF."""
    return has_debug_information(image) or image.symbols.has_name("__start_BTF")


def has_debug_information(image: KernelImage) -> bool:
    """Whether the vmlinux, or its separate debug file, has DWARF."""
    return image.symbols_path != image.path or any(section.name == ".debug_info" for section in image.sections)


def _core_path(view: View | None) -> str | None:
    return view.core.path if isinstance(view, CORES) else None


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unknown error"])[0]


# -- for the Session ---------------------------------------------------------------------------------------------------
