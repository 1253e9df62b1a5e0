"""Many answers in columns: no object for an address, and each column made only when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from kplug import model
from kplug.image.images import Images
from kplug.image.placed import Piece, PlacedImage


class Columns:
    """The answers of `Resolver.bulk`: one list for each fact, all in the order of the addresses, made when first read.

    Names are those of the narrowest layer; `segment` is the number of the widest segment. An entry is None if nothing
    holds the address; `symbol` and `offset` are None if no symbol does (padding).
    """

    def __init__(self, images: Sequence[PlacedImage], addresses: Sequence[int]) -> None:
        self.address = addresses
        self._parts: list[_Part] = []
        pending: Sequence[int] | None = None  # addresses that no image has held so far; None: all of them
        if isinstance(images, Images):
            images = images.candidates_for_addresses(addresses)
        for placed in images:
            remaining = addresses if pending is None else [addresses[number] for number in pending]
            part = _Part(placed, remaining, pending)
            self._parts.append(part)
            if len(images) > 1:
                numbers = range(len(addresses)) if pending is None else pending
                pending = [number for number, piece in zip(numbers, part.pieces) if piece is None]

    def _column(self, name: str, nothing: Any = None) -> list[Any]:
        """A column, assembled from the images' parts."""
        if len(self._parts) == 1:
            return list(getattr(self._parts[0], name))
        column = [nothing] * len(self.address)
        for part in self._parts:
            numbers = range(len(column)) if part.numbers is None else part.numbers
            for number, piece, value in zip(numbers, part.pieces, getattr(part, name)):
                if piece is not None:
                    column[number] = value
        return column

    @cached_property
    def link_address(self) -> list[int | None]:
        return self._column("link_address")

    @cached_property
    def image(self) -> list[str | None]:
        return self._column("image")

    @cached_property
    def segment(self) -> list[int | None]:
        return self._column("segment")

    @cached_property
    def section(self) -> list[str | None]:
        return self._column("section")

    @cached_property
    def region(self) -> list[str | None]:
        return self._column("region")

    @cached_property
    def region_class(self) -> list[str]:
        return self._column("region_class", model.NO_CLASS)

    @cached_property
    def symbol(self) -> list[str | None]:
        return self._column("symbol")

    @cached_property
    def offset(self) -> list[int | None]:
        return self._column("offset")


class _Part:
    """One image's answers for the addresses it was asked about; `numbers` are their places among all."""

    def __init__(self, placed: PlacedImage, addresses: Sequence[int], numbers: Sequence[int] | None) -> None:
        self._placed = placed
        self._links = placed.links(addresses)
        self.numbers = numbers

    @cached_property
    def pieces(self) -> list[Piece | None]:
        return self._placed.pieces(self._links)

    @cached_property
    def _symbol_pieces(self) -> list[int]:
        return self._placed.symbol_intervals.pieces(self._links)

    @property
    def symbol(self) -> list[str | None]:
        return self._placed.symbol_intervals.names(self._symbol_pieces)

    @property
    def offset(self) -> list[int | None]:
        return self._placed.symbol_intervals.offsets(self._symbol_pieces, self._links)

    @property
    def link_address(self) -> list[int | None]:
        if self._placed.image.is_module or not self._placed.placement.link_known:
            return [None] * len(self._links)
        return [None if piece is None else link for piece, link in zip(self.pieces, self._links)]

    @property
    def image(self) -> list[str | None]:
        name = self._placed.image.name
        return [None if piece is None else name for piece in self.pieces]

    @property
    def segment(self) -> list[int | None]:
        return [piece.segment.index if piece and piece.segment else None for piece in self.pieces]

    @property
    def section(self) -> list[str | None]:
        return [piece.section.name if piece and piece.section else None for piece in self.pieces]

    @property
    def region(self) -> list[str | None]:
        return [piece.region if piece else None for piece in self.pieces]

    @property
    def region_class(self) -> list[str]:
        return [piece.region_class if piece else model.NO_CLASS for piece in self.pieces]
