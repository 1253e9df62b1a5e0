"""kplug.frozen: what a frozen dataclass does, its records do, in each way of making them."""

from __future__ import annotations

import copy
import pickle
from functools import cached_property

import pytest

from kplug.frozen import Frozen, field, replace


class Place(Frozen):
    name: str
    start: int
    size: int = 1
    notes: list[str] = field(default_factory=list)
    maker = "no field: it has no annotation"

    @cached_property
    def end(self) -> int:
        return self.start + self.size


class Narrow(Place):
    part: str = "whole"
    size: int = 4


def test_fields_by_place_by_name_and_by_default() -> None:
    place = Place("a", start=16)
    assert (place.name, place.start, place.size, place.notes, place.end) == ("a", 16, 1, [], 17)
    assert Place("a", 16, 2) == Place(name="a", start=16, size=2)
    narrow = Narrow("a", 16, part="b")
    assert (narrow.size, narrow.part, narrow.end) == (4, "b", 20)


def test_a_default_that_is_made_is_nobody_elses() -> None:
    first, second = Place("a", 1), Place("a", 1)
    assert first.notes == second.notes
    assert first.notes is not second.notes


@pytest.mark.parametrize(
    ("values", "named", "message"),
    [
        (("a",), {}, r"^Place\(\) is missing start$"),
        ((), {"size": 2}, r"^Place\(\) is missing name, start$"),
        (("a", 1, 2, [], 3), {}, r"^Place\(\) takes 4 values, not 5$"),
        (("a", 1), {"end": 3}, r"^Place\(\) got an unexpected keyword argument 'end'$"),
        (("a",), {"end": 3}, r"^Place\(\) got an unexpected keyword argument 'end'$"),
        (("a", 1), {"name": "b"}, r"^Place\(\) got multiple values for argument 'name'$"),
    ],
)
def test_other_fields_are_refused(values: tuple[object, ...], named: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Place(*values, **named)


def test_nothing_is_set_or_deleted() -> None:
    place = Place("a", 1)
    with pytest.raises(AttributeError, match=r"Place\.name cannot be set"):
        place.name = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError, match=r"Place\.other cannot be set"):
        place.other = "b"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"Place\.name cannot be deleted"):
        del place.name
    assert place.name == "a"


def test_equal_are_records_of_one_class_with_equal_fields() -> None:
    class Other(Place):
        pass

    one, same = Place("a", 1), Place("a", 1)
    assert one.end == 2  # what is remembered of a record is none of its fields
    assert one == same
    assert one != Place("a", 2)
    assert one != Other("a", 1)
    assert one != ("a", 1, 1, [])
    assert repr(one) == "Place(name='a', start=1, size=1, notes=[])"


def test_a_record_of_what_can_be_hashed_can_be() -> None:
    assert len({Place("a", 1, notes=()), Place("a", 1, notes=()), Place("b", 1, notes=())}) == 2  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        hash(Place("a", 1))


def test_replaced_and_copied() -> None:
    place = Narrow("a", 1, part="b")
    assert place.end == 5
    moved = replace(place, start=8)
    assert moved == Narrow("a", 8, part="b")
    assert moved.end == 12
    with pytest.raises(TypeError, match="unexpected keyword argument 'end'"):
        replace(place, end=9)
    assert copy.copy(place) == copy.deepcopy(place) == pickle.loads(pickle.dumps(place)) == place
