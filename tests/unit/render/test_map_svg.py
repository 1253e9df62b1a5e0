"""The picture of an address space: its marks are where their addresses are."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from kplug.arch.types.memory_map import Area
from kplug.render.map_svg import Mark, draw

NS = "{http://www.w3.org/2000/svg}"
REGIONS = (
    Area("text", 0x1000, 0x1800, "t", details={"class": "text"}),
    Area("data", 0x1800, 0x2000, "t", details={"class": "data"}),
)
IMAGE = Area("vmlinux <&>", 0x1000, 0x2000, "t", parts=REGIONS)
AREAS = (
    Area("low", 0, 0x1000, "t"),
    Area("image", 0x1000, 0x11000, "t", parts=(IMAGE,)),
    Area("hole between", 0x11000, 0x20000, "t", hole=True),
)


def read(picture: str) -> list[tuple[str, str, list[float]]]:
    """The rows: the area's words, the label, and where across there are marks."""
    rows: list[tuple[str, str, list[float]]] = []
    for element in ElementTree.fromstring(picture):
        words = element.findtext(f"{NS}title") or ""
        label = element.findtext(f"{NS}text")
        if label is not None and element.tag == f"{NS}g":
            rows.append((words, label, []))
        for line in element.iter(f"{NS}line"):
            if line.get("class") == "mark":
                assert line.get("x1") == line.get("x2")
                rows[-1][2].append(float(str(line.get("x1")).rstrip("%")))
    return rows


def test_a_part_that_is_small_is_a_row_of_its_own() -> None:
    rows = read(draw(AREAS, [Mark(0x1400, "here", "#h1")], "all"))
    assert [(label, marks) for _, label, marks in rows] == [
        ("low", []),
        ("image", [1.562]),
        ("> vmlinux <&>", [25.0]),
    ]


def test_a_hole_is_in_it_only_if_marked() -> None:
    assert [label for _, label, _ in read(draw(AREAS, [], "all"))] == ["low", "image"]
    assert read(draw(AREAS, [Mark(0x11000, "there")], "all"))[-1][1:] == ("hole between", [0.0])


@given(st.lists(st.builds(Mark, st.integers(0, 0x1FFFF), st.text(max_size=40), st.none() | st.just("#x")), max_size=40))
def test_marks_are_in_the_areas_that_hold_them(marks: list[Mark]) -> None:
    rows = read(draw(AREAS, marks, "all"))
    for words, _, found in rows:
        start, end = (int(each, 16) for each in words.split(" (")[0].rsplit(" ", 1)[1].split("-"))
        wanted = [100 * (mark.address - start) / (end - start) for mark in marks if start <= mark.address < end]
        assert all(0 <= at <= 100 for at in found)
        assert bool(found) == bool(wanted)
        for at in wanted:  # marks on top of each other are one
            assert min(abs(at - each) for each in found) < 0.5
        for each in found:
            assert min(abs(at - each) for at in wanted) < 0.001


def test_what_is_drawn_as_one_has_all_names() -> None:
    picture = draw(AREAS[:1], [Mark(0x10, "first", "#h1"), Mark(0x11, "second", "#h2")], "all")
    (link,) = ElementTree.fromstring(picture).iter(f"{NS}a")
    assert link.get("aria-label") == "0x10 first; 0x11 second"
    assert link.get("href") == "#h1"
    many = draw(AREAS[:1], [Mark(0x10, str(number)) for number in range(50)], "all")
    assert "; and 38 more</title>" in many
