"""What cells answered: a JSON object a line in the cache's matrix/results.jsonl; the last of a cell is its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matrix.cells import Cell
from support.paths import ROOT
from vmimages.paths import cache_root, locked

PASSED, FAILED, STOPPED = "passed", "failed", "stopped"


@dataclass
class Result:
    """One run of a cell. A figure that was not measured is null."""

    cell: str
    outcome: str
    code: str  # a digest of all that decides it
    commit: str
    date: str = ""
    tests: int = 0
    skipped: int = 0
    compared: dict[str, int] = field(default_factory=dict)  # what was compared: how many
    differed: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_megabytes: float | None = None  # of the run
    first_answer: float | None = None  # seconds of the processor until kplug's first answer
    first_megabytes: float | None = None  # and its peak
    file_megabytes: float | None = None  # of what was asked
    cache_megabytes: float | None = None  # what the kernel and its dumps hold
    about: dict[str, str] = field(default_factory=dict)  # release, versions of tools
    layer: str | None = None  # what stopped it
    why: str | None = None


def place() -> Path:
    return cache_root() / "matrix" / "results.jsonl"


def read(path: Path | None = None) -> dict[str, Result]:
    """The last result of each cell. A line that an interrupted run left short is passed over."""
    found: dict[str, Result] = {}
    known = {each.name for each in fields(Result)}
    path = path or place()
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            found[row["cell"]] = Result(**{key: value for key, value in row.items() if key in known})
        except (ValueError, KeyError, TypeError):
            continue
    return found


def append(result: Result) -> None:
    """In one write, so that two at a time do not mix."""
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked("matrix-lock"):
        whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
        with path.open("a") as file:
            file.write(("" if whole else "\n") + json.dumps(asdict(result)) + "\n")


# -- what decides a result ---------------------------------------------------------------------------------------------

_CODE = (
    "kplug",
    "gdb",
    "vm-images/vmimages",
    "vm-images/specimens",
    "tests/support",
    "tests/conftest.py",
    "pyproject.toml",
)
_digests: dict[str, bytes] = {}


def code(cell: Cell) -> str:
    """The digest of the code that decides a cell: kplug's, vm-images', its tests', and its row."""
    places = {*_CODE}
    for test in cell.tests:
        path = ROOT / "tests" / test.partition("::")[0]
        places.add(str(path.relative_to(ROOT)))
        beside = path.parent / "conftest.py"
        if beside.exists():
            places.add(str(beside.relative_to(ROOT)))
    digest = hashlib.sha256(repr(cell).encode())
    for each in sorted(places):
        digest.update(_digest(each))
    return digest.hexdigest()[:16]


def _digest(name: str) -> bytes:
    if name not in _digests:
        digest, path = hashlib.sha256(), ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
        _digests[name] = digest.digest()
    return _digests[name]


def commit() -> str:
    """The commit, with a `+` if files have been changed since, others than the page that results are written to."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/support.md")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


# -- what pytest wrote -------------------------------------------------------------------------------------------------


def from_junit(result: Result, path: Path) -> None:
    """Fill in what the tests said (tests/support/recorder.py)."""
    reasons: list[str] = []
    failures: list[str] = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        result.tests += 1
        for kind in ("failure", "error"):
            failures += [f"{case.get('name')}: {_first_line(found)}" for found in case.findall(kind)]
        for skip in case.findall("skipped"):
            result.skipped += 1
            reasons.append(str(skip.get("message")))
        for property in case.iter("property"):
            _take(result, str(property.get("name")), str(property.get("value")))
    if failures:
        result.outcome, result.why = FAILED, failures[0]
    elif result.skipped == result.tests and result.tests:
        result.outcome, result.layer, result.why = STOPPED, result.layer or "packages", reasons[0]
    elif result.layer is not None:
        result.outcome = STOPPED


def _take(result: Result, name: str, value: str) -> None:
    kind, _, what = name.partition(" ")
    if kind == "compared":
        number, _, differed = value.partition(" ")
        result.compared[what] = result.compared.get(what, 0) + int(number)
        result.differed += int(differed)
    elif kind == "stopped":
        result.layer, result.why = what, value
    elif kind == "measured" and what in ("first_answer", "first_megabytes", "file_megabytes"):
        setattr(result, what, float(value))
    elif kind == "about":
        result.about[what] = value


def _first_line(element: ElementTree.Element) -> str:
    text = (element.get("message") or element.text or "").strip()
    return " ".join(text.splitlines()[:1])[:300]


def total(results: Iterable[Result]) -> Mapping[str, Any]:
    """How many there are of each outcome."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.outcome] = counts.get(result.outcome, 0) + 1
    return counts
