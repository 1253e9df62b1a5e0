"""The boundary symbols of real kernels (tests/linker_kernel/data: nm's lines), and the regions that they make."""

from __future__ import annotations

from kplug.linker.region_builder import build_region_tree
from kplug.linker.regions import Region, RegionTree
from support.paths import LINKER_DATA

MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64"}
KERNELS = ("amd64-6.1", "amd64-6.12", "amd64-7.3", "arm64-6.12", "arm64-7.3", "riscv64-6.12")


def symbols_of(kernel: str) -> dict[str, int]:
    lines = (LINKER_DATA / f"{kernel}.boundaries").read_text().splitlines()
    return {name: int(address, 16) for address, name in (line.split() for line in lines)}


def tree_of(kernel: str) -> RegionTree:
    return build_region_tree(symbols_of(kernel), MACHINES[kernel.split("-")[0]])


def named(tree: RegionTree, name: str) -> Region:
    found = [region for region in tree.regions if region.name == name]
    assert len(found) == 1, f"{len(found)} regions called {name}"
    return found[0]


def names(regions: tuple[Region, ...]) -> list[str]:
    return [region.name for region in regions]
