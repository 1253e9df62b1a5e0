"""Areas of an address space, as the kernel's documentation lists them: with their last address."""

from __future__ import annotations

from kplug.space.address_space import AddressSpace


def extent(space: AddressSpace, address: int) -> tuple[str, int, int]:
    area = space.area_at(address)
    return area.name, area.start, area.end - 1
