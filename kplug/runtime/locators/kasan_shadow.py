"""KASAN's shadow memory: what a byte of it stands for."""

from __future__ import annotations

from collections.abc import Iterable

from kplug.kinds import Kind, before_range, register
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.registry import locates
from kplug.runtime.tables.kasan import GRANULE, kasan_of

SOURCE = "mm/kasan/kasan.h"

KIND = register(
    Kind(
        "shadow",
        850,
        {
            "of": "(the first of the bytes that it stands for)",
            "says": "(whether KASAN allows access to that, or why not)",
        },
        words=lambda layer: (before_range(f"{layer.name}  {layer.details['says'] or ''}".rstrip(), layer), False),
        phrase=lambda layer, offset: layer.name,
    )
)


class KasanShadowLocator:
    """The byte of KASAN's shadow at an address."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        kasan = kasan_of(self._kernel)
        first = kasan.shadowed(address) if kasan is not None else None
        if kasan is None or first is None:
            return
        name = f"KASAN shadow of {first:#x}-{first + GRANULE:#x}"
        details = {"of": hex(first), "says": kasan.words(first)}
        yield Layer(KIND.name, name, address, address + 1, SOURCE, details)


locates(KIND, lambda kernel, user: KasanShadowLocator(kernel))
