"""The vmlinux of an open kernel: given to drgn, or made from the kallsyms in memory, and checked against memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

import drgn

from kplug.errors import InputError, MismatchError
from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.comparison import checked, compare, symbols_of
from kplug.image.opening.debug_files import supplement_of
from kplug.image.opening.files import open_vmlinux
from kplug.memory.kallsyms_image import image_from_memory, symbols_in_memory
from kplug.memory.kaslr_offset import Checker
from kplug.memory.kernel_note import kaslr_offset_of
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.progress import waiting
from kplug.runtime.kernel.platform import machine_of
from kplug.runtime.opening.drgn_calls import error_words, reader_of
from kplug.runtime.opening.request import OpenTarget

# A list of symbols counts as the kernel's if this many symbols agree with VMCOREINFO, which has about 15.
_LEAST_SYMBOLS = 6


def load_vmlinux(target: OpenTarget, info: VmcoreInfo, image: KernelImage | None) -> tuple[KernelImage | None, bool]:
    """Give drgn the vmlinux: the user's, if it is right, or the one that drgn finds. Without any, the image is made
    from the kallsyms in memory. Returns it, and whether drgn has the kernel's DWARF.
    """
    prog = target.prog
    # The first of a kernel's modules is the kernel; the others are not read before they are needed.
    main = next(iter(prog.loaded_modules()))[0]
    if image is not None:
        _check(target, info, image, main.build_id.hex() if main.build_id else None)
        if not main.build_id and image.build_id:
            main.build_id = bytes.fromhex(image.build_id)
        # drgn cannot use a System.map or a boot image: neither has DWARF.
        paths = (image.path, image.symbols_path) if image.on_disk and image.elf.sections else ()
        for path in dict.fromkeys(paths):
            if path == image.path or main.wants_debug_file():
                try_file(main, path)
    if main.wants_debug_file():
        # By build ID, next to the installed kernels, and from debuginfod, which may take some time.
        try:
            waiting("looking for the kernel's debug information", lambda: prog.load_module_debug_info(main))
        except drgn.MissingDebugInfoError:
            pass
        except Exception as error:
            target.warnings.append(f"looking for the kernel's debug information: {error_words(error)}")
    has_dwarf = not main.wants_debug_file()
    if image is not None:
        return image, has_dwarf
    found = main.debug_file_path or main.loaded_file_path
    if found is not None:
        return open_vmlinux(found), has_dwarf
    return _image_from_memory(target, info), has_dwarf


def _image_from_memory(target: OpenTarget, info: VmcoreInfo) -> KernelImage | None:
    """The replacement for a missing vmlinux; None, with a warning, if memory does not have the symbols."""
    machine, image = machine_of(target.prog), None
    if machine:
        image = image_from_memory(reader_of(target.prog), info, machine, target.name)
    if image is not None:
        target.how.append(f"no vmlinux: symbols from {image.symbols.source}")
        return image
    wanted = f" (build ID {info.build_id})" if info.build_id else ""
    target.warnings.append(f"no vmlinux found for {info.release}{wanted}: give one with -s FILE")
    return None


def try_file(main: drgn.Module, path: str) -> None:
    """Have drgn use a file that was verified."""
    try:
        # drgn only needs the file's DWARF; a file without it still has symbols.
        if main.loaded_file_status != drgn.ModuleFileStatus.HAVE:  # a stripped vmlinux, whose debug file this is
            main.loaded_file_status = drgn.ModuleFileStatus.WANT
        main.try_file(path, force=True)
        if main.debug_file_status == drgn.ModuleFileStatus.WANT_SUPPLEMENTARY:
            supplement = supplement_of(ElfFile(path))
            if supplement is not None and supplement.path is not None:
                main.try_file(supplement.path)
        if main.loaded_file_status == drgn.ModuleFileStatus.WANT:
            main.loaded_file_status = drgn.ModuleFileStatus.DONT_NEED
    except Exception as error:
        raise InputError(f"{path}: drgn cannot use it: {error_words(error)}") from None


def _check(target: OpenTarget, info: VmcoreInfo, image: KernelImage, build_id: str | None) -> None:
    """MismatchError unless the image is the target's kernel. `build_id` is the one that the target states, if any."""
    if build_id is not None and image.build_id == build_id:
        return
    # VMCOREINFO has no build ID before 5.9, and a wrong one in some releases: then memory decides.
    try:
        if Checker(image).matches(reader_of(target.prog), kaslr_offset_of(info, image)):
            return
    except MismatchError:
        if build_id is None:
            raise  # it has the banner that is in memory
    except InputError:
        if image.listed is not None and _symbols_agree(target, info, image):
            return
        if build_id is None and image.release in (None, info.release):
            target.warnings.append(
                f"{image.path}: has neither linux_banner nor a build ID: not checked to be the right one"
            )
            return
    if build_id is None and image.release == info.release and not _banner_is_there(target.prog, info, image):
        target.warnings.append(f"{image.path}: not checked to be the right build: the kernel's banner cannot be read")
        return
    ours = _kernel_words(image.release, image.build_id)
    theirs = _kernel_words(info.release, build_id)
    raise MismatchError(f"{image.path} is {ours}, but the target runs {theirs}: give the vmlinux of that kernel")


def _banner_is_there(prog: drgn.Program, info: VmcoreInfo, image: KernelImage) -> bool:
    """Whether there is memory at the image's banner."""
    for symbol in image.symbols.exact("linux_banner"):
        try:
            prog.read(symbol.address + kaslr_offset_of(info, image) & image.elf.word.mask, 16)
        except (drgn.FaultError, ValueError, OverflowError):
            return False
        return True
    return False


def _symbols_agree(target: OpenTarget, info: VmcoreInfo, image: KernelImage) -> bool:
    """Whether a list of symbols, which has neither build ID nor banner, is of the target's kernel: by the kallsyms in
    its memory, or else by the addresses in VMCOREINFO.
    """
    memory = symbols_in_memory(reader_of(target.prog), info, image.machine or machine_of(target.prog))
    if memory is not None:
        found = checked(compare(symbols_of(image), memory), image.path, target.name)
        return found.kaslr_offset == kaslr_offset_of(info, image) & image.elf.word.mask
    kaslr_offset, agreeing = kaslr_offset_of(info, image), 0
    for name, address in info.symbols.items():
        symbols = image.symbols.exact(name)
        if len(symbols) == 1:
            if symbols[0].address + kaslr_offset & image.elf.word.mask != address:
                return False
            agreeing += 1
    return agreeing >= _LEAST_SYMBOLS


def _kernel_words(release: str | None, build_id: str | None) -> str:
    return (release or "a kernel without a banner") + (f" (build ID {build_id})" if build_id else "")


def set_debug_directories(prog: drgn.Program, directories: Sequence[str]) -> None:
    """Have drgn look for modules, and for files by build ID, in the user's folders before its own."""
    for directory in directories:
        if not os.path.isdir(directory):
            raise InputError(f"--module-dir {directory}: no such directory")
    if directories:
        options = prog.debug_info_options
        absolute = tuple(os.path.abspath(directory) for directory in directories)
        options.directories = (*absolute, *options.directories)
        options.kernel_directories = (*absolute, *options.kernel_directories)
