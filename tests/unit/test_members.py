"""`0x18 as struct foo`: which member an address is. Layouts are given here; real ones: tests/gdb, tests/runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from kplug import kinds, model
from kplug.commands.words import expressions
from kplug.errors import ExpressionError
from kplug.expressions import join_hints, type_hint
from kplug.frozen import replace
from kplug.kinds import Kind
from kplug.members import type_named, with_guesses, with_member
from kplug.model import NO_CLASS, Annotation, Layer
from kplug.space import locators  # noqa: F401  (declares the kind of special values)
from kplug.summary import summarize
from kplug.type_layouts import Found, LayoutMember, TypeLayout, at_offset

INT, LONG, CHAR = TypeLayout("int", 4), TypeLayout("unsigned long", 8), TypeLayout("char", 1)


def array(of: TypeLayout, count: int) -> TypeLayout:
    return TypeLayout(f"{of.name} [{count or ''}]", (of.size or 0) * count, element=lambda: of, count=count)


def structure(name: str, size: int, *members: tuple[str, float, TypeLayout]) -> TypeLayout:
    """Members at offsets in bytes; a bit-field of one bit at one in eighths."""
    made = [
        LayoutMember(
            member, int(offset * 8), 1 if layout is INT and offset >= 0x30 else 0, lambda layout=layout: layout
        )
        for member, offset, layout in members
    ]
    return TypeLayout(name, size, members=lambda: made)


LOAD = structure("struct load", 16, ("weight", 0, LONG), ("inverse", 8, INT))
ENTITY = structure("struct entity", 24, ("load", 0, LOAD), ("on", 16, INT))
EITHER = structure("union <anonymous>", 8, ("first", 0, LONG), ("second", 0, INT))
FOO = structure(
    "struct foo",
    0x38,
    ("state", 0, INT),
    ("se", 8, ENTITY),
    ("", 0x20, EITHER),
    ("names", 0x28, array(CHAR, 6)),
    ("one", 0x30, INT),
    ("two", 0x30 + 1 / 8, INT),
)
OPEN = structure("struct open", 8, ("count", 0, INT), ("pairs", 8, array(LOAD, 0)))


@pytest.mark.parametrize(
    ("offset", "found"),
    [
        (0x2, [("state", 0, 4)]),
        (0x13, [("se.load.inverse", 0x10, 4)]),
        (0x2A, [("names[2]", 0x2A, 1)]),
        (0x20, [("first", 0x20, 8), ("second", 0x20, 4)]),
        (0x25, [("first", 0x20, 8)]),
        (0x30, [("one", 0x30, 1), ("two", 0x30, 1)]),
    ],
)
def test_members(offset: int, found: list[tuple[str, int, int]]) -> None:
    assert [(each.path, each.offset, each.size) for each in at_offset(FOO, offset)] == found
    assert not any(each.padding for each in at_offset(FOO, offset))


def test_bit_fields_padding_and_open_ends() -> None:
    assert [each.bits for each in at_offset(FOO, 0x30)] == [(0, 1), (1, 1)]
    assert at_offset(FOO, 0x5) == [Found("state", 4, 4, "struct foo", padding=True)]
    assert at_offset(FOO, 0x15) == [Found("se.load.inverse", 0x14, 4, "struct load", padding=True)]
    assert at_offset(FOO, 0x33) == [Found("two", 0x31, 7, "struct foo", padding=True)]
    assert at_offset(OPEN, 0x23) == [Found("pairs[1].inverse", 0x20, 4, "int")]
    assert at_offset(array(FOO, 3), 0x38 + 0x10) == [Found("[1].se.load.inverse", 0x48, 4, "int")]
    assert at_offset(LONG, 3) == [Found("", 0, 8, "unsigned long")]


def test_a_type_made_of_itself() -> None:
    def members() -> Sequence[LayoutMember]:
        return [LayoutMember("again", 0, 0, lambda: endless)]

    endless = TypeLayout("struct endless", 8, members=members)
    assert at_offset(endless, 0) == []


class Types:
    """A source of the types given."""

    source = "types made here"

    def __init__(self, **types: TypeLayout) -> None:
        self._types = types

    def named(self, keyword: str, name: str) -> TypeLayout | None:
        found = self._types.get(name)
        return found if found is not None and found.name == f"{keyword} {name}".strip() else None


def test_types_by_name() -> None:
    sources = [Types(), Types(foo=FOO, int=INT)]
    assert type_named("struct foo", sources) == (FOO, "types made here")
    assert type_named("foo", sources)[0] is FOO
    assert type_named(" struct   foo ", sources)[0] is FOO
    layout, _ = type_named("struct foo[4]", sources)
    assert (layout.name, layout.size, layout.count) == ("struct foo [4]", 0xE0, 4)
    for wrong in ("union foo", "struct bar", "struct", "foo *", "", "struct foo[x]"):
        with pytest.raises(ExpressionError):
            type_named(wrong, sources)
    with pytest.raises(ExpressionError, match="no types here"):
        type_named("struct foo", [])


THING = Kind("thing of the test", 905, object_type=lambda layer: str(layer.details["is"]))


@pytest.fixture
def thing() -> Iterator[None]:
    """A kind of object, forgotten behind the test."""
    before = dict(kinds._KINDS)
    kinds.register(THING)
    yield
    kinds._KINDS.clear()
    kinds._KINDS.update(before)


def answered(address: int, *layers: Layer, layout: TypeLayout = FOO, base: int | None = None) -> Annotation:
    return with_member(Annotation("", address, None, NO_CLASS, layers), layout, "here", base)


def special(what: str, name: str, base: int, guess: bool = False) -> Layer:
    details = {"what": what, "meaning": "", **({"guess": True} if guess else {})}
    return Layer(model.SPECIAL, name, base, None, "", details)


def member(annotation: Annotation) -> tuple[str, object, object, int | None]:
    layer = annotation.last("member")
    assert layer is not None
    return layer.details["member"], layer.details["base"], layer.details["base_of"], layer.offset(annotation.address)


def test_near_null_and_poison() -> None:
    answer = answered(0x12, special("null", "NULL+0x12", 0))
    assert member(answer) == ("se.load.inverse", "0x0", "NULL", 2)
    assert summarize(answer).head == "NULL+0x12, struct foo.se.load.inverse+0x2"
    assert answer.warnings == ()
    poison = 0xDEAD000000000100
    answer = answered(poison + 0x10, special("poison", "LIST_POISON1+0x10", poison))
    assert member(answer) == ("se.load.inverse", hex(poison), "LIST_POISON1", 0)


def test_a_small_number_is_a_pointer_if_a_type_is_named() -> None:
    percpu = Layer("special", "per-CPU offset", None, None, "", {"what": "percpu-offset", "meaning": ""})
    symbol = Layer("symbol", "fixed_percpu_data", 0, 0x30, "", {"type": "D"})
    answer = answered(0x12, special("null", "NULL+0x12", 0), percpu, symbol)
    assert [each.kind for each in answer.layers] == ["special", "member"]
    assert summarize(answer).head == "NULL+0x12, struct foo.se.load.inverse+0x2"


def test_error_pointers() -> None:
    address = (1 << 64) - 0x10
    both = special("errptr", "ERR_PTR(-EBUSY)", address), special("null", "NULL-0x10", 0, guess=True)
    contained, plain = (each for each in answered(address, *both).layers if each.kind == "member")
    assert (contained.name, contained.details["guess"]) == ("container_of(NULL, struct foo, se.load.inverse)", True)
    assert (plain.details["member"], plain.details["base_of"]) == ("state", "ERR_PTR(-EBUSY)")
    # No member begins there, so there is nothing to guess.
    address = (1 << 64) - 0x18 + 4
    layers = answered(address, special("errptr", "ERR_PTR(-EXFULL)", address)).layers
    assert [each.name for each in layers if each.kind == "member"] == ["struct foo.state"]


@pytest.mark.usefixtures("thing")
def test_in_an_object() -> None:
    start = 0xFFFF888000001000
    thing = Layer(THING.name, "wide", start, start + 0x40, "", {"is": ""})
    answer = answered(start + 0x13, thing)
    assert member(answer) == ("se.load.inverse", hex(start), "wide", 3)
    assert answer.warnings == ()
    # The narrowest that is large enough; else the narrowest, with a warning; where its type is known, without.
    narrow = Layer(THING.name, "narrow", start + 0x10, start + 0x20, "", {"is": ""})
    assert member(answered(start + 0x13, thing, narrow))[2] == "wide"
    answer = answered(start + 0x13, narrow)
    assert member(answer) == ("state", hex(start + 0x10), "narrow", 3)
    assert answer.warnings == ("narrow has 0x10 bytes, struct foo 0x38",)
    short = Layer(THING.name, "short", start, start + 0x20, "", {"is": "struct foo"})
    assert answered(start + 0x13, short).warnings == ()
    # An object that has room for several may be an array of them.
    many = Layer(THING.name, "many", start, start + 3 * 0x38, "", {"is": ""})
    answer = answered(start + 0x38 + 0x13, many)
    assert member(answer)[0] == "[1].se.load.inverse"
    assert answer.warnings == (
        "taken as an array of struct foo, for which many has room (`as struct foo at START` gives another)",
    )
    assert answered(start + 0x13, many).warnings == ()
    assert "past the end" in answered(start + 3 * 0x38, many).warnings[0]


def test_where_no_object_is_known() -> None:
    address = 0xFFFF888000001013
    answer = answered(address)
    assert member(answer) == ("state", hex(address), "the address itself", 0)
    assert "taken as the start of struct foo" in answer.warnings[0]
    answer = answered(address, base=address - 0x13)
    assert member(answer) == ("se.load.inverse", hex(address - 0x13), "as given", 3)
    assert answer.warnings == ()
    assert "3 bytes before" in answered(address, base=address + 3).warnings[0]
    assert answered(address, base=address + 3).last("member") is None


def test_the_grammar() -> None:
    assert type_hint("schedule+0x10") is None
    assert type_hint("0x18 as struct foo") == ("0x18", "struct foo", "")
    assert type_hint(" $rdi + 8  as  'struct foo'  at $rdi + 4 ") == ("$rdi + 8", "struct foo", "$rdi + 4")
    assert join_hints(["0x18", "as", "struct", "foo", "schedule"]) == ["0x18 as struct foo", "schedule"]
    assert join_hints(["1", "as", "foo", "at", "0", "2", "as", "union", "bar"]) == ["1 as foo at 0", "2 as union bar"]
    assert join_hints(["as", "at", "0x18", "at", "x"]) == ["as", "at", "0x18", "at", "x"]
    assert join_hints(["0x18", "as"]) == ["0x18", "as"]

    def means(text: str) -> None:
        if text.split(" as ")[0] not in ("0x18", "schedule", "(long) x"):
            raise ExpressionError(text)

    words = ["0x18", "as", "struct", "foo", "schedule"]
    assert expressions(words, " ".join(words), means) == ["0x18 as struct foo", "schedule"]
    whole = "(long) x as struct foo"
    assert expressions(whole.split(), whole, means) == [whole]


def test_guesses_are_marked_and_no_answer() -> None:
    sources = [Types(foo=FOO, open=OPEN)]
    plain = Annotation("", 0x10, None, NO_CLASS, (special("null", "NULL+0x10", 0),))
    answer = with_guesses(plain, ["struct foo", "struct nosuch", "struct open"], sources)
    guessed = [layer for layer in answer.layers if layer.kind == "member"]
    assert [(layer.details["type"], layer.details["member"]) for layer in guessed] == [
        ("struct foo", "se.load.inverse"),
        ("struct open", "pairs[0].inverse"),
    ]
    assert all(layer.details["guess"] and "a guess" in layer.details["base_of"] for layer in guessed)
    assert summarize(answer).head == "NULL+0x10"
    # Only where a member begins; and where nothing says where a structure would begin, there is nothing to guess.
    for address, layers in ((0x12, (special("null", "NULL+0x12", 0),)), (0xFFFF888000001000, ())):
        answer = with_guesses(Annotation("", address, None, NO_CLASS, layers), ["struct foo"], sources)
        assert answer.last("member") is None
        assert ["is known to point to" in each for each in answer.warnings] == [True]


@pytest.mark.usefixtures("thing")
def test_what_is_asked_about_and_what_has_no_room_are_no_guesses() -> None:
    sources = [Types(foo=FOO, load=LOAD)]
    plain = Annotation("", 0x10, None, NO_CLASS, (special("null", "NULL+0x10", 0),))
    asked = with_member(plain, *type_named("struct foo", sources))
    answer = with_guesses(asked, ["struct load", "struct foo"], sources)  # struct load has 0x10 bytes
    assert [(each.details["type"], each.details["guess"]) for each in answer.layers if each.kind == "member"] == [
        ("struct foo", False)
    ]
    thing = Layer(THING.name, "narrow", 0x1000, 0x1010, "", {"is": ""})
    small = Annotation("", 0x1008, None, NO_CLASS, (thing,))
    assert with_guesses(small, ["struct foo"], sources).last("member") is None
    assert with_guesses(small, ["struct load"], sources).last("member") is not None
    many = Annotation("", 0x1018, None, NO_CLASS, (replace(thing, end=0x2000),))
    assert with_guesses(many, ["struct load"], sources).last("member") is None
