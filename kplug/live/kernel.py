"""The running kernel as an image in its place, from the best files that the machine has; and what was used for it.

A file counts as the running kernel's if it has the same build ID, or if the addresses in /proc/kallsyms fit it. The
release in its name alone proves nothing; if there is nothing better, a warning says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kplug.arch import registry
from kplug.errors import InputError
from kplug.frozen import Frozen
from kplug.image.images import Images
from kplug.image.kernel_image import Build, KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement, as_it_runs, as_linked, moved_by
from kplug.image.symbols.listings import KallsymsListing, hidden_words
from kplug.live import running_kaslr_offset
from kplug.live.machine import Machine
from kplug.named_tuples import NamedTuple

_RUNNING = "running kernel, /proc/kallsyms"


_LETTERS = {"_etext": "T", "_edata": "D", "_sdata": "D", "__bss_start": "B", "__bss_stop": "B", "_end": "B"}


class LiveKernel(Frozen):
    """The running kernel: its image in its place, or None if nothing gives one, and the loaded modules.

    `used` has one line for each source that was used, `unused` one for each that was not, with the reason. `warnings`
    go with every answer.
    """

    main: PlacedImage | None
    images: Images
    used: Sequence[str]
    unused: Sequence[str]
    warnings: Sequence[str]


class _Notes(NamedTuple):
    """What there is to say of the sources that were looked at, as far as they were."""

    used: list[str]
    unused: list[str]
    warnings: list[str]


def open_live(machine: Machine) -> LiveKernel:
    """The kernel that runs on the machine. Raises nothing: broken files are skipped and listed in `unused`."""
    from kplug.live.modules import LiveImages

    notes = _Notes([], [], [])
    main = _main(machine, notes)
    return LiveKernel(main, LiveImages(machine, main), *notes)


def _main(machine: Machine, found: _Notes) -> PlacedImage | None:
    for way in (_from_vmlinux, _from_boot_image, _from_system_map, _from_kallsyms):
        try:
            main = way(machine, found)
        except InputError as error:
            found.unused.append(str(error))
            continue
        if main is not None:
            return main
    return None


def shown_listing(machine: Machine) -> KallsymsListing | None:
    """/proc/kallsyms, if it is there and shows addresses."""
    listing = machine.kallsyms
    return listing if listing is not None and not listing.hidden else None


def why_hidden(machine: Machine) -> str:
    """Why /proc/kallsyms shows no addresses."""
    if machine.kallsyms is None:
        return f"{machine.path('/proc/kallsyms')} is not there, or cannot be read"
    return f"{machine.path('/proc/kallsyms')}: {hidden_words()}"


# -- a vmlinux ---------------------------------------------------------------------------------------------------------


def _from_vmlinux(machine: Machine, found: _Notes) -> PlacedImage | None:
    from kplug.image.opening.kernel_files import open_kernel

    for image in _of_this_kernel(machine, machine.vmlinux_files, open_kernel, found):
        kaslr_offset = running_kaslr_offset(image, machine.root + "/")
        found.used.append(f"sections, segments, symbols: {image.path}")
        if kaslr_offset is None and shown_listing(machine) is not None:
            # If one side has no build ID, the symbols themselves must agree.
            kaslr_offset = _checked_kaslr_offset(image, machine, found)
            if kaslr_offset is None:
                found.used.pop()
                continue
        return _placed(image, kaslr_offset, machine, found)
    return None


def _of_this_kernel(
    machine: Machine, paths: Iterable[str], opener: Callable[[str], KernelImage], found: _Notes
) -> Iterator[KernelImage]:
    """The files that are not known to be another kernel's. Reports why others are not used."""
    for path in paths:
        try:
            image = opener(path)
            build_id = image.build_id
        except InputError as error:
            found.unused.append(str(error))
            continue
        if build_id is not None and machine.build_id is not None and build_id != machine.build_id:
            found.unused.append(
                f"{path}: another kernel's file: its build ID is {build_id}, the running kernel's is {machine.build_id}"
            )
            continue
        yield image


def _placed(image: KernelImage, kaslr_offset: int | None, machine: Machine, found: _Notes) -> PlacedImage:
    """The image where it runs; as linked, with a warning, if that is not known."""
    if kaslr_offset is not None:
        found.used.append(f"place in memory: {machine.path('/proc/kallsyms')}")
        return PlacedImage(image, moved_by(image.extents, kaslr_offset, _RUNNING))
    found.warnings.append(f"where the kernel is in memory is not known: {why_hidden(machine)}; addresses are as linked")
    if image.build_id is None or machine.build_id is None:
        found.warnings.append(f"{image.path} is assumed to be the running kernel's by its name only")
    return PlacedImage(image, as_linked(image.extents, "as linked; no KASLR offset is known", known=False))


