"""What `Resolver.where` keeps for a stretch of addresses is the answer for each of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import vmimages
from hypothesis import given, settings
from hypothesis import strategies as st
from support.elf_builder import BASE_64, FUNC, GLOBAL, LOCAL, NOTYPE, WEAK, Sym, small_vmlinux
from support.sampling import Sampling

from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked, moved_by
from kplug.model import Layer
from kplug.opening import open_session
from kplug.resolver import Resolver
from kplug.source import Source
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space


class Nothing:
    """A locator that finds nothing; but what it would find may differ between any two addresses."""

    def locate(self, address: int) -> Iterable[Layer]:
        return ()


def assert_same(images: Sequence[PlacedImage], space: AddressSpace | None, addresses: Sequence[int]) -> int:
    """Asks in this order; returns how many stretches were kept."""
    kept, single = Resolver(images, space), Resolver(images, space, locators=[Nothing()])
    for address in addresses:
        assert kept.where(address) == single.where(address), hex(address)
    return len(kept.stretches) if kept.stretches is not None else 0


@pytest.mark.parametrize("kaslr_offset", [0, 0x8A00000])
@pytest.mark.parametrize("machine", ["", "x86_64"])
def test_every_address_of_a_small_kernel(tmp_path: Path, kaslr_offset: int, machine: str) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    image = open_vmlinux(str(path))
    placed = [PlacedImage(image, moved_by(image.sections, kaslr_offset, ""))]
    space = address_space(machine, AddressSpaceFacts()) if machine else None
    addresses = [BASE_64 + kaslr_offset + offset for offset in range(-4, 0x4008)]
    addresses += [0, 1, 0x10, (1 << 64) - 1, 1 << 63]
    shuffled = random.Random(1).sample(addresses, len(addresses))
    for order in (addresses, addresses[::-1], shuffled):
        assert 0 < assert_same(placed, space, order) < 200


_symbols = st.lists(
    st.builds(
        Sym,
        name=st.from_regex(r"_{0,2}[a-e]{1,3}|__start_[a-c]|__stop_[a-c]", fullmatch=True),
        value=st.integers(-2, 0x2150 // 8).map(lambda number: BASE_64 + 8 * number),
        size=st.one_of(st.sampled_from([0, 1, 8, 10, 16]), st.integers(0, 0x2000)),
        section=st.sampled_from([".bss", ".data", ".rodata", ".text"]),
        type=st.sampled_from([FUNC, NOTYPE]),
        binding=st.sampled_from([LOCAL, GLOBAL, WEAK]),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(symbols=_symbols, seed=st.integers(0, 1000))
def test_any_symbols(tmp_path: Path, symbols: list[Sym], seed: int) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols = [*elf.symbols, *symbols]
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(elf))
    image = open_vmlinux(str(path))
    addresses = {end + step for s in symbols for end in (s.value, s.value + s.size) for step in (-1, 0, 1)}
    addresses |= {BASE_64 + offset for offset in range(0, 0x2200, 24)}
    inside = sorted(address for address in addresses if 0 <= address < 1 << 64)
    assert_same([PlacedImage(image, as_linked(image.sections))], None, random.Random(seed).sample(inside, len(inside)))


@pytest.mark.kernel
@pytest.mark.parametrize("kernel", ["amd64-6.1", "amd64-6.12", "arm64-6.12", "riscv64-6.12"])
@pytest.mark.parametrize("kaslr_offset", [0, 0x1600000])
def test_a_kernel(kernel: str, kaslr_offset: int, sampling: Sampling) -> None:
    """Where symbols and sections begin and end, around there, and anywhere."""
    files, chance = vmimages.fetch(kernel, quiet=True), random.Random(sampling.seed)
    session = open_session(Source(vmlinux=str(files.vmlinux), kaslr_offset=kaslr_offset))
    main = session.main
    assert main is not None
    starts, _, reach = main.image.index.columns()
    some = [chance.choice(column) for _ in range(sampling.count(4000)) for column in (starts, reach)]
    some += [chance.randrange(starts[0], starts[-1]) for _ in range(sampling.count(2000))]
    some += [bound for section in main.image.sections for bound in (section.address, section.end)]
    some += [bound for region in main.image.regions.regions for bound in (region.start, region.end)]
    links = {address + step for address in some for step in (-1, 0, 1, chance.randrange(64))}
    addresses = [main.placement.runtime(link) for link in links if 0 <= link < 1 << 64]
    fresh = PlacedImage(open_vmlinux(str(files.vmlinux)), main.placement)
    assert assert_same([fresh], session.space, chance.sample(addresses, len(addresses)))
