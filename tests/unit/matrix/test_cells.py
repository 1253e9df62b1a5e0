"""The table of cells, what results become, and docs/support.md, which claims nothing that no cell has shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from matrix import results, support_page
from matrix.cells import BOOTED, CELLS, HALVES, LAYERS, STATIC, Cell, chosen
from matrix.results import FAILED, PASSED, STOPPED, Result, append, from_junit, read
from support.paths import ROOT, TESTS
from vmimages.manifest import KERNELS

OUTCOME = re.compile(rf"{PASSED}|{FAILED}(?: \((.+)\))?|{STOPPED} \(({'|'.join(LAYERS)}): .+\)")


def test_each_cell_has_a_name_of_its_own_and_tests_that_are_there() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    for cell in CELLS:
        assert cell.half in HALVES
        assert all((TESTS / test.partition("::")[0]).exists() for test in cell.tests), cell
        assert cell.stop is None or (cell.stop.layer in LAYERS and cell.stop.why)


def test_each_kernel_of_the_manifest_has_its_static_half() -> None:
    assert {cell.kernel for cell in CELLS if cell.half == STATIC} == {row.name for row in KERNELS}
    assert {cell.kernel for cell in CELLS if cell.half == BOOTED} <= {row.name for row in KERNELS}


def test_cells_are_chosen_as_the_shell_matches_names() -> None:
    assert chosen([]) == list(CELLS)
    assert {cell.name for cell in chosen(["s390x-6.1/vml*", "gdb-1[67]/files"])} == {
        *("s390x-6.1/vmlinux", "s390x-6.1/vmlinuz", "s390x-6.1/vmlinuz+System.map"),
        *("gdb-16/files", "gdb-17/files"),
    }
    assert chosen(["nothing"]) == []


def test_a_digest_of_the_code_is_the_cells_own() -> None:
    one, other = chosen(["amd64-6.1/vmlinux", "amd64-6.1/vmlinuz"])
    assert results.code(one) == results.code(one) != results.code(other)


# -- results -----------------------------------------------------------------------------------------------------------

JUNIT = """<testsuites><testsuite>
<testcase name="a"><properties><property name="compared symbols" value="100 0"/></properties></testcase>
<testcase name="b"><properties><property name="compared symbols" value="50 2"/>
<property name="compared regions" value="7 0"/><property name="measured first_answer" value="0.25"/>
<property name="about release" value="6.1"/></properties>{inside}</testcase></testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("inside", "outcome", "layer", "why"),
    [
        ("", PASSED, None, None),
        ('<failure message="2 differ&#10;  more"/>', FAILED, None, "b: 2 differ"),
        ('<skipped message="no dwz"/>', PASSED, None, None),
        ('<properties><property name="stopped drgn" value="no s390x"/></properties>', STOPPED, "drgn", "no s390x"),
    ],
)
def test_what_tests_said(inside: str, outcome: str, layer: str | None, why: str | None, tmp_path: Path) -> None:
    (tmp_path / "junit").write_text(JUNIT.format(inside=inside))
    from_junit(result := Result("k/s", PASSED, "", ""), tmp_path / "junit")
    assert (result.outcome, result.layer, result.why) == (outcome, layer, why)
    assert (result.tests, result.compared, result.differed) == (2, {"symbols": 150, "regions": 7}, 2)
    assert (result.first_answer, result.about) == (0.25, {"release": "6.1"})


def test_a_cell_whose_tests_were_all_skipped_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "junit").write_text('<testsuite><testcase name="a"><skipped message="no QEMU"/></testcase></testsuite>')
    from_junit(result := Result("k/s", PASSED, "", ""), tmp_path / "junit")
    assert (result.outcome, result.layer, result.why) == (STOPPED, "packages", "no QEMU")


