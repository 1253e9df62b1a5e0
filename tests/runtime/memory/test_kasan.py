"""Who allocated and freed slab objects, and what the shadow says, on a dump of a kernel with KASAN. Debian's have none:
$KPLUG_KASAN_TREE names a build tree of one that does, which `make test-all` makes (.ci/build-tree kasan).

Truth: KASAN's own reports of the planted objects, in the guest's log.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.open_dumps import session_in

from kplug.render.text import TextRenderer

if TYPE_CHECKING:
    from vmimages import DumpSet

    from kplug.session import Session

TREE = Path(os.environ.get("KPLUG_KASAN_TREE", "none"))
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.boot,
    pytest.mark.skipif(not TREE.is_dir(), reason="no build tree ($KPLUG_KASAN_TREE)"),
]

_TIME = re.compile(r"^\[[^]]*\] ?", re.MULTILINE)
_EVENT = re.compile(
    r"^(?P<what>Allocated|Freed) by task (?P<pid>\d+) on cpu (?P<cpu>\d+) at (?P<seconds>[\d.]+)s:\n"
    r"(?P<stack>(?: .*\n)+)",
    re.MULTILINE,
)
_WORK = re.compile(r"^(?:Last|Second to last) potentially related work creation:\n((?: .*\n)+)", re.MULTILINE)
_OBJECT = re.compile(r"belongs to the object at (\w+)\n which belongs to the cache (\S+) of size (\d+)")
# ">ffff888004a1b300: fa fb fb fb fc ...", whose first byte is that of the 8 bytes at the address.
_SHADOW = re.compile(r"^[> ](ffff\w+):((?: [0-9a-f]{2}){16})$", re.MULTILINE)

PAST = "past the end of an object or a variable"
_WORDS = {
    "00": "accessible",
    "fa": "a freed slab object",
    "fb": "a freed slab object",
    "fc": "red zone of a slab object",
    "f9": "red zone of a global variable",
}


class Report(NamedTuple):
    """What KASAN said of a specimen: `events` are the allocation and the free, as kwhere has them."""

    events: dict[str, dict[str, Any]]
    works: list[list[str]]
    start: int
    cache: str
    size: int
    shadow: dict[int, str]


@pytest.fixture(scope="module")
def dump() -> DumpSet:
    from vmimages import kasan_dump

    return kasan_dump(TREE, quiet=True)


@pytest.fixture(scope="module")
def session(dump: DumpSet) -> Session:
    return session_in(dump)


@pytest.fixture(scope="module")
def specimens(dump: DumpSet) -> dict[str, int]:
    from vmimages import kasan_specimens

    return {each.key: each.address for each in kasan_specimens(dump)}


@pytest.fixture(scope="module")
def reports(dump: DumpSet) -> dict[str, Report]:
    """By the specimens' names."""
    text = _TIME.sub("", dump.truth.text("kasan"))
    found = {}
    for piece in text.split("PLANT|")[1:]:
        key = piece.partition("|")[0]
        if "BUG: KASAN" not in piece:
            continue
        events = {
            each["what"]: {
                "pid": int(each["pid"]), "cpu": int(each["cpu"]), "seconds": round(float(each["seconds"]), 3),
                "stack": frames(each["stack"]),
            }
            for each in _EVENT.finditer(piece)
        }  # fmt: skip
        works = [frames(stack) for stack in _WORK.findall(piece)]
        start, cache, size = next(iter(_OBJECT.findall(piece)), ("0", "", "0"))
        shadow = {
            int(first, 16) + 8 * number: value
            for first, row in _SHADOW.findall(piece)
            for number, value in enumerate(row.split())
        }
        found[key] = Report(events, works, int(start, 16), cache, int(size), shadow)
    return found


def frames(stack: str) -> list[str]:
    """Without the sizes of functions: the kernel has them from kallsyms, up to the next symbol."""
    return [re.sub(r"/0x\w+", "", line.strip()) for line in stack.splitlines()]


