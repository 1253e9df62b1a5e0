"""What is made ready for questions while drgn reads the types."""

from __future__ import annotations

import pytest
from support.fake_kernel import FakeKernel
from support.fake_machines import X86_64

from kplug.image.symbols.table import SymbolTable
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel import helpers
from kplug.runtime.opening.made_ready import make_ready

INFO = VmcoreInfo(f"KERNELOFFSET={X86_64.kaslr_offset:x}\n")


@pytest.mark.parametrize(
    ("asked", "loads"),
    [
        ([], False),
        (["max_pfn+0x10", "-b $rip"], False),
        ([f"{X86_64.image + 0x40:#x}"], False),
        ([f"{X86_64.image + 0x40:x} -b"], False),
        (["max_pfn", f"{X86_64.direct_map + 0x40:#x}"], True),
        ([f"{X86_64.image - X86_64.kaslr_offset:#x}"], True),  # where the image would be without KASLR
    ],
)
def test_helpers_are_imported_for_addresses_outside_the_image(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], loads: bool
) -> None:
    loaded: list[bool] = []
    monkeypatch.setattr(helpers, "load", lambda: loaded.append(True))
    placed = FakeKernel().kernel.image
    assert placed is not None
    make_ready(placed.image, INFO, asked)
    assert bool(loaded) == loads
    make_ready(None, INFO, asked)
    assert len(loaded) == loads + any("ffff" in each for each in asked)


def test_names_are_found_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = FakeKernel().kernel.image
    assert placed is not None
    make_ready(placed.image, INFO, ["max_pfn nothing", "system_state+8"])
    monkeypatch.setattr(SymbolTable, "_search", None)  # nothing is searched for again
    assert [symbol.name for symbol in placed.image.symbols.exact("max_pfn")] == ["max_pfn"]
    assert [symbol.name for symbol in placed.image.symbols.exact("system_state")] == ["system_state"]
    assert placed.image.symbols.exact("nothing") == []
