"""Kinds of layers: what each declares, and what is made of it."""

from __future__ import annotations

import runpy
from collections.abc import Iterator

import pytest
from support.paths import DOCS

from kplug import kinds
from kplug.kinds import Kind, Role, all_kinds, in_order, kind_of, register
from kplug.model import Annotation, Layer
from kplug.render.text import TextRenderer
from kplug.summary import summarize


@pytest.fixture
def known() -> Iterator[None]:
    """What a test registers is forgotten behind it."""
    before = dict(kinds._KINDS)
    yield
    kinds._KINDS.clear()
    kinds._KINDS.update(before)


def layer(kind: str, name: str = "it", start: int | None = 0x1000, **details: object) -> Layer:
    return Layer(kind, name, start, None if start is None else start + 0x1000, "test", details)


def kinds_of(layers: list[Layer]) -> list[str]:
    return [each.kind for each in layers]


def test_the_documentation_has_every_kind_as_it_is_declared() -> None:
    pytest.importorskip("drgn")
    page = (DOCS / "json.md").read_text()
    written = runpy.run_path(str(DOCS / "kinds_table.py"))["written"]
    assert written(page) == page, "docs/kinds_table.py writes it"


def test_every_kind_has_a_place_of_its_own() -> None:
    orders = [kind.order for kind in all_kinds()]
    assert len(orders) == len(set(orders))
    assert orders == sorted(orders)


@pytest.mark.usefixtures("known")
def test_a_name_is_taken_once() -> None:
    register(Kind("mailbox", 10))
    register(Kind("mailbox", 10))
    with pytest.raises(ValueError, match="there is a kind mailbox already"):
        register(Kind("mailbox", 20))


def register_some() -> None:
    for number, name in enumerate(("wide", "middle", "narrow")):
        register(Kind(name, 10 * (number + 1)))


@pytest.mark.usefixtures("known")
def test_layers_stand_from_wide_to_narrow_whichever_locator_is_asked_first() -> None:
    register_some()
    groups = ([layer("narrow")], [layer("wide")], [], [layer("middle")])
    assert kinds_of(in_order(groups)) == ["wide", "middle", "narrow"]


@pytest.mark.usefixtures("known")
def test_what_a_locator_says_of_the_inside_stays_behind_what_holds_it() -> None:
    register_some()
    groups = ([layer("narrow", "CPU"), layer("wide", "inside")], [layer("middle"), layer("narrow", "other")])
    assert [each.name for each in in_order(groups)] == ["it", "CPU", "inside", "other"]


@pytest.mark.usefixtures("known")
def test_a_kind_that_nobody_declared_comes_last_and_is_no_answer() -> None:
    register_some()
    ordered = in_order(([layer("odd")], [layer("narrow")]))
    assert kinds_of(ordered)[-1] == "odd"
    answer = Annotation("", 0x1004, None, "none", (layer("odd", "thing"),))
    assert summarize(answer).head == "unknown"
    assert (
        "  odd      thing                      0x0000000000001000-0x0000000000002000  +0x4"
        in TextRenderer().annotation(answer)
    )


@pytest.mark.usefixtures("known")
def test_a_kind_may_replace_others_and_choose_among_its_own() -> None:
    register_some()
    register(Kind("instead", 25, replaces=frozenset(("narrow", "middle"))))
    assert kinds_of(in_order(([layer("wide")], [layer("narrow")], [layer("instead")]))) == ["wide", "instead"]
    register(Kind("one", 40, among=lambda layers: layers[-1:]))
    assert [each.name for each in in_order(([layer("one", "a")], [layer("one", "b")]))] == ["b"]


@pytest.mark.usefixtures("known")
def test_the_narrowest_owner_is_the_answer_in_the_words_of_its_kind() -> None:
    register(Kind("box", 50, phrase=lambda layer, offset: f"box {layer.name}, byte {offset}"))
    register(Kind("shelf", 40, role=Role.PAGE))
    answer = Annotation("", 0x1004, None, "none", (layer("shelf", "shelf"), layer("box", "7")))
    assert summarize(answer).head == "box 7, byte 4"
    assert summarize(Annotation("", 0x1004, None, "none", (layer("shelf", "shelf"),))).head == "shelf+0x4"


def test_a_special_value_that_is_an_offset_is_no_user_address() -> None:
    from kplug.space import locators

    special = Layer("special", "user address", None, None, "test", {"what": "user", "meaning": "A user address."})
    assert in_order(([special], [locators.PERCPU_OFFSET])) == [locators.PERCPU_OFFSET]
    assert in_order(([special],)) == [special]
    assert kind_of(special).role is Role.VALUE
