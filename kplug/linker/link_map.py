"""The map that the linker writes (`vmlinux.map`, CONFIG_VMLINUX_MAP): which object file an address came from.

Two forms are read: GNU ld's -Map and lld's. Both give each input section's address, size and file. One line is read at
a time and one entry takes 24 bytes, so that a map of 60 MB takes seconds and few megabytes.

If the kernel was linked from `vmlinux.o` (LTO, and x86 with CONFIG_X86_KERNEL_IBT), the map names no other file. The
kernel's own `vmlinux.o.map` (CONFIG_BUILTIN_MODULE_RANGES) lists what went into vmlinux.o; it is used if it is next to
the map.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.frozen import Frozen

LARGEST_MAP = 256 << 20  # bytes

_GNU_START = b"Linker script and memory map"
_LLD_HEADERS = tuple(
    (*numbers, b"Align", b"Out", b"In", b"Symbol")
    for numbers in ((b"VMA", b"LMA", b"Size"), (b"Address", b"Size"))  # the second: before LLVM 7
)
_WHOLE = "vmlinux.o"
_WHOLE_MAP = "vmlinux.o.map"

# Entries of either form: output section, input section, start, size, object file.
_Row = tuple[bytes, bytes, int, int, bytes]


class MapEntry(Frozen):
    """One input section as the linker placed it: `[start, end)` came from `object_file`."""

    input_section: str
    start: int
    end: int
    object_file: str


class _Ranges:
    """Ranges with the section and the object file of each, sorted by start."""

    def __init__(self) -> None:
        self.starts = array("Q")
        self.ends = array("Q")
        self.names = array("I")
        self.files = array("I")

    def append(self, start: int, end: int, name: int, file: int) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.names.append(name)
        self.files.append(file)

    def settle(self) -> None:
        """Sorts by start, and removes overlaps.

        GNU ld lists a section of mergeable strings with its own size even if all its strings were merged into those of
        earlier files; the next section then starts at the same address. The entry listed last was placed there.
        """
        starts = self.starts
        order = sorted(range(len(starts)), key=starts.__getitem__)  # stable: in the order of the map
        followers = [*order[1:], -1]
        kept = [index for index, after in zip(order, followers) if after < 0 or starts[index] < starts[after]]
        self.starts = array("Q", (starts[index] for index in kept))
        limits = [*self.starts[1:], BEYOND_ADDRESSES]
        self.ends = array("Q", (min(self.ends[index], limit) for index, limit in zip(kept, limits)))
        self.names = array("I", (self.names[index] for index in kept))
        self.files = array("I", (self.files[index] for index in kept))

    def find(self, address: int) -> int:
        """The index of the range that holds the address, or -1."""
        index = bisect_right(self.starts, address) - 1
        return index if index >= 0 and address < self.ends[index] else -1


class _Words:
    """The distinct section and file names, each kept once."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}

    def add(self, word: bytes) -> int:
        return self._index.setdefault(word, len(self._index))

    def texts(self) -> list[str]:
        return [word.decode("utf-8", "replace") for word in self._index]


class LinkMap:
    """A link map: what was placed where. `parse_link_map` makes one."""

    def __init__(self, path: str, rows: Iterable[_Row]) -> None:
        self.path = path
        self._ranges = _Ranges()
        sections, files = _Words(), _Words()
        for _, section, start, size, file in rows:
            if start + size >= BEYOND_ADDRESSES:
                raise InputError(f"{path}: an input section ends beyond 64 bits")
            self._ranges.append(start, start + size, sections.add(section), files.add(file))
        self._ranges.settle()
        self._sections = sections.texts()
        self._files = [_object_file(file) for file in files.texts()]
        self._parts: dict[str, _Ranges] = {}  # by section of vmlinux.o: offsets
        self._part_files: list[str] = []

    def __len__(self) -> int:
        return len(self._ranges.starts)

    def at(self, link_address: int) -> MapEntry | None:
        """The input section that holds the address; None for padding and for what the linker generated."""
        index = self._ranges.find(link_address)
        if index < 0:
            return None
        start, end = self._ranges.starts[index], self._ranges.ends[index]
        section, file = self._sections[self._ranges.names[index]], self._files[self._ranges.files[index]]
        part = self._parts.get(section) if file == _WHOLE else None
        # Merged strings make a section shorter than it was in vmlinux.o; its offsets there do not apply then.
        if part is not None and part.ends[-1] <= end - start:
            inner = part.find(link_address - start)
            if inner >= 0:
                file = self._part_files[part.files[inner]]
                start, end = start + part.starts[inner], min(end, start + part.ends[inner])
        return MapEntry(section, start, end, file)

    @property
    def is_whole(self) -> bool:
        """Whether the map names no object file but vmlinux.o for most of the image."""
        sizes: dict[str, int] = {}
        ranges = self._ranges
        for start, end, file in zip(ranges.starts, ranges.ends, ranges.files):
            name = self._files[file]
            sizes[name] = sizes.get(name, 0) + end - start
        return sizes.get(_WHOLE, 0) * 2 > sum(sizes.values())

    def look_into_whole(self, path: str) -> None:
        """Reads which object files went into vmlinux.o from its own map."""
        sections, files = _Words(), _Words()
        parts: dict[int, _Ranges] = {}
        for output, _, start, size, file in _rows(path, relocatable=True):
            if start + size >= BEYOND_ADDRESSES:
                raise InputError(f"{path}: an input section ends beyond 64 bits")
            key = sections.add(output)
            parts.setdefault(key, _Ranges()).append(start, start + size, key, files.add(file))
        for part in parts.values():
            part.settle()
        names = sections.texts()
        self._parts = {names[key]: part for key, part in parts.items()}
        self._part_files = [_object_file(file) for file in files.texts()]


