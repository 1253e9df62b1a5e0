"""The init sections of loaded modules, which the kernel freed after their init ran: their places are in sysfs still."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.modules.struct_module import Module
from kplug.runtime.tables.translation import page_size_of


class FreedSection(NamedTuple):
    """A section of freed init memory, `[start, end)`, and its module; `before` are others that had init memory there,
    the later ones first.

    The kernel keeps no sizes: it ends at the module's next such section, the last one of an allocation with the page of
    its start.
    """

    start: int
    end: int
    name: str
    module: Module
    before: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return f"freed {self.name or 'init memory'} of {self.module.name}"


def freed_section_at(kernel: Kernel, address: int) -> FreedSection | None:
    """The freed section that was at an address: of the module that was loaded last, if there were several.

    Other memory may be there now. None if no module is known to have had its init memory there.
    """
    if not kernel.has_types or not kernel.word.is_kernel(address):
        return None
    sections, starts = _freed(kernel)
    found = [each for each in sections[: bisect_right(starts, address)] if address < each.end]
    if not found:
        return None
    order = {module.address: number for number, module in enumerate(modules_of(kernel).all)}  # the last loaded first
    last, *others = sorted(found, key=lambda each: order[each.module.address])
    return last._replace(before=tuple(each.module.name for each in others))


def freed_init_words(kernel: Kernel, address: int) -> str | None:
    """`[module] .init.text+0x9a` of an address where a module had its init memory, with the others that had it there.
    None if none had."""
    found = freed_section_at(kernel, address)
    if found is None:
        return None
    words = f"[{found.module.name}] {found.name or 'init memory'}+{address - found.start:#x}"
    return f"{words} (or in {', '.join(found.before)})" if found.before else words


@remembered(UNTIL_RESUMED)
def _freed(kernel: Kernel) -> tuple[Sequence[FreedSection], Sequence[int]]:
    """All of them by their starts, and these."""
    found: list[FreedSection] = []
    page_size = page_size_of(kernel)
    try:
        modules = modules_of(kernel).all
    except TargetError:
        return (), ()
    for module in modules:
        try:
            sections = sorted((section.start, section.name) for section in module.all_sections)
        except TargetError:  # whoever asks about the module is told
            continue
        freed = [each for each in sections if kernel.word.is_kernel(each[0]) and module.part_at(each[0]) is None]
        # Before ac3b43283923 (6.4) all init memory was one allocation.
        is_one = module.number("init_layout.size") is not None or module.number("init_size") is not None
        for number, (start, name) in enumerate(freed):
            page_end = start - start % page_size + page_size
            end = next((each for each, _ in freed[number + 1 :] if each > start), page_end)
            found.append(FreedSection(start, end if is_one else min(end, page_end), name, module))
    found.sort(key=lambda each: each.start)
    return found, [each.start for each in found]
