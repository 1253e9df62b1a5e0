"""A kernel as its full vmlinux shows it, and the addresses that are asked."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cached_property
from pathlib import Path

from kplug.image.columns import Columns
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked, moved_by
from kplug.resolver import Resolver
from support.oracle import binutils, kernels
from support.sampling import Sampling

MASK = (1 << 64) - 1
#: Whose boot image has the vmlinux's own headers in it; the others have nothing but the bytes that are loaded.
WITH_HEADERS = ("x86_64", "i386", "ppc64")
RANDOM_ADDRESSES = 20_000
SEED = 20_26


def named(rows: list[binutils.SymbolRow]) -> list[binutils.SymbolRow]:
    """The symbols that name something of the file."""
    return [row for row in rows if row.section != "UND" and row.type not in ("FILE", "SECTION")]


class Full:
    """The kernel `name`: what readelf and nm print of its vmlinux, and kplug's answers from that file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files = kernels.files(name)
        self.root = Path(self.files.root)
        self.image: KernelImage = open_vmlinux(str(self.root / "vmlinux"))
        self.section_rows = binutils.sections(str(self.root / "vmlinux"))
        self.segment_rows = binutils.segments(str(self.root / "vmlinux"))
        self.symbol_rows = named(binutils.symbols(str(self.root / "vmlinux")))
        root = self.image.regions.root
        assert root is not None
        self.start, self.end = root.start, root.end
        self.resolver = Resolver([PlacedImage(self.image, as_linked(self.image.extents))])
        self._some_columns: Columns | None = None

    @property
    def machine(self) -> str:
        return self.image.machine

    @property
    def has_headers(self) -> bool:
        """Whether the boot image has an ELF header, with sections and segments."""
        return self.machine in WITH_HEADERS

    @cached_property
    def lists_data(self) -> bool:
        """Whether the kernel's own kallsyms have more than code."""
        return kernels.lists_data(self.name)

    @property
    def unmoved(self) -> int:
        """What is below is moved by no KASLR: per-CPU variables that count from 0."""
        return self.start if self.machine == "x86_64" else 0

    @cached_property
    def code(self) -> list[tuple[int, int]]:
        """The two ranges that scripts/kallsyms.c takes where it is to take code only (symbol_in_range())."""
        values = {row.name: row.value for row in self.symbol_rows}
        return [(values["_stext"], values["_etext"]), (values["_sinittext"], values["_einittext"])]

    def is_code(self, address: int, name: str = "") -> bool:
        """Whether it is in these ranges, in which an end's own name is, and no other of its address."""
        ends = ("_etext", "_einittext")
        return any(start <= address < end or (address == end and name in ends) for start, end in self.code)

    def path(self, name: str) -> str:
        return str(self.root / name)

    @cached_property
    def names_at(self) -> dict[int, set[str]]:
        """The names that nm has at each address, whatever kind of symbol they are."""
        names: dict[int, set[str]] = defaultdict(set)
        for row in self.symbol_rows:
            names[row.value].add(row.name)
        return dict(names)

    @cached_property
    def bounds(self) -> list[int]:
        """Every bound of a section, segment and region, and its neighbours."""
        found = {self.start, self.end}
        for section in self.section_rows:
            if "A" in section.flags and section.size:
                found.update((section.address, section.address + section.size))
        for segment in self.segment_rows:
            found.update((segment.address, segment.address + segment.memory_size))
        for region in self.image.regions.regions:
            found.update((region.start, region.end))
        return sorted({bound + step & MASK for bound in found for step in (-1, 0, 1)})

    @cached_property
    def addresses(self) -> list[int]:
        """All that is asked: bounds and neighbours, first and last byte of every symbol, random ones in and around."""
        found = set(self.bounds)
        for row in self.symbol_rows:
            found.update((row.value, row.value + max(row.size, 1) - 1 & MASK))
        choose = random.Random(SEED)
        found.update(choose.randrange(self.start - (1 << 20), self.end + (1 << 20)) for _ in range(RANDOM_ADDRESSES))
        return sorted(found)

    def few_addresses(self, sampling: Sampling) -> list[int]:
        """Those for which whole answers are compared: all bounds, and one of 40 of the others, or a sample of both."""
        return sorted({*sampling.of(self.bounds, 4), *sampling.of(self.addresses[::40])})

    @cached_property
    def columns(self) -> Columns:
        """The full vmlinux's answers, as linked."""
        return self.resolver.bulk(self.addresses)

    def some_columns(self, sampling: Sampling) -> Columns:
        """Those for all bounds, and for a sample of the other addresses."""
        if self._some_columns is None:
            self._some_columns = self.resolver.bulk(sorted({*self.bounds, *sampling.of(self.addresses)}))
        return self._some_columns

    def moved(self, kaslr_offset: int) -> Resolver:
        """The full vmlinux in another place."""
        return Resolver([PlacedImage(self.image, moved_by(self.image.extents, kaslr_offset, "the guest's truth"))])

    @cached_property
    def absolute(self) -> set[int]:
        """The values that only absolute symbols have."""
        places = {row.value for row in self.symbol_rows if row.section != "ABS"}
        return {row.value for row in self.symbol_rows if row.section == "ABS"} - places
