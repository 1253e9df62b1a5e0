"""A disk for the guest with a Python on it: this one, its packages, the kernel's vmlinux and its modules' debug files.

The kernel's files lie where Debian's packages put them, so that what runs in the guest finds them as it would on such a
machine. The image is ext4, made by mke2fs from a folder: nothing is mounted, and no privileges are needed. It is kept
in the cache under a name made of what it holds. In a guest:

    with boot(name, devices=devices(disk, more), modules=(*MODULES, ...), memory=2048) as vm:
        attach(vm)
        vm.run(f"chroot {ROOT} {PYTHON} ...")
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from . import modules
from .errors import VMError
from .fetching import KernelFiles
from .machine import VM
from .paths import cache_root, locked, remove_tree
from .progress import Progress

# Raised when what lies where on the disk changes.
LAYOUT = 1
# What the guest must load to have its disks.
MODULES: tuple[str, ...] = ("virtio_blk", "ext4")
# Where `attach` mounts them, and there: the interpreter, Python's path, the mount point of the second disk.
ROOT = "/disk"
PYTHON = "/usr/bin/python"
SITE = "/site"
SECOND = "/more"

_MKE2FS = ("mke2fs", "/usr/sbin/mke2fs", "/sbin/mke2fs")
# Parts of the standard library that are big and that nothing here imports.
_NOT_OF_THE_LIBRARY = {
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"),
    *("pydoc_data", "distutils"),
}
_LDD_PATH = re.compile(r"(?:=> |^\s*)(/\S+) \(0x")


def python_disk(files: KernelFiles, packages: Sequence[str], quiet: bool = False) -> Path:
    """The image of a disk with this Python, the installed distributions `packages`, and a kernel's debug files."""
    folder = cache_root() / "disks"
    place = folder / f"{files.name}-{_key(files, packages)}.ext4"
    with locked("disks-lock"):
        if not place.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"*{files.name}-*"):
                remove_tree(old)
            progress = Progress(files.name, quiet=quiet)
            progress.update("making a disk with Python and vmlinux")
            with tempfile.TemporaryDirectory(prefix=".", suffix=f"{files.name}-staging", dir=folder) as staging:
                _fill(Path(staging), files, packages)
                image(Path(staging), folder / f".{place.name}").rename(place)
            progress.done(f"disk made in {progress.elapsed:.0f} s")
    return place


def image(tree: Path, out: Path) -> Path:
    """Write an ext4 image of a folder to `out`. All of it belongs to root and can be read by everybody."""
    needed = sum(max(path.lstat().st_size, 1) + 4096 for path in tree.rglob("*"))
    size = needed // 1024 * 21 // 20 + 4096  # in KiB; the file is sparse
    options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0,lazy_itable_init=1"]
    tool = next((found for name in _MKE2FS if (found := shutil.which(name))), None)
    if tool is None:
        raise VMError("mke2fs isn't installed; it is in the package e2fsprogs")
    done = subprocess.run([tool, *options, "-d", str(tree), str(out), f"{size}k"], capture_output=True, text=True)
    if done.returncode:
        out.unlink(missing_ok=True)
        raise VMError(f"mke2fs: {(done.stderr or done.stdout).strip()[-200:]}")
    return out


def devices(*images: Path) -> tuple[str, ...]:
    """QEMU's arguments for disks, read-only, in that order: /dev/vda, /dev/vdb, ..."""
    arguments: list[str] = []
    for number, path in enumerate(images):
        file = str(path).replace(",", ",,")
        arguments += ["-drive", f"if=none,id=disk{number},format=raw,readonly=on,file={file}"]
        arguments += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    return tuple(arguments)


