"""The kernel image of gdb's vmlinux, or else of the files that the user named: opened once, and again when a file on
disk has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kplug.arch.types.word import WordFormat
from kplug.errors import InputError
from kplug.image.kernel_image import KernelImage
from kplug.image.module_sections import section_addresses
from kplug.image.opening.debug_files import missing_debug_file
from kplug.image.opening.files import module_name, open_elf, open_vmlinux
from kplug.lifetimes import UNTIL_FILES_CHANGE, Memo, remembered
from kplug_gdb import objfiles
from kplug_gdb.objfiles import FileId
from kplug_gdb.settings import SETTINGS

if TYPE_CHECKING:
    from kplug.image.opening.sources import Joined


class NoVmlinuxError(InputError):
    """None of gdb's files is a kernel, and the user named none."""


class OpenedImages:
    """The images that the core works with. Only what a question needs is opened."""

    def __init__(self) -> None:
        self.memo = Memo()

    def kernel(self) -> KernelImage:
        """The kernel, from its vmlinux or from what was named instead; NoVmlinuxError if there is no file of it."""
        path = self.path()
        if path is None and not _others():
            raise NoVmlinuxError("no vmlinux: none of gdb's files is a Linux kernel")
        files = tuple(map(objfiles.file_id, (path,) if path is not None else _others()))
        self.memo.notice(UNTIL_FILES_CHANGE, files)
        return self._vmlinux(path) if path is not None else self._joined().image

    @property
    def disputed(self) -> Mapping[str, str]:
        """What one of several files of the kernel says about single symbols, by name, if the others differ."""
        return self._joined().disputed if self.path() is None and _others() else {}

    @remembered(UNTIL_FILES_CHANGE)
    def _vmlinux(self, path: str) -> KernelImage:
        image = open_vmlinux(path)
        if not image.symbols:
            raise InputError(f"{path}: has no symbol table, and {missing_debug_file(image.elf)}")
        return image

    @remembered(UNTIL_FILES_CHANGE)
    def _joined(self) -> Joined:
        from kplug.image.opening.sources import Given, join

        joined = join(Given(vmlinuz=SETTINGS.vmlinuz, system_map=SETTINGS.system_map))
        if not len(joined.image.symbols):
            raise InputError(f"{joined.image.path}: {joined.image.symbols.source}")
        return joined

    def path(self) -> str | None:
        """The kernel's file, whether it can be read or not; None if gdb has none."""
        return SETTINGS.vmlinux or objfiles.find_vmlinux()

    def modules(self, word: WordFormat) -> list[KernelImage]:
        """The modules that the user gave to `add-symbol-file`, where gdb has put their sections; `word` is the
        kernel's."""
        paths = objfiles.module_paths()
        if not paths:
            return []
        named: dict[str, list[tuple[str, int]]] = {path: [] for path in paths}
        for path, name, address in objfiles.sections():
            # A section without an address in add-symbol-file lies near 0: nothing is claimed for it.
            if path in named and word.is_kernel(address):
                named[path].append((name, address))
        placed = ((path, tuple(addresses)) for path, addresses in named.items() if addresses)
        return [self._module(objfiles.file_id(path), addresses) for path, addresses in placed]

    @remembered(UNTIL_FILES_CHANGE)
    def _module(self, file: FileId, addresses: tuple[tuple[str, int], ...]) -> KernelImage:
        elf = open_elf(file.path)
        if not elf.relocatable:
            raise InputError(f"{file.path}: not a module (its type is {elf.type})")
        # By name: gdb's numbers leave out the relocation sections.
        bases = section_addresses(elf.sections, addresses)
        return KernelImage(elf, name=module_name(elf), bases=bases)


def _others() -> Sequence[str]:
    """What the user named in place of a vmlinux."""
    return [path for path in (SETTINGS.vmlinuz, SETTINGS.system_map) if path]
