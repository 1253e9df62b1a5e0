"""Resolver.bulk says in columns what Resolver.where says in layers: the same address has one answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.elf_builder import BASE_64, ET_REL, FUNC, GLOBAL, LOCAL, NOTYPE, WEAK, Sec, Sym, small_vmlinux

from kplug import model
from kplug.image.opening.files import open_module, open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked, moved_by
from kplug.resolver import Resolver

MODULE = 0xFFFFFFFFC0000000
BOUNDS = {".text": (0, 0x200), ".rodata": (0x1000, 0x1080), ".data": (0x2000, 0x2040), ".bss": (0x2040, 0x2140)}


def put(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def answer_of_where(resolver: Resolver, address: int) -> tuple[object, ...]:
    annotation = resolver.where(address)
    kinds = {
        kind: annotation.last(kind)
        for kind in (model.IMAGE, model.MODULE, model.SEGMENT, model.SECTION, model.REGION, model.SYMBOL)
    }
    image, symbol, section = kinds[model.IMAGE] or kinds[model.MODULE], kinds[model.SYMBOL], kinds[model.SECTION]
    region, widest = kinds[model.REGION], annotation.first(model.SEGMENT)
    return (
        annotation.link_address,
        image and image.name,
        widest and widest.details["index"],
        section and section.name,
        region and region.name,
        annotation.region_class,
        symbol and symbol.name,
        symbol and symbol.offset(address),
    )


def assert_same(resolver: Resolver, addresses: Sequence[int]) -> None:
    columns = resolver.bulk(addresses)
    assert list(columns.address) == list(addresses)
    rows = zip(
        columns.link_address, columns.image, columns.segment, columns.section, columns.region, columns.region_class,
        columns.symbol, columns.offset,
    )  # fmt: skip
    for address, row in zip(addresses, rows):
        assert row == answer_of_where(resolver, address), hex(address)


@pytest.mark.parametrize("kaslr_offset", [0, 0x8A00000])
def test_every_address_of_a_kernel_and_a_module(tmp_path: Path, kaslr_offset: int) -> None:
    image = open_vmlinux(put(tmp_path / "vmlinux", bytes(small_vmlinux())))
    elf = small_vmlinux(type=ET_REL, segments=[])
    for section in elf.sections:
        section.address = 0
    elf.symbols = [Sym("mod_open", 0x8, 0x20, ".text", FUNC, LOCAL)]
    module = open_module(f"{put(tmp_path / 'm.ko', bytes(elf))}@{MODULE:#x}")
    placed = [
        PlacedImage(image, moved_by(image.sections, kaslr_offset, "")),
        PlacedImage(module, as_linked(module.sections)),
    ]
    addresses = [BASE_64 + kaslr_offset + offset for offset in range(-4, 0x4008, 3)]
    addresses += [MODULE + offset for offset in range(-4, 0x210)]
    addresses += [0, 1, 0x10, (1 << 64) - 1, 1 << 63]
    assert_same(Resolver(placed), addresses)
    assert_same(Resolver(placed), addresses[::-1])


def test_no_addresses_and_no_images() -> None:
    assert_same(Resolver([]), [])
    assert_same(Resolver([]), [0, 5, (1 << 64) - 1])


_symbols = st.lists(
    st.builds(
        Sym,
        name=st.from_regex(r"_{0,2}[a-e]{1,3}|__start_[a-c]|__stop_[a-c]", fullmatch=True),
        value=st.integers(-2, 0x2150 // 8).map(lambda number: BASE_64 + 8 * number),
        size=st.one_of(st.sampled_from([0, 1, 8, 10, 16]), st.integers(0, 0x2000)),
        section=st.sampled_from(sorted(BOUNDS)),
        type=st.sampled_from([FUNC, NOTYPE]),
        binding=st.sampled_from([LOCAL, GLOBAL, WEAK]),
    ),
    max_size=12,
)


@settings(max_examples=100)
@given(symbols=_symbols, boundaries=st.booleans())
def test_any_symbols(tmp_path: Path, symbols: list[Sym], boundaries: bool) -> None:
    """With the boundary symbols of a kernel among them, or without any region."""
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols = [*(elf.symbols if boundaries else ()), *symbols]
    image = open_vmlinux(put(tmp_path / "vmlinux", bytes(elf)))
    resolver = Resolver([PlacedImage(image, as_linked(image.sections))])
    addresses: set[int] = set()
    for symbol in symbols:
        for end in (symbol.value, symbol.value + symbol.size):
            addresses.update((end - 1, end, end + 1))
    for low, high in BOUNDS.values():
        addresses.update(BASE_64 + bound + step for bound in (low, high) for step in (-1, 0, 1))
    assert_same(resolver, sorted(addresses))


@settings(max_examples=30)
@given(
    overlaps=st.lists(st.tuples(st.integers(0, 0x3000), st.integers(0, 0x2000)), max_size=6),
    addresses=st.lists(st.integers(BASE_64 - 2, BASE_64 + 0x4002), max_size=40),
)
def test_any_overlap_of_sections(tmp_path: Path, overlaps: list[tuple[int, int]], addresses: list[int]) -> None:
    elf = small_vmlinux()
    elf.sections += [Sec(f"o{n}", 8, 2, BASE_64 + low, size=size) for n, (low, size) in enumerate(overlaps)]
    image = open_vmlinux(put(tmp_path / "vmlinux", bytes(elf)))
    assert_same(Resolver([PlacedImage(image, as_linked(image.sections))]), addresses)
