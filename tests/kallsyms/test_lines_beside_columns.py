"""What is asked of a list is answered alike by the table of all columns, by the one that looks at single symbols of a
sorted list, and by the one that looks at single lines, and thousands of such questions are.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.sampling import Sampling

from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import KernelImage
from kplug.image.symbols import by_address as symbol_index
from kplug.image.symbols import sorted_list as ordered_symbols
from kplug.image.symbols.line_scan import LineScan
from kplug.image.symbols.listings import KallsymsListing, read_kallsyms, read_system_map
from kplug.image.symbols.sorted_list import LinesSymbolTable, OrderedSymbolTable
from kplug.image.symbols.symbol_list import SymbolList
from kplug.image.symbols.table_of_list import ListedSymbolTable

KERNELS = ("amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")
_LAST = (1 << 64) - 1


def image_of(symbols: SymbolList, machine: str, *, whole: bool = False) -> KernelImage:
    image = KernelImage(bare_elf("kallsyms", machine, 64), name="vmlinux", listed=symbols)
    if whole:
        image.__dict__["symbols"] = ListedSymbolTable(image.elf, (), symbols, image._letter_by_region)
    return image


def by_all_columns(text: bytes, machine: str) -> KernelImage:
    return image_of(KallsymsListing(text, "kallsyms").kernel, machine, whole=True)


def images(text: bytes, machine: str, whole: KernelImage | None = None) -> list[KernelImage]:
    """The kernel of a listing by all columns (`whole`, if it is there), by those that are asked for, and by lines."""
    found = [whole or by_all_columns(text, machine), image_of(KallsymsListing(text, "kallsyms").kernel, machine)]
    found.append(image_of(KallsymsListing(text, "kallsyms", by_kernel=True).kernel, machine))
    assert [type(image.symbols) for image in found] == [ListedSymbolTable, OrderedSymbolTable, LinesSymbolTable]
    return found


def answer(image: KernelImage, address: int) -> tuple[object, ...]:
    index = image.index
    held = next(((e.address, e.end) for e in image.extents if e.address <= address < e.end), None)
    padding = None if held is None else index.padding(address, *held)
    return index.chain(address), index.innermost(address), index.distance_to_next(address), padding


def addresses(image: KernelImage, seed: int, count: int) -> list[int]:
    """Edges of extents and of regions, the starts of symbols and what is around them, and addresses anywhere."""
    values, chance = image.symbols.values, random.Random(seed)
    bounds = {bound for extent in image.extents for bound in (extent.address, extent.end)}
    bounds |= {bound for region in image.regions.regions for bound in (region.start, region.end)}
    edges = {0, _LAST, values[0], values[-1], *chance.sample(sorted(bounds), min(len(bounds), 2 * count))}
    edges |= {chance.choice(values) for _ in range(count)}
    near = {edge + step for edge in sorted(edges) for step in (-1, 0, 1, chance.randrange(0x40))}
    near |= {chance.randrange(values[0], values[-1] + 1) for _ in range(count // 8)}
    return sorted((address for address in near if 0 <= address <= _LAST), key=lambda _: chance.random())


def assert_alike(whole: KernelImage, *others: KernelImage, count: int, seed: int = 0) -> None:
    asked = addresses(whole, seed, count)
    chance = random.Random(seed)
    entries = [chance.randrange(len(whole.symbols.values)) for _ in range(count)]
    names = {whole.symbols.name(entry) for entry in entries} | {"", "nope", "text", "schedul", "a b", "\n", "x\0y"}
    answers = {address: answer(whole, address) for address in asked}
    for image in others:
        assert bool(image.symbols) == (len(whole.symbols) > 0)
        assert image.regions.regions == whole.regions.regions
        assert image.extents == whole.extents
        assert image.symbols.typeless_entries == whole.symbols.typeless_entries
        assert image.symbols.empty_objects() == whole.symbols.empty_objects()
        for address in asked:
            assert answer(image, address) == answers[address], hex(address)
        for name in names:
            assert image.symbols.exact(name) == whole.symbols.exact(name), name
        for entry in entries:
            assert image.symbols.symbol(entry) == whole.symbols.symbol(entry)


def assert_columns_alike(whole: KernelImage, *others: KernelImage) -> None:
    for image in others:
        assert image.symbols.glob("*init*") == whole.symbols.glob("*init*")
        assert list(image.symbols.sizes) == list(whole.symbols.sizes)
        assert image.symbols.places() == whole.symbols.places()
        assert image.index.columns() == whole.index.columns()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single symbols and names are looked for however many were before."""
    monkeypatch.setattr(ordered_symbols, "_FEW_QUESTIONS", 1 << 30)
    monkeypatch.setattr(symbol_index, "_FEW_WINDOWS", 1 << 30)


