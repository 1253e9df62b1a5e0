"""The cells of `make matrix`: one row each, made from vm-images' manifest and from what follows.

A cell is a run of pytest in a process of its own. To add one, add a row; docs/support.md shows it as not run until it
has been. A test says what it compared, and what stops it, by the fixture `cell` (tests/support/recorder.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from vmimages.manifest import BOOTED_FOREIGN, KERNELS, Kernel

STATIC, BOOTED, GDB, PYTHON, BUILD = "static", "booted", "gdb", "Python", "build"
HALVES = (STATIC, BOOTED, GDB, PYTHON, BUILD)
#: What can stop a cell.
LAYERS = ("kplug", "drgn", "libkdumpfile", "QEMU", "gdb", "kernel", "packages")


class Stop(NamedTuple):
    """What keeps a cell from being run at all, and whose it is."""

    layer: str
    why: str


@dataclass(frozen=True)
class Cell:
    """One cell. `subject` is a kernel of the manifest in all halves but gdb's and Python's, where it is a version."""

    half: str
    subject: str
    source: str  # what is asked: a file of the kernel, a front end
    tests: tuple[str, ...]  # files and folders of tests/, or tests in them
    words: tuple[str, ...] = ()  # of pytest's, besides
    stop: Stop | None = None
    seconds: int = 1800
    megabytes: int = 6000

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.source}"

    @property
    def kernel(self) -> str | None:
        """The kernel whose files it needs."""
        return self.subject if self.half in (STATIC, BOOTED, BUILD) else None

    @property
    def command(self) -> tuple[str, ...]:
        """pytest's words, but for those that say where results go."""
        chosen = ("--kernel", self.subject, "--source", self.source) if self.kernel is not None else ()
        return (*(f"tests/{each}" for each in self.tests), *chosen, *self.words)


# -- from files --------------------------------------------------------------------------------------------------------

COST = "matrix/test_cost.py"
#: Each source that a kernel has on a disk, and the tests that compare its answers with what readelf and nm print.
SOURCES: dict[str, tuple[str, ...]] = {
    "vmlinux": ("exhaustive/test_addresses.py", "exhaustive/test_tables.py", "exhaustive/test_kernel_facts.py", COST),
    "vmlinuz": ("sources/test_answers.py", "sources/test_symbols.py", COST),
    "System.map": ("sources/test_answers.py", "sources/test_symbols.py", COST),
    "vmlinuz+System.map": ("sources/test_answers.py",),
    "kallsyms": ("matrix/test_saved_kallsyms.py", COST),
}


def _static() -> Iterator[Cell]:
    for kernel in KERNELS:
        for source, tests in SOURCES.items():
            yield Cell(STATIC, kernel.name, source, tests, ("-m", "not boot", "--every-address"))


# -- booted ------------------------------------------------------------------------------------------------------------


class Booted(NamedTuple):
    """Ways to ask a kernel that runs, or its dump. Each is the `source` of tests, which --source chooses."""

    tests: str
    kernels: tuple[str, ...]
    sources: tuple[str, ...]
    stop: Stop | None = None


#: A row for each file of tests in tests/matrix that boots kernels.
BOOTED_ROWS: tuple[Booted, ...] = (
    Booted(
        "matrix/test_booted.py",
        (
            *("amd64-5.10", "amd64-6.1", "amd64-6.1-generic", "amd64-6.12", "amd64-6.12-rt", "amd64-sid"),
            *("arm64-6.1", "arm64-6.12", "arm64-sid", *BOOTED_FOREIGN),
        ),
        ("gdb", "prompt", "shell"),
    ),
    Booted("matrix/test_planted.py", ("amd64-5.10", "amd64-6.12-rt"), ("planted",)),
)


def _booted() -> Iterator[Cell]:
    for row in BOOTED_ROWS:
        for kernel in row.kernels:
            for source in row.sources:
                yield Cell(BOOTED, kernel, source, (row.tests,), stop=row.stop)


# -- debuggers, interpreters, builds -----------------------------------------------------------------------------------

GDBS: dict[str, Stop | None] = {
    "gdb-12": Stop(
        "packages", "no Debian release has it (bullseye: 10.1, bookworm: 13.1), only Ubuntu 22.04; PyPI's begin with 16"
    ),
    "gdb-13": None,
    "gdb-multiarch-13": None,
    "gdb-16": None,
    "gdb-17": None,
    "gdb-18": None,
}
#: What is asked of each: without a guest, and the live tests.
GDB_SOURCES = {"files": ("-m", "not boot"), "guests": ("-m", "boot")}
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
#: Where to get those that are not installed: run from their packages, unpacked.
PYTHON_SUITES = {"3.13": "trixie", "3.14": "sid"}
#: The suite whose gdb embeds that Python. 3.11 is that of all gdbs above.
PYTHON_GDBS: dict[str, str | Stop] = {
    "3.9": Stop("packages", "only bullseye's gdb embeds it, which is 10.1; kplug's oldest is 12"),
    "3.10": Stop("packages", "no gdb of Debian's or PyPI's embeds it, only Ubuntu 22.04's 12.1"),
    "3.12": Stop("packages", "no gdb of Debian's or PyPI's embeds it"),
    "3.13": "trixie",
    "3.14": "sid",
}


def _tools() -> Iterator[Cell]:
    for name, stop in GDBS.items():
        for source, words in GDB_SOURCES.items():
            yield Cell(GDB, name, source, ("gdb",), words, stop)
    for version in PYTHONS:
        yield Cell(PYTHON, f"python-{version}", "unit", ("unit",), ("-m", "not kernel and not boot"))
        gdb = PYTHON_GDBS.get(version)
        if gdb is not None:
            stop = gdb if isinstance(gdb, Stop) else None
            yield Cell(PYTHON, f"python-{version}", "gdb", ("gdb",), ("-m", "not boot"), stop)


#: The forms that tests/matrix/test_forms.py makes of a kernel's vmlinux. dwz does not know clang's .debug_addr.
FORMS = ("zlib", "zstd", "zlib-gnu", "debug_names", "gdb_index", "debuglink", "vmlinux.debug", "build-id")
FORMS_OF = {"amd64-6.12-clang": FORMS, "amd64-6.12-page-owner": (*FORMS, "dwz", "dwz-alone")}
BUILDS = tuple(Cell(BUILD, name, form, ("matrix/test_forms.py",)) for name, forms in FORMS_OF.items() for form in forms)

CELLS: tuple[Cell, ...] = (*_static(), *_booted(), *_tools(), *BUILDS)


def chosen(patterns: Sequence[str], cells: Iterable[Cell] = CELLS) -> list[Cell]:
    """The cells whose names match a pattern of the shell's; all without any."""
    return [cell for cell in cells if not patterns or any(fnmatchcase(cell.name, pattern) for pattern in patterns)]


def kernel_row(cell: Cell) -> Kernel | None:
    """The row of the manifest of the cell's kernel."""
    return next((row for row in KERNELS if row.name == cell.kernel), None)
