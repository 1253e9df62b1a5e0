"""U-Boot's images: the uImage (include/image.h) and the FIT, a device tree (doc/usage/fit)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from kplug.arch import registry
from kplug.files.compression import FORMATS
from kplug.image.boot.formats import BadImageError, Container, Part, inside
from kplug.image.boot.plain import name_of
from kplug.image.boot.window import Window

_UIMAGE_MAGIC = b"\x27\x05\x19\x56"
_UIMAGE_COMPRESSIONS = (None, "gzip", "bzip2", "lzma", "lzo", "lz4", "zstd")
_UIMAGE_KERNELS, _UIMAGE_MULTI = (2, 14), 4


def _uimage(data: Window) -> list[Part] | None:
    """A header of 64 bytes, big-endian, with checksums of itself and of the data."""
    head = data[:64]
    if len(head) < 64:
        raise BadImageError("truncated: it ends within its uImage header")
    header_sum, _, size, _, _, data_sum = data.unpack(">6I", 4)
    machine, kind, compression = head[29:32]
    if zlib.crc32(head[:4] + bytes(4) + head[8:64]) != header_sum:
        raise BadImageError("the checksum of its uImage header is wrong")
    part = inside(Part(64, size, machine=name_of(registry.by_uimage(machine))), data, "uImage")
    if zlib.crc32(data.view()[64 : 64 + size]) != data_sum:
        raise BadImageError("the checksum of the data in its uImage is wrong")
    if kind == _UIMAGE_MULTI:
        part = _first_of_several(data, part)
    elif kind not in _UIMAGE_KERNELS:
        raise BadImageError(f"a uImage of type {kind}, which is not a kernel")
    if compression >= len(_UIMAGE_COMPRESSIONS):
        raise BadImageError(f"its uImage header says compression {compression}, which is not known")
    name = _UIMAGE_COMPRESSIONS[compression]
    return [part._replace(compression=name, is_packed=name is not None)]


def _first_of_several(data: Window, part: Part) -> Part:
    """The kernel is the first of several images; their sizes precede them, terminated by a zero."""
    for count in range(1, 16):
        word = data[60 + 4 * count : 64 + 4 * count]
        if len(word) == 4 and not any(word):
            size = int.from_bytes(data[64:68], "big")
            return part._replace(start=64 + 4 * count, size=size)
    raise BadImageError("its uImage's list of images is not terminated")


_FDT_MAGIC = b"\xd0\x0d\xfe\xed"
_Properties = dict[str, tuple[int, bytes]]


def _fit(data: Window) -> list[Part] | None:
    """A device tree whose /images have the data in a property, or after the tree (`data-offset`).

    The kernel of the default configuration comes first.
    """
    kernels: dict[str, _Properties] = {}
    configurations: dict[str, _Properties] = {}
    for path, properties in _fdt_nodes(data):
        if path[1:2] == ("images",) and len(path) == 3 and _word(properties, "type") in ("kernel", "kernel_noload"):
            kernels[path[2]] = properties
        elif path[1:2] == ("configurations",):
            configurations["" if len(path) == 2 else path[2]] = properties
    if not kernels:
        raise BadImageError("its FIT has no image of type kernel")
    default = _word(configurations.get("", {}), "default")
    booted = _word(configurations.get(default, {}), "kernel")
    return [_fit_part(data, kernels[name]) for name in sorted(kernels, key=lambda name: name != booted)]


def _word(properties: _Properties, name: str) -> str:
    return properties.get(name, (0, b""))[1].rstrip(b"\0").decode("ascii", "backslashreplace")


def _fit_part(data: Window, properties: _Properties) -> Part:
    def number(name: str) -> int | None:
        value = properties.get(name)
        return int.from_bytes(value[1], "big") if value is not None and len(value[1]) == 4 else None

    if "data" in properties:
        start, size = properties["data"][0], len(properties["data"][1])
    else:
        tree_end = int.from_bytes(data[4:8], "big") + 3 & ~3
        offset, position, size = number("data-offset"), number("data-position"), number("data-size") or 0
        start = position if position is not None else tree_end + (offset or 0)
    name, machine = _word(properties, "compression"), name_of(registry.by_fit(_word(properties, "arch")))
    if name in ("", "none"):
        return Part(start, size, machine=machine)
    if name not in FORMATS:
        raise BadImageError(f"its FIT says it is packed with {name!r}, which is not known")
    return Part(start, size, name, machine=machine, is_packed=True)


# Tokens of a flattened device tree (Devicetree Specification, 5.4.1). A FIT has some tens of nodes.
_FDT_BEGIN, _FDT_END_NODE, _FDT_PROPERTY, _FDT_NOP, _FDT_END = 1, 2, 3, 4, 9
_MOST_FDT_TOKENS = 100_000


def _fdt_nodes(data: Window) -> Iterator[tuple[tuple[str, ...], _Properties]]:
    """Each node, when it ends: its path, and the positions and values of its properties."""
    if len(data) < 40:
        raise BadImageError("truncated: it ends within its device tree header")
    total, position, strings = data.unpack(">3I", 4)
    if total > len(data):
        raise BadImageError(f"truncated: its device tree header claims {total} bytes, it has {len(data)}")
    open_nodes: list[tuple[str, _Properties]] = []
    for _ in range(_MOST_FDT_TOKENS):
        token = int.from_bytes(data[position : position + 4], "big") if position + 4 <= total else _FDT_END
        position += 4
        if token == _FDT_BEGIN:
            end = data.find(b"\0", position, total)
            if end < 0 or end - position > 256 or len(open_nodes) > 16:
                break
            open_nodes.append((data[position:end].decode("ascii", "backslashreplace"), {}))
            position = end + 4 & ~3
        elif token == _FDT_PROPERTY and open_nodes and position + 8 <= total:
            size, name_at = data.unpack(">2I", position)
            position += 8
            name_end = data.find(b"\0", strings + name_at, total)
            if position + size > total or not 0 <= name_end - strings - name_at <= 256:
                break
            name = data[strings + name_at : name_end].decode("ascii", "backslashreplace")
            open_nodes[-1][1][name] = (position, data[position : position + size])
            position = position + size + 3 & ~3
        elif token == _FDT_END_NODE and open_nodes:
            yield tuple(name for name, _ in open_nodes), open_nodes.pop()[1]
        elif token == _FDT_END and not open_nodes:
            return
        elif token != _FDT_NOP:
            break
    raise BadImageError("its device tree is broken")


UIMAGE = Container(
    "uImage",
    "U-Boot, include/image.h",
    "by its header; the first of several",
    (_UIMAGE_MAGIC,),
    0,
    _uimage,
)
FIT = Container(
    "FIT",
    "U-Boot, doc/usage/fit; Devicetree Specification, 5",
    "its node of type kernel, that of the default configuration",
    (_FDT_MAGIC,),
    0,
    _fit,
)
