"""Where in data without a known header a kernel may be: the places that begin like one, or like what holds one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from kplug.arch import registry
from kplug.files.compression import FORMATS, Compression
from kplug.image.banner import banners_at
from kplug.image.boot.containers import CONTAINERS, is_packed_file
from kplug.image.boot.formats import Container
from kplug.image.boot.plain import IMAGE_MAGIC_AT
from kplug.image.boot.window import Window
from kplug.image.elf.file import ELF_MAGIC
from kplug.image.kallsyms.finder import find_tables
from kplug.image.kallsyms.symbols import decode
from kplug.image.kallsyms.tables import KallsymsNotFoundError
from kplug.named_tuples import NamedTuple

# A magic of three bytes turns up about four times in 64 MiB of noise; a firmware may have hundreds of packed files. In
# what begins like a plain kernel, a banner is sought.
_MOST_PLACES = 1000
_MOST_PLAIN_PLACES = 64
PLAIN = "kernel"


class Place(NamedTuple):
    """A position that begins like a compression, a container, or a plain kernel (PLAIN)."""

    position: int
    what: Compression | Container | str


def places(data: Window) -> list[Place]:
    """The places, by position. A container at the very start is none of them: it was looked for there already."""
    found: list[Place] = []
    for compression in FORMATS.values():
        found += [Place(at, compression) for magic in compression.magics for at in _positions(data, magic, 0)]
    for container in CONTAINERS:
        if container.searched and not is_packed_file(container):
            positions = (at for magic in container.magic for at in _positions(data, magic, container.magic_at))
            found += [Place(at, container) for at in positions if at]
    found += [Place(at, PLAIN) for at in plain_places(data)]
    return sorted(found, key=lambda place: place.position)


def plain_places(data: Window) -> list[int]:
    """Where there is the magic of a kernel that has a header."""
    images = (architecture.names.flat_image for architecture in registry.declared())
    magics = [(magic, IMAGE_MAGIC_AT) for magic in images if magic is not None] + [(ELF_MAGIC, 0)]
    return sorted(at for each in magics for at in islice(_positions(data, *each), _MOST_PLAIN_PLACES))


def _positions(data: Window, magic: bytes, magic_at: int) -> Iterator[int]:
    position = data.find(magic, magic_at)
    for _ in range(_MOST_PLACES):
        if position < 0:
            return
        yield position - magic_at
        position = data.find(magic, position + 1)


def headerless(data: Window) -> list[int | None]:
    """Where each kernel without any header begins, which its banner and its own kallsyms tell together.

    None stands for one whose banner is there, and whose start is not known.
    """
    content = data.all()
    banners = list({line: position for position, line in reversed(list(banners_at(content)))}.items())
    banners.sort(key=lambda each: each[1])
    starts: list[int | None] = []
    for number, (_, position) in enumerate(banners):
        end = banners[number + 1][1] if number + 1 < len(banners) else len(content)
        starts.append(_start_of(content[:end] if end < len(content) else content, position))
    located = [start for start in starts if start is not None]
    return [*located] or starts


def _start_of(content: bytes, banner: int) -> int | None:
    try:
        symbols = decode(content, find_tables(content, start=banner))
    except KallsymsNotFoundError:
        return None
    start, address = symbols.address("_text"), symbols.address("linux_banner")
    if start is None or address is None:
        return None
    position = banner - (address - start)
    return position if position >= 0 else None
