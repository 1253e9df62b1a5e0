"""What a log says of its kernel as a whole: release, build, and how far KASLR moved it. One log may have many boots."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from kplug.arch.registers import is_register
from kplug.arch.registry import declared
from kplug.frozen import Frozen, replace
from kplug.image.banner import START, parse_banner
from kplug.log.pieces import Kind, Piece
from kplug.named_tuples import NamedTuple

if TYPE_CHECKING:
    from kplug.image.kernel_image import KernelImage

# kernel/panic.c, dump_kernel_offset() of each architecture.
_OFFSET = re.compile(rb"Kernel Offset: (?:(disabled)|0x([0-9a-f]{1,16}) )")
# lib/dump_stack.c, dump_stack_print_info(): the taint, or that there is none, the release and the build's number.
_BUILD = re.compile(rb"ainted(?:: [ A-Z]{1,64}?)? ([0-9]\S{0,128}) (#\d{1,9}\S{0,64})")
# An address and its symbol, as traces had them before 4.11, and some architectures still have; not that of a module.
_PAIR = re.compile(
    rb"\[<([0-9a-f]{8}|[0-9a-f]{16})>\]\s{1,4}(?:\? )?\(?([A-Za-z_][\w.$]{0,511})\+0x([0-9a-f]{1,8})/0x([0-9a-f]{1,8})"
    rb"(?![\w.$+/]| \[)"
)
_MOST_PAIRS = 8
_REGISTER = re.compile(rb"(?<![\w.])([A-Za-z]{1,3}\d{0,2}) ?: ?(?:[0-9a-f]{4}:)?(?:[0-9a-f]{16}|[0-9a-f]{8})(?!\w)")
_BOOT = START
_MOST_OF_LINE = 512
_SMALLEST_PAGE = 0x1000


class Pair(NamedTuple):
    """A place that a log has twice: its address, and its symbol, how far it is in that, and the symbol's size."""

    address: int
    symbol: str
    offset: int
    size: int


class Boot(Frozen):
    """What is known of a kernel from `start` in the log on, where its first line is: None is what is not. `pairs` are
    places from which its KASLR offset follows, if the log does not state that."""

    start: int = 0
    kaslr_offset: int | None = None
    release: str | None = None
    build: str | None = None
    pairs: tuple[Pair, ...] = ()


def in_boots(data: bytes, before: Boot) -> Iterator[tuple[bytes, Boot]]:
    """Some lines, cut where a kernel boots, and all that is known of the kernel of each part with what it says."""
    start = 0
    while start < len(data):
        end = data.find(_BOOT, data.find(b"\n", start) + 1 or len(data))
        end = len(data) if end < 0 else data.rfind(b"\n", start, end) + 1
        part = data[start:end] if start or end < len(data) else data
        before = _with_facts(part, Boot() if _BOOT in part else before)
        yield part, before
        start = end


def _with_facts(part: bytes, boot: Boot) -> Boot:
    offset = None
    for match in _OFFSET.finditer(part):
        offset = 0 if match.group(1) else int(match.group(2), 16)
    if offset is not None:
        boot = replace(boot, kaslr_offset=offset)
    if boot.kaslr_offset is None and len(boot.pairs) < _MOST_PAIRS:
        found = [*boot.pairs, *map(_pair, islice(_PAIR.finditer(part), _MOST_PAIRS))]
        boot = replace(boot, pairs=tuple(dict.fromkeys(found))[:_MOST_PAIRS])
    if boot.release is None:
        at = part.find(_BOOT)
        banner = parse_banner(part[at : at + _MOST_OF_LINE]) if at >= 0 else None
        named = _BUILD.search(part) if banner is None else None
        if banner is not None:
            version = banner.version.split()[0] if banner.version else None
            boot = replace(boot, release=banner.release, build=version)
        elif named is not None:
            release, build = (each.decode("ascii", "backslashreplace") for each in named.groups())
            boot = replace(boot, release=release, build=build)
    return boot


def _pair(match: re.Match[bytes]) -> Pair:
    address, symbol, offset, size = match.groups()
    return Pair(int(address, 16), symbol.decode("ascii"), int(offset, 16), int(size, 16))


def offset_of_pairs(pairs: Sequence[Pair], image: KernelImage) -> int | None:
    """How far the image was moved, if all pairs that it has say the same; None if that is not known."""
    common: set[int] | None = None
    for pair in pairs:
        offsets = {
            pair.address - pair.offset - symbol.address
            for symbol in image.symbols.exact(pair.symbol)
            if pair.size in (symbol.size, image.index.distance_to_next(symbol.address))
        }
        offsets = {offset for offset in offsets if not offset % _SMALLEST_PAGE}
        if offsets:
            common = offsets if common is None else common & offsets
    return common.pop() if common is not None and len(common) == 1 else None


def machine_in(data: bytes) -> str:
    """The one architecture that has the registers in some lines; "" if there are none, or several have them."""
    names = {match.group(1).decode("ascii") for match in _REGISTER.finditer(data)}
    counts = Counter(
        each.name
        for each in declared()
        for name in names
        if each.registers is not None and is_register(name, each.name)
    )
    (first, most), (_, second) = [*counts.most_common(2), ("", 0), ("", 0)][:2]
    return first if most > second else ""


def boots(log: Iterable[Piece]) -> list[Boot]:
    """The boots in a whole log."""
    found = [Boot()]
    position = 0
    for piece in log:
        if piece.kind is not Kind.LINES:
            position += len(piece.data)
            continue
        for part, boot in in_boots(piece.data, found[-1]):
            if _BOOT in part and position:
                found.append(replace(boot, start=position))
            else:
                found[-1] = replace(boot, start=found[-1].start)
            position += len(part)
    return found


def wrong_build(boot: Boot, image: KernelImage) -> str | None:
    """Why the image is not of the log's kernel; None if it may be."""
    if boot.release is None or image.release is None:
        return None
    if boot.release != image.release:
        return f"the log is of kernel {boot.release}, and {image.path} of {image.release}"
    banner = parse_banner(image.banner) if image.banner is not None else None
    build = banner.version.split()[0] if banner is not None and banner.version else None
    if boot.build is not None and build is not None and boot.build.rstrip(",") != build:
        return f"the log is of build {boot.build} of {boot.release}, and {image.path} of build {build}"
    return None
