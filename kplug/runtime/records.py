"""The records of a kernel that drgn has open (`kplug.records.Records`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from kplug.errors import TargetError
from kplug.records import Records
from kplug.runtime.kernel.facts import facts_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.address_state import MemoryState
from kplug.runtime.locators.freed import was_freed
from kplug.runtime.locators.percpu import Percpu
from kplug.runtime.locators.registry import locators
from kplug.runtime.locators.stacks import stack_at
from kplug.runtime.modules.debug_files import ProgramLines, debug_files_of
from kplug.runtime.modules.images import images_of
from kplug.runtime.modules.module_list import module_areas
from kplug.runtime.modules.module_source import RuntimeModules
from kplug.runtime.tables.mappings import addresses_of
from kplug.runtime.tables.translation import is_zero_filled
from kplug.runtime.threads.frame import frame_places
from kplug.runtime.threads.unwinder import Unwinder
from kplug.runtime.threads.user_space import UserSpace
from kplug.runtime.type_layouts import ProgramLayouts
from kplug.target import FramePlace


def records_of(kernel: Kernel, user: UserSpace | None = None) -> Records:
    """What the kernel's records answer. `user` is the program whose own addresses are meant, None if that is none."""
    user = user or UserSpace(kernel, None)
    of_kernel = locators(kernel, user)
    return Records(
        images_of(kernel),
        of_kernel,
        next((locator for locator in of_kernel if isinstance(locator, Percpu)), None),
        MemoryState(kernel, user),
        RuntimeModules(kernel),
        partial(module_areas, kernel),
        partial(facts_of, kernel),
        ProgramLines(kernel, debug_files_of(kernel)),
        (ProgramLayouts(kernel),),
        partial(addresses_of, kernel),
        user,
        partial(was_freed, kernel),
        partial(stack_at, kernel),
        partial(is_zero_filled, kernel),
        partial(_frames, kernel),
        kernel.live,
    )


def _frames(kernel: Kernel, registers: Mapping[str, int]) -> Sequence[FramePlace]:
    """The frames of a CPU with these registers; none where the stack cannot be walked."""
    if not kernel.has_types:
        return ()
    try:
        found = Unwinder(kernel, partial(stack_at, kernel)).of_registers(registers, "the stack")
    except TargetError:
        return ()
    return frame_places(found or (), kernel.word.size)
