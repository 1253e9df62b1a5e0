"""KFENCE's objects, on a dump of a guest that samples an allocation every millisecond.

Truth: /sys/kernel/debug/kfence/objects of that guest, read just before it was stopped.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.kept_guests import kept_guest
from support.open_dumps import open_files

from kplug.errors import ExpressionError
from kplug.render.json_lines import JsonLines
from kplug.render.text import TextRenderer
from kplug.runtime.session import session_of
from kplug.summary import summarize

if TYPE_CHECKING:
    from pathlib import Path

    from vmimages import VM

    from kplug.model import Annotation, Layer
    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

PAGE = 4096
OBJECTS = 255  # CONFIG_KFENCE_NUM_OBJECTS
OBJECT = re.compile(
    r"kfence-#(?P<number>\d+): 0x(?P<start>\w+)-0x(?P<last>\w+), size=(?P<size>\d+), cache=(?P<cache>.+)"
)
UNUSED = re.compile(r"kfence-#(\d+) unused")
TRACK = re.compile(
    r"^(?P<what>[a-z ]+) by task (?P<pid>-?\d+) on cpu (?P<cpu>\d+) at (?P<seconds>[\d.]+)s .*\n(?P<stack>(?: .+\n)*)",
    re.MULTILINE,
)


class Listed(NamedTuple):
    """An object of the guest's own list: the figures of its line, and who allocated and freed it."""

    number: int
    start: int
    end: int
    cache: str
    tracks: list[re.Match[str]]


class Guest(NamedTuple):
    """The dump, open, and what the guest said of it."""

    session: Session
    listed: list[Listed]
    unused: list[int]
    pool: int

    def where(self, address: int) -> Annotation:
        return self.session.resolver.where(address)

    def layer(self, address: int) -> Layer:
        (layer,) = (layer for layer in self.where(address).layers if layer.kind == "kfence")
        return layer


@pytest.fixture(scope="module", params=["at boot", "later"])
def guest(request: pytest.FixtureRequest) -> Guest:
    from vmimages import dumps

    if request.param == "at boot":
        found = dumps("amd64-6.12", ("elf",), quiet=True, append=("kfence.sample_interval=1",))
    else:
        found = kept_guest("kfence-later", "amd64-6.12", _switch_on)
    return guest_in(found.paths["elf"], found.files.vmlinux, found.truth.text("kfence"))


def _switch_on(vm: VM, truth: Path) -> None:
    """Its pool is of the page allocator then, and the pages are marked as slabs."""
    vm.run("echo 1 >/sys/module/kfence/parameters/sample_interval")
    vm.run("for round in 1 2 3; do ls -lR /sys/kernel/slab >/dev/null; sleep 0.5; done")
    vm.truth(truth)


def guest_in(core: Path, vmlinux: Path, said: str) -> Guest:
    session = session_of(open_files(core, vmlinux))
    objects = said.rstrip().rpartition("\n")[0]  # the last line is the time
    listed, unused = [], []
    for text in re.split(r"^-+\n", objects + "\n", flags=re.MULTILINE):
        head, never = OBJECT.match(text), UNUSED.match(text)
        unused += [int(never[1])] if never is not None else []
        if head is not None:
            start, end = int(head["start"], 16), int(head["last"], 16) + 1
            assert end - start == int(head["size"])
            listed.append(Listed(int(head["number"]), start, end, head["cache"], list(TRACK.finditer(text))))
    pool = listed[0].start // PAGE * PAGE - 2 * PAGE * (listed[0].number + 1)
    return Guest(session, listed, unused, pool)


