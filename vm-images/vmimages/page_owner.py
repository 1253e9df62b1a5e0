"""A kernel that records who allocates its pages: Debian's do not, so `.ci/build-tree page-owner` builds one."""

from __future__ import annotations

from pathlib import Path

from . import dumping, elf, paths
from .dumping import DumpSet
from .fetching import KernelFiles, fetch
from .machine import VM
from .options import Options

_MEMORY = 192
_BUSYBOX_OF = "amd64-6.12"


def page_owner_dump(tree: Path, *, quiet: bool = False) -> DumpSet:
    """An ELF dump of the kernel in a build tree, booted with page_owner=on, out of the cache or made in one boot."""
    files = _files(tree, quiet)
    place = paths.cache_root() / "dumps" / "page-owner"
    return dumping.kept(files, place, files.build_id, "dumps-lock", lambda folder: _make(files, folder, quiet), False)


def _files(tree: Path, quiet: bool) -> KernelFiles:
    """The tree's kernel as one of the cache is. It has no modules; the program of the guest is another's."""
    vmlinux, modules = tree / "vmlinux", tree / "no-modules"
    modules.mkdir(exist_ok=True)
    (modules / "modules.dep").touch()
    release = (tree / "include/config/kernel.release").read_text().strip()
    build_id = elf.build_id(vmlinux)
    return KernelFiles(
        name="page-owner", arch="amd64", release=release, version=release, build_id=build_id, root=tree,
        vmlinux=vmlinux, vmlinuz=tree / "arch/x86/boot/bzImage", config=tree / ".config",
        system_map=tree / "System.map", modules=modules, debug_modules=modules,
        busybox=fetch(_BUSYBOX_OF, quiet=quiet).busybox,
    )  # fmt: skip


def _make(files: KernelFiles, folder: Path, quiet: bool) -> None:
    with VM(files, Options(memory=_MEMORY, append=("page_owner=on",)), quiet=quiet) as vm:
        vm.wait_ready()
        vm.truth(folder / "truth")
        vm.stop()
        (folder / "truth" / "registers").write_text(vm.monitor("info registers -a"))
        dumping.dump(vm, folder / "elf", "elf", quiet=quiet)
    dumping.stamp(folder, files, ["elf"], complete=True)
