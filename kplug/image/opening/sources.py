"""One kernel from several files: vmlinux, vmlinuz, System.map, /proc/kallsyms.

One gives the skeleton (sections, segments, notes, bytes), one the symbols, one the runtime addresses. Symbols that two
of them have are compared: sources of different kernels are refused, and single symbols on which they differ are
remembered for the answers that mention them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kplug.arch import registry
from kplug.errors import InputError, MismatchError
from kplug.frozen import Frozen
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.kernel_files import open_kernel
from kplug.image.opening.vmlinuz import open_vmlinuz
from kplug.image.placement import Placement, as_it_runs, moved_by
from kplug.image.symbols.symbol_list import SymbolList

if TYPE_CHECKING:
    from kplug.files.bounded_output import ProgressCallback
    from kplug.image.opening.comparison import Comparison


class Given(Frozen):
    """The files that the user named, None for each that was not."""

    vmlinux: str | None = None
    vmlinuz: str | None = None
    system_map: str | None = None
    kallsyms: str | None = None

    def __bool__(self) -> bool:
        return any((self.vmlinux, self.vmlinuz, self.system_map, self.kallsyms))


class Joined(Frozen):
    """A kernel as several sources know it.

    `image` has the skeleton and symbols of the best of them. `placement` is where it runs, or None if no source says.
    `modules` are lists of their symbols, by name. `disputed` has what another source says about single symbols, by
    name; `used` has one line for each source with what was taken from it.
    """

    image: KernelImage
    placement: Placement | None
    modules: Mapping[str, SymbolList]
    disputed: Mapping[str, str]
    used: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def join(given: Given, progress: ProgressCallback | None = None) -> Joined:
    """The kernel in all the files together. InputError if one cannot be read, MismatchError if they do not fit."""
    image, used, disputed = _linked(given, progress)
    if given.kallsyms is None:
        assert image is not None
        return Joined(image, None, {}, disputed, tuple(used), _cut_off(given.system_map or given.vmlinux, image))
    from kplug.image.opening.comparison import checked, compare, disputes, symbols_of
    from kplug.image.symbols.listings import read_kallsyms

    listing = read_kallsyms(given.kallsyms)
    running = listing.kernel
    _refuse_system_map(given.kallsyms, running)
    if image is None:
        from kplug.image.opening.symbol_list_kernel import listed_image

        image = listed_image(given.kallsyms, running)
        placement = as_it_runs(image.extents, f"addresses as {given.kallsyms} has them")
        return Joined(image, placement, listing.modules, {}, (f"symbols: {given.kallsyms}",))
    found = checked(compare(symbols_of(image), running), image.path, given.kallsyms)
    placement = moved_by(image.extents, found.kaslr_offset or 0, f"by the addresses in {given.kallsyms}")
    used.append(f"place in memory, modules: {given.kallsyms}")
    return Joined(image, placement, listing.modules, {**disputed, **disputes(found, given.kallsyms)}, tuple(used))


def _cut_off(path: str | None, image: KernelImage) -> tuple[str, ...]:
    """A warning for a System.map, which is sorted by address, if its last symbols are missing."""
    listed = image.listed if image.has_list_at_hand else None
    if listed is None or not listed.source.startswith("System.map "):
        return ()
    if listed.holds("_text") and not listed.holds("_end"):
        return (f"{path}: it has no _end: it seems to be truncated",)
    return ()


def _refuse_system_map(path: str, listed: SymbolList) -> None:
    """InputError for a list with symbols that only a System.map has, never a kernel's own kallsyms."""
    for name in (name for architecture in registry.declared() for name in architecture.build_numbers):
        if listed.holds(name) and chr(listed.letters[listed.numbers[name.encode()]]) == "A":
            raise InputError(
                f"{path}: not a /proc/kallsyms but a System.map: it has {name} (give it with --system-map)"
            )


def _linked(given: Given, progress: ProgressCallback | None) -> tuple[KernelImage | None, list[str], Mapping[str, str]]:
    """The image at its link addresses, from vmlinux, vmlinuz and System.map; what was used; and their differences."""
    used: list[str] = []
    image: KernelImage | None = None
    for path, open_it in ((given.vmlinux, open_kernel), (given.vmlinuz, open_vmlinuz)):
        if path is None:
            continue
        opened = open_it(path, progress)
        if image is not None:
            _check_same_build(image, opened)
            used.append(f"compared with: {path}")
            continue
        image = opened
        used.append(f"sections, segments, symbols: {path}")
    if given.system_map is None:
        return image, used, {}
    from kplug.image.opening.comparison import disputes
    from kplug.image.opening.symbol_list_kernel import listed_image
    from kplug.image.symbols.listings import read_system_map

    listed = read_system_map(given.system_map)
    if image is None:
        return listed_image(given.system_map, listed), [f"symbols: {given.system_map}"], {}
    if not image.symbols:
        return image.with_symbols(listed), [*used, f"symbols: {given.system_map}"], {}
    found = _checked_as_linked(image, listed, given.system_map)
    if image.has_symbol_table:
        return image, [*used, f"compared with: {given.system_map}"], disputes(found, given.system_map)
    # System.map has symbols that kallsyms leaves out.
    used = [f"sections, segments: {image.path}", f"symbols: {given.system_map}"]
    return image.with_symbols(listed), used, disputes(found.turned(), image.path)


def _checked_as_linked(image: KernelImage, listed: SymbolList, path: str) -> Comparison:
    """The comparison of an image with the list at `path`, by link addresses. MismatchError for different kernels."""
    from kplug.image.opening.comparison import checked, compare, symbols_of

    found = checked(compare(symbols_of(image), listed), image.path, path)
    if found.kaslr_offset:
        raise MismatchError(f"{image.path} and {path} are linked at different addresses")
    return found


def _check_same_build(image: KernelImage, other: KernelImage) -> None:
    """MismatchError for different kernels: by their build IDs, or if one has none, by their symbols."""
    if image.build_id is None or other.build_id is None:
        if len(image.symbols) and len(other.symbols):
            from kplug.image.opening.comparison import symbols_of

            _checked_as_linked(image, symbols_of(other), other.path)
    elif image.build_id != other.build_id:
        raise MismatchError(
            f"{image.path} (build ID {image.build_id}) and {other.path} (build ID {other.build_id}) "
            "are different kernels"
        )
