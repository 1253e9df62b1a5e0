"""The names of types are pyelftools', and `docs/elf_names.py` writes the table of them as it is."""

from __future__ import annotations

import runpy

import pytest
from support.paths import ROOT

from kplug.image.elf import type_names

elftools = pytest.importorskip("elftools")

GENERATOR = runpy.run_path(str(ROOT / "docs" / "elf_names.py"))
OF = f"as pyelftools {elftools.__version__} has them"


@pytest.mark.skipif(OF not in str(type_names.__doc__), reason="made of another release of pyelftools")
def test_the_file_is_what_its_generator_writes() -> None:
    assert GENERATOR["PAGE"].read_text() == GENERATOR["written"](), "docs/elf_names.py writes it"


@pytest.mark.parametrize(
    ("field", "name"),
    [("Elf_Ehdr e_type", "FILE_TYPES"), ("Elf_Ehdr e_machine", "MACHINES"), ("Elf_Shdr sh_type", "SECTION_TYPES"),
     ("Elf_Phdr p_type", "SEGMENT_TYPES")],
)  # fmt: skip
def test_a_number_has_the_name_that_pyelftools_reads(field: str, name: str) -> None:
    """In files of every machine. A release of pyelftools that knows more, or less, is no other truth."""
    table, own = getattr(type_names, name), getattr(type_names, f"{name}_OF", {})
    assert len(table) > 5
    for number, machine in type_names.MACHINES.items():
        ours, theirs = {**table, **own.get(number, {})}, GENERATOR["names_of"](*field.split(), machine)
        both = ours.keys() & theirs.keys()
        assert len(both) > len(ours) * 0.9
        assert {each: ours[each] for each in both} == {each: theirs[each] for each in both}, machine