def test_the_last_result_counts_and_a_line_cut_short_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPLUG_CACHE", str(tmp_path))
    assert read() == {}
    append(Result("a/b", FAILED, "1", "c"))
    with results.place().open("a") as file:
        file.write('{"cell": "a/b", "outco')  # the machine went off
    append(Result("a/b", PASSED, "2", "c"))
    append(Result("x/y", PASSED, "2", "c"))
    assert {name: (each.outcome, each.code) for name, each in read().items()} == {
        "a/b": (PASSED, "2"),
        "x/y": (PASSED, "2"),
    }


# -- docs/support.md ---------------------------------------------------------------------------------------------------


def _rows(page: str) -> Iterator[list[str]]:
    for line in page.partition(support_page.HEADING)[2].splitlines()[2:]:
        yield [column.strip() for column in line.strip("|").split("|")]


def test_the_page_has_a_row_for_each_cell_and_claims_nothing_without_a_result() -> None:
    """Of a cell that has run: what it compared, or how many tests; and the commit."""
    rows = list(_rows(support_page.PAGE.read_text()))
    assert [row[0] for row in rows] == [cell.name for cell in CELLS], "run make matrix, or its run.py --write"
    for _, outcome, compared, *rest in rows:
        if outcome == support_page.NOT_RUN:
            assert not any((compared, *rest))
            continue
        found = OUTCOME.fullmatch(outcome)
        assert found is not None, outcome
        assert re.fullmatch(r"[0-9a-f]{10}\+?|unknown", rest[-1])
        if outcome == PASSED:
            assert re.search(r"\d tests|\d \w.*: 0 differ", compared), compared


CELL = Cell(STATIC, "s390x-6.1", "vmlinux", ("exhaustive",))
REFERENCE = Cell(STATIC, "amd64-6.1", "vmlinux", ("exhaustive",))


def test_a_row_is_what_the_result_has() -> None:
    one = Result(CELL.name, PASSED, "", "0123456789", compared={"symbols": 1500}, seconds=41.2)
    one.first_answer, one.first_megabytes, one.file_megabytes = 0.5, 410.0, 200.0
    other = Result(REFERENCE.name, STOPPED, "", "0123456789", layer="QEMU", why="no | machine")
    other.first_answer, other.file_megabytes = 0.2, 100.0
    page = f"text\n{support_page.BEGIN}old\n"
    written = support_page.written(page, {CELL.name: one}, [CELL, REFERENCE])
    assert support_page.written(written, {CELL.name: one}, [CELL, REFERENCE]) == written
    assert list(_rows(written)) == [
        [CELL.name, PASSED, "1,500 symbols: 0 differ", "0.50 s", "410 MB, **over the limit**", "41 s", "0123456789"],
        [REFERENCE.name, support_page.NOT_RUN, "", "", "", "", ""],
    ]
    assert "| s390x-6.1 | 0 differ of 1,500 |" in written
    written = support_page.written(page, {CELL.name: one, REFERENCE.name: other}, [CELL, REFERENCE])
    assert "| amd64-6.1 | stopped by QEMU |" in written
    assert "stopped (QEMU: no / machine)" in written


def test_the_first_answer_is_measured_by_that_of_amd64_from_a_file_of_the_same_size() -> None:
    one, other = Result(CELL.name, PASSED, "", ""), Result(REFERENCE.name, PASSED, "", "")
    one.first_answer, one.file_megabytes = 0.6, 200.0
    other.first_answer, other.file_megabytes = 0.2, 100.0
    known, cells = {CELL.name: one, REFERENCE.name: other}, [CELL, REFERENCE]
    assert support_page.ratio_to_amd64(CELL, one, known, cells) == pytest.approx(1.5)
    assert support_page.ratio_to_amd64(REFERENCE, other, known, cells) is None
    one.file_megabytes = 50.0  # a smaller file is allowed no less
    assert support_page.ratio_to_amd64(CELL, one, known, cells) == pytest.approx(3.0)


def test_the_page_is_linked() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "docs/oracle.md"):
        assert "support.md" in (ROOT / name).read_text()
