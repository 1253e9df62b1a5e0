"""Finds how far KASLR moved a kernel, from the memory of the target that runs it, and verifies it.

A *way* gives candidates; cheap and reliable ways come first. A candidate counts only if the kernel's own banner (and
its build-ID note) are in memory where that offset puts them: a KASLR offset is right, or there is none. The ways are in
`kplug.memory.kaslr_ways`; this module checks the candidates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable

from kplug.arch.types.word import signed
from kplug.errors import InputError, MismatchError, TargetError
from kplug.frozen import Frozen, replace
from kplug.image.kernel_image import KernelImage
from kplug.image.placement import Placement, as_linked, moved_by
from kplug.memory.reading import FaultError, Read, try_read

# The start of a kernel's banner (init/version.c: "Linux version " UTS_RELEASE " (" ...). Every kernel also has the same
# text as a format string, with a % there.
BANNER_PATTERN = re.compile(rb"Linux version \d[\x21-\x7e]* \([\x20-\x7e]*")
_BANNER_LIMIT = 512


class Proof(Frozen):
    """Bytes that are at a link address in one build of one kernel, and in no other."""

    what: str
    address: int
    data: bytes


class Attempt(Frozen):
    """One way that was tried, and its outcome, for `kaslr`."""

    way: str
    outcome: str


class Way(Frozen):
    """One way to candidates. `candidates` reads as little as it can, lazily.

    `sure`: it gives one KASLR offset that may be used without a check (`check off`).
    """

    name: str
    candidates: Callable[[], Iterable[int]]
    sure: bool = False


class Finding(Frozen):
    """The result. `placement` is None if no way led to the kernel; `lasting` is false for a temporary one (early boot),
    which must be sought again at the next question.
    """

    placement: Placement | None
    trail: tuple[Attempt, ...]
    checked: bool = False
    lasting: bool = True
    warnings: tuple[str, ...] = ()


def proofs(image: KernelImage) -> tuple[Proof, ...]:
    """What identifies this build: its build ID, in its notes, and its banner; the most certain first."""
    found: list[Proof] = []
    notes = image.elf.section(".notes")
    build_id = image.build_id
    if notes is not None and notes.allocated and build_id:
        data = image.elf.section_bytes(notes, 1 << 20)
        position = data.find(bytes.fromhex(build_id))
        if position >= 0:
            found.append(Proof("build ID", notes.address + position, bytes.fromhex(build_id)))
    banner = image.banner
    symbol = next(iter(image.symbols.exact("linux_banner")), None)
    address = symbol.address if symbol is not None else image.banner_place[0] if image.banner_place else None
    if banner and address is not None:
        found.append(Proof("banner", address, banner))
    return tuple(found)


class Checker:
    """Compares one kernel's proofs with memory. Made once for an image; used with any reader.

    `known` are the proofs if the image's own file does not have them.
    """

    def __init__(self, image: KernelImage, known: Sequence[Proof] = ()) -> None:
        self.image = image
        self._mask = image.elf.word.mask
        self.proofs = tuple(known) or proofs(image)
        if not self.proofs:
            raise InputError(f"{image.path}: has neither linux_banner nor a build ID to identify the kernel")

    def matches(self, read: Read, kaslr_offset: int) -> bool:
        """Whether the kernel is in memory at that KASLR offset.

        False also if nothing can be read. MismatchError if another build of it is there.
        """
        banner = next((proof for proof in self.proofs if proof.what == "banner"), None)
        if banner is not None and not self._holds(read, kaslr_offset, banner):
            other = self._other_banner(read, banner.address + kaslr_offset & self._mask)
            if other is not None:
                raise self.mismatch(other)
            return False
        build_id = next((proof for proof in self.proofs if proof.what == "build ID"), None)
        if build_id is None:
            return True
        data = try_read(read, build_id.address + kaslr_offset & self._mask, len(build_id.data))
        if data == build_id.data:
            return True
        if banner is None:
            return False
        if data is None:
            return True  # the banner is right; the notes cannot be read
        raise self.mismatch(banner.data, data.hex())

    def still_matches(self, read: Read, kaslr_offset: int) -> bool:
        """`matches` with one read: for a KASLR offset that was right before the target ran."""
        return self._holds(read, kaslr_offset, self.proofs[0])

    def _holds(self, read: Read, kaslr_offset: int, proof: Proof) -> bool:
        return try_read(read, proof.address + kaslr_offset & self._mask, len(proof.data)) == proof.data

    def _other_banner(self, read: Read, address: int) -> bytes | None:
        data = try_read(read, address, _BANNER_LIMIT) or b""
        match = BANNER_PATTERN.match(data)
        return match.group() if match else None

    def mismatch(self, banner: bytes, build_id: str | None = None) -> MismatchError:
        """The error that names both kernels."""
        image = self.image
        ours, theirs = _release(image.banner or b""), _release(banner)
        if ours == theirs:  # they only differ after the release
            ours, theirs = _text(image.banner or b""), _text(banner)
        ours += f" (build ID {image.build_id})" if image.build_id else ""
        theirs += f" (build ID {build_id})" if build_id else ""
        return MismatchError(f"{image.path} is {ours}, but the target runs {theirs}: give the vmlinux of that kernel")


def find_kaslr_offset(
    checker: Checker, read: Read, ways: Sequence[Way], *, check: bool = True, trail: Sequence[Attempt] = ()
) -> Finding:
    """Try the ways in order until one leads to the kernel. With `check` false, the first sure way is used unchecked.

    `trail` is what was tried before. MismatchError if another kernel is found; TargetError if memory as a whole cannot
    be read.
    """
    tried = list(trail)
    rejected: set[int] = set()
    extents, mask = checker.image.extents, checker.image.elf.word.mask
    for way in ways:
        count, failed = 0, None
        try:
            for kaslr_offset in way.candidates():
                kaslr_offset &= mask
                count += 1
                if kaslr_offset in rejected:
                    continue
                if not check and way.sure:
                    tried.append(Attempt(way.name, f"{_signed(kaslr_offset, mask)}, not checked"))
                    placement = moved_by(extents, kaslr_offset, f"{way.name}, not checked")
                    return Finding(placement, tuple(tried), warnings=unchecked(checker, read, kaslr_offset))
                if not _matches(checker, read, kaslr_offset, check):
                    rejected.add(kaslr_offset)
                    continue
                kind = " and ".join(proof.what for proof in reversed(checker.proofs))
                tried.append(Attempt(way.name, f"{_signed(kaslr_offset, mask)}: {kind} found there"))
                return Finding(_placement(checker.image, kaslr_offset, way.name), tuple(tried), checked=True)
        except FaultError as error:
            failed = str(error)
        outcome = failed or ("no candidate" if not count else f"not there ({_counted(count)} tried)")
        tried.append(Attempt(way.name, outcome))
    return Finding(None, tuple(tried))


def unchecked(checker: Checker, read: Read, kaslr_offset: int) -> tuple[str, ...]:
    """Warnings about an offset that was used without a check: none if it is right or there is no memory to compare."""
    try:
        if checker.matches(read, kaslr_offset):
            return ()
        theirs = "the kernel was not found in memory where this KASLR offset puts it"
    except MismatchError as error:
        theirs = str(error)
    except TargetError:
        return ()
    return (f"not checked, and likely to be wrong: {theirs}",)


def _matches(checker: Checker, read: Read, kaslr_offset: int, check: bool) -> bool:
    """`Checker.matches`, without an error for another kernel: the user turned the check off."""
    try:
        return checker.matches(read, kaslr_offset)
    except MismatchError:
        if check:
            raise
        return False


def link_placement(
    image: KernelImage, why: str, warning: str | None = None, trail: Sequence[Attempt] = (), *, lasting: bool = True
) -> Finding:
    """The finding for a kernel whose offset is not known (there is no memory, or it is not in it yet): as linked."""
    placement = as_linked(image.extents, f"as linked; {why}", known=False)
    return Finding(placement, tuple(trail), lasting=lasting, warnings=(warning,) if warning else ())


def with_warning(finding: Finding, warning: str, *, lasting: bool = True) -> Finding:
    """The same finding with warnings; `lasting` false makes it temporary."""
    return replace(finding, lasting=finding.lasting and lasting, warnings=(*finding.warnings, warning))


def find_banners(read: Read, starts: Iterable[int], size: int) -> Iterator[bytes]:
    """The banners of all kernels in the ranges of `size` bytes from `starts`; unmapped ones are skipped."""
    for start in starts:
        data = try_read(read, start, size)
        if data is not None:
            yield from (match.group() for match in BANNER_PATTERN.finditer(data))


def _placement(image: KernelImage, kaslr_offset: int, way: str) -> Placement:
    return moved_by(image.extents, kaslr_offset, way)


def _counted(count: int) -> str:
    return "1 candidate" if count == 1 else f"{count} candidates"


def _signed(kaslr_offset: int, mask: int) -> str:
    return f"{signed(kaslr_offset, mask):+#x}"


def _release(banner: bytes) -> str:
    words = banner.split()
    return _text(words[2]) if len(words) > 2 else "a kernel without a banner"


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")
