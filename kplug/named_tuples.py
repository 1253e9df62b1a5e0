"""Tuples with names for their items: what `typing.NamedTuple` makes, at a tenth of its start.

That one writes and compiles source for each class, which takes as long as the rest of a small file's import. Here one
function makes the instances of all classes. For a type checker they are those of `typing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import _tuplegetter  # of collections' own named tuples
    from itertools import islice

    from kplug.frozen import refusal

    class _WithNames(type):
        """The type of these classes: their annotations are the fields, with their defaults."""

        def __new__(cls, name, bases, content):
            if not bases:  # NamedTuple itself
                return super().__new__(cls, name, (tuple,), content)
            fields = tuple(content.get("__annotations__", ()))  # strings, under the `annotations` future
            defaults = {field: content[field] for field in fields if field in content}
            getters = {field: _tuplegetter(number, field) for number, field in enumerate(fields)}
            own = {"__slots__": (), "__match_args__": fields, "_fields": fields, "_field_defaults": defaults}
            return super().__new__(cls, name, bases, {**content, **getters, **own})

    class NamedTuple(metaclass=_WithNames):
        """A class of it lists its fields as annotations, with their defaults, under the `annotations` future."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = cls._completed(values, named)
            return tuple.__new__(cls, values)

        # For what is made for each line of a long log: the values of all fields in one tuple, which are not checked.
        _make = classmethod(tuple.__new__)

        @classmethod
        def _completed(cls, values, named):
            """The values of all fields, in order; TypeError if these are not theirs."""
            fields, defaults = cls._fields, cls._field_defaults
            if not named and len(fields) - len(defaults) <= len(values) < len(fields):
                return (*values, *islice(defaults.values(), len(values) - len(fields) + len(defaults), None))
            given = {**defaults, **dict(zip(fields, values)), **named}
            if not (len(given) == len(fields) >= len(values) and named.keys().isdisjoint(fields[: len(values)])):
                raise refusal(cls.__name__, fields, values, named, given)
            try:
                return tuple(map(given.__getitem__, fields))
            except KeyError:
                raise refusal(cls.__name__, fields, values, named, given) from None

        def _replace(self, **changes):
            """The tuple with other values in some fields."""
            return type(self)(**{**self._asdict(), **changes})

        def _asdict(self):
            """The values by their names."""
            return dict(zip(self._fields, self))

        def __repr__(self):
            fields = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({fields})"

        def __getnewargs__(self):
            """For `copy` and `pickle`."""
            return tuple(self)
