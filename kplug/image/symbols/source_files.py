"""The source file of a local symbol, where the order of the symbol table proves it.

An object file's local symbols follow its STT_FILE symbol (gABI, "Symbol Table"), and linkers keep them together. But
not each object has one, and not each local symbol is of an object:

- GNU ld marks what else there is: the locals of an object without a FILE symbol follow one with the object's name, and
  the globals that it makes local one without a name (elf_link_input_bfd(), elf_link_output_extsym() in bfd/elflink.c).
- lld does not (sortSymTabSymbols() in lld/ELF/SyntheticSections.cpp). The locals of an object without one, as LLVM
  assembles it, come before the first FILE symbol or after another object's locals. The globals that it makes local,
  which keep their visibility, follow all of the object's locals: in a kernel, the last file's of vmlinux.o.
- objtool adds symbols of the padding before functions to vmlinux.o, after the last file's
  (elf_create_symbol() in tools/objtool/elf.c).

Tried with GNU ld 2.40 and LLD 14.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property

STV_DEFAULT = 0
_APPENDED = "__pfx_"


class SourceFiles:
    """The files of one table's local symbols.

    `files` are its entries of type FILE. `name` gives an entry's name, `other` its byte st_other, `comment` the section
    .comment. `has_locals_before`: other local symbols come before the first of `files`.
    """

    def __init__(
        self,
        files: Sequence[int],
        name: Callable[[int], str],
        other: Callable[[int], int],
        comment: Callable[[], bytes],
        has_locals_before: bool,
    ) -> None:
        self._files = files
        self._name = name
        self._other = other
        self._comment = comment
        self._has_locals_before = has_locals_before
        self._names: dict[int, str] = {}

    def of(self, entry: int, symbol: str) -> str | None:
        """The file of a local symbol of that name; None if the table does not prove it."""
        position = bisect_right(self._files, entry) - 1
        if position < 0 or not self._are_objects_marked:
            return None
        if self._other(entry) & 3 != STV_DEFAULT or symbol.startswith(_APPENDED):
            return None
        file = self._files[position]
        name = self._names.get(file)
        if name is None:
            name = self._names[file] = self._name(file)
        return name or None

    @cached_property
    def _are_objects_marked(self) -> bool:
        """Whether a FILE symbol comes before the locals of each object: so it does in what lld did not link."""
        return not self._has_locals_before and b"LLD" not in self._comment()
