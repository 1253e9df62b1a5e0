"""What gdb debugs, as the core sees it (`kplug.target.Target`)."""

from __future__ import annotations

from collections.abc import Hashable

import gdb
from kplug.errors import ExpressionError, TargetError
from kplug.image.placed import PlacedImage
from kplug_gdb import linked, watch
from kplug_gdb.corefile import core_path
from kplug_gdb.reading import has_process, read_plainly
from kplug_gdb.values import as_address
from kplug_gdb.views import View


class GdbTarget:
    """The selected inferior.

    `view` is how the kernel's memory is read at the moment, None where there is none; `kernel` is the vmlinux in its
    place, None as long as that is not known.
    """

    def __init__(self) -> None:
        self.view: View | None = None
        self.kernel: PlacedImage | None = None

    def description(self) -> str:
        """The connection, in gdb's words."""
        connection = gdb.selected_inferior().connection
        if connection is None or not has_process():
            return "no target: the files alone"
        # gdb's own: "remote /run/gdb.sock", "core".
        details = core_path() if connection.type == "core" else connection.details
        return f"{connection.type} {details or ''}".rstrip()

    def has_memory(self) -> bool:
        return has_process()

    def read(self, address: int, size: int) -> bytes:
        if not has_process():
            raise TargetError("no target to read memory from")
        return self.view.read(address, size) if self.view is not None else read_plainly(address, size)

    def evaluate(self, expression: str) -> int:
        """The value of an expression of gdb's, as an address. What names kernel symbols is answered where they are."""
        place = linked.Place.SAME
        if self.kernel is not None:
            place = linked.place_of(expression, self.kernel)
        if place is linked.Place.UNKNOWN:
            raise ExpressionError(
                f"{expression}: gdb would read it where the kernel was linked, not where it is: `kaslr --apply` first"
            )
        try:
            value = as_address(gdb.parse_and_eval(expression), expression)
        except gdb.error as error:
            raise ExpressionError(f"{expression}: {str(error).strip().splitlines()[0]}") from None
        if place is linked.Place.MOVED and self.kernel is not None:
            return self.kernel.placement.runtime(value)
        return value

    def generation(self) -> Hashable:
        return watch.generation()
