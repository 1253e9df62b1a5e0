"""The kernel in a file: containers are opened by their headers (`containers`), one in the other, to the end.

Data without a known header is searched for kernels, containers and packed data (`search`), as the last resort. How
deep, how often, and how much is unpacked, is bounded for all of a file together.
"""

from __future__ import annotations

import contextlib

from kplug.files.bounded_output import ProgressCallback, TooLargeError, Unpacked, UnpackError, unpacking_limit
from kplug.files.compression import FORMATS, Compression, decompress, decompressed_start, recognise
from kplug.frozen import Frozen, replace
from kplug.image.banner import START as BANNER
from kplug.image.banner import banners_in, parse_banner
from kplug.image.boot import reasons
from kplug.image.boot.containers import CONTAINERS, HEAD_BYTES, container_of, is_packed_file, parts_of
from kplug.image.boot.formats import BadImageError, Container, NoKernelError, Part
from kplug.image.boot.plain import (
    ELF_TYPE_END,
    NO_KERNELS,
    check_whole,
    elf_machine,
    elf_size,
    elf_type,
    image_end,
    image_machine,
    is_certain_image,
    is_elf_kernel,
    is_elf_program,
)
from kplug.image.boot.reasons import Attempt
from kplug.image.boot.search import PLAIN, Place, headerless, places, plain_places
from kplug.image.boot.window import Window

# An Android image, in it a vendor's header, in it a FIT, in it a uImage of a zImage: no real nesting is deeper.
_MOST_CONTAINERS = 6
# Places that are tried, and what is unpacked as a whole without looking like a kernel, in all of a file.
_MOST_TRIES = 200
_MOST_WHOLE = 8
# How many times a byte is looked at, on the average.
_MOST_LOOKS = 8
# Beyond this, what follows a kernel is not searched for another.
_MOST_REST_BYTES = 1 << 26
_CPIO_MAGIC = b"0707"  # of every variant: an initramfs
ELF, FLAT = "ELF", "flat Image"
UNKNOWN = "unknown container"


class Trail(Frozen):
    """The way from the file to some data in it.

    `offset` is where in the file the data begins, as long as nothing was unpacked; `packed` the place in the file of
    what was unpacked first; `found` where the search found the outermost container. `exact`: a header says that a
    kernel begins where the data does.
    """

    offset: int
    found: int = 0
    containers: tuple[str, ...] = ()
    compressions: tuple[str, ...] = ()
    packed: tuple[int, int] | None = None
    machine: str | None = None
    machine_source: str | None = None
    payload_source: str | None = None
    exact: bool = False

    def within(self, container: Container, part: Part) -> Trail:
        by_header = f"the header of the {container.name}"
        return replace(
            self,
            offset=self.offset + part.start,
            containers=(*self.containers, container.name),
            payload_source=by_header,
            exact=part.is_exact,
            machine=part.machine or self.machine,
            machine_source=by_header if part.machine is not None else self.machine_source,
        )

    def at(self, position: int, source: str) -> Trail:
        """The way on to a place that the search found."""
        return replace(
            self,
            offset=self.offset + position,
            found=self.found if self.containers else self.offset + position,
            containers=self.containers or (UNKNOWN,),
            payload_source=f"the search for magics ({source} at {self.offset + position:#x})",
        )

    def unpacked(self, name: str, length: int) -> Trail:
        packed = (self.offset, length) if self.packed is None else self.packed
        return replace(self, offset=0, compressions=(*self.compressions, name), packed=packed, exact=True)


class FoundKernel(Frozen):
    """A kernel, and where in the data that was opened it ends. `name` is its own as a container: vmlinux, Image."""

    payload: Window
    kind: str
    name: str | None
    machine: str | None
    trail: Trail
    end: int
    warnings: tuple[str, ...] = ()

    def choice(self) -> reasons.Choice:
        names = (*(name for name in self.trail.containers if name != UNKNOWN), *self.trail.compressions, self.name)
        banner = next(map(parse_banner, banners_in(self.payload.all())), None)
        return reasons.Choice(names[0] or FLAT, self.trail.found, None if banner is None else banner.release)


