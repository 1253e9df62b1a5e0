"""Unloaded modules: what the kernel still knows about them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import drgn

from kplug.errors import TargetError
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.lists import list_nodes
from kplug.runtime.modules.struct_module import MAX_MODULES, MAX_NAME_BYTES, ModuleLayout, text_of

_COUNT_BYTES = 8  # of a u64


class Unloaded(NamedTuple):
    """An unloaded module: its name, the taints it left, and how often it was unloaded (None: not recorded)."""

    name: str
    taints: str
    times: int | None


def last_unloaded(kernel: Kernel) -> Iterator[Unloaded]:
    """`last_unloaded_module`: a name; since 6.1 (6f1dae1d84b6) with its taints. Nothing without module unloading."""
    try:
        last = kernel.prog["last_unloaded_module"]
    except LookupError:
        yield from last_unloaded_untyped(kernel)
        return
    is_structure = last.type_.kind == drgn.TypeKind.STRUCT
    name = text_of(kernel.read((last.name if is_structure else last).address_ or 0, MAX_NAME_BYTES))
    if name:
        # Each letter in the text's parentheses, as a panic prints it: "(OE)".
        taints = text_of(kernel.read(last.taints.address_ or 0, 16)).strip("()") if is_structure else ""
        yield Unloaded(name, taints, None)


def last_unloaded_untyped(kernel: Kernel) -> Iterator[Unloaded]:
    """The same if it is not known which of the two forms it has: BTF has no types of variables. Both begin with the
    name; after its MODULE_NAME_LEN bytes the older one has at most a NUL, and the newer one the taints.
    """
    place = kernel.symbol("last_unloaded_module")
    if place is None:
        return
    try:
        length = drgn.sizeof(kernel.prog.type("struct module").member("name").type)
    except LookupError:
        return
    name = text_of(kernel.read(place, min(length, MAX_NAME_BYTES)))
    if name:
        letters = re.match(r"\(([A-Z]+)\)$", text_of(kernel.read(place + length, 16)))
        yield Unloaded(name, letters.group(1) if letters is not None else "", None)


def unloaded_tainted(kernel: Kernel) -> Iterator[Unloaded]:
    """`unloaded_tainted_modules` (99bd9956551b, 5.19), with CONFIG_MODULE_UNLOAD_TAINT_TRACKING."""
    head = kernel.symbol("unloaded_tainted_modules")
    if head is None:
        return
    kind = kernel.prog.type("struct mod_unload_taint")
    link, name, taints, count = (drgn.offsetof(kind, member) for member in ("list", "name", "taints", "count"))
    layout, word = ModuleLayout(kernel), kernel.word
    try:
        for node in list_nodes(kernel, head, MAX_MODULES):
            entry = kernel.read(node - link, kind.size or 0)
            letters = layout.taint_letters(word.at(entry, taints))
            yield Unloaded(text_of(entry[name:][:MAX_NAME_BYTES]), letters, word.unsigned(entry, count, _COUNT_BYTES))
    except TargetError as error:
        raise TargetError(f"the list of unloaded modules could not be read: {error}") from None
