"""The kernel's memory nodes."""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from kplug.runtime.kernel.masks import numbers_in


def online_node_numbers(prog: drgn.Program) -> Iterator[int]:
    """The numbers of the online nodes. TargetError and errors of drgn's as of `numbers_in`."""
    # Without NUMA, nr_node_ids is a constant, too.
    yield from numbers_in(prog["node_states"][prog["N_ONLINE"]].bits, "nr_node_ids")


def online_nodes(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Pointers to their struct pglist_data."""
    for number in online_node_numbers(prog):
        try:
            node = prog["node_data"][number]
        except LookupError:  # without NUMA
            node = prog["contig_page_data"].address_of_()
        yield node