@pytest.fixture(scope="module", params=KERNELS)
def listing(request: pytest.FixtureRequest) -> tuple[bytes, str, KernelImage]:
    """What a guest's /proc/kallsyms said, the machine, and the kernel of it by all columns."""
    from vmimages import dumps

    text = (dumps(request.param, quiet=True).truth.root / "kallsyms").read_bytes()
    machine = "aarch64" if "arm64" in request.param else "x86_64"
    return text, machine, by_all_columns(text, machine)


@pytest.mark.kernel
@pytest.mark.usefixtures("patient")
def test_single_questions_have_the_answers_of_the_whole_list(
    listing: tuple[bytes, str, KernelImage], sampling: Sampling
) -> None:
    assert_alike(*images(*listing), count=sampling.count(1000), seed=sampling.seed)


@pytest.mark.kernel
def test_after_many_questions_the_whole_list_answers_with_the_same_numbers(
    listing: tuple[bytes, str, KernelImage], sampling: Sampling
) -> None:
    found = images(*listing)
    assert_alike(*found, count=sampling.count(800), seed=sampling.seed)
    assert_columns_alike(*found)


@pytest.mark.kernel
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_system_map_is_the_same(kernel: str, sampling: Sampling) -> None:
    from vmimages import fetch

    symbols = read_system_map(str(fetch(kernel, quiet=True).system_map))
    machine = "aarch64" if "arm64" in kernel else "x86_64"
    assert_alike(
        image_of(symbols, machine, whole=True),
        image_of(symbols, machine),
        count=sampling.count(1000),
        seed=sampling.seed,
    )


@pytest.mark.usefixtures("patient")
def test_the_kernel_that_runs_here(sampling: Sampling) -> None:
    try:
        text = Path("/proc/kallsyms").read_bytes()
    except OSError:
        pytest.skip("/proc/kallsyms cannot be read")
    if KallsymsListing(text, "kallsyms").hidden:
        pytest.skip("/proc/kallsyms tells no address")
    found = images(text, "x86_64")
    assert_alike(*found, count=sampling.count(1000), seed=sampling.seed)
    listing = read_kallsyms()
    assert listing.kernel.source == "/proc/kallsyms"
    assert len(listing.kernel) == len(found[0].symbols.values)
    others = found[2].listed
    assert others is not None
    assert listing.kernel.boundary_numbers == others.boundary_numbers


# -- made up ---------------------------------------------------------------------------------------------------------

_BASE = 0xFFFFFFFF81000000
_FRAME = ((0, "T", "_text"), (0, "T", "_stext"), (0x100000, "T", "_etext"), (0x200000, "B", "_end"))


def text_of(rows: list[tuple[int, str, str]]) -> bytes:
    return "".join(f"{address:016x} {letter} {name}\n" for address, letter, name in rows).encode()


def kernel_of(*rows: tuple[int, str, str]) -> bytes:
    moved = [(_BASE + offset, letter, name) for offset, letter, name in (*_FRAME, *rows)]
    return text_of(sorted(moved, key=lambda row: row[0]))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "rows",
    [
        [(0x10, "t", "twice"), (0x40, "t", "twice"), (0x40, "t", "twice"), (0x40, "T", "twice")],
        [(0x10 + 8 * n, "t", f"s{n}") for n in range(200)],
        [(0x10, "t", f"alias{n}") for n in range(200)] + [(0x900, "t", "after")],
        [(0x10 + n, "t", f".L{n}") for n in range(1200)] + [(0x900, "t", "after")],
        [(0x100, "D", "__start_new"), (0x180, "D", "__stop_new"), (0x200, "D", "x_start"), (0x280, "D", "x_end")],
        [(0x110000, "D", "__pi_x_start"), (0x110000, "D", "x_start"), (0x118000, "D", "x_end"), (0x118010, "d", "y")],
        [(0x120000, "D", "__tail_end"), (0x118000, "d", "__tail"), (0x300000, "t", "outside")],
        [(0x10, "A", "absolute"), (0x20, "a", "small"), (0x30, "W", "weak"), (0x30, "V", "object")],
    ],
)
def test_lists_that_no_kernel_has(rows: list[tuple[int, str, str]]) -> None:
    found = images(kernel_of(*rows), "x86_64")
    assert_alike(*found, count=300)
    assert_columns_alike(*found)


def test_per_cpu_variables_at_zero() -> None:
    percpu = [(0, "A", "fixed_percpu_data"), (0, "A", "__per_cpu_start"), (0x1000, "A", "cpu_x"), (0x2000, "A", "y")]
    text = text_of([*percpu, (0x3000, "A", "__per_cpu_end")]) + kernel_of((0x40, "t", "one"))
    assert_alike(*images(text, "x86_64"), count=200)


@pytest.mark.parametrize(
    "broken",
    [
        kernel_of()[:-1],
        kernel_of((0x10, "t", "one")) + b"\n",
        kernel_of() + kernel_of(),  # not sorted
        kernel_of() + b"ffffffff81300000 U undefined\n",
        kernel_of() + b"short\n",
        b"",
    ],
)
def test_lines_that_the_kernel_would_not_write_so_are_all_looked_at(broken: bytes) -> None:
    listings = [KallsymsListing(broken, "kallsyms", by_kernel=by_kernel) for by_kernel in (False, True)]
    said = []
    for listing in listings:
        try:
            said.append((type(listing.kernel), listing.kernel.names))
        except Exception as error:
            said.append((type(error), str(error)))
    assert said[0] == said[1]


