"""Permissions of every mapped page of the kernel, against QEMU's own walk of the page tables (`info tlb`).

Pages of a dump, and the listing, are of one moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.kept_guests import kept_guest
from support.open_dumps import kernel_in

from kplug.runtime.locators.address_state import MemoryState
from kplug.runtime.tables.translation import page_tables

if TYPE_CHECKING:
    from vmimages import VM

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

KERNEL = 0xFF00000000000000
PAGE = 4096
LARGE = 2 << 20

# "address: physical XGPDACTUW", a letter for each flag that is set; P is a large page.
LINE = re.compile(r"([0-9a-f]{16}): ([0-9a-f]{16}) ([X-])([G-])([P-])([D-])([A-])([C-])([T-])([U-])([W-])")


def listed(text: str) -> Iterator[tuple[int, int, str]]:
    """(virtual, physical, rights) of each page that `info tlb` lists for the kernel's half."""
    for match in LINE.finditer(text):
        virtual = int(match[1], 16)
        if virtual >= KERNEL and match[10] == "-":  # QEMU writes users' addresses with ones above, too
            rights = f"r{'w' if match[11] == 'W' else '-'}{'-' if match[3] == 'X' else 'x'}"
            yield virtual, int(match[2], 16), rights


def _stop_and_list(vm: VM, truth: Path) -> None:
    vm.stop_in_user_mode(1)  # a CPU in the kernel uses the kernel's one of the pair of tables; CPU 0 is there
    (truth / "tlb").write_text(vm.monitor("info tlb"))


@pytest.mark.parametrize(("name", "options"), [("amd64-6.1", {"la57": True}), ("amd64-6.12", {"pti": True})])
def test_every_mapped_page(name: str, options: dict[str, bool]) -> None:
    """With 5 levels of page tables; and with a pair of them (page-table isolation)."""
    dumps = kept_guest("-".join(("tlb", *options)), name, _stop_and_list, spin=1, **options)
    text = dumps.truth.text("tlb")
    kernel = kernel_in(dumps)
    tables, states = page_tables(kernel), MemoryState(kernel)
    pages = list(listed(text))
    assert len(pages) > 1000
    mapped: set[int] = set()
    sizes = set()
    for virtual, physical, rights in pages:
        state, found = states.state(virtual), tables.translate(virtual)
        assert found is not None, hex(virtual)
        assert (state.mapped, state.permissions, found.physical) == (True, rights, physical), hex(virtual)
        assert state.page_size == found.page_size
        sizes.add(found.page_size)
        mapped.update(range(virtual, virtual + found.page_size, PAGE) if found.page_size <= LARGE else ())
    assert sizes >= {PAGE, LARGE}
    # Around each run of mapped pages nothing is.
    edges = {page + step for page in mapped for step in (-PAGE, PAGE)} - mapped
    assert len(edges) > 100
    for page in edges:
        if page >= KERNEL:
            assert states.state(page % (1 << 64)).mapped is False, hex(page)
