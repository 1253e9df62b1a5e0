"""Lists of symbols as text: System.map, and /proc/kallsyms, from a file or from the running kernel.

Each line has an address, nm's letter and a name. In /proc/kallsyms the name of a symbol that is not the kernel's own is
followed by its owner in brackets (s_show() in kernel/kallsyms.c). Files are read as a whole, in columns. Only if that
finds something odd, the lines are read one by one, to drop those that scripts/mksysmap drops and to name a broken one.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, groupby, repeat
from operator import add

from kplug.arch.types.word import LITTLE
from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.files.read_ahead import MAX_BYTES, ReadAhead, Text
from kplug.image.symbols.line_scan import LineScan
from kplug.image.symbols.proc_kallsyms import SymbolLines
from kplug.image.symbols.symbol_list import SymbolList

# What the kernel prints in brackets for code that it generates itself (ftrace_mod_address_ok() and
# arch_ftrace_trampoline_func(), bpf_get_kallsym(), kprobe_get_kallsym()).
NO_MODULES = ("bpf", "__builtin__ftrace", "__builtin__kprobes")

# Lines that do not show an address: %pK, and %p before there was enough randomness (lib/vsprintf.c).
_HIDDEN = rb"\s*\((?:null|_*ptrval_*)\)"
_ZERO = rb"0{8,16}\s"
# How a line begins that shows one, in most lists the first: no pattern need be made.
_NOT_HIDDEN = tuple(bytes((digit,)) for digit in b"123456789abcdef")
_NOT_ZERO = rb"(?m)^0*[1-9a-fA-F]"
_LINE = rb"(?:[0-9a-fA-F]{16}|[0-9a-fA-F]{8})\s+[!-~]\s+\S+(?:\s+\[\S+\])?\s*"
# scripts/mksysmap: symbols of debug sections and undefined ones (these have no address) are left out; so are absolute
# ones, but those of kallsyms are x86's per-CPU variables.
# In a module (elf_type() in kernel/module/kallsyms.c) `u` is a reference that a livepatch module keeps, with the
# address of what it refers to, and `w` any weak symbol, which nm calls W.
_DROPPED = rb"\s*(?:[0-9a-fA-F]{8,16}\s+)?(?:[NUuw]\s+\S+|[NUu]\s+\S+\s+\[\S+\])\s*"
_LETTERS = bytes(set(range(ord("!"), ord("~") + 1)) - set(b"NUuw"))
_WEAK, _WEAK_IN_MODULE = b"W", b"w"
# Debian's linux-image packages install this in place of System.map.
_STUB = rb"f{8,16} \S (The real System\.map is in the (\S{1,200}) package)\s*"
_STUB_BYTES = 512
_SHOWN = 60
_HEAD_BYTES = 1 << 16
# A module's name in brackets has less (MODULE_NAME_LEN).
_OWNER_BYTES = 256
# The tools that unpack formats, by kplug's names for these.
_UNPACKERS = {"gzip": "gunzip", "xz": "unxz", "bzip2": "bunzip2", "lzma": "unlzma", "lz4": "unlz4", "zstd": "unzstd"}


def read_system_map(path: str) -> SymbolList:
    """The symbols of a System.map, in its order. InputError names an invalid line."""
    data = _read(path)
    owner = _first_owner(data)
    line = data[data.rfind(b"\n", 0, owner) + 1 : owner + _OWNER_BYTES].split(b"\n")[0] if owner >= 0 else b""
    if re.fullmatch(_LINE, line):
        raise InputError(f"{path}: not a System.map but a listing of /proc/kallsyms (give it with --kallsyms)")
    symbols = _kernel_symbols(path, data, f"System.map {path}")
    if not len(symbols):
        raise InputError(f"{path}: no symbols in it: not a System.map")
    if not any(symbols.addresses):
        raise InputError(f"{path}: all addresses are zero: not a System.map but a /proc/kallsyms that hid them")
    return symbols


def is_listing(path: str) -> bool:
    """Whether a file begins with the line of a symbol."""
    with open_file(path) as file:
        return re.match(_LINE + rb"\n", file.read(_STUB_BYTES)) is not None


def read_kallsyms(path: str = "/proc/kallsyms", machine: str = "") -> KallsymsListing:
    """/proc/kallsyms, or a saved copy of it. InputError if it cannot be read, or is something else.

    `machine` is the architecture, if it is known.

    Lines are checked when symbols are asked for: a broken one is reported then.
    """
    if path == "/proc/kallsyms":
        return _running_kallsyms(path, machine)
    data = _read(path)
    return KallsymsListing(data, path, machine=machine)


def _first_owner(data: Text) -> int:
    """The position of the first owner in brackets, or -1. s_show() has a tab before it, a terminal spaces."""
    # A search for one byte is fast.
    bracket = data.find(b"[")
    if bracket < 0:
        return -1
    if data[bracket - 1 : bracket] in (b"\t", b" "):
        return bracket - 1
    tab = data.find(b"\t[")
    space = data.find(b" [", 0, tab if tab >= 0 else len(data))
    return space if space >= 0 else tab


class KallsymsListing:
    """The text of /proc/kallsyms: the kernel's own symbols first, then those of each module.

    `hidden` says that all addresses are zeros, which is what unprivileged readers see. Everything else is decoded on
    demand; InputError for an invalid line. If the kernel itself has just written it (`by_kernel`), only requested lines
    are checked closely.
    """

    def __init__(
        self, data: Text, path: str, *, by_kernel: bool = False, machine: str = "", scan: LineScan | None = None
    ) -> None:
        self.path = path
        self._machine = machine
        self._by_kernel = by_kernel
        owner = _first_owner(data)
        # The start of the first line that is not the kernel's own.
        self._end = len(data) if owner < 0 else data.rfind(b"\n", 0, owner) + 1
        self._data, self._owned = data, bytes(data[self._end :])
        self._scan = scan
        self._added: tuple[bytes, ...] = ()

    @cached_property
    def hidden(self) -> bool:
        if self._data[:1].startswith(_NOT_HIDDEN):
            return False
        if re.match(_HIDDEN, self._data):
            return True
        return re.match(_ZERO, self._data) is not None and not re.search(_NOT_ZERO, self._data)

    def with_symbols(self, added: Iterable[tuple[int, str, str]]) -> KallsymsListing:
        """The same with further boundary symbols of the kernel (address, letter, name), inserted by address."""
        digits = self._data.find(b" ")
        lines = [f"{address:0{digits}x} {letter} {name}".encode() for address, letter, name in sorted(added)]
        listing = KallsymsListing(self._data, self.path, by_kernel=self._by_kernel, machine=self._machine)
        listing._add((*self._added, *lines), self._lines)
        return listing

    def _add(self, added: Sequence[bytes], plain: SymbolLines | None) -> None:
        """Have these lines in addition to those of the text, which `plain` has."""
        self._added = tuple(added)
        self.__dict__["_lines"] = plain

    @property
    def _own(self) -> bytes:
        """The kernel's own lines."""
        own = bytes(self._data[: self._end])
        for line in self._added:
            place = _place(own, line[: line.index(b" ")])
            own = b"".join((own[:place], line, b"\n", own[place:]))
        return own

    def has_owned(self, name: str) -> bool:
        """Whether a module, or generated code, has a symbol of that name: a quick check before `modules`."""
        encoded = b" " + name.encode("utf-8", "surrogateescape")
        return encoded + b"\t" in self._owned or encoded + b" " in self._owned

    @cached_property
    def kernel(self) -> SymbolList:
        """The kernel's own symbols."""
        self._refuse_hidden()
        if self._lines is None:
            return self._all()
        return self._lines.with_lines(self._added, self._all) if self._added else self._lines

    @cached_property
    def _lines(self) -> SymbolLines | None:
        """The kernel's own symbols, of which few are decoded, without those that were added."""
        if not self._by_kernel:
            return None
        return SymbolLines.of(self._data, self._end, self.path, self._all, self._machine, self._scan)

    def _all(self) -> SymbolList:
        """The kernel's own symbols, after checking all lines."""
        symbols = _kernel_symbols(self.path, self._own, self.path)
        if not len(symbols):
            raise InputError(f"{self.path}: no symbols of a kernel in it")
        return symbols

    @cached_property
    def modules(self) -> Mapping[str, SymbolList]:
        """The symbols of each module, and of the kernel's generated code (`NO_MODULES`), by the name in brackets."""
        self._refuse_hidden()
        tokens = _tokens(self.path, self._owned, self._data[: self._end].count(b"\n"))
        by_owner: dict[bytes, list[bytes]] = {}
        start = 0
        for owner, lines in groupby(tokens[3::4]):
            end = start + 4 * sum(1 for _ in lines)
            by_owner.setdefault(owner, []).extend(tokens[start:end])
            start = end
        found: dict[str, SymbolList] = {}
        for owner, words in by_owner.items():
            symbols = _columns(b"\n" * (len(words) // 4), words, 4, self.path)
            assert symbols is not None
            letters = symbols.letters.replace(_WEAK_IN_MODULE, _WEAK)
            found[owner[1:-1].decode("utf-8", "backslashreplace")] = symbols.with_letters(letters)
        return found

    def _refuse_hidden(self) -> None:
        if self.hidden:
            raise InputError(f"{self.path}: {hidden_words()}")


def _place(data: bytes, address: bytes) -> int:
    """The start of the first line in `data`, which is sorted, with a higher address."""
    low, high = 0, len(data)
    while low < high:
        middle = data.rfind(b"\n", 0, (low + high) // 2) + 1
        middle = max(middle, low)
        if data[middle : middle + len(address)] <= address:
            low = data.find(b"\n", middle) + 1 or len(data)
        else:
            high = middle
    return low


def hidden_words() -> str:
    """Why /proc/kallsyms has zeros for addresses, and the remedy."""
    return (
        "all addresses are zero: the kernel hides them from readers without CAP_SYSLOG, or from everyone "
        "(read it as root, with sysctl kernel.kptr_restrict below 2)"
    )


def _kernel_symbols(path: str, data: bytes, source: str) -> SymbolList:
    """Decode lines of an address, a letter and a name. InputError names the first other line."""
    symbols = _columns(data, data.split(), 3, source)
    if symbols is None:
        data = b"".join(_sifted(path, data, 3, 0))
        symbols = _columns(data, data.split(), 3, source)
    assert symbols is not None
    return symbols


def _tokens(path: str, data: bytes, lines_before: int) -> list[bytes]:
    """The words of lines with an owner in brackets, four each; `lines_before` are in the file before `data`."""
    tokens = data.split()
    if _columns(data, tokens, 4, "") is None or not all(map(bytes.startswith, tokens[3::4], repeat(b"["))):
        return b"".join(_sifted(path, data, 4, lines_before)).split()
    return tokens


def _sifted(path: str, data: bytes, words: int, lines_before: int) -> Iterator[bytes]:
    """The lines that are symbols, as `_tokens` gives them."""
    width, dropped, valid = 0, re.compile(_DROPPED), re.compile(_LINE)
    for number, line in enumerate(data.split(b"\n"), lines_before + 1):
        if not line.strip() or dropped.fullmatch(line):
            continue
        tokens = line.split()
        if not valid.fullmatch(line) or len(tokens) != words or b"\0" in line:
            raise InputError(f"{path}: line {number} is not a symbol: {_shown(line)}")
        width = width or len(tokens[0])
        if len(tokens[0]) != width:
            raise InputError(f"{path}: line {number} has an address of another width: {_shown(line)}")
        yield line + b"\n"
    if data and not data.endswith(b"\n"):
        raise InputError(f"{path}: line {number}, the last, is truncated: {_shown(line)}")


def _columns(data: bytes, tokens: list[bytes], words: int, source: str) -> SymbolList | None:
    """The columns of the lines `data`, whose words are `tokens`; None if any of them is something else."""
    from binascii import Error as HexError  # few questions need all columns
    from binascii import unhexlify

    hexes, letters, names = tokens[0::words], b"".join(tokens[1::words]), tokens[2::words]
    widths = set(map(len, hexes))
    regular = (
        len(tokens) % words == 0
        and len(widths) <= 1
        and widths <= {8, 16}
        and len(letters) == len(names) == data.count(b"\n")
        and (not data or data.endswith(b"\n"))
        and b"\0" not in data
        and not letters.translate(None, _LETTERS + (_WEAK_IN_MODULE if words == 4 else b""))
    )
    if not regular:
        return None
    try:
        addresses = array("I" if 8 in widths else "Q", unhexlify(b"".join(hexes)))
    except HexError:
        return None
    if sys.byteorder == LITTLE:
        addresses.byteswap()
    offsets = array("I", accumulate(map(add, map(len, names), repeat(1)), initial=0))
    offsets.pop()
    strings = b"\0".join(names) + b"\0" if names else b""
    return SymbolList(strings, offsets, addresses, letters, source)


def _shown(line: bytes) -> str:
    text = line[: _SHOWN + 1].decode("utf-8", "backslashreplace")
    return repr(text if len(line) <= _SHOWN else text[:_SHOWN] + "...")


def refuse_packed(path: str, head: bytes) -> None:
    """InputError for a listing that is packed."""
    from kplug.files.compression import recognise

    packed = recognise(head)
    if packed is not None:
        raise InputError(f"{path}: packed with {packed}: unpack it first ({_UNPACKERS.get(packed, packed)})")


def _refuse_other_kinds(path: str, data: bytes) -> None:
    """InputError for a file that is not a listing, saying what it is instead; `data` is its start."""
    if not data:
        raise InputError(f"{path}: the file is empty")
    if data.startswith(b"\x7fELF"):
        raise InputError(f"{path}: an ELF file, not a listing of symbols (a vmlinux is given with -s)")
    if b"\0" in data[: 1 << 16]:
        refuse_packed(path, data)
        raise InputError(f"{path}: binary data, not a listing of symbols")
    stub = stub_package(data)
    if stub is not None:
        raise InputError(f"{path}: only a stub: {stub[0]} (apt install {stub[1]})")


def stub_package(data: bytes) -> tuple[str, str] | None:
    """The text of Debian's stub of a System.map, and the package it names; None for any other file."""
    match = re.fullmatch(_STUB, data) if len(data) <= _STUB_BYTES else None
    if match is None:
        return None
    return match.group(1).decode("ascii", "backslashreplace"), match.group(2).decode("ascii", "backslashreplace")


def _read(path: str) -> bytes:
    with open_file(path) as file:
        try:
            head = file.read(_HEAD_BYTES)
            _refuse_other_kinds(path, head)
            data = head + file.read(MAX_BYTES + 1 - len(head))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES >> 20} MiB, more than any list of a kernel's symbols")
    return data


def _running_kallsyms(path: str, machine: str) -> KallsymsListing:
    """The running kernel's listing. What has arrived is looked at while the kernel writes the rest."""
    ahead, scan = ReadAhead.of(path), LineScan(machine)  # it begins before patterns are made
    for text, end in ahead.arrived():
        if text.find(b"[", scan.end, end) < 0:  # perhaps the lines of modules begin
            scan.go_on(text, max(text.rfind(b"\n", scan.end, end) + 1, scan.end))
    try:
        text = ahead.content()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return KallsymsListing(text, path, by_kernel=True, machine=machine, scan=scan)
