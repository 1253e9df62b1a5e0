"""The kernel's own kallsyms tables, found by structure: each release's form, in images and in memory, and broken ones.

The forms are those of scripts/kallsyms.c (kallsyms_writer); real kernels are in test_kallsyms_kernels.
"""

from __future__ import annotations

import functools
import mmap
import random
import struct
from collections.abc import Callable, Iterator

import pytest
from support.bounded_kallsyms import Bounded
from support.kallsyms_writer import ABSOLUTE, BASE, FORMS, PC, Form, Written, image, some_symbols

from kplug.errors import InputError, TargetError
from kplug.image.kallsyms.finder import find_tables, relocated_base
from kplug.image.kallsyms.in_memory import find_in_memory, from_symbols
from kplug.image.kallsyms.symbols import decode
from kplug.image.kallsyms.tables import KallsymsNotFoundError
from kplug.image.symbols.symbol_list import SymbolList
from kplug.memory.kallsyms_image import image_from_memory, symbols_in_memory
from kplug.memory.vmcoreinfo import VmcoreInfo

TEXT = {64: 0xFFFFFFFF81000000, 32: 0xC0100000}
LATEST = Form("7.0", "after", PC, alignment=4)
BEFORE = Form("6.2 and 6.3", "before", BASE)
# A case takes some milliseconds; the largest images a second.
SECONDS = 2.0


@functools.cache
def made(form: Form) -> tuple[bytes, Written, list[tuple[int, str, str]]]:
    text = TEXT[form.bits]
    symbols = some_symbols(form, text)
    return (*image(form, symbols, text), symbols)


def listed(symbols: SymbolList) -> list[tuple[int, str, str]]:
    return [
        (address, chr(letter), symbols.name(number))
        for number, (address, letter) in enumerate(zip(symbols.addresses, symbols.letters))
    ]


