"""Who allocated pages, on a dump of a kernel that records it (page_owner=on). Debian's kernels do not:
$KPLUG_PAGE_OWNER_TREE names a build tree of one that does, which `make test-all` makes (.ci/build-tree page-owner).

Truth: /sys/kernel/debug/page_owner, read just before the guest was stopped.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.open_dumps import session_in

from kplug.render.text import TextRenderer

if TYPE_CHECKING:
    from kplug.model import Annotation
    from kplug.session import Session

TREE = Path(os.environ.get("KPLUG_PAGE_OWNER_TREE", "none"))
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.boot,
    pytest.mark.skipif(not TREE.is_dir(), reason="a kernel is built by make test-all only"),
]

_RECORD = re.compile(
    r"^Page allocated via order (?P<order>\d+), mask (?P<mask>0x\w+)\S* pid (?P<pid>\d+), tgid (?P<tgid>\d+)"
    r" \((?P<comm>.*)\), ts (?P<ts>\d+) ns\nPFN (?P<pfn>0x\w+) .*\n(?P<stack>(?: .*\n)*)",
    re.MULTILINE,
)
_NO_STACK = ("register_early_stack", "register_dummy_stack", "register_failure_stack")
_FREED = 40  # of some 200 that have been used and are free


class Told(NamedTuple):
    """What the guest says of a page."""

    pfn: int
    order: int
    gfp: str
    pid: int
    comm: str
    seconds: float
    stack: tuple[str, ...]


@pytest.fixture(scope="module")
def session() -> Session:
    from vmimages import page_owner_dump

    return session_in(page_owner_dump(TREE, quiet=True))


@pytest.fixture(scope="module")
def told() -> list[Told]:
    from vmimages import page_owner_dump

    text = page_owner_dump(TREE, quiet=True).truth.text("page-owner")
    return [
        Told(
            int(found["pfn"], 16),
            int(found["order"]),
            found["mask"].partition("(")[0],
            int(found["pid"]),
            found["comm"],
            round(int(found["ts"]) / 1e9, 3),
            tuple(line.strip() for line in found["stack"].splitlines()),
        )
        for found in _RECORD.finditer(text)
    ]


def answer(session: Session, pfn: int) -> Annotation:
    (found,) = session.where(f"phys:{pfn << 12:#x}")
    return found


def test_who_allocated_each_page_is_what_the_guest_says(session: Session, told: list[Told]) -> None:
    """But for what ran between the guest's list and the dump."""
    assert len(told) > 500
    wrong, recorded = [], 0
    for page in told:
        details = answer(session, page.pfn).last("page").details  # type: ignore[union-attr]
        track = details.get("allocated_by")
        if page.stack[0].startswith(_NO_STACK):
            # Most of these are reserved: the kernel's text, the struct pages.
            assert track is None or track["no_stack"]
            continue
        recorded += 1
        stack = tuple(re.sub(r"/0x\w+", "", words) for words in track["stack"]) if track is not None else ()
        said = tuple(re.sub(r"/0x\w+", "", words) for words in page.stack)
        found = (
            Told(page.pfn, track["order"], track["gfp"], track["pid"], track["comm"], track["seconds"], stack)
            if track is not None
            else None
        )
        if found != page._replace(stack=said) or details["recorded_as"] != "allocated":
            wrong.append((page, found))
    assert recorded > 300
    assert len(wrong) <= 0.03 * recorded, wrong[:3]


def test_who_freed_a_page(session: Session, told: list[Told]) -> None:
    """A page between those that the guest lists is free: its record has who freed it."""
    listed = {page.pfn + number for page in told for number in range(1 << page.order)}
    freed = 0
    for pfn in sorted(set(range(max(listed))) - listed):
        if freed == _FREED:
            return
        found = answer(session, pfn)
        details = found.last("page").details  # type: ignore[union-attr]
        track = details.get("freed_by")
        if details["state"] != "free" or track is None:
            continue
        freed += 1
        text = TextRenderer().annotation(found)
        assert details["recorded_as"] == "freed"
        assert re.search(
            rf"\n +freed in \S+ by task {track['pid']}.*, \d+\.\d\d s after boot \(\d+\.\d\d s ago\)\n", text
        )
    pytest.fail(f"only {freed} pages have a record of who freed them")
