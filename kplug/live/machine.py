"""What a running Linux has about its kernel in /proc, /sys and /boot, as it is there, without interpretation."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice

from kplug.arch import registry
from kplug.arch.types.word import LITTLE
from kplug.errors import InputError
from kplug.image.symbols.listings import KallsymsListing, read_kallsyms
from kplug.live import running_build_id, vmlinux_places
from kplug.named_tuples import NamedTuple

# Names of the image, by distributions and the kernel's own `make install`. Fedora and others keep it with the modules.
_BOOT_IMAGE_PLACES = (
    "/boot/vmlinuz-{release}",
    "/lib/modules/{release}/vmlinuz",
    "/usr/lib/modules/{release}/vmlinuz",
    "/boot/Image-{release}",
    "/boot/vmlinux-{release}.gz",
)
_SYSTEM_MAP_PLACES = (
    "/usr/lib/debug/boot/System.map-{release}",
    "/usr/lib/debug/lib/modules/{release}/System.map",
    "/boot/System.map-{release}",
    "/lib/modules/{release}/System.map",
    "/lib/modules/{release}/build/System.map",
)
_CONFIG_PLACES = ("/boot/config-{release}", "/lib/modules/{release}/config", "/lib/modules/{release}/build/.config")
# /proc/modules has a line for each module, /proc/iomem one for each resource.
_MAX_BYTES = 1 << 24
_PIECE_BYTES = 1 << 12
_MODULE = r"(\S+) (\d+) .* (\S+) 0x([0-9a-f]{1,16})(?: .*)?"


class ProcModule(NamedTuple):
    """A line of /proc/modules. `size` is in bytes; `base` is the base of its text, 0 if hidden."""

    name: str
    size: int
    state: str
    base: int


class SectionName(NamedTuple):
    """A section of a loaded module, from its file in /sys."""

    name: str
    address: int


class Machine:
    """The machine whose file system is at `root`: the one that kplug runs on, or the saved files of another.

    Everything is read when it is first asked for. What is missing, or may not be read, is None or empty.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root.rstrip("/")

    def path(self, path: str) -> str:
        """Where the file at that absolute path is."""
        return self.root + path

    def text(self, path: str) -> str | None:
        """The content of the file at that path; None if it cannot be read."""
        try:
            with open(self.path(path), "rb", buffering=0) as file:
                # In pieces: sysctl files cannot be read with a buffer of megabytes.
                pieces = iter(lambda: file.read(_PIECE_BYTES), b"")
                return b"".join(islice(pieces, _MAX_BYTES // _PIECE_BYTES)).decode("utf-8", "backslashreplace")
        except OSError:
            return None

    @cached_property
    def release(self) -> str | None:
        """As `uname -r`."""
        if not self.root:
            return os.uname().release
        return (self.text("/proc/sys/kernel/osrelease") or "").strip() or self._banner_release()

    def _banner_release(self) -> str | None:
        match = re.match(r"Linux version (\S+)", self.text("/proc/version") or "")
        return match.group(1) if match else None

    @cached_property
    def architecture(self) -> str | None:
        """The architecture, named as for ELF files; None for a machine whose files were saved."""
        if self.root:
            return None
        name = os.uname().machine
        architecture = registry.by_uname(name)
        return name if architecture is None else architecture.name

    @cached_property
    def build_id(self) -> str | None:
        """The running kernel's build ID, from its notes."""
        return running_build_id(self.root + "/")

    @cached_property
    def kallsyms(self) -> KallsymsListing | None:
        """The content of /proc/kallsyms, zeros included; None if it is missing."""
        try:
            return read_kallsyms(self.path("/proc/kallsyms"), self.architecture or "")
        except InputError:
            return None

    @cached_property
    def resources(self) -> Mapping[str, tuple[int, int]]:
        """The kernel's own parts in /proc/iomem, by their names there: physical addresses, half-open.

        Empty if they are zeros, which is what readers without CAP_SYS_ADMIN see.
        """
        found: dict[str, tuple[int, int]] = {}
        for line in (self.text("/proc/iomem") or "").splitlines():
            bounds, _, name = line.partition(" : ")
            if not name.startswith("Kernel "):
                continue
            try:
                start, last = (int(bound, 16) for bound in bounds.split("-"))
            except ValueError:
                continue
            if last > start:
                found.setdefault(name, (start, last + 1))
        return found

    @cached_property
    def modules(self) -> Sequence[ProcModule]:
        """The loaded modules, in the kernel's order."""
        lines = (self.text("/proc/modules") or "").splitlines()
        matches = filter(None, (re.fullmatch(_MODULE, line) for line in lines))
        return [ProcModule(m.group(1), int(m.group(2)), m.group(3), int(m.group(4), 16)) for m in matches]

    def module_sections(self, name: str) -> Sequence[SectionName]:
        """The sections of a loaded module, sorted by address; only root can read the addresses.

        Init sections are left out: they are freed, and other sections may be there now.
        """
        if "/" in name:
            return []
        folder = f"/sys/module/{name}/sections"
        try:
            names = os.listdir(self.path(folder))
        except OSError:
            return []
        found = []
        for section in names:
            text = (self.text(f"{folder}/{section}") or "").strip()
            address = int(text, 16) if re.fullmatch(r"0x[0-9a-f]{1,16}", text) else 0
            # module_init_section() (kernel/module/main.c): these names are init. The symbol tables lie there too.
            if address and not section.startswith((".init", ".symtab", ".strtab")):
                found.append(SectionName(section, address))
        return sorted(found, key=lambda each: (each.address, each.name))

    def module_build_id(self, name: str) -> str | None:
        """The build ID of a loaded module, from its notes."""
        from kplug.image.elf.file import build_id_in, notes_in

        if "/" in name:
            return None
        try:
            with open(self.path(f"/sys/module/{name}/notes/.note.gnu.build-id"), "rb") as file:
                return build_id_in(notes_in(file.read(1 << 12), little_endian=sys.byteorder == LITTLE))
        except OSError:
            return None

    # -- files of the kernel -------------------------------------------------------------------------------------------

    @cached_property
    def vmlinux_files(self) -> Sequence[str]:
        """The files that may be the running kernel's vmlinux, the most likely first."""
        return [path for path in vmlinux_places(self._name, self.root) if os.path.isfile(path)]

    @cached_property
    def boot_images(self) -> Sequence[str]:
        return self._existing(_BOOT_IMAGE_PLACES)

    @cached_property
    def system_maps(self) -> Sequence[str]:
        return self._existing(_SYSTEM_MAP_PLACES)

    @cached_property
    def configs(self) -> Sequence[str]:
        return self._existing(_CONFIG_PLACES)

    def _existing(self, places: Sequence[str]) -> Sequence[str]:
        paths = (self.path(place.format(release=self._name)) for place in places)
        found: dict[tuple[int, int], str] = {}
        for path in paths:
            if os.path.isfile(path):
                status = os.stat(path)
                found.setdefault((status.st_dev, status.st_ino), path)  # /lib may be /usr/lib
        return list(found.values())

    @property
    def _name(self) -> str:
        """The release as part of a path; a path to nothing if the release would lead to another directory."""
        release = self.release or ""
        return release if release and "/" not in release else "?"
