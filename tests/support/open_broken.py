"""Run by test_opening_bad.py: open copies of a dump with broken bytes, from kept seeds, and read a little of each.

Arguments: the dump, the first and last byte to break, the first and last seed. Prints each seed before it opens it, so
that a crash names it; what is refused must be refused in one line.
"""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from kplug.errors import KplugError
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Request
from kplug.runtime.session import kernel_of

_VALUES = (
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff" * 7 + b"\x7f",
)
_PLACES = (0xFFFFFFFF81000000, 0xFFFFFFFF8C798480, 0xFFFF888000000000, 0x1000)


def broken(data: bytes, first: int, last: int, seed: int) -> bytes:
    """The data with one to eight places of the range changed."""
    chance, result = random.Random(seed), bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(first, last)
        value = chance.choice(
            [*_VALUES, bytes([chance.randrange(256)]), bytes([result[at] ^ 1 << chance.randrange(8)])]
        )
        result[at : at + len(value)] = value
    return bytes(result)


def complaints(path: str) -> Iterator[str]:
    """What is said of a dump and its memory."""
    try:
        kernel = kernel_of(open_kernel(Request(path)))
    except KplugError as error:
        yield str(error)
        return
    for place in _PLACES:
        try:
            kernel.read(place, 64)
            kernel.read_physical(place & 0xFFFFFF, 64)
        except KplugError as error:
            yield str(error)


def main() -> None:
    dump, (first, last, start, stop) = Path(sys.argv[1]), map(int, sys.argv[2:])
    data, copy = dump.read_bytes(), dump.with_name("broken")
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    for seed in range(start, stop):
        print(seed, flush=True)
        copy.write_bytes(broken(data, first, last, seed))
        said = list(complaints(str(copy)))
        assert not any("\n" in line for line in said), seed


if __name__ == "__main__":
    main()
