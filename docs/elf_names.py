#!/usr/bin/env python3
"""Writes kplug/image/elf/type_names.py: pyelftools' names of the numbers in ELF headers, as data.

So kplug reads ELF files with nothing installed: gdb's Python is the system's, and rarely has pyelftools. To be run in
the environment of the tests, when pyelftools knows more; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Union

from elftools.elf.structs import ELFStructs

PAGE = Path(__file__).resolve().parent.parent / "kplug" / "image" / "elf" / "type_names.py"
Table = Mapping[int, Union[str, Mapping[int, str]]]
_START = '''"""Names of the numbers in ELF headers, as pyelftools {version} has them.

docs/elf_names.py writes this file. Names that a machine has in addition, or instead, are in *_OF, by e_machine.
"""

from __future__ import annotations

from collections.abc import Mapping
'''


def names_of(structure: str, field: str, machine: str | None = None) -> dict[int, str]:
    """The names that pyelftools has for a field of a structure, by number, in files of a machine."""
    structs = ELFStructs(little_endian=True, elfclass=64)
    structs.create_basic_structs()
    structs.create_advanced_structs("ET_EXEC", machine, "ELFOSABI_SYSV")
    decoding = next(each for each in getattr(structs, structure).subcons if each.name == field).decoding
    return {number: name for number, name in decoding.items() if isinstance(number, int)}


def tables() -> dict[str, Table]:
    """All tables of the file, by their names in it."""
    machines = names_of("Elf_Ehdr", "e_machine")
    made: dict[str, Table] = {"FILE_TYPES": names_of("Elf_Ehdr", "e_type"), "MACHINES": machines}
    for name, structure, field in (("SECTION_TYPES", "Elf_Shdr", "sh_type"), ("SEGMENT_TYPES", "Elf_Phdr", "p_type")):
        common = names_of(structure, field)
        own: dict[int, dict[int, str]] = {}
        for number, machine in machines.items():
            names = names_of(structure, field, machine)
            assert common.keys() <= names.keys(), machine
            if more := dict(names.items() - common.items()):
                own[number] = more
        made.update({name: common, f"{name}_OF": own})
    return made


def written() -> str:
    """The text of the file."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _START.format(version=metadata.version("pyelftools")).rstrip("\n")
    for name, table in tables().items():
        yield ""
        yield f"{name}: Mapping[int, {'Mapping[int, str]' if name.endswith('_OF') else 'str'}] = {{"
        for number, value in sorted(table.items()):
            if isinstance(value, str):
                yield f'    {number if name == "MACHINES" else _hex(number)}: "{value}",'
            else:
                yield f"    {number}: {{"
                yield from (f'        {_hex(each)}: "{word}",' for each, word in sorted(value.items()))
                yield "    },"
        yield "}"


def _hex(number: int) -> str:
    return f"0x{number:X}"


if __name__ == "__main__":
    PAGE.write_text(written())
