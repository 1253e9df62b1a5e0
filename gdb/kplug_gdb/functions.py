"""Values for expressions: $kwhere(a), $ksection(a), $kregion(a), $kclass(a), for printf and breakpoint conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gdb
from kplug.errors import ExpressionError
from kplug_gdb.guard import guard
from kplug_gdb.settings import SETTINGS

if TYPE_CHECKING:
    from kplug.model import Annotation


class _KFunction(gdb.Function):
    """A function of one address, or of a string as kwhere takes it. Its docstring is gdb's help for it.

    `word` is its name without the prefix of kplug's names.
    """

    word = ""

    def __init__(self) -> None:
        self.name = f"{SETTINGS.prefix}{self.word}"
        self.__doc__ = f"{type(self).__doc__}: ${self.name}(ADDRESS)."
        super().__init__(self.name)

    def invoke(self, *arguments: gdb.Value) -> gdb.Value | str:
        with guard():
            if len(arguments) != 1:
                raise gdb.GdbError(f"${self.name} takes one address")
            from kplug_gdb.gdb_target import GdbTarget
            from kplug_gdb.host import HOST
            from kplug_gdb.values import string_of

            session = HOST.session()
            target = session.target
            assert isinstance(target, GdbTarget)
            text = string_of(arguments[0])
            if text is None:
                address = target.address_of(arguments[0], f"${self.name}'s argument")
            else:
                address = _only(text, [place.address for place in session.places(text)])
            return _printable(self.name, self.answer(session.resolver.where(address)))

    def answer(self, annotation: Annotation) -> str:
        """The text of an answer."""
        raise NotImplementedError


def _only(text: str, addresses: list[int]) -> int:
    """The address of a name; a value can only be one."""
    if len(addresses) > 1:
        shown = ", ".join(f"{address:#x}" for address in addresses)
        raise ExpressionError(f"{text}: {len(addresses)} symbols have this name: {shown}")
    return addresses[0]


def _printable(name: str, text: str) -> gdb.Value | str:
    """The text as a value that `printf "%s"` takes as it is.

    gdb prints the text of a convenience variable directly; for any other string it calls the program's malloc
    (gdb/printcmd.c, printf_c_string), which a kernel does not have.
    """
    variable = f"_kplug_{name}"
    # gdb makes an empty array from an empty Python string, and prints that as a pointer.
    empty = gdb.Value(b"\0", gdb.lookup_type("char").array(0))
    gdb.set_convenience_variable(variable, text or empty)
    value = gdb.convenience_variable(variable)
    return text if value is None else value


class KWhere(_KFunction):
    """The one-line answer for an address"""

    word = "where"

    def answer(self, annotation: Annotation) -> str:
        from kplug.render.safe import safe
        from kplug.summary import summarize

        return safe(str(summarize(annotation)))


class KSection(_KFunction):
    """The ELF section that holds an address, or an empty string"""

    word = "section"

    def answer(self, annotation: Annotation) -> str:
        return _last(annotation, "section")


class KRegion(_KFunction):
    """The narrowest linker-script region that holds an address, or an empty string"""

    word = "region"

    def answer(self, annotation: Annotation) -> str:
        return _last(annotation, "region")


class KClass(_KFunction):
    """The class of an address, text, rodata, init, data, bss, percpu, brk or none"""

    word = "class"

    def answer(self, annotation: Annotation) -> str:
        return annotation.region_class


def _last(annotation: Annotation, kind: str) -> str:
    from kplug.render.safe import safe

    layer = annotation.last(kind)
    return safe(layer.name) if layer is not None else ""


FUNCTIONS = (KWhere, KSection, KRegion, KClass)
