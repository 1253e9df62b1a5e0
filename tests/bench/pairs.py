"""The statistics of `make bench`: runs in turn, the ratio of each pair of neighbours, its spread, and the verdict.

A machine's load changes from second to second, and weighs on two runs that follow each other alike. So kplug and its
peer run in turn, each run of kplug's is divided by its neighbour's, and the median of these ratios is the figure. The
quartiles are its spread: a limit is missed only if even the better quartile misses it.
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


class Verdict(enum.Enum):
    """Whether a limit is kept."""

    HOLDS = "holds"
    WITHIN_SPREAD = "within the spread"
    MISSED = "MISSED"
    NO_LIMIT = ""
    NOT_MEASURED = "not measured"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Spread:
    """The median of some values and their quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            raise ValueError("no values")
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, middle, high)

    def verdict(self, limit: float | None, at_least: bool = False) -> Verdict:
        """`at_least`: more is better."""
        if limit is None:
            return Verdict.NO_LIMIT
        best = self.high if at_least else self.low

        def keeps(value: float) -> bool:
            return value >= limit if at_least else value <= limit

        if keeps(self.middle):
            return Verdict.HOLDS
        return Verdict.WITHIN_SPREAD if keeps(best) else Verdict.MISSED


def in_turn(runs: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """What each of `runs` measured, all of them in turn, `rounds` times; `warm` rounds before do not count."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm + rounds):
        for name, run in runs.items():
            value = run()
            if number >= warm:
                measured[name].append(value)
    return measured


def ratios(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """Each run divided by its neighbour in the same round."""
    if len(ours) != len(peer):
        raise ValueError(f"{len(ours)} runs of one and {len(peer)} of the other are not pairs")
    return [one / other for one, other in zip(ours, peer)]