def reader(
    data: bytes, start: int, holes: Callable[[int], bool] = lambda address: False
) -> Callable[[int, int], bytes]:
    """Memory that has `data` at `start`, but for the pages that are holes."""

    def read(address: int, size: int) -> bytes:
        pages = range(address // 4096, (address + size + 4095) // 4096)
        if address < start or address + size > start + len(data) or any(holes(page * 4096) for page in pages):
            raise TargetError(f"no memory at {address:#x}")
        return data[address - start : address - start + size]

    return read


# -- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_is_found_and_read(form: Form) -> None:
    data, written, symbols = made(form)
    tables = find_tables(data, address_of=lambda position: TEXT[form.bits] + position)
    assert (tables.encoding, tables.order, tables.byte_order) == (form.encoding, form.order, form.byte_order)
    assert tables.number == len(symbols)
    start = 0x4000
    assert tables.names - start == written.places["names"]
    assert tables.token_table.start - start == written.places["token_table"]
    assert tables.addresses - start == written.places.get("offsets", written.places.get("addresses"))
    assert listed(decode(data, tables)) == symbols


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_is_found_in_memory(form: Form) -> None:
    data, _, symbols = made(form)
    text = TEXT[form.bits]
    assert listed(find_in_memory(reader(data, text), text, text + len(data))) == symbols


@pytest.mark.parametrize("form", [form for form in FORMS if not form.wide], ids=str)
def test_every_form_is_read_where_vmcoreinfo_says(form: Form) -> None:
    data, written, symbols = made(form)
    text = TEXT[form.bits]
    names = {f"kallsyms_{name}": text + 0x4000 + place for name, place in written.places.items()}
    found = from_symbols(names, reader(data, text), word_size=form.bits // 8, byte_order=form.byte_order)
    assert listed(found) == symbols


def test_a_32_bit_kernel_keeps_its_words_in_4_bytes() -> None:
    """The relative base that VMCOREINFO names: with the 4 bytes after it, all symbols were somewhere else."""
    form = next(each for each in FORMS if each.bits == 32 and each.encoding == BASE and not each.wide)
    data, written, symbols = made(form)
    text = TEXT[32]
    lines = (f"SYMBOL(kallsyms_{name})={text + 0x4000 + place:x}" for name, place in written.places.items())
    found = symbols_in_memory(reader(data, text), VmcoreInfo("\n".join(lines)), "i386")
    assert found is not None
    assert listed(found) == symbols


def test_the_release_without_a_symbol_for_the_banner_is_vmcoreinfos() -> None:
    data, written, _ = made(LATEST)
    text = TEXT[64]
    lines = [
        "OSRELEASE=6.1.0-57",
        *(f"SYMBOL(kallsyms_{n})={text + 0x4000 + at:x}" for n, at in written.places.items()),
    ]
    image = image_from_memory(reader(data, text), VmcoreInfo("\n".join(lines)), "x86_64", "a dump")
    assert image is not None
    assert (image.banner, image.release) == (None, "6.1.0-57")


def test_the_description_says_how_many_and_how() -> None:
    data, _, _ = made(LATEST)
    tables = find_tables(data, address_of=lambda position: TEXT[64] + position)
    assert tables.description == "kallsyms in the image: 700 symbols, PC-relative"
    assert decode(data, tables, name="memory").source == "kallsyms in memory: 700 symbols, PC-relative"


def test_pc_relative_addresses_count_from_the_start_of_a_flat_image() -> None:
    data, _, symbols = made(LATEST)
    tables = find_tables(data)
    assert tables.from_start
    assert "counted from the start of the image" in tables.description
    assert listed(decode(data, tables)) == [(address - TEXT[64], letter, name) for address, letter, name in symbols]


def test_a_relative_base_of_zero_is_what_the_relocation_says() -> None:
    """arm64 leaves the word 0 (--no-apply-dynamic-relocs); the value is the addend of R_AARCH64_RELATIVE (0x403)."""
    base = 0xFFFF800080000000
    form = Form("6.4 to 6.10", "after", BASE)
    symbols = some_symbols(form, base)
    data, written = image(form, symbols, base)
    place = 0x4000 + written.places["relative_base"]
    unrelocated = data[:place] + bytes(8) + data[place + 8 :]
    others = struct.pack("<QQQ", base + place + 0x10000, 0x403, base + 8)
    relocation = struct.pack("<QQQ", base + place, 0x403, base)
    whole = unrelocated + others + relocation
    assert listed(decode(whole, find_tables(whole))) == symbols
    assert listed(decode(whole, find_tables(whole, address_of=lambda position: base + position))) == symbols
    without = find_tables(unrelocated + others)
    assert without.from_start
    assert decode(unrelocated, without).addresses[0] == 0

    # The first function, where kallsyms have no more (CONFIG_KALLSYMS_ALL), is not at the start of the image.
    functions = unrelocated + others + struct.pack("<QQQ", base + place, 0x403, base + 0x10000)
    tables = find_tables(functions)
    assert tables.from_start
    assert relocated_base(tables, functions, base.__add__) == base + 0x10000
    assert relocated_base(without, unrelocated + others, base.__add__) is None


def test_a_relocation_is_read_in_the_byte_order_of_the_tables() -> None:
    """R_390_RELATIVE (12) of the big-endian architecture."""
    base = 0x100000
    form = Form("6.4 to 6.10", "after", BASE, byte_order="big")
    symbols = some_symbols(form, base)
    data, written = image(form, symbols, base)
    place = 0x4000 + written.places["relative_base"]
    whole = data[:place] + bytes(8) + data[place + 8 :] + struct.pack(">QQQ", base + place, 12, base)
    assert listed(decode(whole, find_tables(whole))) == symbols


def test_bytes_mappings_and_views_are_searched_alike() -> None:
    data, _, symbols = made(BEFORE)
    mapped = mmap.mmap(-1, len(data))
    mapped.write(data)
    for form in (data, bytearray(data), memoryview(data), mapped):
        assert listed(decode(form, find_tables(form))) == symbols
    assert find_tables(data, start=0x1000) == find_tables(data)


def test_names_of_every_length_up_to_the_limits() -> None:
    """A length of 127 codes is the last of one byte, and 128 the first of two."""
    symbols = some_symbols(LATEST, TEXT[64])
    chance = random.Random(1)
    lengths = [*range(1, 20), 63, 64, 65, 126, 127, 128, 129, 255, 256, 257, 510, 511]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    symbols += [(symbols[-1][0] + 8, "t", "".join(chance.choices(letters, k=length))) for length in lengths]
    data, _ = image(LATEST, symbols, TEXT[64])
    found = decode(data, find_tables(data, address_of=lambda position: TEXT[64] + position))
    assert listed(found) == symbols


@pytest.mark.parametrize("number", [513, 767, 768, 769, 1024, 1025, 2500])
def test_any_number_of_symbols(number: int) -> None:
    for form in (LATEST, BEFORE, Form("4.20 to 6.0", "before", BASE, sequence=False, long_names=False)):
        symbols = some_symbols(form, TEXT[64], number)
        data, _ = image(form, symbols, TEXT[64])
        assert listed(decode(data, find_tables(data, address_of=lambda position: TEXT[64] + position))) == symbols


def test_decoys_are_passed_over() -> None:
    """Digits, a table of tokens without names, and one whose index is another's, all before the real one."""
    data, written, symbols = made(BEFORE)
    digits = b"".join(b"%d\0" % digit for digit in range(10))
    tokens = bytes(written.data[written.places["token_table"] : written.places["token_index"] + 512])
    decoy = digits * 3 + b"\xcc" * 16 + tokens + bytes(64) + tokens[:-2] + b"\xff\xff" + b"\xcc" * 64
    whole = decoy + data
    assert listed(decode(whole, find_tables(whole))) == symbols


def test_two_kernels_in_one_image_are_not_chosen_from() -> None:
    data, _, _ = made(BEFORE)
    with pytest.raises(KallsymsNotFoundError, match=r"several kernels' tables, with tokens at 0x.* and 0x"):
        find_tables(data + data)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_memory_is_read_from_the_likely_place_outward_and_no_more_than_needed() -> None:
    text = TEXT[64]
    symbols = [*some_symbols(LATEST, text), (text + (44 << 20), "B", "__brk_limit")]
    data, _ = image(LATEST, symbols, text, tables_at=20 << 20)
    data += bytes(24 << 20)
    count = 0

    def read(address: int, size: int) -> bytes:
        nonlocal count
        count += size
        return reader(data, text)(address, size)

    seen: list[tuple[int, int]] = []
    found = find_in_memory(read, text, text + len(data), progress=lambda done, total: seen.append((done, total)))
    assert listed(found) == symbols
    assert count < 4 << 20
    assert seen == sorted(seen)


def test_holes_in_memory_are_passed_over() -> None:
    data, _, symbols = made(BEFORE)
    text = TEXT[64]
    inside = range(text + 0x4000 - 4096, text + len(data))
    found = find_in_memory(reader(data, text), text - (1 << 22), text + (1 << 22))
    assert listed(found) == symbols
    with pytest.raises(KallsymsNotFoundError):
        find_in_memory(reader(data, text, lambda address: address in inside), text - (1 << 20), text + (1 << 20))


def test_progress_can_end_the_search() -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_in_memory(reader(bytes(1 << 20), 0), 0, 1 << 20, progress=interrupted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kallsyms_names": None}, "does not say where kallsyms_names is"),
        ({"kallsyms_offsets": None}, "does not say where kallsyms_offsets is"),
        ({"kallsyms_token_table": 8}, "no kallsyms token table"),
        ({"kallsyms_token_index": 1 << 40}, "no kallsyms token table"),
        ({"kallsyms_num_syms": 0x20}, "claims|truncated"),
        ({"kallsyms_num_syms": 1 << 40}, "number of symbols at .* cannot be read"),
        ({"kallsyms_names": 1 << 40}, "truncated or cannot be read"),
        ({"kallsyms_offsets": 6}, "not sorted, or cannot be read"),
        ({"kallsyms_offsets": 1 << 40}, "not sorted, or cannot be read"),
        ({"kallsyms_relative_base": 1 << 40}, "relative base at .* cannot be read"),
    ],
)
def test_vmcoreinfo_that_lies_is_one_clear_line(change: dict[str, int | None], said: str) -> None:
    data, written, _ = made(BEFORE)
    text = TEXT[64]
    names = {f"kallsyms_{name}": text + 0x4000 + place for name, place in written.places.items()}
    for name, distance in change.items():
        if distance is None:
            del names[name]
        else:
            names[name] += distance
    with pytest.raises(KallsymsNotFoundError, match=said) as error:
        from_symbols(names, reader(data, text), word_size=8, byte_order="little")
    assert "\n" not in str(error.value)


# -- broken ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bounded() -> Iterator[Bounded]:
    """The finder in a child with 1 GiB of address space."""
    child = Bounded()
    yield child
    child.close()


def check(answer: dict[str, object]) -> None:
    assert answer["crash"] is None, answer["crash"]
    assert isinstance(answer["seconds"], float)
    assert answer["seconds"] < SECONDS, answer


def test_no_tables_say_so() -> None:
    for data in (b"", bytes(1 << 20), random.Random(1).randbytes(1 << 20)):
        with pytest.raises(KallsymsNotFoundError, match=r"^a\.bin: no kallsyms found: no table of tokens") as error:
            find_tables(data, name="a.bin")
        assert isinstance(error.value, InputError)


SHAPES = (LATEST, BEFORE, Form("4.19", "before", ABSOLUTE, bits=32, byte_order="big", sequence=False, wide=True))


@pytest.mark.parametrize("form", SHAPES, ids=str)
def test_cut_anywhere(form: Form, bounded: Bounded) -> None:
    data, written, _ = made(form)
    ends = [0x4000 + place + more for place in written.places.values() for more in (0, 1, 7, 100)]
    for end in (*ends, 0x4000 + len(written.data) - 1):
        answer = bounded.find(data[:end])
        check(answer)
        assert answer["error"] is not None, f"cut at {end:#x} of {len(written.data) + 0x4000:#x}"
    assert bounded.find(data[: 0x4000 + len(written.data)])["error"] is None


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bits(seed: int, bounded: Bounded) -> None:
    """One clear line, or columns that agree: a flipped code is another name, which nothing can tell."""
    chance = random.Random(seed)
    data, written, _ = made(SHAPES[seed % len(SHAPES)])
    broken = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 30))):
        broken[chance.randrange(0x4000, 0x4000 + len(written.data))] ^= 1 << chance.randrange(8)
    check(bounded.find(bytes(broken)))


