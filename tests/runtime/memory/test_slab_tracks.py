"""Who allocated and freed slab objects, on dumps of guests that were told to record it (slub_debug=U).

Truth: alloc_traces and free_traces of some caches in /sys/kernel/debug/slab, read just before the guest was stopped.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object
from support.open_dumps import open_dump

from kplug.runtime.session import session_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

CACHES = ("kmalloc-64", "kmalloc-1k")
# A line of the list, and its stack.
TRACED = re.compile(
    r"^ +(?P<count>\d+) (?P<caller><not-available>|\S+(?: \[\w+\])?)(?: waste=\d+/(?P<waste>\d+))? age=\S+"
    r" pid=(?P<pids>\S+) .*\n(?P<stack>(?: {8}\S.*\n)*)",
    re.MULTILINE,
)

# The caller, how much less than an object was asked for, and the stack; sizes of functions are left out, since kallsyms
# lacks them.
Trace = tuple[str, int, tuple[str, ...]]


class Traced(NamedTuple):
    """What the guest says of the objects of one cache: how many have each trace, and the PIDs of each caller."""

    traces: Counter[Trace]
    pids: Mapping[str, list[range]]


class Guest(NamedTuple):
    session: Session
    said: Mapping[tuple[str, str], Traced]


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12"])
def guest(request: pytest.FixtureRequest) -> Guest:
    from vmimages import dumps

    found = dumps(request.param, ("elf",), quiet=True, append=("slub_debug=U",))
    said = re.split(r"^== (\S+) (\S+)\n", found.truth.text("slab-traces"), flags=re.MULTILINE)[1:]
    return Guest(session_of(open_dump(found)), {(c, w): traced(text) for c, w, text in zip(*[iter(said)] * 3)})


def traced(text: str) -> Traced:
    traces: Counter[Trace] = Counter()
    pids: dict[str, list[range]] = {}
    for found in TRACED.finditer(text):
        caller = without_size(found["caller"])
        stack = tuple(without_size(line.strip()) for line in found["stack"].splitlines())
        traces[caller, int(found["waste"] or 0), stack] += int(found["count"])
        first, _, last = found["pids"].partition("-")
        pids.setdefault(caller, []).append(range(int(first), int(last or first) + 1))
    return Traced(traces, pids)


def without_size(words: str) -> str:
    """The place without its symbol's size; of a module's init code, which kallsyms does not name once it is freed, only
    that it is that."""
    return "init code" if re.match(r"0x|\[\w+\] \.init\.text\+", words) else re.sub(r"/0x\w+", "", words)


@pytest.mark.parametrize("what", ["alloc", "free"])
@pytest.mark.parametrize("cache", CACHES)
def test_who_allocated_and_freed_each_is_what_the_guest_says(guest: Guest, cache: str, what: str) -> None:
    """But for what ran between the guest's list and the dump, and addresses that only kallsyms gives to a function:
    the ends of functions, and the kernel's own init code that is gone."""
    said = guest.said[cache, what]
    found: Counter[Trace] = Counter()
    later = 0
    kernel = guest.session.target.kernel  # type: ignore[attr-defined]
    for each in slab_cache_for_each_allocated_object(find_slab_cache(kernel.prog, cache), "void"):
        answer = guest.session.resolver.where(each.value_() + 8)
        (layer,) = (layer for layer in answer.layers if layer.kind == "slab")
        details = layer.details
        assert (details["object"], details["state"], answer.warnings) == (hex(each.value_()), "allocated", ())
        track = details["allocated_by" if what == "alloc" else "freed_by"]
        if track is None:
            found["<not-available>", 0, ()] += 1
            continue
        caller = without_size(track["caller"])
        asked = details.get("requested") if what == "alloc" else None
        waste = details["object_size"] - asked if asked is not None else 0
        found[caller, waste, tuple(map(without_size, track["stack"]))] += 1
        later += not any(track["pid"] in pids for pids in said.pids.get(caller, ()))
        assert track["age"] is not None
    assert sum((found & said.traces).values()) >= 0.97 * max(sum(found.values()), sum(said.traces.values()))
    assert sum(found.values()) > 50
    assert later <= 0.03 * sum(found.values())
