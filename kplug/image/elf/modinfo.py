""".modinfo: information about a module, as strings KEY=VALUE (include/linux/moduleparam.h, MODULE_INFO)."""

from __future__ import annotations

from collections.abc import Iterator

from kplug.image.elf.file import ElfFile
from kplug.named_tuples import NamedTuple

MAX_BYTES = 1 << 20


class ModuleField(NamedTuple):
    """One line of modinfo(8)'s output; for a parameter (`parm`) also its name and type, if known."""

    key: str
    value: str
    parameter: str | None = None
    type: str | None = None


def module_fields(elf: ElfFile) -> list[ModuleField]:
    """The fields in the file's order, with parameters last, each once: its description and its type together, as
    modinfo(8) shows them. Empty for a file without the section; InputError if the section is invalid.
    """
    pairs = list(_pairs(elf))
    fields = [ModuleField(key, value) for key, value in pairs if key not in ("parm", "parmtype")]
    types = dict(_named(value) for key, value in pairs if key == "parmtype")
    described = dict(_named(value) for key, value in pairs if key == "parm")
    for name in dict.fromkeys((*described, *types)):
        kind = types.get(name)
        words = f"{name}:{described.get(name, '')}" + (f" ({kind})" if name in described and kind else kind or "")
        fields.append(ModuleField("parm", words, name, kind))
    return fields


def _pairs(elf: ElfFile) -> Iterator[tuple[str, str]]:
    section = elf.section(".modinfo")
    if section is None:
        return
    for entry in elf.section_bytes(section, limit=MAX_BYTES).split(b"\0"):
        key, equals, value = entry.decode("utf-8", "backslashreplace").partition("=")
        if equals:
            yield key, value


def _named(value: str) -> tuple[str, str]:
    """NAME:WORDS"""
    name, _, words = value.partition(":")
    return name, words
