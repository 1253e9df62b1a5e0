"""`make matrix`: runs the cells whose results are not of this code, two at a time, and writes docs/support.md.

    run.py [--again] [--keep] [--list] [--write] [CELLS...]

CELLS are shell patterns of names of cells, with commas or blanks between them ('s390x-*/vmlinux'); all without any.
`--again` runs those too that have a result of this code, `--keep` keeps the kernels that were fetched for them,
`--list` only says what would be run, `--write` only writes docs/support.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Python put this file's folder first, whose names are of no use to others.
sys.path[0:1] = [str(ROOT), str(ROOT / "vm-images"), str(ROOT / "tests")]

from matrix import held, results, support_page  # noqa: E402
from matrix.cells import CELLS, Cell, chosen  # noqa: E402
from matrix.results import FAILED, PASSED, STOPPED, Result  # noqa: E402
from matrix.tools import NotHereError, Setting, setting  # noqa: E402
from vmimages.paths import cache_root  # noqa: E402

SIDE_BY_SIDE = 2
HELD = 3  # kernels at most that are fetched and not done with
_GUESSED_SECONDS = 60.0  # of a cell when none like it has run
_LOOK = 0.5


@dataclass
class Running:
    """A cell, or the fetching of a kernel, in a process of its own."""

    child: subprocess.Popen[bytes]
    log: Path
    started: float
    cell: Cell | None  # None: the kernel is fetched
    kernel: str | None
    about: dict[str, str]
    peak: float = 0.0
    ended_for: str | None = None  # why it was killed


class Matrix:
    """The queue, and what runs of it. Cells of a kernel follow each other, so that few are held at a time."""

    def __init__(self, cells: Sequence[Cell], known: dict[str, Result], keep: bool) -> None:
        def seconds(cell: Cell) -> float:
            return expected(cell, known)[0]

        groups: dict[str, list[Cell]] = {}
        for cell in sorted(cells, key=seconds, reverse=True):
            groups.setdefault(cell.kernel or cell.name, []).append(cell)
        in_order = sorted(groups.values(), key=lambda group: sum(map(seconds, group)), reverse=True)
        self.waiting: deque[Cell] = deque(cell for group in in_order for cell in group)
        self.running: list[Running] = []
        self.keep = keep
        self.done: list[Result] = []
        self.logs = cache_root() / "matrix" / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.commit = results.commit()

    def run(self) -> None:
        for kernel in held.left_behind():
            if any(kernel == cell.kernel for cell in self.waiting):
                held.mark(kernel)
            elif not self.keep:
                self._remove(kernel)
        try:
            while self.waiting or self.running:
                while len(self.running) < SIDE_BY_SIDE and self._start():
                    pass
                time.sleep(_LOOK)
                for each in [*self.running]:
                    self._look(each)
        finally:
            for each in self.running:
                _kill(each.child)

    # -- start ---------------------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Start what comes next, if anything can be started now."""
        fetching = {each.kernel for each in self.running if each.cell is None}
        for cell in self.waiting:
            if cell.kernel is None or held.is_here(cell.kernel):
                self.waiting.remove(cell)
                return self._start_cell(cell)
            if not fetching and (self.keep or len(held.fetched_here()) < HELD):
                log = self.logs / f"fetch-{cell.kernel}.log"
                child = held.fetching(cell.kernel, log)
                self.running.append(Running(child, log, time.monotonic(), None, cell.kernel, {}))
                return True
        return False

    def _start_cell(self, cell: Cell) -> bool:
        try:
            what = setting(cell)
        except NotHereError as error:
            self._end(_stopped(cell, error.stop.layer, error.stop.why, self.commit))
            return True
        log = self.logs / f"{cell.name.replace('/', '_')}.log"
        self.running.append(_started(cell, what, log))
        return True

    # -- look ----------------------------------------------------------------------------------------------------------

    def _look(self, each: Running) -> None:
        seconds = time.monotonic() - each.started
        pid, status, usage = os.wait4(each.child.pid, os.WNOHANG)
        if not pid:
            if each.cell is not None:
                each.peak = max(each.peak, _megabytes(each.child.pid))
                if each.ended_for is None and seconds > each.cell.seconds:
                    each.ended_for = f"no end after {each.cell.seconds} s"
                elif each.ended_for is None and each.peak > each.cell.megabytes:
                    each.ended_for = f"over {each.cell.megabytes} MB"
                if each.ended_for is not None:
                    _kill(each.child)
            return
        each.child.returncode = os.waitstatus_to_exitcode(status)
        self.running.remove(each)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(each.child.pid, signal.SIGKILL)  # guests that it left
        if each.cell is None:
            self._fetched(each)
            return
        result = _result(each.cell, self.commit)
        result.seconds, result.cpu_seconds = round(seconds, 1), round(usage.ru_utime + usage.ru_stime, 1)
        result.peak_megabytes, result.about = round(each.peak), each.about
        _read(result, each)
        if each.cell.kernel is not None:
            result.cache_megabytes = round(held.megabytes(each.cell.kernel))
        self._end(result)

    def _fetched(self, each: Running) -> None:
        assert each.kernel is not None
        if each.child.returncode == 0:
            held.mark(each.kernel)
            print(f"  fetched   {each.kernel}  {held.megabytes(each.kernel):.0f} MB", flush=True)
            return
        lines = each.log.read_text(errors="replace").strip().splitlines()
        for cell in [cell for cell in self.waiting if cell.kernel == each.kernel]:
            self.waiting.remove(cell)
            self._end(_stopped(cell, "packages", lines[-1] if lines else "it could not be fetched", self.commit))

    def _end(self, result: Result) -> None:
        results.append(result)
        self.done.append(result)
        print(f"  {result.outcome:8}  {line(result)}", flush=True)
        kernel = result.cell.partition("/")[0]
        if not self.keep and all(kernel != cell.kernel for cell in self._left()):
            self._remove(kernel)

    def _left(self) -> list[Cell]:
        return [*self.waiting, *(each.cell for each in self.running if each.cell is not None)]

    def _remove(self, kernel: str) -> None:
        if kernel in held.fetched_here():
            print(f"  removed   {kernel}  {held.remove(kernel):.0f} MB; {words_of_held()}", flush=True)


