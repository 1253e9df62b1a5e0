"""Opens the kernel that a `Source` names, as a `Session`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os.path import exists
from typing import TYPE_CHECKING

from kplug.assembly import Found, FrontEnd, session_of, unplaced_modules
from kplug.errors import UsageError
from kplug.expressions import NO_HINTS, Hints
from kplug.frozen import replace
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_module, open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement, as_linked, moved_by
from kplug.live import running_kaslr_offset, running_vmlinux
from kplug.session import Session
from kplug.source import Source

if TYPE_CHECKING:
    from kplug.image.opening.sources import Joined

# The running kernel's memory.
_MEMORY = "/proc/kcore"
_UNREAD = f"the files do not say what is there; memory may: -c {_MEMORY}, as root (it needs drgn)"
# The smallest step by which any architecture moves a kernel.
_SMALLEST_PAGE = 0x1000


def open_session(source: Source, hints: Hints = NO_HINTS, *, asked: Sequence[str] | None = None) -> Session:
    """Open what `source` names. `hints` are the caller's words for how the user can supply what is missing.

    For a caller that will ask about addresses, with the words in `asked`, drgn reads a dump's types while the rest is
    made ready.

    KplugError, worded for the user, if it cannot be opened; `NothingKnownError` for the running kernel if it does not
    show its addresses.
    """
    if source.has_memory:
        return memory_session(source, asked)
    return _file_session(source, hints) if source.files else _live_session(source.lines, hints)


def memory_session(
    source: Source, asked: Sequence[str] | None = None, meanwhile: Callable[[], None] | None = None
) -> Session:
    """A kernel with memory: a vmcore, a guest, or if neither is named the running kernel.

    With `asked`, what will be asked, its types are read at once, and in that time what the answers need besides is made
    ready, and `meanwhile` done.
    """
    if source.core and source.qemu:
        raise UsageError("kplug: -c and --qemu: only one kernel can be asked about")
    if source.kallsyms:
        raise UsageError("kplug: --kallsyms is only for files without memory: memory already has the kernel's kallsyms")
    try:
        from kplug.runtime.opening.opening import open_kernel
        from kplug.runtime.opening.request import Request
    except ImportError:
        raise UsageError("vmcores and guests are read through drgn, which is not installed: pip install drgn") from None

    def rest() -> None:
        import kplug.runtime.session  # noqa: F401
        from kplug.runtime.locators import registry

        registry.load()
        if meanwhile is not None:
            meanwhile()

    request = Request(
        core=source.core,
        core_parts=tuple(source.core_parts),
        raw=source.raw,
        qemu=source.qemu,
        symbols=(source.vmlinux,) if source.vmlinux else (),
        module_directories=source.module_directories,
        vmcoreinfo=source.vmcoreinfo,
        joined=_joined(source),
    )
    opened = open_kernel(request, rest if asked is not None else None, asked or ())
    from kplug.runtime.session import session_of as session_of_opened

    return session_of_opened(opened, lines=source.lines)


def _joined(source: Source) -> Joined | None:
    """The file that serves as the vmlinux of a kernel with memory; None if no such file was given."""
    if not source.vmlinuz and not source.system_map:
        return None
    from kplug.image.opening.sources import Given, join

    return join(Given(source.vmlinux, source.vmlinuz, source.system_map))


def _file_session(source: Source, hints: Hints) -> Session:
    """A kernel from its files alone."""
    images, used, warnings = _kernel_images(source)
    for specification in source.modules:
        module = open_module(specification)
        images.append(PlacedImage(module, as_linked(module.sections, "--module")))
        _check_apart(images)
    if not images:
        raise UsageError("kplug: no vmlinux given, and none found for the running kernel (give one with -s FILE)")
    return _session(Found(images, warnings=warnings, ways=used), source.lines, hints, source.module_directories)


def _session(found: Found, lines: bool, hints: Hints, directories: Sequence[str] = ()) -> Session:
    """The session of a kernel without memory, with source lines where these are wanted."""
    front_end = FrontEnd(hints)
    main = next((placed for placed in found.images if not placed.image.is_module), None)
    if not lines:
        found = replace(found, module_files=unplaced_modules(directories, main))
        return session_of(found, front_end=front_end)
    from kplug.runtime.types.lines import DrgnLines

    source = DrgnLines(found.images)
    files = unplaced_modules(directories, main, source)
    found = replace(found, warnings=(*found.warnings, *source.warnings), module_files=files)
    return session_of(found, lines=source, front_end=front_end)


class NothingKnownError(UsageError):
    """Neither the running kernel nor a file gives addresses."""


def _live_session(lines: bool, hints: Hints) -> Session:
    """The running kernel, from what it and the machine's files show. UsageError if that is nothing."""
    from kplug.live import machine
    from kplug.live.kernel import open_live

    live = open_live(machine.Machine())
    if not live.images:
        why = "; ".join(live.unused)
        raise NothingKnownError(
            "kplug: no vmlinux given (-s FILE), and the running kernel does not show its addresses"
            f" (kplug doctor): {why}"
        )
    found = Found(
        live.images,
        warnings=live.warnings,
        ways=(*live.used, *live.unused),
        unread=_UNREAD if exists(_MEMORY) else None,
    )
    return _session(found, lines, hints)