def _checked_kaslr_offset(image: KernelImage, machine: Machine, found: _Notes) -> int | None:
    """The running kernel's KASLR offset, if nearly all symbols of the image agree with it."""
    from kplug.image.opening.comparison import checked, compare, symbols_of

    listing = shown_listing(machine)
    assert listing is not None
    try:
        return checked(compare(symbols_of(image), listing.kernel), image.path, listing.path).kaslr_offset
    except InputError as error:
        found.unused.append(str(error))
        return None


# -- what is in /boot --------------------------------------------------------------------------------------------------


def _from_boot_image(machine: Machine, found: _Notes) -> PlacedImage | None:
    from kplug.image.opening.vmlinuz import open_vmlinuz

    for image in _of_this_kernel(machine, machine.boot_images, open_vmlinuz, found):
        try:
            usable = bool(image.symbols)
        except InputError as error:
            found.unused.append(str(error))
            continue
        if not usable:
            found.unused.append(f"{image.path}: {image.symbols.source}")
            continue
        placed = _placed_by_listing(image, f"sections, segments, symbols: {image.path}", machine, found)
        if placed is not None:
            return placed
    return None


def _from_system_map(machine: Machine, found: _Notes) -> PlacedImage | None:
    from kplug.image.opening.symbol_list_kernel import listed_image
    from kplug.image.symbols.listings import read_system_map

    for path in machine.system_maps:
        try:
            image = listed_image(path, read_system_map(path), machine.architecture)
        except InputError as error:
            found.unused.append(str(error))
            continue
        placed = _placed_by_listing(image, f"symbols: {path}", machine, found)
        if placed is not None:
            return placed
    return None


def _placed_by_listing(image: KernelImage, used: str, machine: Machine, found: _Notes) -> PlacedImage | None:
    """The image in its place by /proc/kallsyms, as far as that shows addresses; None if they do not fit the image."""
    kaslr_offset = None
    if shown_listing(machine) is not None:
        kaslr_offset = _checked_kaslr_offset(image, machine, found)
        if kaslr_offset is None:
            return None
    found.used.append(used)
    return _placed(image, kaslr_offset, machine, found)


# -- /proc/kallsyms alone ----------------------------------------------------------------------------------------------


def _from_kallsyms(machine: Machine, found: _Notes) -> PlacedImage | None:
    from kplug.image.elf.header_only import bare_elf
    from kplug.image.opening.symbol_list_kernel import machine_of

    listing = shown_listing(machine)
    if listing is None:
        found.unused.append(why_hidden(machine))
        return None
    architecture = machine.architecture or machine_of(listing.kernel) or ""
    bounds = iomem_symbols(listing, machine.resources, architecture)
    if bounds:
        listing = listing.with_symbols(bounds)
    symbols = listing.kernel.from_source(listing.path if not bounds else f"{listing.path}, /proc/iomem")
    bits = 64 if symbols.highest >> 32 else 32
    build = Build(machine.build_id, release=machine.release)
    elf = bare_elf(listing.path, architecture, bits)
    image = KernelImage(elf, name="vmlinux", listed=symbols, on_disk=False, build=build)
    found.used.append(f"symbols: {listing.path}")
    if bounds:
        found.used.append(f"bounds of {', '.join(name for _, _, name in bounds)}: {machine.path('/proc/iomem')}")
    placement: Placement = as_it_runs(image.extents, f"addresses as {listing.path} has them")
    return PlacedImage(image, placement)


def iomem_symbols(
    listing: KallsymsListing, resources: Mapping[str, tuple[int, int]], architecture: str
) -> Sequence[tuple[int, str, str]]:
    """The boundary symbols that /proc/kallsyms lacks and /proc/iomem gives: (address, letter, name), by address.

    A kernel without KALLSYMS_ALL lists text only. There are none if the two disagree about a symbol that is in both.
    """
    table = registry.named(architecture).iomem
    if any(line.required and line.name not in resources for line in table):
        return ()
    physical: dict[str, int] = {}
    for line in table:
        if line.name in resources:
            start, physical[line.end] = resources[line.name]
            if line.start is not None:
                physical[line.start] = start
    known = {name: address for name in physical if (address := listing.kernel.boundary_address(name)) is not None}
    distances = {known[name] - physical[name] for name in known}
    if len(distances) != 1:
        return ()
    distance = distances.pop()
    missing = [(physical[name] + distance, _LETTERS.get(name, "R"), name) for name in physical if name not in known]
    return sorted(missing)
