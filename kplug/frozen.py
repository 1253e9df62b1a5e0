"""Records whose fields do not change: what `dataclasses` has as `@dataclass(frozen=True)`, for a tenth of its start.

`dataclasses` writes and compiles source for each class, and imports `inspect`: half of the time until a short command
answered went there. Here one function makes all of them. For a type checker they are dataclasses (PEP 681).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    # A type checker has these with it; nothing need be installed for them.
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda base: base


_T = TypeVar("_T")


class _Made:
    """The default of a field that each record has made anew."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


def field(*, default_factory: Callable[[], _T]) -> _T:
    """The default of a field whose value is made for each record: a dict, a list."""
    made: Any = _Made(default_factory)
    return made  # type: ignore[no-any-return]


def refusal(
    name: str, fields: Iterable[str], values: Sequence[Any], named: Iterable[str], given: Container[str]
) -> TypeError:
    """The error for values that are not those of the fields of class `name`, worded as for any function's arguments.

    `given` has the fields that have a value, by default at least.
    """
    what, fields = f"{name}()", tuple(fields)
    if len(values) > len(fields):
        return TypeError(f"{what} takes {len(fields)} values, not {len(values)}")
    for each in named:
        if each not in fields:
            return TypeError(f"{what} got an unexpected keyword argument {each!r}")
        if each in fields[: len(values)]:
            return TypeError(f"{what} got multiple values for argument {each!r}")
    return TypeError(f"{what} is missing {', '.join(each for each in fields if each not in given)}")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Frozen:
    """A record. A class of it lists its fields as annotations, with their defaults, under the `annotations` future.

    Two are equal if they are of one class and have equal fields.
    """

    # In their order; the values are no matter.
    _fields: dict[str, None] = {}  # noqa: RUF012
    _defaults: dict[str, Any] = {}  # noqa: RUF012
    _made: tuple[tuple[str, Callable[[], object]], ...] = ()

    def __init_subclass__(cls) -> None:
        own = cls.__dict__.get("__annotations__", {})  # noqa: RUF063
        given = {name: cls.__dict__[name] for name in own if name in cls.__dict__}
        cls._fields = {**cls._fields, **dict.fromkeys(own)}
        cls._defaults = {**cls._defaults, **given}
        cls._made = tuple((name, value.make) for name, value in cls._defaults.items() if isinstance(value, _Made))

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self._fields
        state = self.__dict__
        state.update(self._defaults)
        for name, make in self._made:
            state[name] = make()
        state.update(zip(fields, values))
        if named:
            if not named.keys() <= fields.keys() or not named.keys().isdisjoint(islice(fields, len(values))):
                raise refusal(type(self).__name__, fields, values, named, state)
            state.update(named)
        if len(state) != len(fields) or len(values) > len(fields):
            raise refusal(type(self).__name__, fields, values, named, state)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: the record is frozen")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: the record is frozen")

    def _values(self) -> tuple[Any, ...]:
        return tuple(map(self.__dict__.__getitem__, self._fields))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({fields})"

    def __replace__(self, **changes: Any) -> Self:
        """For `copy.replace` (Python 3.13 and later)."""
        return replace(self, **changes)


# The class itself: its name would be compiled.
_Record = TypeVar("_Record", bound=Frozen)


def replace(record: _Record, **changes: Any) -> _Record:
    """The record with other values in some fields."""
    values = {name: record.__dict__[name] for name in record._fields}
    values.update(changes)
    return type(record)(**values)
