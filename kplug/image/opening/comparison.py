"""Comparing two sources of one kernel's symbols: the distance between them, and the symbols on which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kplug.arch.types.word import WIDEST_MASK
from kplug.errors import MismatchError
from kplug.frozen import Frozen
from kplug.image.kernel_image import KernelImage
from kplug.image.symbols.symbol_list import SymbolList

# The fraction of common symbols that must be at the same distance; with fewer, it is another kernel.
_LEAST_AGREEMENT = 0.9
_LEAST_COMMON = 16


def symbols_of(image: KernelImage) -> SymbolList:
    """An image's symbols as a list, whatever their source."""
    return image.listed if image.listed is not None else image.symbols.as_list()


class Comparison(Frozen):
    """Two lists of one kernel's symbols: the second one's KASLR offset, and the symbols that are elsewhere.

    `kaslr_offset` is modulo 2**64, None if they have too few names in common. `differing` has the addresses in both.
    """

    kaslr_offset: int | None
    common: int
    differing: Mapping[bytes, tuple[int, int]]

    def turned(self) -> Comparison:
        """The comparison of the second list with the first."""
        kaslr_offset = None if self.kaslr_offset is None else -self.kaslr_offset & WIDEST_MASK
        return Comparison(
            kaslr_offset, self.common, {name: (other, one) for name, (one, other) in self.differing.items()}
        )


def compare(symbols: SymbolList, others: SymbolList) -> Comparison:
    """Compares the symbols whose name is unique in both lists.

    Per-CPU variables that are linked at 0 do not move with the others.
    """
    ours, theirs = _unique(symbols), _unique(others)
    pairs = [(name, address, theirs[name]) for name, address in ours.items() if name in theirs]
    if len(pairs) < _LEAST_COMMON:
        return Comparison(None, len(pairs), {})
    moves = Counter([other - address for _, address, other in pairs])
    kaslr_offset = moves.most_common(1)[0][0]
    differing = {
        name: (address, other)
        for name, address, other in pairs
        if other - address != kaslr_offset and not (other == address and address >> 32 == 0)
    }
    return Comparison(kaslr_offset & WIDEST_MASK, len(pairs), differing)


def _unique(symbols: SymbolList) -> dict[bytes, int]:
    numbers = symbols.numbers
    if len(numbers) == len(symbols.names):
        return dict(zip(symbols.names, symbols.addresses))
    counts = Counter(symbols.names)
    return {name: address for name, address in zip(symbols.names, symbols.addresses) if counts[name] == 1}


def checked(comparison: Comparison, one: str, other: str) -> Comparison:
    """The comparison, if both can be of one kernel. MismatchError names both sources."""
    if comparison.kaslr_offset is None:
        raise MismatchError(f"{one} and {other} have hardly any symbol in common: they are of different kernels")
    agreeing = comparison.common - len(comparison.differing)
    if agreeing < _LEAST_AGREEMENT * comparison.common:
        raise MismatchError(
            f"{one} and {other} are of different kernels: of {comparison.common:,} symbols that both have, "
            f"only {agreeing:,} are at the same distance"
        )
    return comparison


def disputes(comparison: Comparison, other: str) -> dict[str, str]:
    """For the symbols on which the two differ, what `other` has, by name, worded for the answers."""
    kaslr_offset = comparison.kaslr_offset or 0
    return {
        name.decode("utf-8", "backslashreplace"): f"{other} has {name.decode('utf-8', 'backslashreplace')} elsewhere, "
        f"at {theirs:#x} ({ours + kaslr_offset & WIDEST_MASK:#x} by the source used)"
        for name, (ours, theirs) in comparison.differing.items()
    }