def _kernel_images(source: Source) -> tuple[list[PlacedImage], Sequence[str], Sequence[str]]:
    """The kernel from the given files, with the modules of a kallsyms, what each file was used for, and warnings."""
    if source.linker_script or source.link_map:
        return [_refined_vmlinux(source)], (), ()
    from kplug.image.opening.sources import Given, join

    given = Given(source.vmlinux, source.vmlinuz, source.system_map, source.kallsyms)
    if not given:
        path = running_vmlinux()
        if path is None:
            return [], (), ()
        given = Given(path)
    joined = join(given)
    if joined.placement is not None and source.kaslr_offset is not None:
        raise UsageError("kplug: --kaslr and --kallsyms: the addresses in the latter already give the offset")
    placement = joined.placement or _placement(joined.image, source.kaslr_offset)
    placed = PlacedImage(joined.image, placement, disputed=joined.disputed)
    modules = _listed_modules(joined, placed.image.machine, source.kallsyms or "")
    return [placed, *modules], joined.used, joined.warnings


def _listed_modules(joined: Joined, machine: str, path: str) -> list[PlacedImage]:
    """The modules of a saved kallsyms in their places."""
    if not joined.modules:
        return []
    from kplug.image.kallsyms_modules import PlacedListing, listed_module

    return [
        PlacedListing(listed_module(name, symbols, machine, path), Placement(0, path))
        for name, symbols in joined.modules.items()
    ]


def _refined_vmlinux(source: Source) -> PlacedImage:
    """The vmlinux, with the regions that its build tree gives."""
    if source.vmlinux is None or source.vmlinuz or source.system_map or source.kallsyms:
        raise UsageError("kplug: --lds and --map describe the build of a vmlinux: they need -s FILE")
    script = link_map = None
    if source.linker_script:
        from kplug.linker.script_parser import read_linker_script

        script = read_linker_script(source.linker_script)
    if source.link_map:
        from kplug.linker.link_map import parse_link_map

        link_map = parse_link_map(source.link_map)
    image = open_vmlinux(source.vmlinux, script, link_map)
    return PlacedImage(image, _placement(image, source.kaslr_offset))


def _placement(image: KernelImage, kaslr_offset: int | None) -> Placement:
    if kaslr_offset is None:
        kaslr_offset = running_kaslr_offset(image)
        if kaslr_offset is not None:
            return moved_by(image.extents, kaslr_offset, "running kernel, /proc/kallsyms")
        return as_linked(image.extents, "as linked; no KASLR offset is known", known=False)
    if not kaslr_offset:
        return as_linked(image.extents)
    if abs(kaslr_offset) > image.elf.word.mask:
        raise UsageError(f"--kaslr {kaslr_offset:#x}: an address of this kernel has {image.elf.bits} bits")
    if kaslr_offset % _SMALLEST_PAGE:
        raise UsageError(f"--kaslr {kaslr_offset:#x}: not a multiple of the page size")
    return moved_by(image.extents, kaslr_offset, "--kaslr")


def _check_apart(images: Sequence[PlacedImage]) -> None:
    """UsageError if the last image, a module, was placed over another one."""
    *others, module = images
    for section in module.image.sections:
        if not section.occupies_addresses:
            continue
        for other in others:
            for address in (section.address, section.end - 1):
                if other.piece(address) is not None:
                    raise UsageError(
                        f"--module: {section.name} of {module.image.name} at {section.address:#x} overlaps "
                        f"{other.image.name}"
                    )
