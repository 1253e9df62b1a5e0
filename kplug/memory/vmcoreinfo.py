"""VMCOREINFO: what a kernel provides for readers of its dumps, as lines of text.

The kernel writes it at boot (kernel/vmcore_info.c, before 6.9 kernel/crash_core.c, and the architecture's
arch_crash_save_vmcoreinfo); Documentation/admin-guide/kdump/vmcoreinfo.rst says what the lines mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kplug.arch.types.word import BEYOND_ADDRESSES, WordFormat
from kplug.memory.reading import Read, try_read

# The kernel reserves one page for it (VMCOREINFO_BYTES); a far longer text is something else.
MAX_BYTES = 1 << 16
_LINE = re.compile(r"(?:(?P<kind>[A-Z]+)\((?P<name>[^()=\s]+)\)|(?P<key>[A-Za-z][\w.-]*))=(?P<value>\S.*)?")


class VmcoreInfo:
    """The note's text, parsed once. A missing fact is None, or not in the mapping.

    `symbols` are addresses, `sizes` and `offsets` (of `type.member`) bytes, `lengths` elements, and `numbers` values of
    any kind, which may be negative. `others` are the lines without parentheses, as text.
    """

    def __init__(self, text: str) -> None:
        self.text = text[:MAX_BYTES]
        parsed: dict[str, dict[str, int]] = {kind: {} for kind in ("SYMBOL", "NUMBER", "SIZE", "OFFSET", "LENGTH")}
        others: dict[str, str] = {}
        for line in self.text.splitlines():
            match = _LINE.fullmatch(line.strip())
            if match is None:
                continue
            kind, value = match.group("kind"), match.group("value") or ""
            if kind is None:
                others.setdefault(match.group("key"), value)
                continue
            # Addresses are in hexadecimal without a prefix; numbers in decimal, or in hexadecimal with one.
            number = _number(value, 16) if kind == "SYMBOL" else _number(value, 0)
            if kind in parsed and number is not None:
                parsed[kind].setdefault(match.group("name"), number)
        self.symbols: Mapping[str, int] = parsed["SYMBOL"]
        self.numbers: Mapping[str, int] = parsed["NUMBER"]
        self.sizes: Mapping[str, int] = parsed["SIZE"]
        self.offsets: Mapping[str, int] = parsed["OFFSET"]
        self.lengths: Mapping[str, int] = parsed["LENGTH"]
        self.others: Mapping[str, str] = others

    def __bool__(self) -> bool:
        return bool(self.text.strip())

    @property
    def release(self) -> str | None:
        """The kernel's release, as `uname -r` has it."""
        return self.others.get("OSRELEASE") or None

    @property
    def build_id(self) -> str | None:
        """The vmlinux's build ID in lower-case hexadecimal (5.9 and later; all zeros or empty without one)."""
        text = self.others.get("BUILD-ID", "").lower()
        return text if re.fullmatch(r"(?:[0-9a-f]{2}){1,32}", text) and text.strip("0") else None

    @property
    def page_size(self) -> int | None:
        """Bytes in a page."""
        return _number(self.others.get("PAGESIZE", ""), 0)

    @property
    def kaslr_offset(self) -> int | None:
        """How far KASLR moved the image, in bytes, negative if down. None if the architecture does not provide it."""
        return _number(self.others.get("KERNELOFFSET", ""), 16)


def _number(text: str, base: int) -> int | None:
    """A number of at most 64 bits; None for anything else."""
    if not re.fullmatch(r"[+-]?(?:0[xX])?[0-9A-Fa-f]{1,20}", text):
        return None
    try:
        value = int(text, base)
    except ValueError:
        return None
    return value if -BEYOND_ADDRESSES // 2 <= value < BEYOND_ADDRESSES else None


def note_in_memory(read: Read, pointer: int | None, size: int | None, word: WordFormat) -> VmcoreInfo | None:
    """The text of VMCOREINFO in the kernel's memory, from the addresses of its variables `vmcoreinfo_data` and
    `vmcoreinfo_size`; None if either is None, or there is no such text.

    A kernel without crash dumps has none, and one that has just begun to boot has none yet. TargetError if memory
    cannot be read at all.
    """

    def variable(address: int | None) -> int:
        data = None if address is None else try_read(read, address, word.size)
        return 0 if data is None else word.at(data, 0)

    start, length = variable(pointer), variable(size)
    if not start or not word.is_kernel(start) or not 0 < length <= MAX_BYTES:
        return None
    data = try_read(read, start, length)
    info = VmcoreInfo(data.decode("ascii", "replace")) if data is not None else None
    return info if info is not None and is_plausible(info) else None


def is_plausible(info: VmcoreInfo) -> bool:
    """Whether it is a complete VMCOREINFO, not just the start of one, or a text that only begins like it."""
    size = info.page_size
    return (
        bool(info.release)
        and info.text.isascii()
        and all(character.isprintable() or character == "\n" for character in info.text)
        and size is not None
        and 4096 <= size <= 65536
        and not size & size - 1
        and bool(info.symbols.get("swapper_pg_dir"))
        and len(info.symbols) >= 3
        and len(info.offsets) >= 3
    )
