"""The statistics of `make bench`: pairs of runs, spread, verdict, and the table that they end in."""

from __future__ import annotations

import pytest
from bench.pairs import Spread, Verdict, in_turn, ratios
from bench.report import Report


def test_runs_are_in_turn_and_warm_ones_do_not_count() -> None:
    ran: list[str] = []

    def run(name: str) -> float:
        ran.append(name)
        return float(len(ran))

    took = in_turn({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=3)
    assert "".join(ran) == "abababab"
    assert took == {"a": [3, 5, 7], "b": [4, 6, 8]}
    assert in_turn({"a": lambda: 1.0}, rounds=2, warm=0) == {"a": [1, 1]}


def test_a_ratio_is_of_neighbours() -> None:
    # The machine is ten times as slow in the second round: the ratios do not show it.
    assert ratios([1, 10, 1], [2, 20, 2]) == [0.5, 0.5, 0.5]
    with pytest.raises(ValueError, match="not pairs"):
        ratios([1], [1, 2])


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(2, 3, 4)
    assert Spread.of([1, 2]) == Spread(1.25, 1.5, 1.75)
    assert Spread.of([7]) == Spread(7, 7, 7)
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_one_bad_run_is_not_the_figure() -> None:
    assert Spread.of([1, 1, 1, 1, 90]) == Spread(1, 1, 1)


@pytest.mark.parametrize(
    ("spread", "limit", "at_least", "verdict"),
    [
        (Spread(0.8, 0.9, 1.1), 1.0, False, Verdict.HOLDS),
        (Spread(0.9, 1.0, 1.1), 1.0, False, Verdict.HOLDS),
        (Spread(0.9, 1.1, 1.3), 1.0, False, Verdict.WITHIN_SPREAD),
        (Spread(1.0, 1.1, 1.3), 1.0, False, Verdict.WITHIN_SPREAD),
        (Spread(1.01, 1.1, 1.3), 1.0, False, Verdict.MISSED),
        (Spread(900, 1000, 1100), 1000, True, Verdict.HOLDS),
        (Spread(900, 950, 1000), 1000, True, Verdict.WITHIN_SPREAD),
        (Spread(900, 950, 999), 1000, True, Verdict.MISSED),
        (Spread(5, 6, 7), None, False, Verdict.NO_LIMIT),
    ],
)
def test_a_limit_is_missed_only_beyond_the_spread(
    spread: Spread, limit: float | None, at_least: bool, verdict: Verdict
) -> None:
    assert spread.verdict(limit, at_least) is verdict


def test_the_table_shows_figure_spread_limit_and_verdict() -> None:
    report = Report()
    report.section("one address")
    report.ratio("where", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0], 0.6)
    report.ratio("bulk", [1.0, 1.0], [1500.0, 1500.0], 1000, "us", at_least=True)
    report.processor("text", [0.8, 0.9, 1.0], [0.4, 0.5, 0.6], 2, peer=[0.1])
    report.figure("told", [12.0], "s")
    report.not_measured("crash", "cannot open the dump")
    assert report.text().splitlines() == [
        "            kplug      peer    figure       quartiles    limit  verdict",
        "one address",
        "  where    2.00 s    4.00 s     0.500  0.500 .. 0.500   <= 0.6  holds",
        "  bulk    1.00 us   1500 us      1500    1500 .. 1500  >= 1000  holds",
        "  text   0.900 ms  0.100 ms  0.500 ms  0.450 .. 0.550  <= 2 ms  holds",
        "  told                         12.0 s    12.0 .. 12.0",
        "  crash                                                         not measured: cannot open the dump",
        "3 limits: 3 hold, 1 not measured",
    ]
    assert report.good


def test_what_is_missed_or_failed_is_no_good_result() -> None:
    missed = Report()
    missed.ratio("where", [2.0, 2.0], [1.0, 1.0], 1)
    assert not missed.good
    assert missed.summary() == "1 limit: 0 hold, 1 MISSED"
    failed = Report()
    failed.failed("gdb", "TypeError: measure() misses an argument")
    assert not failed.good
    assert failed.text().splitlines()[1].endswith("FAILED: TypeError: measure() misses an argument")
    near = Report()
    near.ratio("where", [0.9, 1.1, 1.2], [1.0, 1.0, 1.0], 1)
    near.not_measured("crash", "not installed")
    assert near.summary() == "1 limit: 0 hold, 1 within the spread, 1 not measured"
