"""A dump of an arm64 kernel, open, with what its page tables map."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from kplug.arch.types.memory_map import AddressSpace
from support.open_dumps import Dumped

PAGE = 4096
VALID, TABLE, READ_ONLY, NO_EXECUTE, DIRTY_MANAGED = 1, 2, 1 << 7, 1 << 53, 1 << 51
TABLE_NO_EXECUTE, TABLE_READ_ONLY = 1 << 59, 1 << 62


class Mapping(NamedTuple):
    """A page or block of the kernel's page tables."""

    start: int
    end: int
    physical: int
    permissions: str


class Machine(Dumped):
    """A dump, open, and its page tables walked with the figures of the Arm ARM (D8.3)."""

    @property
    def bits(self) -> int:
        """Of an address: without the name of a CPU it is QEMU's `max`."""
        return 48 if self.options["cpu"] else 52

    @property
    def space(self) -> AddressSpace:
        assert self.session.space is not None
        return self.session.space

    def area(self, name: str) -> tuple[int, int]:
        return next((area.start, area.end) for area in self.space.areas if area.name == name)

    @cached_property
    def vmcoreinfo(self) -> dict[str, int]:
        text = self.prog["VMCOREINFO"].string_().decode()
        found = re.findall(r"^NUMBER\((\w+)\)=(0x[0-9a-f]+|-?\d+)$", text, re.MULTILINE)
        return {name: int(value, 0) for name, value in found}

    def image_physical(self, address: int) -> int:
        """__kimg_to_phys()"""
        return (address - self.vmcoreinfo["kimage_voffset"]) & (1 << 64) - 1

    def linear(self, physical: int) -> int:
        """__phys_to_virt(), with the variable that PHYS_OFFSET reads."""
        start: int = self.prog["memstart_addr"].value_()
        return (physical - start + (1 << 64) - (1 << 52)) & (1 << 64) - 1

    @cached_property
    def iomem(self) -> dict[str, tuple[int, int]]:
        """(start, end) of the first line with each name in /proc/iomem, `end` exclusive."""
        found: dict[str, tuple[int, int]] = {}
        for first, last, name in re.findall(r"([0-9a-f]+)-([0-9a-f]+) : (.*)", self.dumps.truth.text("iomem")):
            found.setdefault(name, (int(first, 16), int(last, 16) + 1))
        return found

    @cached_property
    def mappings(self) -> list[Mapping]:
        return list(self._walk(self.image_physical(self.symbol("swapper_pg_dir")), self._top, 0, True, True))

    @property
    def _top(self) -> int:
        return 48 if self.bits == 52 else 39

    def _walk(self, table: int, shift: int, start: int, writable: bool, executable: bool) -> Iterator[Mapping]:
        """D8.3: 4 KiB pages; bits 9:8 are 51:50 of an address with LPA2."""
        entries = memoryview(self.prog.read(table, PAGE, True)).cast("Q")
        count = 16 if shift == 48 else 512
        for index, entry in enumerate(entries[:count]):
            at = start + (index << shift)
            if shift == self._top:
                at |= (1 << 64) - (1 << self.bits)
            if not entry & VALID:
                continue
            out = entry & ((1 << 50) - PAGE if self.bits == 52 else (1 << 48) - PAGE)
            if self.bits == 52:
                out |= (entry >> 8 & 3) << 50
            if shift > 12 and entry & TABLE:
                yield from self._walk(
                    out, shift - 9, at, writable and not entry & TABLE_READ_ONLY,
                    executable and not entry & TABLE_NO_EXECUTE,
                )  # fmt: skip
            else:
                w = writable and (not entry & READ_ONLY or entry & DIRTY_MANAGED)
                x = executable and not entry & NO_EXECUTE
                yield Mapping(at, at + (1 << shift), out & -(1 << shift), f"r{'w' if w else '-'}{'x' if x else '-'}")
