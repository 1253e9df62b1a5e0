"""Static per-CPU variables: from an address in a CPU's area to the variable, and from the variable to a CPU's instance.

This needs only symbols and three small reads of memory, so it works in any debugger. include/asm-generic/percpu.h: a
CPU's instance of a variable is at the variable's own address plus __per_cpu_offset[cpu], whether the per-CPU section is
linked at 0 (x86_64 up to 6.14) or at ordinary addresses.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol

from kplug import model
from kplug.arch.types.word import WordFormat
from kplug.errors import ExpressionError, TargetError
from kplug.expressions import parse_number
from kplug.frozen import replace
from kplug.image.elf.sections import PERCPU_SECTION
from kplug.image.placed import PlacedImage
from kplug.kinds import Kind, Role, before_range, register
from kplug.lifetimes import UNTIL_RESUMED, Memo, remembered
from kplug.memory.reading import Read
from kplug.model import Layer
from kplug.named_tuples import NamedTuple

STATIC, MODULE, DYNAMIC = "static", "module", "dynamic"
SOURCE = "__per_cpu_offset in memory"
# NR_CPUS has been at most 8192 on every architecture (x86 with MAXSMP); a larger number is invalid.
_MOST_CPUS = 1 << 16

# What follows a name for one CPU, or for all: runqueues@1, runqueues@1+0x10, runqueues@*.
_INSTANCE = re.compile(
    r"(?P<name>[^@]+)@\s*(?P<cpu>[0-9]{1,9}|\*|all)(?:\s*(?P<sign>[+-])\s*(?P<offset>0[xX][0-9a-fA-F]+|[0-9]+))?"
)


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = f"{layer.name}  {details.get('kind') or ''}".rstrip()
    if details.get("variable"):
        words += f"  {details['variable']}"
    return before_range(words, layer), True


def _phrase(layer: Layer, offset: int) -> str:
    """Per-CPU memory that is not a variable."""
    allocated = layer.details.get("allocated")
    if allocated is None:
        return f"per-CPU {layer.details.get('kind') or ''} memory+{offset:#x}"
    return f"{'per-CPU allocation' if allocated else 'free per-CPU memory'}+{offset:#x}"


KIND = register(
    Kind(
        model.PERCPU,
        1200,
        {
            "variable": "",
            "cpu": "",
            "kind": "(`static`, `module`, `dynamic`)",
            "offset": "",
            "chunk": "(in a chunk of the allocator)",
            "pointer": "(the `__percpu` pointer)",
            "allocated": "",
            "populated": "",
        },
        "the first such layer is the CPU's part, a second one the allocation",
        words=_words,
        role=Role.INSTANCE,
        phrase=_phrase,
        implies=model.PERCPU_CLASS,
        object_type=lambda layer: "" if layer.name == "allocation" else None,
    )
)


class NoAreasError(TargetError):
    """There are no per-CPU areas: not in this kernel, or not yet."""


class Wanted(NamedTuple):
    """`NAME@CPU+OFFSET`, taken apart; the CPU is None for all of them."""

    name: str
    cpu: int | None
    offset: int = 0


def wanted_instance(text: str) -> Wanted | None:
    """`text` parsed, if it has the form NAME@CPU, else None. ExpressionError for an offset beyond 64 bits."""
    match = _INSTANCE.fullmatch(text.strip())
    if match is None:
        return None
    cpu = match.group("cpu")
    offset = parse_number(match.group("offset") or "0") or 0
    return Wanted(
        match.group("name").strip(),
        int(cpu) if cpu.isdigit() else None,
        -offset if match.group("sign") == "-" else offset,
    )


class Instances(Protocol):
    """Something that can find each CPU's own copy of something."""

    def instances(self, address: int, cpu: int | None) -> Sequence[int]:
        """The runtime addresses of a CPU's copy (of all CPUs' if None) of what has the per-CPU address `address`.

        There are none if nothing per-CPU has that address. ExpressionError if there is no such CPU; TargetError if
        memory cannot be read.
        """


