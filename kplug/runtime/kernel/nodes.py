"""The kernel's memory nodes."""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from kplug.runtime.kernel.masks import numbers_in


def online_nodes(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Pointers to the struct pglist_data of the online nodes. Errors are drgn's."""
    try:
        count: int = prog["nr_node_ids"].value_()
    except LookupError:  # without NUMA
        count = 1
    for number in numbers_in(prog["node_states"][prog["N_ONLINE"]].bits, count):
        try:
            node = prog["node_data"][number]
        except LookupError:  # without NUMA
            node = prog["contig_page_data"].address_of_()
        yield node