def _started(cell: Cell, what: Setting, log: Path) -> Running:
    junit = log.with_suffix(".xml")
    junit.unlink(missing_ok=True)
    written = (f"--junitxml={junit}", "-o", "junit_family=legacy")  # the family in which tests can record figures
    command = [str(what.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *written, *cell.command]
    environment = {**os.environ, **what.environment, "PYTHONPYCACHEPREFIX": str(cache_root() / "matrix" / "pyc")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    return Running(child, log, time.monotonic(), cell, cell.kernel, what.about)


def _result(cell: Cell, commit: str) -> Result:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    return Result(cell.name, PASSED, results.code(cell), commit, now)


def _stopped(cell: Cell, layer: str, why: str, commit: str) -> Result:
    result = _result(cell, commit)
    result.outcome, result.layer, result.why = STOPPED, layer, why
    return result


def _read(result: Result, each: Running) -> None:
    """What pytest wrote, or why it wrote nothing."""
    junit = each.log.with_suffix(".xml")
    if each.ended_for is None and junit.exists():
        results.from_junit(result, junit)
        if result.tests == 0:
            result.outcome, result.why = FAILED, "no test was chosen"
        elif each.child.returncode not in (0, 1):
            result.outcome, result.why = FAILED, f"pytest ended with {each.child.returncode}"
        return
    lines = each.log.read_text(errors="replace").strip().splitlines()
    result.outcome, result.why = FAILED, each.ended_for or (lines[-1] if lines else f"status {each.child.returncode}")


# -- processes ---------------------------------------------------------------------------------------------------------


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _megabytes(session: int) -> float:
    """The memory of all processes of a session."""
    pages = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat") as file:
                    words = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[3]) == session:
                pages += int(words[21])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# -- words -------------------------------------------------------------------------------------------------------------


def line(result: Result) -> str:
    """A result in one line."""
    compared = ", ".join(f"{number:,} {what}" for what, number in result.compared.items())
    words = [f"{result.cell:34} {result.seconds:5.0f} s", compared or f"{result.tests} tests"]
    words += [f"{result.differed:,} differ"] if compared else []
    words += [f"{result.layer or ''}: {result.why}".removeprefix(": ")[:120]] if result.why else []
    return "  ".join(words)


def words_of_held() -> str:
    names = held.fetched_here()
    return f"held now: {', '.join(f'{name} {held.megabytes(name):.0f} MB' for name in names) or 'none'}"


def expected(cell: Cell, known: Mapping[str, Result]) -> tuple[float, float]:
    """The seconds that a cell will take, and those of the processor: what it took; else what others like it did."""
    if cell.name in known and known[cell.name].seconds:
        return known[cell.name].seconds, known[cell.name].cpu_seconds
    alike = [known[each.name] for each in CELLS if each.name in known and (each.half, each.source) == _kind(cell)]
    alike = [each for each in alike if each.seconds]
    if not alike:
        return _GUESSED_SECONDS, _GUESSED_SECONDS
    return sum(each.seconds for each in alike) / len(alike), sum(each.cpu_seconds for each in alike) / len(alike)


def _kind(cell: Cell) -> tuple[str, str]:
    return cell.half, cell.source


def _estimate(cells: Sequence[Cell], known: Mapping[str, Result]) -> str:
    never = sum(cell.name not in known for cell in cells)
    both = [expected(cell, known) for cell in cells if cell.stop is None]
    seconds, processor = sum(each[0] for each in both), sum(each[1] for each in both)
    guessed = f", {never} of which have never run and are guessed by others" if never else ""
    return (
        f"estimate {seconds / 60 / SIDE_BY_SIDE:.0f} min two at a time, by what they took{guessed} "
        f"({processor / 60 / SIDE_BY_SIDE:.0f} min if nothing else runs here)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("again", "keep", "list", "write"):
        parser.add_argument(f"--{option}", action="store_true")
    parser.add_argument("cells", nargs="*")
    arguments = parser.parse_args()
    if arguments.write:
        support_page.write()
        return 0
    patterns = [word for words in arguments.cells for word in re.split(r"[,\s]+", words) if word]
    cells, known = chosen(patterns), results.read()
    if not cells:
        print(f"matrix: no cell is called {' or '.join(patterns)}", file=sys.stderr)
        return 2
    commit = results.commit()
    for cell in cells:
        if cell.stop is not None and not (cell.name in known and known[cell.name].code == results.code(cell)):
            results.append(_stopped(cell, *cell.stop, commit))
    fresh = [c for c in cells if c.stop is not None or (c.name in known and known[c.name].code == results.code(c))]
    due = [cell for cell in cells if cell.stop is None and (arguments.again or cell not in fresh)]
    print(f"matrix: {len(cells)} cells, {len(cells) - len(due)} with a result of this code, {len(due)} to run")
    print(f"matrix: all cells: {_estimate(cells, known)}")
    print(f"matrix: to run: {_estimate(due, known)}", flush=True)
    if arguments.list:
        print("\n".join(f"  {cell.name}" for cell in due))
        return 0
    status = _run(due, known, arguments.keep)
    support_page.write()
    known = results.read()
    counts = results.total(known[cell.name] for cell in cells if cell.name in known)
    print(
        f"matrix: {', '.join(f'{number} {outcome}' for outcome, number in sorted(counts.items()))}; {words_of_held()}"
    )
    for cell in cells:
        if cell.name in known and known[cell.name].outcome == FAILED:
            print(f"  failed  {line(known[cell.name])}")
    return status or int(FAILED in counts)


def _run(due: Sequence[Cell], known: dict[str, Result], keep: bool) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Matrix(due, known, keep).run()
    except KeyboardInterrupt:
        print("matrix: interrupted; what has ended is kept, and is not run again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