def test_every_object_of_the_guests_list_is_answered(guest: Guest) -> None:
    assert len(guest.listed) + len(guest.unused) == OBJECTS
    assert len(guest.listed) > 50
    for listed in guest.listed:
        for address in (listed.start, (listed.start + listed.end) // 2, listed.end - 1):
            answer, layer = guest.where(address), guest.layer(address)
            assert (layer.name, layer.start, layer.end) == (listed.cache, listed.start, listed.end)
            assert (layer.details["number"], layer.details["cache"]) == (listed.number, listed.cache)
            assert layer.details["size"] == listed.end - listed.start
            assert "slab" not in {each.kind for each in answer.layers}
            said = f"KFENCE object {listed.cache}+{address - listed.start:#x}"
            state = layer.details["state"]
            assert summarize(answer).head == (said if state == "allocated" else f"{state} {said}")
            assert answer.region_class == "none"
            assert not answer.warnings


def is_same(guest: Guest, told: str, listed: str) -> bool:
    """An address may have two names. Of what was a module's init code the guest has none, but only the address;
    sections begin with a page there."""
    freed = re.fullmatch(r"\[\w+\] \.init\.text\+(0x[0-9a-f]+)(?: \(or in .*\))?", told)
    if freed is not None:
        if listed.startswith("0x"):
            return (int(listed, 16) - int(freed[1], 16)) % PAGE == 0
        # The guest named it while it was there: now nobody knows the name.
        with pytest.raises(ExpressionError):
            guest.session.where(listed)
        return True
    if told == listed:
        return True
    ours, theirs = ({answer.address for answer in guest.session.where(words)} for words in (told, listed))
    return bool(ours & theirs)


def test_who_allocated_and_freed_each_is_what_the_guest_says(guest: Guest) -> None:
    freed_since, since = 0, max(float(listed.tracks[0]["seconds"]) for listed in guest.listed)
    for listed in guest.listed:
        details = guest.layer(listed.start).details
        assert listed.tracks[0]["what"] == "allocated"
        state = listed.tracks[1]["what"].replace(" ", "_") if len(listed.tracks) > 1 else "allocated"
        if details["state"] != state:  # between the list and the stop
            assert (state, details["state"]) in {("allocated", "freed"), ("rcu_freeing", "freed")}
            assert details["freed_by"]["seconds"] >= since
            freed_since += 1
        for track, by in zip(listed.tracks, (details["allocated_by"], details["freed_by"])):
            assert (by["pid"], by["cpu"]) == (int(track["pid"]), int(track["cpu"]))
            assert by["seconds"] == pytest.approx(float(track["seconds"]), abs=2e-6)
            stack = [line.split("/")[0].strip() for line in track["stack"].splitlines()]
            told = [words.split("/")[0] for words in by["stack"]]
            told = told[-len(stack) :]  # the list leaves the allocator's own functions out
            assert len(told) == len(stack)
            assert [pair for pair in zip(told, stack) if not is_same(guest, *pair)] == []
            assert by["caller"].split("/")[0] == told[0]
        assert (details["freed_by"] is None) == (details["state"] == "allocated")
    assert freed_since < 20


def test_a_page_without_an_object_is_said_to_be_one(guest: Guest) -> None:
    for number in guest.unused:
        layer = guest.layer(guest.pool + 2 * (number + 1) * PAGE + 0x10)
        assert (layer.name, layer.details["state"]) == ("page for a KFENCE object", "unused")


def test_what_is_beside_an_object_is_its_canary(guest: Guest) -> None:
    for listed in guest.listed:
        page = listed.start // PAGE * PAGE
        if listed.start > page:
            layer = guest.layer(listed.start - 1)
            assert (layer.start, layer.end, layer.details["object"]) == (page, listed.start, hex(listed.start))
            assert layer.name == f"canary of KFENCE object {listed.cache}, 0x1 bytes before it"
        if listed.end < page + PAGE:
            layer = guest.layer(listed.end)
            assert (layer.start, layer.end, layer.details["object"]) == (listed.end, page + PAGE, hex(listed.start))
            assert layer.name == f"canary of KFENCE object {listed.cache}, 0x0 bytes past its end"


def test_every_other_page_of_the_pool_is_a_guard_and_not_mapped(guest: Guest) -> None:
    for page in (0, *range(1, 2 * (OBJECTS + 1), 2)):
        address = guest.pool + page * PAGE + 0x123
        answer, layer = guest.where(address), guest.layer(address)
        assert layer.details["guard"] is True
        assert (layer.start, layer.end) == (guest.pool + page * PAGE, guest.pool + (page + 1) * PAGE)
        assert answer.state.mapped is False
        assert summarize(answer).head.startswith("KFENCE guard page")
    pairs = zip(guest.listed, guest.listed[1:])
    first, second = next(pair for pair in pairs if pair[0].number + 1 == pair[1].number)
    layer = guest.layer(first.start // PAGE * PAGE + PAGE)
    assert layer.details["below"] == f"{first.cache} at {first.start:#x}"
    assert layer.details["above"] == f"{second.cache} at {second.start:#x}"


def test_outside_the_pool_nothing_is_kfences(guest: Guest) -> None:
    end = guest.pool + 2 * (OBJECTS + 1) * PAGE
    for address in (guest.pool - 1, end, end + PAGE, end + (1 << 20)):
        assert "kfence" not in {layer.kind for layer in guest.where(address).layers}


def test_a_corrupted_record_is_said_to_be_one(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = guest.session.target.kernel  # type: ignore[union-attr]
    listed = guest.listed[0]
    size, read = (listed.end - listed.start).to_bytes(8, "little"), kernel.read
    where = listed.start.to_bytes(8, "little")
    broken = where + (1 << 40).to_bytes(8, "little")
    monkeypatch.setattr(kernel, "read", lambda at, count: read(at, count).replace(where + size, broken))
    answer = guest.where(listed.start)
    assert "kfence" not in {layer.kind for layer in answer.layers}
    words = r"KFENCE's record at 0x\w+ is corrupted: an object of 0x10000000000 bytes"
    assert any(re.fullmatch(words, warning) for warning in answer.warnings)


def test_text_and_json_say_whose_it_is(guest: Guest) -> None:
    # Some were freed between the list and the stop.
    listed = next(each for each in guest.listed if guest.layer(each.start).details["state"] == "allocated")
    answer = guest.where(listed.start)
    line = next(line for line in TextRenderer().annotation(answer).split("\n") if line.startswith("  kfence"))
    pid, size = listed.tracks[0]["pid"], listed.end - listed.start
    assert line.startswith(f"  kfence   {listed.cache}  ")
    assert f"object size {size:#x}  by task {pid} in " in line
    (layer,) = (each for each in json.loads(JsonLines().annotation(answer))["layers"] if each["kind"] == "kfence")
    assert layer["details"]["allocated_by"]["pid"] == int(pid)
