"""The queue of `make matrix`: limits, order, what is fetched and removed. The cells are programs of a line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from matrix import held, results, run
from matrix.cells import PYTHON, STATIC, Cell
from matrix.results import FAILED, PASSED, STOPPED, Result
from matrix.run import Matrix, Running
from matrix.tools import Setting
from vmimages.manifest import KERNELS

JUNIT = '<testsuite><testcase name="a"/></testsuite>'
UNTESTED = [row.name for row in KERNELS if not row.tested][:2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of cells, in the order in which they were started. What a cell runs are its words."""
    monkeypatch.setenv("KPLUG_CACHE", str(tmp_path))
    monkeypatch.setattr(run, "_LOOK", 0.01)
    monkeypatch.setattr(run, "setting", lambda cell: Setting())
    names: list[str] = []

    def start(cell: Cell, what: Setting, log: Path) -> Running:
        names.append(cell.name)
        log.write_text("no end\n")
        code = f"junit = {str(log.with_suffix('.xml'))!r}\n{cell.words[0]}"
        child = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
        return Running(child, log, time.monotonic(), cell, cell.kernel, {})

    monkeypatch.setattr(run, "_started", start)
    return names


def cell(name: str, code: str, half: str = PYTHON, seconds: int = 60, megabytes: int = 500) -> Cell:
    subject, _, source = name.partition("/")
    return Cell(half, subject, source, ("unit",), (code,), None, seconds, megabytes)


WRITES = f"open(junit, 'w').write({JUNIT!r})"


def test_the_longest_are_first_and_each_has_a_result(started: list[str]) -> None:
    known = {
        f"{name}/x": Result(f"{name}/x", PASSED, "", "", seconds=seconds) for name, seconds in zip("abc", (1, 3, 2))
    }
    Matrix([cell(f"{name}/x", WRITES) for name in "abc"], known, keep=False).run()
    assert started == ["b/x", "c/x", "a/x"]
    assert {name: (each.outcome, each.tests) for name, each in results.read().items()} == {
        f"{name}/x": (PASSED, 1) for name in "abc"
    }


@pytest.mark.parametrize(
    ("code", "limits", "why"),
    [
        ("import time; time.sleep(60)", {"seconds": 0}, "no end after 0 s"),
        ("held = b'1' * (100 << 20); import time; time.sleep(60)", {"megabytes": 60}, "over 60 MB"),
        ("raise SystemExit(3)", {}, "no end"),  # the last line of its output
        (f"{WRITES}; raise SystemExit(3)", {}, "pytest ended with 3"),
        ("open(junit, 'w').write('<testsuite/>')", {}, "no test was chosen"),
    ],
)
def test_a_cell_that_fails_says_why(started: list[str], code: str, limits: dict[str, int], why: str) -> None:
    Matrix([cell("a/x", code, **limits)], {}, keep=False).run()
    [result] = results.read().values()
    assert (result.outcome, result.why) == (FAILED, why)


def test_kernels_are_fetched_for_their_cells_and_removed_after_the_last(
    started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = UNTESTED
    kernels = tmp_path / "kernels"
    monkeypatch.setattr(held, "is_here", lambda name: (kernels / name).exists())

    def fetching(name: str, log: Path) -> subprocess.Popen[bytes]:
        assert sum(1 for _ in kernels.glob("*")) < run.HELD
        log.write_text("E: the mirror has it no longer\n")
        (kernels / name).mkdir(parents=True) if name == one else None
        return subprocess.Popen(["true" if name == one else "false"], start_new_session=True)

    monkeypatch.setattr(held, "fetching", fetching)
    cells = [cell(f"{name}/{source}", WRITES, STATIC) for name in (one, other) for source in ("x", "y")]
    Matrix(cells, {}, keep=False).run()
    assert {name: each.outcome for name, each in results.read().items()} == {
        **{f"{one}/{source}": PASSED for source in "xy"},
        **{f"{other}/{source}": STOPPED for source in "xy"},
    }
    assert results.read()[f"{other}/x"].why == "E: the mirror has it no longer"
    assert list(kernels.glob("*")) == []
    assert f"removed   {one}" in capsys.readouterr().out
    Matrix(cells[:1], {}, keep=True).run()
    assert [path.name for path in kernels.glob("*")] == [one]


def test_what_others_fetched_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KPLUG_CACHE", str(tmp_path))
    place = tmp_path / "kernels" / UNTESTED[0]
    place.mkdir(parents=True)
    assert (held.remove(UNTESTED[0]), held.fetched_here()) == (0.0, [])
    held.mark(UNTESTED[0])
    assert (held.fetched_here(), held.left_behind()) == ([UNTESTED[0]], [])
    (place / ".of-the-matrix").write_text("999999999")
    assert held.left_behind() == [UNTESTED[0]]
    held.remove(UNTESTED[0])
    assert not place.exists()
