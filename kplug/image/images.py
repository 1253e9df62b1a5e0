"""The images of one kernel, and which of them holds an address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from kplug.image.placed import Piece, PlacedImage


class Images(Sequence["PlacedImage"]):
    """The images of one kernel in their places: the vmlinux first, if there is one, then modules.

    Most questions need few of a running kernel's modules. `LazyImages` makes them when they are asked for.
    """

    def __init__(self, images: Sequence[PlacedImage] = ()) -> None:
        self._images = tuple(images)

    @overload
    def __getitem__(self, index: int) -> PlacedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PlacedImage]: ...
    def __getitem__(self, index: int | slice) -> PlacedImage | Sequence[PlacedImage]:
        return self._images[index]

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def main(self) -> PlacedImage | None:
        """The vmlinux, or None."""
        return next((placed for placed in self._images if not placed.image.is_module), None)

    @property
    def given(self) -> Sequence[PlacedImage]:
        """The images that the user gave, without the other modules that the kernel has loaded."""
        return self._images

    def holding(self, address: int) -> tuple[PlacedImage, Piece] | None:
        """The image that holds a runtime address, and the piece of it; None if none does."""
        for placed in self._images:
            piece = placed.piece(address)
            if piece is not None:
                return placed, piece
        return None

    def named(self, name: str) -> PlacedImage | None:
        """The module of that name, or None."""
        return next((placed for placed in self if placed.image.is_module and placed.image.name == name), None)

    def candidates_for_symbol(self, name: str) -> Sequence[PlacedImage]:
        """The images that may define a symbol of that name: all that do, and perhaps others."""
        return self._images

    def candidates_for_source_name(self, name: str) -> Sequence[PlacedImage]:
        """The images that may define a symbol which has that name in its source, but not in the symbol table."""
        return self._images

    def candidates_for_addresses(self, addresses: Iterable[int]) -> Sequence[PlacedImage]:
        """The images that may hold any of the runtime addresses: all that do, and perhaps others."""
        return self._images


def as_images(images: Sequence[PlacedImage]) -> Images:
    """Images of one kernel, from a plain list of them."""
    return images if isinstance(images, Images) else Images(images)


class LazyImages(Images):
    """The images of a kernel with more than the given ones. A subclass's `__iter__` makes them all, `__len__` none."""

    @overload
    def __getitem__(self, index: int) -> PlacedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PlacedImage]: ...
    def __getitem__(self, index: int | slice) -> PlacedImage | Sequence[PlacedImage]:
        if isinstance(index, int) and 0 <= index < len(self._images):
            return self._images[index]
        return tuple(self)[index]
