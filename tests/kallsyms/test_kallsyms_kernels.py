"""kallsyms in real kernels' boot images and memory, against the System.map of their debug package and the guest's own.

None missing, none wrong, but for what the build leaves out of one of the two; that is data here, with its source.
"""

from __future__ import annotations

import functools
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import vmimages

from kplug.errors import TargetError
from kplug.image.boot.boot_image import open_boot_image
from kplug.image.elf.file import ElfFile
from kplug.image.kallsyms.finder import find_tables
from kplug.image.kallsyms.in_memory import find_in_memory, from_symbols
from kplug.image.kallsyms.symbols import decode
from kplug.image.kallsyms.tables import KallsymsTables
from kplug.image.symbols.symbol_list import SymbolList

NAMES = tuple(row.name for row in vmimages.KERNELS if row.default or (row.tested and vmimages.cached(row.name)))
DUMPED = ("amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")

# In System.map and not in kallsyms: absolute symbols, and in 5.10 and 6.1 the tables themselves (both:
# is_ignored_symbol() of scripts/kallsyms.c).
ABSENT_LETTERS = "A"
TABLES = re.compile(
    "kallsyms_(addresses|offsets|relative_base|num_syms|names|markers|seqs_of_names|token_(table|index))"
)
# In kallsyms and not in System.map: local labels in 5.10, whose kallsyms is made of all that nm lists; scripts/mksysmap
# drops them, and in 6.1 kallsyms is made of what it writes (scripts/link-vmlinux.sh).
LABELS = re.compile(r"\.L")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """A kernel: each is unpacked once for all tests of it."""
    found: str = request.param
    return found


@functools.lru_cache(maxsize=1)
def unpacked(name: str) -> tuple[bytes, KallsymsTables, SymbolList]:
    """The kernel in a boot image, and what is in it. Of an ELF file the addresses of positions are known."""
    payload = open_boot_image(str(vmimages.fetch(name).vmlinuz)).payload
    if not payload.startswith(b"\x7fELF"):
        tables = find_tables(payload)
        return payload, tables, decode(payload, tables)
    path = vmimages.fetch(name).vmlinuz
    tables = find_tables(payload, address_of=addresses(ElfFile(str(path), stream=io.BytesIO(payload))))
    return payload, tables, decode(payload, tables)


def addresses(elf: ElfFile) -> Callable[[int], int | None]:
    loaded = [segment for segment in elf.segments if segment.type == "LOAD"]

    def address_of(position: int) -> int | None:
        for segment in loaded:
            if segment.offset <= position < segment.offset + segment.file_size:
                return segment.address + position - segment.offset
        return None

    return address_of


def counted(symbols: SymbolList, base: int = 0) -> Counter[tuple[int, str, str]]:
    names = (name.decode() for name in symbols.names)
    return Counter(zip((address + base for address in symbols.addresses), map(chr, symbols.letters), names))


@functools.lru_cache(maxsize=1)
def system_map(name: str) -> Counter[tuple[int, str, str]]:
    found: Counter[tuple[int, str, str]] = Counter()
    for line in Path(vmimages.fetch(name).root, "System.map").read_text().splitlines():
        address, letter, symbol = line.split(" ", 2)
        found[int(address, 16), letter, symbol] += 1
    return found


def address_in(symbols: Counter[tuple[int, str, str]], name: str) -> int:
    return next(address for address, _, symbol in symbols if symbol == name)


@pytest.mark.kernel
def test_the_boot_image_has_what_system_map_has(name: str) -> None:
    _, tables, symbols = unpacked(name)
    expected = system_map(name)
    base = address_in(expected, "_text") if tables.from_start else 0
    found = counted(symbols, base)
    if "per-CPU" in tables.encoding:  # make_percpus_absolute() of scripts/kallsyms.c makes their letter A
        end = address_in(expected, "__per_cpu_end")
        percpu = {entry for entry in expected if entry[0] <= end and entry[1] not in ABSENT_LETTERS}
        expected = Counter({(a, "A" if (a, c, s) in percpu else c, s): n for (a, c, s), n in expected.items()})
    else:
        percpu = set()
    percpu_names = {symbol for _, _, symbol in percpu}
    missing = [
        (address, letter, symbol)
        for address, letter, symbol in (expected - found)
        if (letter not in ABSENT_LETTERS or symbol in percpu_names) and not TABLES.fullmatch(symbol)
    ]
    wrong = [entry for entry in found - expected if not LABELS.match(entry[2])]
    assert (missing, wrong) == ([], [])
    assert len(found) > 80_000


