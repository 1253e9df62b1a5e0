"""The data of an answer: no I/O, no text.

The JSON contract (`kplug.where/1`, docs/json.md) and every text form derive from these classes, in `kplug.render`.
Addresses are ints; ranges are half-open, `[start, end)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kplug.frozen import Frozen, field

if TYPE_CHECKING:
    # A type checker has this with it; nothing need be installed for it.
    from typing_extensions import Self

SCHEMA = "kplug.where/1"

# Kinds of layers that the core itself looks for by name. Their declarations (`kplug.kinds`) say what each one is, and
# the other kinds are named in theirs. A gap takes the place of something that is missing there: a region, a symbol.
AREA = "area"
IMAGE = "image"
MODULE = "module"
SEGMENT = "segment"
SECTION = "section"
REGION = "region"
PERCPU = "percpu"
SYMBOL = "symbol"
LINE = "line"
SPECIAL = "special"
GAP = "gap"

# Classes: the one-word answer.
TEXT = "text"
RODATA = "rodata"
INIT = "init"
DATA = "data"
BSS = "bss"
PERCPU_CLASS = "percpu"
BRK = "brk"
NO_CLASS = "none"

# For what makes a frozen record quickly.
_set = object.__setattr__


class Layer(Frozen):
    """One level of the answer: a thing that holds the address, and how that is known.

    `start` and `end` are runtime addresses, `end` exclusive; None where the thing has no extent (a special value, a
    source line). `details` holds the JSON-ready facts of the kind (docs/json.md); a fact that is not known is None.
    One Layer may serve many addresses: the offset is `address - start`.
    """

    kind: str
    name: str
    start: int | None
    end: int | None
    source: str
    details: Mapping[str, Any] = field(default_factory=dict)

    # A long log has thousands of these, and as many answers: the general way takes twice as long.
    def __init__(
        self,
        kind: str,
        name: str,
        start: int | None,
        end: int | None,
        source: str,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        values = {
            "kind": kind,
            "name": name,
            "start": start,
            "end": end,
            "source": source,
            "details": {} if details is None else details,
        }
        _set(self, "__dict__", values)

    def offset(self, address: int) -> int | None:
        """Distance of `address` from the start, in bytes; None if the layer has no extent."""
        return None if self.start is None else address - self.start


class SharedLayers(tuple[Layer, ...]):
    """The layers of a whole stretch of addresses: one object for all of them, so what is made of it can be kept.

    All else that an answer says is the same there as well, but for the addresses themselves. `outer` are the layers
    around those of the stretch: again one object, for many stretches.
    """

    outer: tuple[Layer, ...]

    def __new__(cls, outer: tuple[Layer, ...], own: tuple[Layer, ...]) -> Self:
        self = super().__new__(cls, outer + own)
        self.outer = outer
        return self


class State(Frozen):
    """What the target's memory says about the address now. None: not known; never a guess.

    `permissions` are those of the page tables ("r-x"), `page_size` the bytes that one entry of them maps.
    `kasan` is whether KASAN allows access to the byte ("accessible"), or why not.
    """

    mapped: bool | None = None
    permissions: str | None = None
    freed: bool | None = None
    page_size: int | None = None
    kasan: str | None = None


UNKNOWN_STATE = State()


class Annotation(Frozen):
    """The whole answer for one address.

    `address` is the runtime address asked about, `link_address` the same place in the ELF file (None outside every
    image), `region_class` the one-word answer ("class" in JSON).
    `bits` is the width of the kernel's addresses, None if that is the widest.
    """

    input: str
    address: int
    link_address: int | None
    region_class: str
    layers: tuple[Layer, ...]
    state: State = UNKNOWN_STATE
    warnings: tuple[str, ...] = ()
    bits: int | None = None

    def __init__(
        self,
        input: str,
        address: int,
        link_address: int | None,
        region_class: str,
        layers: tuple[Layer, ...],
        state: State = UNKNOWN_STATE,
        warnings: tuple[str, ...] = (),
        bits: int | None = None,
    ) -> None:
        values = {
            "input": input,
            "address": address,
            "link_address": link_address,
            "region_class": region_class,
            "layers": layers,
            "state": state,
            "warnings": warnings,
            "bits": bits,
        }
        _set(self, "__dict__", values)

    def first(self, kind: str) -> Layer | None:
        """The widest layer of that kind, or None."""
        return next((layer for layer in self.layers if layer.kind == kind), None)

    def last(self, kind: str) -> Layer | None:
        """The narrowest layer of that kind, or None."""
        return next((layer for layer in reversed(self.layers) if layer.kind == kind), None)
