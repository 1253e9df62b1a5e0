"""The size of a task's kernel stack (THREAD_SIZE), from the boundary symbols of the first task's stack."""

from __future__ import annotations

from kplug.image.placed import PlacedImage

# INIT_TASK_DATA in include/asm-generic/vmlinux.lds.h lays out THREAD_SIZE bytes between them; named after the stack
# since 8f69cba096b5 (6.10).
_BOUNDS = (("__start_init_stack", "__end_init_stack"), ("__start_init_task", "__end_init_task"))


def thread_size(kernel: PlacedImage) -> int | None:
    """The size of a task's stack in bytes; None if the vmlinux lacks the symbols, or they make no power of two."""
    table = kernel.image.symbols
    for names in _BOUNDS:
        found = [table.exact(name) for name in names]
        if all(found):
            size = found[1][0].address - found[0][0].address
            return size if size > 0 and not size & (size - 1) else None
    return None
