"""Kernels of the build trees that `.ci/build-tree NAME` makes: with what Debian's are built without."""

from __future__ import annotations

from pathlib import Path

from . import dumping, elf, paths
from .building import module_for_tree
from .dumping import DumpSet
from .errors import VMError
from .fetching import KernelFiles, fetch
from .machine import VM
from .options import Options
from .planted import SPECIMENS, Specimen, listed

_BUSYBOX_OF = "amd64-6.12"
_PAGE_OWNER_MEMORY, _KASAN_MEMORY = 192, 512


def page_owner_dump(tree: Path, *, quiet: bool = False) -> DumpSet:
    """An ELF dump of the kernel that records who allocates pages, out of the cache or made in one boot."""
    files = _files(tree, "page-owner", quiet)

    def make(folder: Path) -> None:
        with VM(files, Options(memory=_PAGE_OWNER_MEMORY, append=("page_owner=on",)), quiet=quiet) as vm:
            vm.wait_ready()
            _dump(vm, folder, quiet)

    return dumping.kept(files, _place("page-owner"), files.build_id, "dumps-lock", make, False)


def kasan_dump(tree: Path, *, quiet: bool = False) -> DumpSet:
    """An ELF dump of the kernel that has KASAN, with objects that it reported, out of the cache or made in one boot.
    Its truth has `kasan`, the reports."""
    files = _files(tree, "kasan", quiet)
    module = module_for_tree(files, SPECIMENS / "kasan_planted")
    inside = (("planted/kasan_planted.ko", module),)

    def make(folder: Path) -> None:
        options = Options(memory=_KASAN_MEMORY, append=("kasan_multi_shot",), files=inside)
        with VM(files, options, quiet=quiet) as vm:
            vm.wait_ready()
            command = "insmod /planted/kasan_planted.ko && echo 1 >/sys/module/kasan_planted/parameters/plant"
            said = vm.run(f"{command} && echo planted")
            if "planted" not in said:
                raise VMError(f"the module cannot be loaded: {said.strip()}")
            reports = vm.run("dmesg")
            _dump(vm, folder, quiet)
            (folder / "truth" / "kasan").write_text(reports)

    return dumping.kept(files, _place("kasan"), f"{files.build_id} {module.parent.name}", "dumps-lock", make, False)


def kasan_specimens(dump: DumpSet) -> list[Specimen]:
    """What the module of `kasan_dump` planted."""
    return listed(dump.truth.text("kasan"))


def _place(name: str) -> Path:
    return paths.cache_root() / "dumps" / name


def _files(tree: Path, name: str, quiet: bool) -> KernelFiles:
    """The tree's kernel as one of the cache is. It has no modules; the program of the guest is another's."""
    vmlinux, modules = tree / "vmlinux", tree / "no-modules"
    modules.mkdir(exist_ok=True)
    (modules / "modules.dep").touch()
    release = (tree / "include/config/kernel.release").read_text().strip()
    return KernelFiles(
        name=name, arch="amd64", release=release, version=release, build_id=elf.build_id(vmlinux), root=tree,
        vmlinux=vmlinux, vmlinuz=tree / "arch/x86/boot/bzImage", config=tree / ".config",
        system_map=tree / "System.map", modules=modules, debug_modules=modules,
        busybox=fetch(_BUSYBOX_OF, quiet=quiet).busybox,
    )  # fmt: skip


def _dump(vm: VM, folder: Path, quiet: bool) -> None:
    vm.truth(folder / "truth")
    vm.stop()
    (folder / "truth" / "registers").write_text(vm.monitor("info registers -a"))
    dumping.dump(vm, folder / "elf", "elf", quiet=quiet)
    dumping.stamp(folder, vm.files, ["elf"], complete=True)
