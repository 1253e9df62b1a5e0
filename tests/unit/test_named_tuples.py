"""kplug.named_tuples: what a tuple of typing.NamedTuple does, its tuples do."""

from __future__ import annotations

import copy
import pickle
import typing

import pytest

from kplug.named_tuples import NamedTuple


class Place(NamedTuple):
    """Ours."""

    name: str
    start: int
    size: int = 1
    note: str | None = None
    maker = "no field: it has no annotation"

    @property
    def end(self) -> int:
        return self.start + self.size


class Typed(typing.NamedTuple):
    name: str
    start: int
    size: int = 1
    note: str | None = None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("a", 16), {}),
        (("a", 16, 2), {}),
        (("a", 16, 2, "b"), {}),
        (("a",), {"start": 16}),
        ((), {"start": 16, "name": "a"}),
        (("a", 16), {"note": "b"}),
    ],
)
def test_made_by_place_by_name_and_by_default(values: tuple[typing.Any, ...], named: dict[str, typing.Any]) -> None:
    made, typed = Place(*values, **named), Typed(*values, **named)
    assert tuple(made) == tuple(typed)
    assert made == typed
    assert hash(made) == hash(typed)
    assert (made.name, made.start, made.size, made.note, made.end) == (*typed, typed.start + typed.size)
    assert repr(made) == repr(typed).replace("Typed", "Place")
    assert made._asdict() == typed._asdict()
    assert Place._fields == Typed._fields
    assert made.maker.startswith("no field")


@pytest.mark.parametrize(
    ("values", "named", "message"),
    [
        (("a",), {}, r"^Place\(\) is missing start$"),
        ((), {"size": 2}, r"^Place\(\) is missing name, start$"),
        (("a", 1, 2, "b", 3), {}, r"^Place\(\) takes 4 values, not 5$"),
        (("a", 1, 2, "b", 3), {"note": "c"}, r"^Place\(\) takes 4 values, not 5$"),
        (("a", 1), {"end": 3}, r"^Place\(\) got an unexpected keyword argument 'end'$"),
        (("a",), {"end": 3}, r"^Place\(\) got an unexpected keyword argument 'end'$"),
        (("a", 1), {"name": "b"}, r"^Place\(\) got multiple values for argument 'name'$"),
    ],
)
def test_other_fields_are_refused(values: tuple[typing.Any, ...], named: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Place(*values, **named)


def test_one_with_other_values() -> None:
    assert Place("a", 1)._replace(size=3, note="b") == Place("a", 1, 3, "b")
    with pytest.raises(TypeError, match="'end'"):
        Place("a", 1)._replace(end=3)


def test_it_is_a_tuple_and_nothing_can_be_set() -> None:
    name, *rest = place = Place("a", 1)
    assert (name, rest) == ("a", [1, 1, None])
    assert place < Place("b", 0)
    assert not hasattr(place, "__dict__")
    for attribute in ("name", "other"):
        with pytest.raises(AttributeError):
            setattr(place, attribute, "b")


def test_copies() -> None:
    place = Place("a", 1, note="b")
    for copied in (copy.copy(place), copy.deepcopy(place), pickle.loads(pickle.dumps(place))):
        assert copied == place
        assert type(copied) is Place
