"""The kernel's doubly linked lists, followed with care: memory may be corrupted or missing."""

from __future__ import annotations

from collections.abc import Iterator

from kplug.errors import TargetError
from kplug.runtime.kernel.kernel import Kernel


def list_nodes(kernel: Kernel, head: int, limit: int) -> Iterator[int]:
    """The addresses of the nodes on the list with its head at that address; each is read only after it was yielded.

    If it cannot be followed, TargetError with text to append to the list's name: "it loops", "it goes on at ...".
    """
    seen: set[int] = set()
    lowest = max(kernel.word.kernel_start, 1)
    node = kernel.read_word(head)
    while node != head:
        if node in seen:
            raise TargetError("it loops")
        if len(seen) >= limit:
            raise TargetError(f"it has more than {limit} entries")
        if node < lowest:
            raise TargetError(f"it goes on at {node:#x}, which is not a kernel address")
        seen.add(node)
        yield node
        node = kernel.read_word(node)
