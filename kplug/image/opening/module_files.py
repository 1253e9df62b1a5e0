"""The places of modules' debug files, and the check that a file is the loaded module's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

from kplug.errors import InputError, TargetError
from kplug.image.elf.file import ElfFile
from kplug.image.opening.files import DEBUG_DIRECTORIES, open_elf

# Endings of module files, those with the most information first; after ".ko" comes the compression.
_ENDINGS = (".ko.debug", ".ko", ".ko.xz", ".ko.gz", ".ko.bz2", ".ko.zst")
# A distribution's kernel has 4000 to 7000 modules in 1000 folders; a tree with far more is not one of modules.
MAX_FILES = 500_000


class _Named(Protocol):
    @property
    def name(self) -> str | None: ...


class ModuleIdentity(Protocol):
    """What is known about a loaded module: its name, build ID, and the sections that it was loaded from."""

    @property
    def name(self) -> str: ...
    @property
    def build_id(self) -> str | None: ...
    @property
    def all_sections(self) -> Sequence[_Named]: ...


class ModuleFiles:
    """The debug files of modules. Folders are listed at the first question, each once.

    `directories` are those that the user named, `release` is the kernel's (`uname -r`), `vmlinux` the path of its
    vmlinux: modules may be in the same tree. `root` is put before the usual places.
    """

    def __init__(self, directories: Sequence[str], release: str | None, vmlinux: str | None, root: str = "") -> None:
        self._named = tuple(directories)
        self._root = root.rstrip("/")
        self._usual = tuple(_usual_directories(release, vmlinux, self._root))

    def find(self, module: ModuleIdentity) -> tuple[ElfFile | None, tuple[str, ...]]:
        """The file of the module with the same build ID, and sentences on why files of its name were not used."""
        refused: list[str] = []
        for path in self._candidates(module):
            if not os.path.isfile(path):
                continue
            try:
                elf = open_elf(path)
            except InputError as error:
                refused.append(f"not used: {error}")
                continue
            try:
                why_not = _why_not(elf, module)
            except (InputError, TargetError) as error:
                why_not = str(error)
            if why_not is None:
                return elf, ()
            elf.close()
            refused.append(f"{path} is not used for module {module.name}: {why_not}")
        return None, tuple(refused)

    def paths(self, name: str) -> Iterator[str]:
        """The files of modules of that name, whatever their build."""
        for path in (*self._in_named.get(name, ()), *self._in_usual.get(name, ())):
            if os.path.isfile(path):
                yield path

    def _candidates(self, module: ModuleIdentity) -> Iterator[str]:
        yield from self._in_named.get(module.name, ())
        build_id = module.build_id
        if build_id:
            for directory in DEBUG_DIRECTORIES:
                yield f"{self._root}{directory}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
        yield from self._in_usual.get(module.name, ())

    @cached_property
    def _in_named(self) -> dict[str, list[str]]:
        return _files_by_module(self._named)

    @cached_property
    def _in_usual(self) -> dict[str, list[str]]:
        return _files_by_module(self._usual)


def _usual_directories(release: str | None, vmlinux: str | None, root: str) -> Iterator[str]:
    """Where distributions put them (drgn and crash look there too), and the tree that contains the vmlinux."""
    if release and "/" not in release:
        for directory in DEBUG_DIRECTORIES:
            yield f"{root}{directory}/lib/modules/{release}"
            yield f"{root}{directory}/usr/lib/modules/{release}"
        yield f"{root}/lib/modules/{release}"
    if vmlinux:
        folder = os.path.dirname(os.path.abspath(vmlinux))
        # A build tree or an unpacked package, not any folder that happens to contain a vmlinux.
        if os.path.isdir(f"{folder}/kernel") or os.path.isfile(f"{folder}/modules.order"):
            yield folder


def _files_by_module(directories: Sequence[str]) -> dict[str, list[str]]:
    """The paths of module files below the directories, by the module's name; in the order of the directories."""
    found: dict[str, list[str]] = {}
    for directory in directories:
        here: dict[str, list[tuple[int, str]]] = {}
        seen = 0
        for folder, folders, names in os.walk(directory):
            folders.sort()
            seen += len(names)
            if seen > MAX_FILES:
                break
            for name in names:
                rank = next((rank for rank, ending in enumerate(_ENDINGS) if name.endswith(ending)), None)
                if rank is not None:
                    # Module names in the kernel have underscores where file names may have hyphens.
                    module = name[: -len(_ENDINGS[rank])].replace("-", "_")
                    here.setdefault(module, []).append((rank, os.path.join(folder, name)))
        for module, paths in here.items():
            found.setdefault(module, []).extend(path for _, path in sorted(paths))
    return found


def _why_not(elf: ElfFile, module: ModuleIdentity) -> str | None:
    """Why a file is not the loaded module's; None if it is."""
    if not elf.relocatable:
        return f"it is not a module (its type is {elf.type}, a module's is REL)"
    build_id = elf.build_id
    if build_id != module.build_id:
        return f"its build ID is {build_id or 'missing'}, the one in memory is {module.build_id or 'not known'}"
    if build_id is None:
        # Built without IDs: compare the sections and their order instead.
        names = [s.name for s in elf.sections if s.allocated and s.size]
        loaded = [section.name for section in module.all_sections]
        if not loaded or not set(loaded) <= set(names):
            return "its sections are not those in memory (and neither has a build ID)"
    return None
