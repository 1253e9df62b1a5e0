"""The kernel image that gdb's vmlinux is, or else the files that the user named: opened once, and anew when a file on
disk is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kplug.errors import InputError
from kplug.image.kernel_image import KernelImage
from kplug.image.module_sections import section_addresses
from kplug.image.opening.files import module_name, open_elf, open_vmlinux
from kplug_gdb import objfiles
from kplug_gdb.objfiles import FileId
from kplug_gdb.settings import SETTINGS

if TYPE_CHECKING:
    from kplug.image.opening.sources import Joined


class NoVmlinuxError(InputError):
    """gdb has no file that is a kernel, and the user named none."""


class OpenedImages:
    """The images that the core works with. Only what a question needs is opened.

    `disputed` is what one of several files says of single symbols, by name, where the others say something else.
    """

    def __init__(self) -> None:
        self.disputed: Mapping[str, str] = {}
        self._vmlinux: tuple[FileId, KernelImage] | None = None
        self._others: tuple[tuple[FileId, ...], Joined] | None = None
        self._modules: dict[tuple[FileId, tuple[tuple[str, int], ...]], KernelImage] = {}

    def kernel(self) -> KernelImage:
        """The kernel, of its vmlinux or of what was named instead; NoVmlinuxError if there is no file of it."""
        self.disputed = {}
        if self.path() is not None:
            return self._of_vmlinux()
        paths = [path for path in (SETTINGS.vmlinuz, SETTINGS.system_map) if path]
        if not paths:
            raise NoVmlinuxError("no vmlinux: none of gdb's files is a Linux kernel")
        from kplug.image.opening.sources import Given, join

        files = tuple(map(objfiles.file_id, paths))
        if self._others is None or self._others[0] != files:
            joined = join(Given(vmlinuz=SETTINGS.vmlinuz, system_map=SETTINGS.system_map))
            if not len(joined.image.symbols):
                raise InputError(f"{joined.image.path}: {joined.image.symbols.source}")
            self._others = (files, joined)
        self.disputed = self._others[1].disputed
        return self._others[1].image

    def _of_vmlinux(self) -> KernelImage:
        path = self.path()
        assert path is not None
        file = objfiles.file_id(path)
        if self._vmlinux is None or self._vmlinux[0] != file:
            image = open_vmlinux(path)
            if not len(image.symbols):
                raise InputError(f"{path}: has no symbol table, and its debug file is not there")
            if self._vmlinux is not None:
                self._vmlinux[1].elf.close()
            self._vmlinux = (file, image)
        return self._vmlinux[1]

    def path(self) -> str | None:
        """The kernel's file, whether it can be read or not; None if gdb has none."""
        return SETTINGS.vmlinux or objfiles.find_vmlinux()

    def modules(self) -> list[KernelImage]:
        """The modules that the user gave to `add-symbol-file`, where gdb has put their sections."""
        paths = objfiles.module_paths()
        if not paths:
            return []
        named: dict[str, list[tuple[str, int]]] = {path: [] for path in paths}
        for path, name, address in objfiles.sections():
            # A section that add-symbol-file was given no address for lies near 0: nothing is claimed for it.
            if path in named and address >> 63:
                named[path].append((name, address))
        return [self._module(path, addresses) for path, addresses in named.items() if addresses]

    def _module(self, path: str, addresses: list[tuple[str, int]]) -> KernelImage:
        key = (objfiles.file_id(path), tuple(addresses))
        image = self._modules.get(key)
        if image is None:
            elf = open_elf(path)
            if not elf.relocatable:
                raise InputError(f"{path}: not a module (its type is {elf.type})")
            # By name: gdb's numbers leave out the relocation sections.
            bases = section_addresses(elf.sections, addresses)
            image = self._modules[key] = KernelImage(elf, name=module_name(elf), bases=bases)
        return image