class Areas(NamedTuple):
    """The static per-CPU areas of a kernel: the runtime addresses of the template, and each CPU's distance from it."""

    template: range
    offsets: dict[int, int]

    def distances(self, cpu: int | None) -> list[int]:
        """The distance of one CPU's area from the template, or of all. ExpressionError if there is no such CPU."""
        if cpu is None:
            return list(self.offsets.values())
        if cpu not in self.offsets:
            raise ExpressionError(f"CPU {cpu}: this kernel has {cpus_words(self.offsets)}")
        return [self.offsets[cpu]]


def cpus_words(cpus: Iterable[int]) -> str:
    """CPU numbers as ranges: `CPUs 0-1`, `CPUs 0-3,8`, `CPU 0`."""
    numbers = sorted(cpus)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    listed = ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)
    return f"CPU{'s' if len(numbers) > 1 else ''} {listed}"


def template(placed: PlacedImage) -> range | None:
    """The runtime addresses of the per-CPU section's variables; None if there are none (no SMP, no symbols)."""
    symbols = placed.image.symbols
    ends = [symbols.exact(name) for name in ("__per_cpu_start", "__per_cpu_end")]
    if not all(ends):
        return None
    # Not by `symbol_address`: an end that is linked just past a section at 0 does not move with the image either.
    start, end = ends[0][0].address, ends[1][0].address
    if end <= start:
        return None
    first = placed.placement.runtime(start)
    return range(first, first + end - start)