TABLES = ("num_syms", "names", "markers", "token_table", "token_index", "offsets", "relative_base", "seqs_of_names")


@pytest.mark.parametrize("form", [LATEST, BEFORE], ids=str)
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("fill", [b"\0", b"\1", b"\x7f", b"\x80", b"\xff"])
def test_a_table_that_lies(form: Form, table: str, fill: bytes, bounded: Bounded) -> None:
    data, written, _ = made(form)
    if table not in written.places:
        return
    start = 0x4000 + written.places[table]
    for size in (1, 4, 64):
        answer = bounded.find(data[:start] + fill * size + data[start + size :])
        check(answer)
        if table in ("num_syms", "markers", "token_index") and size == 64:
            assert answer["error"] is not None


def test_much_that_looks_like_tables_takes_no_longer(bounded: Bounded) -> None:
    _, written, _ = made(BEFORE)
    digits = b"".join(b"%d\0" % digit for digit in range(10))
    tokens = bytes(written.data[written.places["token_table"] : written.places["token_index"] + 512])
    markers = b"".join(struct.pack("<I", 600 * index) for index in range(4000))
    counts = struct.pack("<I", 3 * 256 + 1) * 30000
    for whole in (
        digits * 400_000,
        tokens * 2000,
        bytes(8 << 20) + tokens,
        markers * 400 + tokens,
        (bytes(4) + b"\0\3\0\0" + b"\0\6\0\0" + b"\0\x09\0\0") * 200_000 + tokens,
        counts + markers[:16] + tokens,
        (counts + markers[:16] + bytes(2400) + tokens) * 8,
    ):
        answer = bounded.find(whole)
        check(answer)
        assert answer["error"] is not None