def details(session: Session, address: int) -> dict[str, Any]:
    (found,) = session.where(hex(address))
    return dict(found.last("slab").details)  # type: ignore[union-attr]


def event(track: dict[str, Any] | None) -> dict[str, Any] | None:
    if track is None:
        return None
    return {**{key: track[key] for key in ("pid", "cpu", "seconds")}, "stack": frames("\n".join(track["stack"]))}


def test_who_allocated_and_freed_is_what_kasan_says(
    session: Session, specimens: dict[str, int], reports: dict[str, Report]
) -> None:
    of_objects = {key: report for key, report in reports.items() if report.cache}
    assert len(of_objects) >= 17
    for key, report in of_objects.items():
        told = details(session, specimens[key])
        assert (told["cache"], int(told["object"], 16), told["object_size"]) == (
            report.cache,
            report.start,
            report.size,
        )
        assert event(told["allocated_by"]) == report.events["Allocated"], key
        assert event(told["freed_by"]) == report.events.get("Freed"), key
        works = [frames("\n".join(work["stack"])) for work in told.get("work_created", ())]
        assert works == report.works, key
        assert told["state"] == ("quarantined" if "Freed" in report.events else "allocated"), key


def test_who_called_the_allocator(session: Session, specimens: dict[str, int]) -> None:
    told = details(session, specimens["freed_200"])
    assert told["allocated_by"]["caller"].startswith("planted_make+")
    assert told["freed_by"]["caller"].startswith("planted_drop+")
    told = details(session, specimens["freed_by_rcu"])
    assert told["freed_by"]["caller"].startswith("planted_drop+")
    assert told["work_created"][0]["caller"].startswith("planted_plant+")


def test_an_answer_in_words(session: Session, specimens: dict[str, int]) -> None:
    (found,) = session.where(hex(specimens["freed_of_cache"]))
    text = TextRenderer().annotation(found)
    assert "quarantined slab object planted_plain+0x5" in text
    assert re.search(
        r"\n +freed in planted_drop_of\+\S+ \[kasan_planted\] by task \d+, CPU \d, \d+\.\d\d s after", text
    )
    assert re.search(r"\n  state +mapped rw-.*; KASAN: a freed slab object$", text)


def test_the_shadow_of_objects_is_what_kasan_says(session: Session, reports: dict[str, Report]) -> None:
    """Of other memory the reports are older than the dump."""
    asked = 0
    for report in reports.values():
        for address, value in report.shadow.items():
            if not report.start <= address < report.start + report.size:
                continue
            asked += 1
            (found,) = session.where(hex(address))
            assert found.state.kasan == _WORDS.get(value, "accessible"), hex(address)
            partial = int(value, 16)
            if 0 < partial < 8:
                (found,) = session.where(hex(address + partial))
                assert found.state.kasan == PAST
    assert asked > 200


def test_other_memory(session: Session, specimens: dict[str, int], reports: dict[str, Report]) -> None:
    """Behind a global variable, and objects without a report."""
    place = specimens["global"]
    assert reports["global"].shadow[place & ~7] == "05"
    for address, words in ((place - 2, "accessible"), (place, PAST), (place + 2, _WORDS["f9"])):
        (found,) = session.where(hex(address))
        assert found.state.kasan == words
    told = details(session, specimens["live"])
    assert (told["state"], told["allocated_by"]["caller"][:16], told["freed_by"]) == (
        "allocated",
        "planted_make_of+",
        None,
    )
    for key, state in (("live_typesafe", "allocated"), ("freed_typesafe", "quarantined")):
        told = details(session, specimens[key])
        assert (told["state"], told["allocated_by"]["caller"][:16]) == (state, "planted_make_of+")


def test_the_shadow_is_an_area(session: Session, specimens: dict[str, int]) -> None:
    (found,) = session.where(hex((specimens["live"] >> 3) + 0xDFFFFC0000000000))
    assert (found.layers[0].kind, found.layers[0].name) == ("area", "KASAN shadow")
