"""The zones of memory: the node and zone of a page frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.nodes import online_nodes

_MOST_NODES = 1 << 10  # NODES_SHIFT is at most 10
_MOST_ZONES = 16  # MAX_NR_ZONES is at most 6


class Zone(NamedTuple):
    """A zone of a node: its name (`Normal`), the node's number, and the page frames that it spans, holes included."""

    name: str
    node: int
    frames: range


def zone_of(kernel: Kernel, pfn: int) -> Zone | None:
    """The zone of a page frame; None where none spans it, where several do, or if the zones cannot be read.

    Spans overlap where nodes have alternate parts of the memory; which of them a page is in is then known only by bits
    of its flags, whose places no debug information has.
    """
    held = [zone for zone in _zones(kernel) if pfn in zone.frames]
    return held[0] if len(held) == 1 else None


@remembered(UNTIL_RESUMED)
def _zones(kernel: Kernel) -> Sequence[Zone]:
    try:
        with kernel.reading("the zones"):
            return tuple(_read(kernel))
    except TargetError:  # an answer stands without them
        return ()


def _read(kernel: Kernel) -> Iterator[Zone]:
    for count, node in enumerate(online_nodes(kernel.prog)):
        if count >= _MOST_NODES:
            return
        number = node.node_id.value_()
        for index in range(min(node.nr_zones.value_(), _MOST_ZONES)):
            zone = node.node_zones[index]
            start, size = zone.zone_start_pfn.value_(), zone.spanned_pages.value_()
            if size:
                name = zone.name.string_().decode("utf-8", "backslashreplace")
                yield Zone(name, number, range(start, start + size))