def test_tokens_that_would_make_gigabytes(bounded: Bounded) -> None:
    """Names of the longest tokens there can be: refused before memory is."""
    tokens = [bytes([code]) if 0x21 <= code < 0x7F else b"" for code in range(256)]
    for code in range(0x80, 0xA0):
        tokens[code] = b"A" * 480
    table = b"".join(token + b"\0" for token in tokens)
    index = b"".join(struct.pack("<H", sum(len(token) + 1 for token in tokens[:code])) for code in range(256))
    number = 1 << 11
    size = 500
    name = bytes([size & 0x7F | 0x80, size >> 7]) + b"T" + b"\x80" * (size - 1)
    names = name * number
    markers = b"".join(struct.pack("<I", 256 * len(name) * place) for place in range(number // 256))
    head = b"\xcc" * 64 + struct.pack("<I", number) + names + bytes(-len(names) % 4) + markers
    head += table + bytes(-len(table) % 4) + index
    values = [-len(head) - 4 * place + (2 * len(head) // number) * place for place in range(number)]
    offsets = b"".join(struct.pack("<i", value) for value in values)
    sequence = b"".join(place.to_bytes(3, "big") for place in range(number))
    answer = bounded.find(head + offsets + sequence + b"\xcc" * 64)
    check(answer)
    assert "64 MiB" in str(answer["error"])
