"""Where the sections of a module's file are in memory: one rule for all sources of load addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.image.elf.sections import PERCPU_SECTION, Section


def _within_64_bits(_: int, end: int) -> bool:
    return end <= BEYOND_ADDRESSES


def section_addresses(
    sections: Sequence[Section],
    loaded: Iterable[tuple[str, int]],
    *,
    percpu: int | None = None,
    holds: Callable[[int, int], bool] = _within_64_bits,
) -> dict[int, int]:
    """The address of each section that is in memory, by its number in the file.

    `loaded` are names and addresses in the order in which the loader took the sections, which is the file's order.
    Sections of one name are distinguished by that order; if the file has fewer or more of them, none of that name is
    known. The loader places no empty sections. `percpu` is the address of the module's per-CPU variables, if `loaded`
    does not have it. `holds(start, end)` says whether that memory is still the module's: init sections are freed.
    """
    addresses: dict[str, list[int]] = {}
    for name, address in loaded:
        addresses.setdefault(name, []).append(address)
    if percpu is not None:
        addresses.setdefault(PERCPU_SECTION, [percpu])
    placed: dict[int, int] = {}
    for name, found in addresses.items():
        named = [section for section in sections if section.allocated and section.name == name]
        held = [section for section in named if section.size] or named
        if len(held) != len(found):
            continue
        is_percpu = percpu is not None and name == PERCPU_SECTION
        for section, address in zip(held, found):
            if is_percpu or holds(address, address + section.size):
                placed[section.index] = address
    return placed