def attach(vm: VM) -> None:
    """Mount the guest's disks at `ROOT` and below it, with the guest's own /proc, /sys and /dev: ready for chroot."""
    vm.run(f"mkdir -p {ROOT} && mount -t ext4 -o ro /dev/vda {ROOT}")
    for name in ("proc", "sys", "dev"):
        vm.run(f"mount -o bind /{name} {ROOT}/{name}")
    vm.run(f"mount -t tmpfs tmp {ROOT}/tmp")
    vm.run(f"if [ -e /dev/vdb ]; then mount -t ext4 -o ro /dev/vdb {ROOT}{SECOND}; fi")


def _key(files: KernelFiles, packages: Iterable[str]) -> str:
    parts = [str(LAYOUT), sys.version, os.path.realpath(sys.executable), files.release, files.build_id]
    parts += [f"{name} {metadata.version(name)}" for name in sorted(packages)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _fill(root: Path, files: KernelFiles, packages: Iterable[str]) -> None:
    for name in ("proc", "sys", "dev", "tmp", SECOND.strip("/")):
        (root / name).mkdir()
    _place_python(root)
    for name in packages:
        for path, source in _distribution(name):
            _place(source, root / SITE.strip("/") / path)
    _place_libraries(root)
    debug = root / "usr/lib/debug"
    _place(files.vmlinux, debug / "boot" / f"vmlinux-{files.release}")
    for path in files.debug_modules.rglob("*.ko*"):
        _place(path, debug / "lib/modules" / files.release / path.relative_to(files.debug_modules))
        twin = files.modules / path.relative_to(files.debug_modules)
        for found in twin.parent.glob(f"{modules.module_name(path.name)}.ko*"):
            _place(found, root / "lib/modules" / files.release / found.relative_to(files.modules))


def _place_python(root: Path) -> None:
    """The interpreter and the standard library, where the interpreter looks for it."""
    interpreter = Path(os.path.realpath(sys.executable))
    _place(interpreter, root / interpreter.relative_to("/"))
    link = root / PYTHON.strip("/")
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(interpreter)
    for library in dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")):
        for folder, inner, names in os.walk(library):
            inner[:] = [name for name in inner if name not in _NOT_OF_THE_LIBRARY and not name.startswith("config-")]
            for name in names:
                source = Path(folder, name)
                if source.is_file() and source.suffix != ".a" and _is_for_this_python(source):
                    _place(source, root / source.relative_to("/"))


def _distribution(name: str) -> Iterator[tuple[Path, Path]]:
    """The files of an installed distribution: path in site-packages, and where they are. Not its programs."""
    found = metadata.files(name)
    if found is None:
        raise VMError(f"{name}: its installation doesn't list its files")
    for path in found:
        source = Path(str(path.locate()))
        if ".." not in path.parts and source.is_file() and _is_for_this_python(source):
            yield Path(*path.parts), source


def _is_for_this_python(path: Path) -> bool:
    """Not another version's compiled module. Our own are taken along: a guest is slow to compile."""
    return path.suffix != ".pyc" or path.name.endswith(f".{sys.implementation.cache_tag}.pyc")


def _place_libraries(root: Path) -> None:
    """The shared libraries that what is there needs and does not have, at the paths where the loader finds them."""
    objects = [path for path in root.rglob("*") if not path.is_symlink() and path.is_file() and _is_elf(path)]
    needed: set[str] = set()
    for start in range(0, len(objects), 100):
        done = subprocess.run(["ldd", *map(str, objects[start : start + 100])], capture_output=True, text=True)
        needed.update(_LDD_PATH.findall(line)[0] for line in done.stdout.splitlines() if _LDD_PATH.findall(line))
    for library in needed:
        # A library found next to the one that needs it (by $ORIGIN) is there already.
        if not Path(library).is_relative_to(root):
            _place(Path(os.path.realpath(library)), root / library.lstrip("/"))


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _place(source: Path, to: Path) -> None:
    """A file of the disk: a second name of it where that is possible, else a copy."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.exists():
        return
    with contextlib.suppress(OSError):
        os.link(os.path.realpath(source), to)
        return
    shutil.copy2(source, to)  # with its time, which compiled modules are held against