class Opener:
    """One file, opened from the outside in. `any_elf`: a packed module or dump is taken like a kernel."""

    def __init__(self, data: bytes, progress: ProgressCallback | None, any_elf: bool = False) -> None:
        self._data = data
        self._any_elf = any_elf
        self._progress = progress
        # All that is unpacked on the way to a kernel has to fit.
        self._most = unpacking_limit(len(data))
        self._left = self._most
        self._looked_at = 0
        self._tries = 0
        self._untried = 0
        self._whole = 0

    def kernel(self, offset: int | None) -> FoundKernel:
        """The kernel from `offset` on: the first one; without an offset, the only one."""
        data, trail = Window(self._data, offset or 0), Trail(offset or 0)
        kernel = self._by_header(data, trail)
        if kernel is None:
            kernels, attempts = self._search(data, trail)
            if not kernels:
                raise BadImageError(reasons.no_kernel((), attempts, self._untried))
            if len(kernels) > 1 and offset is None:
                raise BadImageError(reasons.several([each.choice() for each in kernels]))
            return kernels[0]
        if offset is None:
            return self._with_another(kernel, data)
        return kernel if kernel.trail.containers else replace(kernel, payload=data.part(0, kernel.end))

    def _with_another(self, kernel: FoundKernel, data: Window) -> FoundKernel:
        """The kernel that the file's header names, with a warning if there is another one after it."""
        others: list[FoundKernel] = []
        if kernel.end < len(data):
            with contextlib.suppress(BadImageError):
                others, _ = self._search(data.part(kernel.end, _MOST_REST_BYTES), Trail(kernel.end), thoroughly=False)
        if not others:
            return kernel
        payload = kernel.payload if kernel.trail.containers else kernel.payload.part(0, kernel.end)
        return replace(kernel, payload=payload, warnings=(*kernel.warnings, reasons.another(others[0].choice())))

    # -- by headers ----------------------------------------------------------------------------------------------------

    def _by_header(self, data: Window, trail: Trail) -> FoundKernel | None:
        """The kernel that the header of the data names; None without a known one."""
        machine = image_machine(data)
        if machine is not None:
            check_whole(data)
            return FoundKernel(data, FLAT, "Image", machine, trail, image_end(data))
        other = NO_KERNELS.get(elf_type(data[:ELF_TYPE_END]))
        if other is not None and not self._any_elf:
            raise NoKernelError(f"not a kernel but {other}")
        if is_elf_program(data):
            check_whole(data)
        if other is not None or is_elf_kernel(data):
            return FoundKernel(data, ELF, "vmlinux", elf_machine(data), trail, elf_size(data) or len(data))
        found = container_of(data)
        return None if found is None else self._contained(data, trail, *found)

    def _nested(self, data: Window, trail: Trail) -> FoundKernel:
        """The kernel in what a container holds, or in what was unpacked."""
        kernel = self._by_header(data, trail)
        if kernel is not None:
            return kernel
        if trail.exact and BANNER in data:
            # A vendor's header may precede a kernel with a header of its own; else it is bare machine code, as 32-bit
            # arm and powerpc boot it.
            within = (self._plain(data.part(at), at, trail) for at in plain_places(data))
            return next(filter(None, within), FoundKernel(data, FLAT, None, None, trail, len(data)))
        return self._somewhere(data, trail)

    def _somewhere(self, data: Window, trail: Trail) -> FoundKernel:
        kernels, attempts = self._search(data, trail)
        if not kernels:
            raise NoKernelError(reasons.no_kernel(trail.containers, attempts, self._untried))
        return kernels[0]

    def _contained(self, data: Window, trail: Trail, container: Container, parts: list[Part]) -> FoundKernel:
        if len(trail.containers) >= _MOST_CONTAINERS:
            raise BadImageError(f"containers in it are nested more than {_MOST_CONTAINERS} deep")
        part = parts[0]
        inner, within = data.part(part.start, part.size), trail.within(container, part)
        name = part.compression or (recognise(inner[:16]) if part.is_exact else None)
        end = part.start + part.size
        warnings = () if len(parts) == 1 else (reasons.several_inside(container.name, len(parts)),)
        if not part.is_exact:
            # What begins at the container's own start was recognised as the container already.
            kernel = self._nested(inner, within) if part.start else self._somewhere(inner, within)
        elif name is None and part.is_packed:
            raise BadImageError(f"what its {container.name} header points to is packed in an unknown format")
        elif name is None:
            kernel = self._nested(inner, within)
        else:
            unpacked = self._unpacked(name, inner, part.unpacked_size, container)
            length = part.size
            if is_packed_file(container):
                end = length = unpacked.consumed
                warnings = (*warnings, *_what_follows(name, inner, unpacked))
            kernel = self._nested(Window(unpacked.data), within.unpacked(name, length))
        return replace(kernel, end=end, warnings=tuple(dict.fromkeys((*kernel.warnings, *warnings))))

    def _unpacked(self, name: str, packed: Window, size: int | None, container: Container) -> Unpacked:
        """What is in `packed`, which unpacks to `size` bytes if the container says so."""
        # lzma's magic is only a common choice of its parameters.
        if name != "lzma" and not packed.startswith(FORMATS[name].magics):
            actual = recognise(packed[:16]) or f"not {name}"
            raise BadImageError(f"its {container.name} header says {name}, but the data is {actual}")
        most = unpacking_limit(len(packed))
        if size is not None and size > most:
            raise BadImageError(f"claims to unpack to {size} bytes, from {len(packed)}; no kernel does")
        try:
            unpacked = self._decompress(name, packed, most if size is None else size)
        except TooLargeError as error:
            if size is None:
                raise BadImageError(f"{error}; no kernel of its size does") from None
            raise BadImageError(f"says that it unpacks to {size} bytes, but its {name} data has more") from None
        size = size if size is not None else _appended_size(name, packed, unpacked, container)
        if size is not None and size != len(unpacked.data):
            raise BadImageError(
                f"says that it unpacks to {size} bytes, but its {name} data unpacks to {len(unpacked.data)}"
            )
        return unpacked

    def _decompress(self, name: str, packed: Window, most: int) -> Unpacked:
        """As `decompress`, within what is left of the bytes that may be unpacked."""
        progress, self._progress = self._progress, None
        try:
            unpacked = decompress(name, packed.view(), min(most, max(self._left, 0)), progress)
        except UnpackError as error:
            self._left -= error.unpacked
            raise
        self._left -= len(unpacked.data)
        return unpacked

    # -- by search -----------------------------------------------------------------------------------------------------

    def _search(self, data: Window, trail: Trail, thoroughly: bool = True) -> tuple[list[FoundKernel], list[Attempt]]:
        """The kernels in data without a known header, all those of a file, the first of a container; and what failed.

        `thoroughly`: bare machine code is a kernel too.
        """
        if not self._may_look_at(len(data)):
            raise BadImageError("not searched, since too much in the file may hold a kernel")
        kernels: list[FoundKernel] = []
        attempts: list[Attempt] = []
        bare: list[Place] = []
        end = 0
        for place in places(data):
            if place.position < end:
                continue
            try:
                kernel = self._at(place, data, trail, bare)
            except (BadImageError, UnpackError) as error:
                attempts += reasons.attempt(place, error, trail.offset)
                continue
            if kernel is not None:
                kernels.append(kernel)
                end = kernel.end
                if trail.containers:
                    break
        if kernels or not thoroughly:
            return kernels, attempts
        starts = headerless(data) if BANNER in data else []
        if starts and None not in starts:
            return self._headerless(data, trail, starts), attempts
        # A decompressor may have a banner of its own.
        kernels = self._bare(data, trail, bare, attempts)
        return kernels or self._headerless(data, trail, starts), attempts

    def _may_look_at(self, size: int) -> bool:
        """Whether so many bytes more may be searched, or summed up for a checksum: each byte a few times in all."""
        self._looked_at += size
        return self._looked_at <= _MOST_LOOKS * (len(self._data) + self._most - self._left)

    def _at(self, place: Place, data: Window, trail: Trail, bare: list[Place]) -> FoundKernel | None:
        """The kernel at a place; None if there is none. What unpacks, and may be bare machine code, goes to `bare`."""
        here, what = data.part(place.position), place.what
        if what == PLAIN:
            return self._plain(here, place.position, trail)
        self._tries += 1
        if self._tries > _MOST_TRIES or (isinstance(what, Container) and not self._may_look_at(len(here) // 4)):
            self._untried += 1
            return None
        if isinstance(what, Container):
            parts = parts_of(what, here)
            if parts is None:
                return None
            kernel = self._contained(here, trail.at(place.position, f"{what.name}'s"), what, parts)
            return replace(kernel, end=place.position + kernel.end)
        assert isinstance(what, Compression)
        start = decompressed_start(what.name, here.view(), HEAD_BYTES)
        if start.startswith(_CPIO_MAGIC):
            return None
        window = Window(start)
        if is_elf_program(window) or image_machine(window) or any(each.begins(window) for each in CONTAINERS):
            return self._packed(what.name, here, place.position, trail)
        bare.append(place)
        return None

    def _plain(self, here: Window, position: int, trail: Trail) -> FoundKernel | None:
        if is_certain_image(here):
            image = here.part(0, image_end(here))
            if BANNER in image:
                end = position + len(image)
                return FoundKernel(image, FLAT, "Image", image_machine(here), trail.at(position, "an Image's"), end)
            return None
        size = elf_size(here)
        if size is not None:
            elf = here.part(0, size)
            if is_elf_kernel(elf):
                end = position + len(elf)
                return FoundKernel(elf, ELF, "vmlinux", elf_machine(elf), trail.at(position, "an ELF file's"), end)
        return None

    def _packed(self, name: str, here: Window, position: int, trail: Trail) -> FoundKernel:
        unpacked = self._decompress(name, here, unpacking_limit(len(here)))
        found = trail.at(position, f"{name}'s").unpacked(name, unpacked.consumed)
        kernel = self._nested(Window(unpacked.data), found)
        return replace(kernel, end=position + unpacked.consumed)

    def _headerless(self, data: Window, trail: Trail, starts: list[int | None]) -> list[FoundKernel]:
        if len(starts) > 1 and None in starts:
            raise BadImageError(reasons.several_banners(len(starts)))
        source = "its banner" if starts == [None] else "its banner and kallsyms"
        kernels = []
        for start, end in zip(starts, [*starts[1:], len(data)]):
            position = start or 0
            payload = data.part(position, (end or len(data)) - position)
            found = replace(trail.at(position, ""), payload_source=source)
            kernels.append(FoundKernel(payload, FLAT, None, None, found, end or len(data)))
        return kernels

    def _bare(self, data: Window, trail: Trail, bare: list[Place], attempts: list[Attempt]) -> list[FoundKernel]:
        """Data without a header is recognised by its banner, for which all of it must be unpacked."""
        for number, place in enumerate(bare):
            if self._whole >= _MOST_WHOLE or self._left <= 0:
                self._untried += len(bare) - number
                break
            self._whole += 1
            assert isinstance(place.what, Compression)
            try:
                return [self._packed(place.what.name, data.part(place.position), place.position, trail)]
            except (BadImageError, UnpackError) as error:
                attempts += reasons.attempt(place, error, trail.offset)
        return []


def _appended_size(name: str, packed: Window, unpacked: Unpacked, container: Container) -> int | None:
    """The size that the kernel's own scripts append (Makefile.lib, size_append); None if there is none."""
    if name == "gzip" or container.name == "EFI zboot" or len(packed) - unpacked.consumed != 4:
        return None
    return int.from_bytes(packed[unpacked.consumed :], "little")


def _what_follows(name: str, packed: Window, unpacked: Unpacked) -> tuple[str, ...]:
    rest = len(packed) - unpacked.consumed
    appended = name != "gzip" and rest == 4
    return (f"{rest} bytes follow the {name} data (an appended device tree?)",) if rest and not appended else ()
