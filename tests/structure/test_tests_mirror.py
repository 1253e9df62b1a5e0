"""The tests lie as the code does, and their files are as short as a reader wants them: read from their source."""

from __future__ import annotations

from support.paths import ROOT, TESTS

LONGEST = 500
# Programs that make starts without pytest, which puts tests/ and vm-images/ on the path (pyproject.toml).
PROGRAMS = ("tests/bench/", "tests/questions/", "tests/hunt/", "tests/matrix/", "tests/gdb/measure.py")
# tests/unit/bench asks what make bench computes with, tests/unit/matrix what make matrix does.
ROOMS_OF_TESTS = {"bench", "matrix"}
FILES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(TESTS.rglob("*.py"))}
CHANGES = tuple(f"sys.path{what}" for what in (".insert(", ".append(", ".extend(", "[", " ="))


def test_no_test_changes_where_python_looks() -> None:
    """Lines of programs that other interpreters run, gdb's above all, are in strings."""
    changing = {
        name
        for name, text in FILES.items()
        if any(line.lstrip().startswith(CHANGES) for line in text.splitlines()) and not name.startswith(PROGRAMS)
    }
    assert changing == set()


def test_no_file_is_long() -> None:
    long = {name: len(text.splitlines()) for name, text in FILES.items()}
    assert {name: lines for name, lines in long.items() if lines > LONGEST} == {}


def test_each_folder_of_unit_tests_is_a_room_of_the_code() -> None:
    unit = TESTS / "unit"
    rooms = {str(path.parent.relative_to(unit)) for path in unit.rglob("*.py")} - ROOMS_OF_TESTS
    assert len(rooms) > 10
    assert {room for room in rooms if not any((ROOT / top / room).is_dir() for top in ("kplug", "gdb"))} == set()


def test_what_tests_share_is_in_one_place() -> None:
    """A test file holds tests; helpers are in tests/support, fixtures in the conftest.py of the folder that has use."""
    others = {name for name in FILES if not name.startswith(("tests/support/", *PROGRAMS))}
    assert {name for name in others if not name.rpartition("/")[2].startswith(("test_", "conftest."))} == set()