@pytest.mark.kernel
def test_the_tables_are_where_the_full_vmlinux_has_them(name: str) -> None:
    payload, tables, _ = unpacked(name)
    places = {symbol: address for address, _, symbol in system_map(name) if TABLES.fullmatch(symbol)}
    # How far apart they are is the same in the file and in memory.
    distance = places["kallsyms_names"] - tables.names
    assert places["kallsyms_token_table"] - distance == tables.token_table.start
    assert places["kallsyms_token_index"] - distance == tables.token_table.index
    assert places["kallsyms_offsets"] - distance == tables.addresses
    assert ("kallsyms_relative_base" in places) == (tables.relative_base is not None)
    number = places["kallsyms_num_syms"] - distance
    assert int.from_bytes(payload[number : number + 4], "little") == tables.number


@pytest.mark.kernel
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("amd64")])  # the others' payload is flat
def test_a_flat_image_without_elf_headers(name: str) -> None:
    """The segments' bytes as a loader lays them: PC-relative addresses count from the start, the others are linked."""
    payload, tables, symbols = unpacked(name)
    segment = next(s for s in ElfFile(name, stream=io.BytesIO(payload)).segments if s.type == "LOAD")
    flat = payload[segment.offset : segment.offset + segment.file_size]
    found = find_tables(flat)
    assert found.from_start == (tables.encoding == "PC-relative")
    base = segment.address if found.from_start else 0
    assert [address + base for address in decode(flat, found).addresses] == list(symbols.addresses)


# -- memory ------------------------------------------------------------------------------------------------------------


class ImageInDump:
    """The kernel image in a dump: read by runtime address, and what the guest itself said of it."""

    def __init__(self, name: str) -> None:
        made = vmimages.dumps(name, ("elf",), quiet=True)
        self._elf = ElfFile(str(made.paths["elf"]))
        self.truth = Counter(
            (symbol.address, symbol.kind, symbol.name) for symbol in made.truth.symbols if symbol.module is None
        )
        self.text, self.end = address_in(self.truth, "_text"), address_in(self.truth, "_end")
        code = re.search(r"([0-9a-f]+)-[0-9a-f]+ : Kernel code", made.truth.text("iomem"))
        assert code is not None
        self._physical = int(code[1], 16)
        self.read_bytes = 0

    def read(self, address: int, size: int) -> bytes:
        self.read_bytes += size
        start = address - self.text + self._physical
        for segment in self._elf.segments:
            low = segment.physical_address
            if segment.type == "LOAD" and low <= start and start + size <= low + segment.file_size:
                return self._elf.read(segment.offset + start - low, size, "memory")
        raise TargetError(f"no memory at {address:#x}")

    def vmcoreinfo(self) -> Mapping[str, int]:
        text = b"".join(note.description for note in self._elf.notes() if note.owner == "VMCOREINFO").decode()
        return {match[1]: int(match[2], 16) for match in re.finditer(r"SYMBOL\((\w+)\)=([0-9a-f]+)", text)}


@pytest.mark.kernel
@pytest.mark.boot
@pytest.mark.parametrize("dumped_name", DUMPED)
def test_memory_has_what_the_guests_own_kallsyms_had(dumped_name: str) -> None:
    """At runtime addresses, KASLR and all: where VMCOREINFO says, and found without it in a few megabytes."""
    dumped = ImageInDump(dumped_name)
    found = from_symbols(dumped.vmcoreinfo(), dumped.read, word_size=8, byte_order="little")
    assert counted(found) == dumped.truth
    dumped.read_bytes = 0
    assert counted(find_in_memory(dumped.read, dumped.text, dumped.end)) == dumped.truth
    assert dumped.read_bytes < 12 << 20


@pytest.mark.kernel
@pytest.mark.boot
def test_a_kernel_is_found_in_a_range_that_is_mostly_not_there() -> None:
    dumped = ImageInDump("amd64-sid")
    found = find_in_memory(dumped.read, dumped.text - (1 << 24), dumped.end + (1 << 30), near=dumped.end + (1 << 28))
    assert counted(found) == dumped.truth
