"""Who called the allocator, of a stack: the first that is none of its own functions (kplug/runtime/locators/tracks.py).

The stacks are those that Documentation/mm/page_owner.rst has had.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from kplug.runtime.locators.tracks import PAGE_ALLOCATORS, first_outside


@pytest.mark.parametrize(
    ("stack", "caller"),
    [
        ("prep_new_page get_page_from_freelist __alloc_pages new_slab ___slab_alloc", "new_slab"),
        ("post_alloc_hook get_page_from_freelist __alloc_pages allocate_slab", "allocate_slab"),
        ("post_alloc_hook get_page_from_freelist", None),
    ],
)
def test_who_called_the_allocator(stack: str, caller: str | None) -> None:
    words = [f"{function}+0x18a/0x370" for function in stack.split()]
    assert first_outside(words, PAGE_ALLOCATORS) == (f"{caller}+0x18a/0x370" if caller else None)