def parse_link_map(path: str) -> LinkMap:
    """Reads a link map. If it names vmlinux.o only, a `vmlinux.o.map` next to it is read too."""
    link_map = LinkMap(path, _rows(path, relocatable=False))
    if not len(link_map):
        raise InputError(f"{path}: a link map without input sections")
    whole_map = os.path.join(os.path.dirname(path), _WHOLE_MAP)
    if os.path.basename(path) != _WHOLE_MAP and link_map.is_whole and os.path.isfile(whole_map):
        link_map.look_into_whole(whole_map)
    return link_map


def _rows(path: str, relocatable: bool) -> Iterator[_Row]:
    try:
        with open_file(path) as file:
            status = os.fstat(file.fileno())
            if status.st_size > LARGEST_MAP:
                raise InputError(f"{path}: larger than {LARGEST_MAP >> 20} MiB: not a link map")
            first = file.readline()
            if tuple(first.split()) in _LLD_HEADERS:
                yield from _lld_rows(path, file, first, relocatable)
            else:
                file.seek(0)
                yield from _gnu_rows(path, file, relocatable)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _gnu_rows(path: str, file: BinaryIO, relocatable: bool) -> Iterator[_Row]:
    """GNU ld: an output section's line starts in column 0, an input section's in column 1, all others further right.

    A name of 16 characters or more is on a line of its own, and its numbers are on the next one.
    """
    before = 0
    for before, line in enumerate(file, 1):  # noqa: B007
        if line.startswith(_GNU_START):
            break
    else:
        raise InputError(f"{path}: not a link map: neither GNU ld's nor lld's")
    output, loaded, limit = b"", False, 0
    waiting: bytes | None = None  # a name whose numbers come on the next line
    waiting_output = False
    for number, line in enumerate(file, before + 1):
        if line.startswith(b"  "):
            if waiting is None:
                continue
            words = [waiting, *line.split(None, 2)]
            is_output = waiting_output
        elif line.startswith(b" "):
            words = line.split(None, 3)
            is_output = False
        else:
            words = line.split(None, 3)
            is_output = True
        waiting = None
        if len(words) == 1 and not words[0].startswith(b"*"):
            waiting, waiting_output = words[0], is_output
            continue
        if len(words) < 3 or not (words[1].startswith(b"0x") and words[2].startswith(b"0x")):
            continue
        if words[0].startswith(b"*"):
            continue  # *fill*, or a pattern
        try:
            start, size = int(words[1], 16), int(words[2], 16)
        except ValueError:
            raise InputError(f"{path}: line {number}: not a number") from None
        rest = words[3].strip() if len(words) > 3 else b""
        if is_output:
            # Debug information and its like is linked to address 0 and not loaded. What is loaded and lies there
            # (x86's per-CPU section) has a load address of its own.
            output, loaded = words[0], relocatable or start != 0 or rest.startswith(b"load address")
            limit = start + size
        elif loaded and rest and start < limit:
            # A section of strings that were all merged into others is listed with a size that it does not take.
            size = min(size, limit - start)
            if size:
                yield output, words[0], start, size, rest


def _lld_rows(path: str, file: BinaryIO, header: bytes, relocatable: bool) -> Iterator[_Row]:
    """lld: numbers, then a name in one of three columns: output section, input section, symbol."""
    columns = header.split()
    count = columns.index(b"Out")  # how many numbers precede the name
    size_at = columns.index(b"Size")
    out_column = header.index(b"Out")
    output, loaded = b"", False
    for number, line in enumerate(file, 2):
        is_input = line.endswith(b")\n") and b":(" in line
        if not is_input and line[out_column : out_column + 1] in (b" ", b""):
            continue
        words = line.split(None, count)
        if len(words) <= count:
            continue
        name = words[count].rstrip()
        try:
            start, size = int(words[0], 16), int(words[size_at], 16)
            loads_at = int(words[1], 16) if size_at > 1 else start
        except ValueError:
            raise InputError(f"{path}: line {number}: not a number") from None
        if is_input:
            object_file, _, section = name.rpartition(b":(")
            if loaded and size and not object_file.startswith(b"<"):
                yield output, section[:-1], start, size, object_file
        elif b" " not in name:
            output, loaded = name, relocatable or start != 0 or loads_at != 0


def _object_file(name: str) -> str:
    """The file as the user knows it: a member of a thin archive, `vmlinux.a(init/main.o)`, is a path of its own."""
    _archive, bracket, member = name.partition("(")
    if bracket and member.endswith(")") and "/" in member:
        return member[:-1]
    return name
