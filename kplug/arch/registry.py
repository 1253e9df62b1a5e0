"""Find an architecture by any of its names.

A declaration is a module or package next to this file, named after the architecture, with the record as ARCHITECTURE.
They are loaded one after the other until one has the requested name, the most frequent ones first, so that
`kplug where` loads only one, and lists no others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator
from functools import cache
from importlib import import_module

from kplug import arch
from kplug.arch.types.record import Architecture, Names
from kplug.arch.types.word import ByteOrder

_NO_DECLARATIONS = frozenset(("registry", "types", "calls", "note_registers", "registers"))
_FREQUENT = ("x86_64", "aarch64")


@cache
def _others() -> tuple[str, ...]:
    """The names of those that are not frequent, by their files: `pkgutil` would import `inspect` to list them."""
    files = {name.partition(".")[0] for folder in arch.__path__ for name in os.listdir(folder)}
    return tuple(sorted(name for name in files - _NO_DECLARATIONS - {*_FREQUENT} if not name.startswith("_")))


def names() -> Iterator[str]:
    """The names of all declared architectures; the files are listed when the iteration is past the frequent ones."""
    yield from _FREQUENT
    yield from _others()


@cache
def _declaration(name: str) -> Architecture:
    record: Architecture = import_module(f"{arch.__name__}.{name}").ARCHITECTURE
    return record


def declared() -> Iterator[Architecture]:
    """All declared architectures; each is loaded when the iteration reaches it."""
    return map(_declaration, names())


def find(name: str) -> Architecture | None:
    """The architecture with that name in kplug; None if it is not declared."""
    return _declaration(name) if name in names() else None


@cache
def named(name: str) -> Architecture:
    """The architecture with that name in kplug; for an unknown name, a record that declares nothing."""
    return find(name) or Architecture(name, name or "unknown architecture", Names((), ""), 64)


def _first(matches: Callable[[Architecture], bool]) -> Architecture | None:
    return next(filter(matches, declared()), None)


@cache
def by_elf(number: int, bits: int) -> Architecture | None:
    """By e_machine and class; if no declaration has this class, by e_machine alone."""
    exact = _first(lambda each: (number, bits) in each.names.elf)
    return exact or _first(lambda each: any(number == machine.number for machine in each.names.elf))


@cache
def by_word(word: str) -> Architecture | None:
    """By any name that users and programs have for it: `uname -m`, Debian, the kernel's arch/, QEMU, gdb, a FIT."""
    word = word.lower()
    return find(word) or _first(lambda each: _is_called(each.names, word))


def _is_called(given: Names, word: str) -> bool:
    if any(word.startswith(name[:-1]) if name.endswith("*") else word == name for name in given.uname):
        return True
    return word in (*given.debian, *given.other, *given.gdb, *given.qemu, *given.fit)


def by_uname(word: str) -> Architecture | None:
    """By the name from `uname -m`, or from a dump in makedumpfile's format."""
    return find(word) or _first(
        lambda each: any(
            word.startswith(name[:-1]) if name.endswith("*") else word == name for name in each.names.uname
        )
    )


def by_drgn(name: str) -> Architecture | None:
    """By the name in drgn.Architecture."""
    return _first(lambda each: each.names.drgn == name)


def by_vmcoreinfo(numbers: Container[str]) -> Architecture | None:
    """By the names of the NUMBER()s in a kernel's VMCOREINFO, if one of them is of one architecture's kernels only."""
    return _first(lambda each: any(name in numbers for name in each.vmcoreinfo_numbers))


def by_gdb(name: str) -> Architecture | None:
    """By gdb's name."""
    return _first(lambda each: name in each.names.gdb)


def by_flat_image(magic: bytes) -> Architecture | None:
    """By the magic at 0x38 of a flat Image."""
    return _first(lambda each: each.names.flat_image == magic)


def by_zimage(number: int) -> Architecture | None:
    """By the magic number of a zImage."""
    return _first(lambda each: each.names.zimage == number)


@cache
def relative_relocations(bits: int, byte_order: ByteOrder) -> frozenset[int]:
    """The types of relocations that set a word to "load address plus addend", of all kernels with such words."""
    return frozenset(
        each.relative_relocation
        for each in declared()
        if each.bits == bits and byte_order in each.byte_orders and each.relative_relocation is not None
    )


def by_entry_string(read: Callable[[int, int], bytes]) -> Architecture | None:
    """By the string that a boot image has at a fixed place; `read` gives bytes of it, from a start to an end."""

    def has_string(each: Architecture) -> bool:
        if each.names.entry_string is None:
            return False
        start, string = each.names.entry_string
        return read(start, start + len(string)) == string

    return _first(has_string)


def by_uimage(number: int) -> Architecture | None:
    return _first(lambda each: each.names.uimage == number)


def by_pe(number: int) -> Architecture | None:
    return _first(lambda each: each.names.pe == number)


def by_fit(word: str) -> Architecture | None:
    return _first(lambda each: word in each.names.fit)