def test_a_broken_line_elsewhere_is_named_as_soon_as_all_are_asked_for() -> None:
    from kplug.errors import InputError

    text = kernel_of((0x10, "t", "one"), (0x80, "t", "two words"))
    image = image_of(KallsymsListing(text, "/proc/kallsyms", by_kernel=True).kernel, "x86_64")
    assert image.symbols.exact("one")[0].size == 0x70
    with pytest.raises(InputError, match="/proc/kallsyms: line 4 is not a symbol"):
        image.symbols.glob("*")


# Some blocks of lines, each of which is cut apart when it is asked for.
_MANY = [(0x100 + 4 * n, "t", f"function_{n}") for n in range(1200)]


def test_a_line_that_is_out_of_order_is_an_error_where_it_is_asked_for() -> None:
    from kplug.errors import InputError

    lines = kernel_of(*_MANY).split(b"\n")
    lines[600], lines[610] = lines[610], lines[600]
    listing = KallsymsListing(b"\n".join(lines), "/proc/kallsyms", by_kernel=True)
    image = image_of(listing.kernel, "x86_64")
    for ask in (lambda: image.index.chain(_BASE + 0x100 + 4 * 598), lambda: image.symbols.glob("function*")):
        with pytest.raises(InputError, match="/proc/kallsyms: not all lines are of symbols with an address"):
            ask()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "rows",
    [
        [
            (0x5000, "T", "x_start"),
            (0x6000, "T", "x_end"),
            (0x7000, "T", "__y_text_start"),
            (0x8000, "T", "__y_text_end"),
        ],
        [(0x100000, "D", "x_start"), (0x110000, "D", "x_end"), (0x7000, "t", "x_end"), (0x120000, "D", "orc_lookup")],
        [(0x180000 + 8 * n, "d", f"data_{n}") for n in range(400)],
    ],
)
def test_names_within_code_and_outside_it(rows: list[tuple[int, str, str]]) -> None:
    assert_alike(*images(kernel_of(*_MANY, *rows), "x86_64"), count=40)


def test_lines_that_arrive_in_pieces() -> None:
    text, whole = kernel_of(*_MANY, (0x110000, "D", "x_start"), (0x120000, "D", "x_end")), LineScan("x86_64")
    whole.go_on(text, len(text))
    chance, pieces, arrived = random.Random(1), LineScan("x86_64"), bytearray()
    while len(arrived) < len(text):
        arrived += text[len(arrived) : len(arrived) + chance.randrange(1, 9000)]
        pieces.go_on(arrived, arrived.rfind(b"\n") + 1)
    assert vars(pieces) == vars(whole)
    listing = KallsymsListing(arrived, "kallsyms", by_kernel=True, machine="x86_64", scan=pieces)
    assert_alike(by_all_columns(text, "x86_64"), image_of(listing.kernel, "x86_64"), count=40)


def test_lines_that_are_added_at_the_bounds_of_blocks() -> None:
    text = kernel_of(*_MANY)
    for number in range(0, 1200, 171):
        place = _BASE + 0x100 + 4 * number
        added = [(place, "B", "__bss_start"), (place, "B", "__bss_stop"), (place + 0x1000, "D", "_edata")]
        listings = [KallsymsListing(text, "kallsyms", by_kernel=by_kernel) for by_kernel in (False, True)]
        whole, lines = (listing.with_symbols(added).kernel for listing in listings)
        assert [lines.name_bytes(number) for number in range(len(lines))] == whole.names
        for name in (b"__bss_start", b"__bss_stop", b"_edata", b"_etext", b"function_1199"):
            assert lines.numbers_named(name) == [whole.numbers[name]]  # type: ignore[attr-defined]
        assert lines.boundary_numbers == whole.boundary_numbers
        assert lines.data_numbers() == whole.data_numbers()


def test_symbols_that_are_added_are_found_beside_the_others() -> None:
    text = kernel_of((0x10, "t", "one"))
    added = [(_BASE + 0x180000, "B", "__bss_start"), (_BASE + 0x190000, "B", "__bss_stop")]
    listings = [KallsymsListing(text, "kallsyms", by_kernel=by_kernel) for by_kernel in (False, True)]
    assert listings[1].kernel.boundary_numbers  # known before
    whole, lines = (listing.with_symbols(added).kernel for listing in listings)
    assert lines.boundary_numbers == whole.boundary_numbers
    assert [lines.name(number) for number in range(len(lines))] == [name.decode() for name in whole.names]
    assert_alike(image_of(whole, "x86_64", whole=True), image_of(lines, "x86_64"), count=100)
    assert lines.names == whole.names
