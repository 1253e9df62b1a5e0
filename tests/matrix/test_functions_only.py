"""A kernel without CONFIG_KALLSYMS_ALL, by its vmlinuz or a saved /proc/kallsyms: all functions, and nothing else.

pytest tests/matrix/test_functions_only.py --kernel amd64-6.12-clang
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.full_vmlinux import MASK, Full
from support.recorder import Recorder

from kplug import model
from kplug.image.opening.sources import Given, Joined, join
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.resolver import Resolver

pytestmark = pytest.mark.kernel

KASLR_OFFSET = 0x8A00000
DATA = ("init_task", "linux_banner", "jiffies_64", "sys_call_table")


def _joined(full: Full, source: str, scratch: Path) -> tuple[Joined, int]:
    """The kernel by that source, and how far it is moved."""
    by_vmlinuz = join(Given(vmlinuz=full.path("vmlinuz")))
    if source == "vmlinuz":
        return by_vmlinuz, 0
    table = by_vmlinuz.image.symbols
    symbols = sorted(map(table.symbol, table.places()), key=lambda each: each.address)
    path = scratch / "kallsyms"
    lines = (f"{each.address + KASLR_OFFSET & MASK:016x} {each.letter} {each.name}\n" for each in symbols)
    path.write_text("".join(lines))
    return join(Given(kallsyms=str(path))), KASLR_OFFSET


@pytest.mark.parametrize("source", ["vmlinuz", "kallsyms"])
def test_functions_have_their_names_and_data_has_none(full: Full, source: str, tmp_path: Path, cell: Recorder) -> None:
    joined, offset = _joined(full, source, tmp_path)
    assert joined.placement is not None or not offset
    asked = [link for link in full.addresses if full.start <= link < full.end]
    placed = PlacedImage(joined.image, joined.placement or as_linked(joined.image.extents))
    runtime = [link + offset & MASK for link in asked]
    expected, got = full.moved(offset).bulk(runtime), Resolver([placed]).bulk(runtime)
    wrong = []
    for at, link in enumerate(asked):
        name, place = got.symbol[at], got.offset[at]
        is_code = expected.region_class[at] == model.TEXT
        if name is None:
            is_right = expected.symbol[at] is None or not is_code
        else:
            is_right = name in full.names_at.get(link - (place or 0), ())
        if not is_right or (is_code and got.region[at] != expected.region[at]):
            wrong.append((hex(link), expected.symbol[at], name, expected.region[at], got.region[at]))
    cell.compared("addresses", len(asked), len(wrong))
    assert sum(each is not None for each in got.symbol) > len(asked) / 4
    assert not wrong, f"{len(wrong)}, as {wrong[:5]}"
    for name in DATA:
        assert full.image.symbols.exact(name), name
        assert not joined.image.symbols.exact(name)
