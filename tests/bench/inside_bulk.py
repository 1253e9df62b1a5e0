"""Runs in a Python of its own: Resolver.bulk beside drgn's Program.symbol, as JSON. Microseconds for an address."""

from __future__ import annotations

import contextlib
import json
import sys
import time

from bench.setting import text_addresses

COUNT = 100_000
# drgn takes some milliseconds for one.
DRGN_SAMPLES = 200
ROUNDS = 5


def main(vmlinux: str) -> None:
    import drgn

    from kplug.image.opening.files import open_vmlinux
    from kplug.image.placed import PlacedImage
    from kplug.image.placement import as_linked
    from kplug.resolver import Resolver

    addresses = text_addresses(vmlinux, COUNT, 3)
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    module = program.extra_module("vmlinux", create=True)
    module = module[0] if isinstance(module, tuple) else module
    module.address_range = (0xFFFFFFFF80000000, 0xFFFFFFFFC0000000)
    module.try_file(vmlinux)

    def symbols_of_drgn() -> None:
        for address in addresses[:DRGN_SAMPLES]:
            with contextlib.suppress(LookupError):  # padding has no symbol
                program.symbol(address)

    symbols_of_drgn()
    found: dict[str, list[float]] = {"symbols": [], "others": [], "first": [], "peer": []}
    for _ in range(ROUNDS):
        image = open_vmlinux(vmlinux)
        resolver = Resolver([PlacedImage(image, as_linked(image.sections))])
        begin = time.perf_counter()
        first = resolver.bulk(addresses)
        assert len(first.symbol) == len(first.offset) == COUNT
        found["first"].append(time.perf_counter() - begin)
        # Decoding and sorting are a program's load time, as they are drgn's; then the time is that of an address.
        begin = time.perf_counter()
        columns = resolver.bulk(addresses)
        assert len(columns.symbol) == len(columns.offset) == COUNT
        found["symbols"].append((time.perf_counter() - begin) / COUNT * 1e6)
        begin = time.perf_counter()
        assert len(columns.section) == len(columns.region) == len(columns.region_class) == COUNT
        found["others"].append((time.perf_counter() - begin) / COUNT * 1e6)
        begin = time.perf_counter()
        symbols_of_drgn()
        found["peer"].append((time.perf_counter() - begin) / DRGN_SAMPLES * 1e6)
    print(json.dumps({"count": COUNT, **found}))


if __name__ == "__main__":
    main(sys.argv[1])
