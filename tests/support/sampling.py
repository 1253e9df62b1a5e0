"""How much of an exhaustive comparison a run asks: one in SHARE, others at each run; `pytest --whole` asks all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

SHARE = 8
SHARE_OF_WHOLE_ANSWERS = 32  # which take ten times as long as a row of many
T = TypeVar("T")


class Sampling:
    """The choice of one run, the same in all of its processes."""

    def __init__(self, seed: int, whole: bool, every_address: bool = False) -> None:
        self.seed = seed
        self.whole = whole
        self.every_address = every_address

    def of(self, items: Sequence[T], share: int = SHARE) -> Sequence[T]:
        """One in `share` of the items, in their order; all of them for a whole run."""
        if self.whole or (self.every_address and share == SHARE):
            return items
        chosen = random.Random(self.seed).sample(range(len(items)), len(items) // share)
        return [items[number] for number in sorted(chosen)]

    def one_of(self, items: Sequence[T]) -> Sequence[T]:
        """One of some that are much alike and take long; all of them for a whole run."""
        return items if self.whole else [items[self.seed % len(items)]]

    def count(self, whole: int) -> int:
        """How many of something that can be asked without end, where a whole run asks so many."""
        return whole if self.whole else whole // SHARE

    def words(self) -> str:
        """For the person who reads the run's output."""
        if self.whole:
            return "exhaustive comparisons: whole"
        addresses = "every address" if self.every_address else f"one address in {SHARE}"
        return (
            f"exhaustive comparisons: {addresses}, whole answers for one in {SHARE_OF_WHOLE_ANSWERS}, "
            f"by --sample-seed {self.seed}; "
            "--whole (make test-all) asks all"
        )