def read_areas(placed: PlacedImage, read: Read) -> Areas:
    """Each possible CPU's static area, from memory: three small reads.

    TargetError, worded for the user, if memory or the image does not have them.
    """
    bounds = template(placed)
    array = placed.image.symbols.exact("__per_cpu_offset")
    mask = placed.image.symbols.exact("__cpu_possible_mask")
    if bounds is None or not array or not mask:
        raise NoAreasError("per-CPU areas: the vmlinux has no symbols of any")
    word = placed.image.elf.word

    def words(address: int, count: int) -> Sequence[int]:
        return word.numbers(read(address, count * word.size))

    try:
        limit = _cpu_limit(placed, read, word, array[0].size // word.size or _MOST_CPUS)
        bits = words(placed.symbol_address(mask[0]), -(-limit // word.bits))
        cpus = [cpu for cpu in range(limit) if bits[cpu // word.bits] >> cpu % word.bits & 1]
        distances = words(placed.symbol_address(array[0]), cpus[-1] + 1) if cpus else []
    except TargetError as error:
        raise TargetError(f"per-CPU areas: {error}") from None
    areas = Areas(bounds, {cpu: distances[cpu] for cpu in cpus})
    _check_set_up(areas, placed)
    return areas


def _cpu_limit(placed: PlacedImage, read: Read, word: WordFormat, most: int) -> int:
    """nr_cpu_ids; a kernel built with FORCE_NR_CPUS (6.1) has a constant in its place, the size of its arrays."""
    most = min(most, _MOST_CPUS)
    symbol = placed.image.symbols.exact("nr_cpu_ids")
    if not symbol:
        return most
    limit = word.unsigned(read(placed.symbol_address(symbol[0]), 4), 0, 4)
    if not 0 < limit <= most:
        raise TargetError(f"nr_cpu_ids is {limit}, and at most {most} can be")
    return limit


def _check_set_up(areas: Areas, placed: PlacedImage) -> None:
    """NoAreasError while the areas overlap each other or the image, as they do early in boot."""
    starts = sorted(areas.template.start + offset & placed.placement.mask for offset in areas.offsets.values())
    apart = all(after - before >= len(areas.template) for before, after in zip(starts, starts[1:]))
    if not starts or not apart or any(placed.piece(start) is not None for start in starts):
        raise NoAreasError("the per-CPU areas are not set up yet")


class StaticPercpu:
    """The static per-CPU variables of one kernel: a locator, and `Instances`.

    `read` and `memo` are a Target's. Nothing is read before a question needs it: addresses in the image, and values
    that cannot be kernel addresses, do not.
    """

    def __init__(self, placed: PlacedImage, read: Read, memo: Memo) -> None:
        self.placed = placed
        self._read = read
        self.memo = memo

    @property
    def areas(self) -> Areas:
        """The CPUs' areas, read once while the target stands still. TargetError if they cannot be read."""
        known = self._outcome()
        if isinstance(known, TargetError):
            raise type(known)(str(known))
        return known

    @remembered(UNTIL_RESUMED)
    def _outcome(self) -> Areas | TargetError:
        try:
            return read_areas(self.placed, self._read)
        except TargetError as error:
            return error

    @remembered(UNTIL_RESUMED)
    def _sorted(self) -> tuple[list[int], list[int]]:
        """The starts of the areas, sorted, and the CPU of each."""
        areas, mask = self.areas, self.placed.placement.mask
        ordered = sorted((areas.template.start + offset & mask, cpu) for cpu, offset in areas.offsets.items())
        return [start for start, _ in ordered], [cpu for _, cpu in ordered]

    def cpu_at(self, address: int) -> tuple[int, int] | None:
        """The CPU whose static area holds a runtime address, and the area's distance from the template; else None."""
        areas = self.areas
        starts, cpus = self._sorted()
        position = bisect_right(starts, address) - 1
        if position < 0 or address - starts[position] >= len(areas.template):
            return None
        return cpus[position], areas.offsets[cpus[position]]

    def locate(self, address: int) -> Sequence[Layer]:
        """The CPU and the variable of an address in a CPU's static area."""
        if not may_be_instance(self.placed, address):
            return ()
        try:
            held = self.cpu_at(address)
        except NoAreasError:
            return ()
        return () if held is None else self.layers(address, *held)

    def layers(self, address: int, cpu: int, distance: int) -> Sequence[Layer]:
        """The layers of an address in the static area of that CPU, which is `distance` after the template."""
        start = address - distance & self.placed.placement.mask  # the variable's own address
        found = shifted_symbols(self.placed, start, address - start)
        first = self.areas.template.start
        details = {
            "variable": next((layer.name for layer in found if layer.kind == model.SYMBOL), None),
            "cpu": cpu,
            "kind": STATIC,
            "offset": hex(start - first),
        }
        begin = address - (start - first)
        return (Layer(model.PERCPU, f"CPU {cpu}", begin, begin + len(self.areas.template), SOURCE, details), *found)

    def instances(self, address: int, cpu: int | None) -> Sequence[int]:
        """See `Instances`; `address` is a variable's own, as the symbol table has it (moved by the KASLR offset)."""
        areas = self.areas
        if address not in areas.template:
            return ()
        mask = self.placed.placement.mask
        return [address + distance & mask for distance in areas.distances(cpu)]


def may_be_instance(placed: PlacedImage, address: int) -> bool:
    """Whether memory must be read for that address: not for one in the image or in user space."""
    return placed.image.elf.word.is_kernel(address) and placed.piece(address) is None


def shifted_symbols(placed: PlacedImage, address: int, distance: int) -> tuple[Layer, ...]:
    """The symbols (or the gap) of an image's per-CPU section at the address, moved by `distance` bytes to a CPU's
    copy."""
    link_address = placed.placement.link(address)
    section = next((s for s in placed.image.sections if s.name == PERCPU_SECTION and s.size), None)
    layers = placed.symbol_layers(link_address, section)
    return tuple(replace(layer, start=_plus(layer.start, distance), end=_plus(layer.end, distance)) for layer in layers)


def _plus(address: int | None, distance: int) -> int | None:
    return None if address is None else address + distance
