"""A real crash dump: a kernel crashes, and the capture kernel that kexec starts copies /proc/vmcore to a disk.

It differs from what QEMU dumps: the kernel itself wrote the notes, only those of the CPUs that were online, and its log
has its last words.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from . import initramfs, makedumpfile, manifest, paths
from .apt import PrivateApt
from .architectures import architecture
from .dumping import DumpSet, dig_holes, kept, stamp
from .fetching import KernelFiles, fetch
from .machine import boot
from .package_tree import unpack_with_needed
from .progress import Progress, size_text

# A CPU's place among the notes is not its number: CPU 1 has none.
CPUS, OFFLINE, CRASHED, IN_USER_MODE = 4, 1, 2, 3
# Wherever KASLR puts the kernel in so much memory, the capture kernel's fits below or above it.
_MEMORY, _CRASH_KERNEL = 640, 256
_DISK = "/dev/vda"
# Only as many CPUs as the copy needs, and devices that the crashed kernel has left in any state.
_CAPTURE_WORDS = ("nr_cpus=1", "reset_devices", "panic=-1", "loglevel=4", "cryptomgr.notests")
_COPY_SECONDS = 600.0

VMCORE = "vmcore"


def kexec_dumps(name: str, *, refresh: bool = False, quiet: bool = False) -> DumpSet:
    """The kernel's /proc/vmcore after a crash, and what makedumpfile makes of it; from the cache if they are there.

    CPU 1 was offline, CPU 2 crashed (by sysrq), CPU 3 was in user mode. The truth is of the moment before.
    """
    files = fetch(name, quiet=quiet)
    place = paths.cache_root() / "dumps" / f"{name}-kexec"
    # A lock of its own: it takes minutes, and whoever wants other dumps need not wait.
    return kept(files, place, "kexec", "kexec-lock", lambda folder: _make(files, folder, quiet), refresh)


def _make(files: KernelFiles, folder: Path, quiet: bool) -> None:
    tools = _tools(files, quiet)
    progress = Progress(f"{files.name} kexec", quiet=quiet)
    vmcore, disk = folder / VMCORE, folder / ".disk"
    _write_disk(files, tools, disk)
    _crash(files, disk, vmcore, folder / "truth", progress, quiet)
    dig_holes(vmcore)
    names = [VMCORE]
    if architecture(files.arch).is_the_hosts:
        progress.update("makedumpfile")
        names += makedumpfile.of_vmcore(vmcore)
    stamp(folder, files, names, complete=True)
    progress.done(f"{size_text(vmcore.stat().st_size)} in {progress.elapsed:.0f} s")


def _crash(files: KernelFiles, disk: Path, vmcore: Path, truth: Path, progress: Progress, quiet: bool) -> None:
    drive = f"file={str(disk).replace(',', ',,')},format=raw,if=none,id=disk"
    with boot(
        files.name,
        cpus=CPUS,
        memory=_MEMORY,
        append=(f"crashkernel={_CRASH_KERNEL}M",),
        modules=(*manifest.EXTRA_MODULES, "virtio_blk"),
        devices=("-drive", drive, "-device", "virtio-blk-pci,drive=disk"),
        quiet=quiet,
    ) as vm:
        progress.update("loading the capture kernel")
        words = " ".join((*architecture(files.arch).words, *_CAPTURE_WORDS))
        vm.run(f"tar -xf {_DISK} -C /")
        vm.run(f"/sbin/kexec -p /kexec/vmlinuz --initrd=/kexec/initrd --append='{words}'")
        vm.run("rm -r /kexec")
        vm.run(f"echo 0 >/sys/devices/system/cpu/cpu{OFFLINE}/online")
        vm.spin(IN_USER_MODE)
        vm.truth(truth)
        (truth / "online").write_text(vm.run("cat /sys/devices/system/cpu/online"))
        progress.update("crashing")
        vm.restart_by(f"taskset {1 << CRASHED:x} sh -c 'echo c >/proc/sysrq-trigger'")
        shutil.copyfile(vm.console, truth / "console")
        progress.update("copying /proc/vmcore")
        size = int(vm.run("stat -c %s /proc/vmcore"))
        vm.run(f"dd if=/proc/vmcore of={_DISK} bs=1M && sync", timeout=_COPY_SECONDS)
    with disk.open("r+b") as file:
        file.truncate(size)
    disk.replace(vmcore)


def _write_disk(files: KernelFiles, tools: Path, disk: Path) -> None:
    """A disk that starts with an archive: kexec with its libraries, and what it starts. The dump will overwrite it."""
    shutil.copyfile(tools, disk)
    with tempfile.TemporaryDirectory(prefix=".kexec.", dir=disk.parent) as folder:
        image = initramfs.build(files, Path(folder) / "initrd", ("virtio_blk",))
        with tarfile.open(disk, "a") as archive:
            archive.add(files.vmlinuz, "kexec/vmlinuz")
            archive.add(image, "kexec/initrd")
    with disk.open("r+b") as file:
        file.truncate((_MEMORY + 64) << 20)


# -- kexec-tools -------------------------------------------------------------------------------------------------------


def _tools(files: KernelFiles, quiet: bool) -> Path:
    """An archive of kexec and the libraries that it needs, from the suites that the kernel's own packages are from."""
    suites = manifest.find(files.name).sources[0].suites
    place = paths.cache_root() / "kexec-tools" / f"{suites[0]}-{files.arch}.tar"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress("kexec-tools", quiet=quiet)
    with paths.locked("lock"), tempfile.TemporaryDirectory(prefix=".kexec-tools.", dir=place.parent) as folder:
        apt = PrivateApt(suites, files.arch)
        progress.update(f"reading the package lists of {suites[0]}")
        apt.update(progress.note)
        # debconf is for installing only.
        unpack_with_needed(apt, "kexec-tools", lambda name: name != "debconf", Path(folder) / "root", progress)
        part = Path(folder) / "tar"
        _pack(Path(folder) / "root", part)
        part.replace(place)
    progress.done(size_text(place.stat().st_size))
    return place


def _pack(root: Path, tar: Path) -> None:
    """An archive of kexec and all libraries in a tree. What is in usr/ goes where it is looked for, links as well."""
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            inside = str(path.relative_to(root))
            is_library = ".so" in path.name and "gconv" not in inside
            if path.is_dir() or not (is_library or inside.endswith("sbin/kexec")):
                continue
            archive.add(path, inside.removeprefix("usr/"), recursive=False)
