"""One symbol, and the numbers that ELF symbol tables have for types, bindings and sections."""

from __future__ import annotations

from collections.abc import Sequence

from kplug.named_tuples import NamedTuple

STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_COMMON, STT_TLS, STT_GNU_IFUNC = 0, 1, 2, 3, 4, 5, 6, 10
STB_LOCAL, STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE = 0, 1, 2, 10
SHN_UNDEF, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFFF1, 0xFFF2, 0xFFFF
TYPE_NAMES = {0: "NOTYPE", 1: "OBJECT", 2: "FUNC", 3: "SECTION", 4: "FILE", 5: "COMMON", 6: "TLS", 10: "IFUNC"}
BINDING_NAMES = {0: "LOCAL", 1: "GLOBAL", 2: "WEAK", 10: "UNIQUE"}


class Symbol(NamedTuple):
    """One entry of a symbol table.

    `address` is the link address (runtime for a placed module). `size` is the one in the table, 0 if it has none;
    `letter` is nm's. `entry` is its number in the table, `section_index` that of its section.
    """

    name: str
    address: int
    size: int
    type: str
    binding: str
    letter: str
    entry: int
    section_index: int

    @property
    def whole(self) -> str | None:
        """The function that this is the `.cold` or `__pfx_` part of, or None."""
        if "." not in self.name and not self.name.startswith("__"):
            return None
        from kplug.image.symbols.source_names import whole_of  # few symbols are part of another

        return whole_of(self.name)


class Around(NamedTuple):
    """The table entries around an address: all those from the address of the first to that of the last.

    No symbol before the first reaches beyond it. `is_start` and `is_end`: there are none before, or none after.
    """

    entries: Sequence[int]
    is_start: bool
    is_end: bool
