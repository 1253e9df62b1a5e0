"""Puts kplug's answers beside the oracle's and collects what differs."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from kplug import model
from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement, as_linked, moved_by
from kplug.model import Annotation, Layer
from kplug.resolver import Resolver
from support.oracle.rules import MASK, Answer, Group, Oracle, Piece
from support.sampling import SHARE, SHARE_OF_WHOLE_ANSWERS, Sampling

RANDOM_ADDRESSES = 100_000
SEED = 20_24
KASLR_OFFSET = 0x8A00000


class Move(NamedTuple):
    """How the kernel was moved: by `kaslr_offset`, but for the link addresses below `unmoved`. `mask`: of its words."""

    kaslr_offset: int
    unmoved: int
    mask: int = MASK

    def runtime(self, link_address: int) -> int:
        if link_address < self.unmoved:
            return link_address
        return link_address + self.kaslr_offset & self.mask


class Differences:
    """What differed: all counted by what it was, the first few of each kept, in words."""

    KEPT = 6

    def __init__(self, asked: int) -> None:
        self.asked = asked
        self.counts: Counter[str] = Counter()
        self.kept: list[str] = []

    @property
    def different(self) -> int:
        return sum(self.counts.values())

    def add(self, what: str, address: int, expected: object, got: object) -> None:
        self.counts[what] += 1
        if self.counts[what] <= self.KEPT:
            self.kept.append(f"{what} at {address:#x}:\n    expected {_in_hex(expected)}\n    got      {_in_hex(got)}")

    def check(self) -> None:
        """Fail if there was any."""
        assert not self.counts, f"{dict(self.counts)}\n" + "\n".join(self.kept)


class Subject:
    """One kernel, seen by both."""

    def __init__(self, path: str, random_addresses: int = RANDOM_ADDRESSES, least: Callable[[int], int] = int) -> None:
        self.path = path
        self.least = least  # of what a kernel has many, so many of this one
        self._random_addresses = random_addresses
        self.elf = ElfFile(path)
        self.image = KernelImage(self.elf)
        tree = self.image.regions
        self.conventions = [
            (region.name, region.start_symbol or "", region.end_symbol or "")
            for region in (*tree.regions, *tree.empty)
            if "convention" in region.source
        ]
        self.oracle = Oracle(path, self.elf.machine, self.conventions)
        self.percpu_end = next(
            (row.size for row in self.oracle.section_rows if row.name == ".data..percpu" and row.address == 0), 0
        )
        self.near_bounds, self.addresses = self._addresses()
        self._wide: dict[tuple[int, int], tuple[object, ...]] = {}

    def _addresses(self) -> tuple[list[int], list[int]]:
        """The link addresses to ask: those at bounds, and all of them; sorted."""
        oracle = self.oracle
        bounds = {bound + step & MASK for bound in oracle.bounds() for step in (-1, 0, 1)}
        found = set(bounds)
        for row in oracle.symbol_rows:
            if row.section != "UND" and row.type not in ("FILE", "SECTION"):
                found.update((row.value, row.value + 1 & MASK))
                found.update((row.value + row.size - 1 & MASK, row.value + row.size & MASK))
        choose = random.Random(SEED)
        low, high = oracle.image
        # Around the image too; and as many in the per-CPU section as its share of the bytes.
        ranges = [(max(low - (1 << 22), 0), high + (1 << 23)), (0, 2 * self.percpu_end + 1)]
        weights = [end - start for start, end in ranges]
        for start, end in choose.choices(ranges, weights, k=self._random_addresses):
            found.add(choose.randrange(start, end))
        return sorted(bounds), sorted(found)

    # -- placement -----------------------------------------------------------------------------------------------------

    def moved(self, kaslr_offset: int) -> tuple[Move, Resolver]:
        """The kernel in its place, for both."""
        sections = self.image.sections
        placement: Placement = moved_by(sections, kaslr_offset, "test") if kaslr_offset else as_linked(sections)
        return Move(kaslr_offset, self.percpu_end, self.elf.word.mask), Resolver([PlacedImage(self.image, placement)])

    def asked(self, move: Move, links: Sequence[int]) -> list[int]:
        """The link addresses whose runtime address means them alone: none that is moved into the per-CPU area."""
        return [link for link in links if link < move.unmoved or move.runtime(link) >= move.unmoved]

    def _sampled(self, sampling: Sampling, share: int = SHARE) -> list[int]:
        return sorted({*self.near_bounds, *sampling.of(self.addresses, share)})

    # -- bulk ----------------------------------------------------------------------------------------------------------

    def compare_bulk(self, kaslr_offset: int, sampling: Sampling) -> Differences:
        """All bounds and a sample of the other addresses through `Resolver.bulk`."""
        move, resolver = self.moved(kaslr_offset)
        links = self.asked(move, self._sampled(sampling))
        runtime = [move.runtime(link) for link in links]
        columns = resolver.bulk(runtime)
        assert columns.address == runtime
        differences = Differences(len(links))
        names = {row.number: row.name for row in self.oracle.section_rows}
        for number, (link, answer) in enumerate(zip(links, self.oracle.answers(links))):
            piece = answer.piece
            holder = answer.symbols[-1] if answer.symbols else answer.marker
            expected = (
                link if claims(piece) else None,
                self.image.name if claims(piece) else None,
                piece.segments[0] if piece.segments else None,
                names[piece.sections[-1]] if piece.sections else None,
                piece.regions[-1].name if piece.regions else None,
                piece.region_class,
                holder.chosen.name if holder else None,
                link - holder.start if holder else None,
            )
            got = (
                columns.link_address[number],
                columns.image[number],
                columns.segment[number],
                columns.section[number],
                columns.region[number],
                columns.region_class[number],
                columns.symbol[number],
                columns.offset[number],
            )
            if got != expected:
                differences.add("link, image, segment, section, region, class, symbol, offset", link, expected, got)
        return differences

    # -- where ---------------------------------------------------------------------------------------------------------

    def compare_where(self, kaslr_offset: int, sampling: Sampling) -> Differences:
        """All bounds and a sample of the other addresses through `Resolver.where`."""
        move, resolver = self.moved(kaslr_offset)
        links = self.asked(move, self._sampled(sampling, SHARE_OF_WHOLE_ANSWERS))
        differences = Differences(len(links))
        self._wide.clear()
        for link, answer in zip(links, self.oracle.answers(links)):
            annotation = resolver.where(move.runtime(link))
            for what, expected, got in self._where(link, answer, annotation, move):
                if expected != got:
                    differences.add(what, link, expected, got)
        return differences

    def _where(
        self, link: int, answer: Answer, annotation: Annotation, move: Move
    ) -> Iterator[tuple[str, object, object]]:
        piece = answer.piece
        by_kind: dict[str, list[Layer]] = {}
        for layer in annotation.layers:
            by_kind.setdefault(layer.kind, []).append(layer)
        yield "class", piece.region_class, annotation.region_class
        yield "link address", link if claims(piece) else None, annotation.link_address
        key = (id(piece), move.kaslr_offset)
        wide = self._wide.get(key)
        if wide is None:
            wide = self._wide[key] = tuple(self._expected_wide(piece, move))
        got_regions = [(layer.name, layer.start, layer.end) for layer in by_kind.get(model.REGION, ())]
        got_wide = (
            [layer.details["index"] for layer in by_kind.get(model.SEGMENT, ())],
            [(layer.name, layer.start, layer.end) for layer in by_kind.get(model.SECTION, ())],
            [(layer.start, layer.end) for layer in by_kind.get(model.IMAGE, ())],
            [end - start for _, start, end in got_regions if start is not None and end is not None],
            sorted(got_regions),  # which of two equal ones is the inner is a matter of taste
        )
        yield "segments, sections, image, regions", wide, got_wide
        gaps = by_kind.get(model.GAP, [])
        region_gaps = [layer for layer in gaps if layer.name.find(" .. ") >= 0]
        symbol_gaps = [layer for layer in gaps if layer.name.find(" .. ") < 0]
        yield "region gap", *self._region_gap(piece, region_gaps, move)
        yield "symbols", *self._symbols(answer, by_kind.get(model.SYMBOL, []), move)
        yield "symbol gap", *self._symbol_gap(answer, symbol_gaps, move)

    def _expected_wide(self, piece: Piece, move: Move) -> Iterable[object]:
        rows = self.oracle.section_rows
        yield list(piece.segments)
        sections = []
        for index in piece.sections:
            start = move.runtime(rows[index].address)
            sections.append((rows[index].name, start, start + rows[index].size))
        yield sections
        image: tuple[int | None, int | None] = (None, None)
        if piece.in_image:
            image = (move.runtime(self.oracle.image[0]), move.runtime(self.oracle.image[1]))
        yield [image] if claims(piece) else []
        yield [region.end - region.start for region in piece.regions]
        regions = []
        for region in piece.regions:
            start = move.runtime(region.start)
            regions.append((region.name, start, start + region.end - region.start))
        yield sorted(regions)

    def _region_gap(self, piece: Piece, layers: list[Layer], move: Move) -> tuple[object, object]:
        got = [(layer.start, layer.end) for layer in layers]
        if piece.region_gap is None:
            return [], got
        start, end, after, before = piece.region_gap
        expected = [(move.runtime(start), move.runtime(start) + end - start)]
        if got == expected and (layers[0].details["after"] not in after or layers[0].details["before"] not in before):
            return (sorted(after), sorted(before)), (layers[0].details["after"], layers[0].details["before"])
        return expected, got

    def _symbols(self, answer: Answer, layers: list[Layer], move: Move) -> tuple[object, object]:
        holders: Sequence[Group] = answer.symbols
        if not holders and answer.marker is not None:
            holders = (answer.marker,)
        expected: list[Any] = []
        for group in holders:
            row, start = group.chosen, move.runtime(group.start)
            end, letter = start + group.end - group.start, self.oracle.letter(row)
            expected.append((row.name, start, end, letter, row.binding, row.size or None))
            expected.append((group.sizeless, list(group.others)))
        got: list[Any] = []
        for layer in layers:
            detail = layer.details
            got.append((layer.name, layer.start, layer.end, detail["type"], detail["binding"], detail["size"]))
            got.append((detail["sizeless"], sorted(detail["aliases"])))
        return expected, got

    def _symbol_gap(self, answer: Answer, layers: list[Layer], move: Move) -> tuple[object, object]:
        got = [(layer.start, layer.end) for layer in layers]
        gap = answer.gap
        if gap is None:
            return [], got
        expected = [(move.runtime(gap.start), move.runtime(gap.start) + gap.end - gap.start)]
        if got == expected and (
            layers[0].details["after"] not in gap.after or layers[0].details["before"] not in gap.before
        ):
            return (sorted(gap.after), sorted(gap.before)), (layers[0].details["after"], layers[0].details["before"])
        return expected, got


def _in_hex(value: object) -> str:
    """As repr, but for addresses, which are for people to read."""
    return re.sub(r"\b\d{6,}\b", lambda found: hex(int(found[0])), repr(value))


def claims(piece: Piece) -> bool:
    """Whether anything of the image is there."""
    return bool(piece.segments or piece.sections or piece.regions or piece.in_image)
