"""Dumps of a guest's memory, in every format that QEMU and makedumpfile write."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import makedumpfile, paths
from .architectures import architecture
from .errors import VMError
from .fetching import KernelFiles, fetch
from .machine import VM, boot
from .progress import Progress, size_text
from .truth import GroundTruth

LAYOUT = 1
_BOOTS = 3
# The machine whose dumps lie under the kernel's plain name.
DEFAULTS = {"memory": 256, "cpus": 2, "pti": False, "la57": False, "cpu": None, "kaslr": True, "append": ()}

# What QEMU writes itself: its own name of the format, and whether addresses are virtual ones.
QEMU_FORMATS: dict[str, tuple[str, bool]] = {
    "elf": ("elf", False),
    "elf-paging": ("elf", True),
    "kdump-zlib": ("kdump-zlib", False),
    "kdump-lzo": ("kdump-lzo", False),
    "kdump-snappy": ("kdump-snappy", False),
}
FORMATS: tuple[str, ...] = (*QEMU_FORMATS, *makedumpfile.FORMATS)


@dataclass(frozen=True)
class DumpSet:
    """Dumps of one machine at one moment, and the ground truth of that same boot (KASLR differs in the next)."""

    files: KernelFiles
    root: Path
    paths: dict[str, Path]  # by format
    truth: GroundTruth
    complete: bool  # whether it has every format that the host that made it could write


def available(vm: VM) -> tuple[str, ...]:
    """The formats that can be had of this machine on this host."""
    known, row = vm.qmp.dump_formats(), architecture(vm.files.arch)
    own = (
        name for name, (format, paging) in QEMU_FORMATS.items() if format in known and (row.elf_paging or not paging)
    )
    return tuple(own) + (makedumpfile.available() if row.is_the_hosts else ())


def dump(
    vm: VM, path: Path, format: str = "elf", quiet: bool = False, timeout: float = 600.0, elf: Path | None = None
) -> Path:
    """Write the machine's memory to `path`; the machine then goes on, if it ran.

    `elf` is a dump of the same moment as ELF, for makedumpfile to work from; without one it is made, and removed.
    """
    path = path.absolute()
    if format not in FORMATS:
        raise VMError(f"no format {format!r}; there are: {', '.join(FORMATS)}")
    if format not in available(vm):
        raise VMError(f"this host can't write {format}; it can: {', '.join(available(vm))}")
    progress = Progress(f"{vm.files.name} {format}", quiet=quiet)
    # QEMU and makedumpfile may overwrite in place or refuse to; an unfinished file must not pass for a dump.
    with tempfile.TemporaryDirectory(prefix=".dump.", dir=path.parent) as folder:
        part = Path(folder) / "dump"
        if format in QEMU_FORMATS:
            name, paging = QEMU_FORMATS[format]
            vm.qmp.dump(part, name, paging, timeout, lambda fraction: progress.update(f"dumping  {fraction:4.0%}"))
        else:
            if elf is None:
                elf = Path(folder) / "elf"
                vm.qmp.dump(elf, timeout=timeout, update=lambda at: progress.update(f"dumping  {at:4.0%}"))
            progress.update("makedumpfile")
            makedumpfile.convert(format, elf, part)
        dig_holes(part)
        part.replace(path)
    used = path.stat().st_blocks * 512
    progress.done(f"{size_text(path.stat().st_size)} ({size_text(used)} on disk) in {progress.elapsed:.1f} s")
    return path


def dumps(
    name: str,
    formats: Sequence[str] = (),
    *,
    refresh: bool = False,
    quiet: bool = False,
    memory: int = 256,
    cpus: int = 2,
    pti: bool = False,
    la57: bool = False,
    cpu: str | None = None,
    kaslr: bool = True,
    append: tuple[str, ...] = (),
) -> DumpSet:
    """Dumps of the kernel `name` from the cache, made in one boot if they aren't there; no formats means all.

    The machine has a CPU in user mode (the last) and one in the kernel (the first).
    """
    files = fetch(name, quiet=quiet)
    options = {"memory": memory, "cpus": cpus, "pti": pti, "la57": la57, "cpu": cpu, "kaslr": kaslr, "append": append}
    changed = (f"{key}{value}" for key, value in options.items() if value != DEFAULTS[key] and key != "append")
    label = "-".join((name, *changed, *append))
    place = paths.cache_root() / "dumps" / label
    for wanted in formats:
        if wanted not in FORMATS:
            raise VMError(f"no format {wanted!r}; there are: {', '.join(FORMATS)}")
    # Two that want the same dumps at one time: the second takes what the first made.
    with paths.locked("dumps-lock"):
        found = None if refresh else cached_set(files, place)
        if found is not None and (set(formats) <= found.paths.keys() if formats else found.complete):
            return found
        present = tuple(found.paths) if found is not None else ()
        # Of the usual machine all are made at once: another format would be of another boot, and take the place of the
        # dumps that somebody may be reading.
        made = (*present, *formats) if formats and options != DEFAULTS else ()
        _make(files, place, made, options, quiet=quiet)
    found = cached_set(files, place)
    if found is None:
        raise VMError(f"{place} isn't whole right after it was made")
    return found


def _make(files: KernelFiles, place: Path, formats: Sequence[str], options: dict[str, Any], *, quiet: bool) -> None:
    with made_at(place) as temporary:
        spin = options["cpus"] - 1 if options["cpus"] > 1 else None
        with _boot_moved(files, temporary / "truth", options, spin, quiet) as vm:
            names = tuple(dict.fromkeys(formats)) or available(vm)
            # All dumps are of this moment. QEMU takes the first CPU's page tables for `paging`: were that one in user
            # mode under page-table isolation, these would hold hardly any of the kernel.
            if spin is None:
                vm.stop()
            else:
                vm.stop_in_user_mode(spin)
            (temporary / "truth" / "registers").write_text(vm.monitor("info registers -a"))
            for format in sorted(names, key=FORMATS.index):
                elf = temporary / "elf" if (temporary / "elf").exists() else None
                dump(vm, temporary / format, format, quiet=quiet, elf=elf)
        stamp(temporary, files, names, complete=not formats)


@contextlib.contextmanager
def made_at(place: Path) -> Iterator[Path]:
    """A new folder to make dumps in. It takes the place of what is at `place` once all is done."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f".{place.name}.*"):  # what a killed run left; the lock says nobody uses it
        paths.remove_tree(left)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        paths.remove_tree(place)
        temporary.rename(place)
    finally:
        paths.remove_tree(temporary)


def stamp(folder: Path, files: KernelFiles, names: Sequence[str], *, complete: bool) -> None:
    """Write down what the folder has, for `cached_set`."""
    sizes = {format: (folder / format).stat().st_size for format in names}
    info = {"layout": LAYOUT, "build_id": files.build_id, "complete": complete, "formats": sizes}
    (folder / "info.json").write_text(json.dumps(info, indent=1) + "\n")


def kept(
    files: KernelFiles, place: Path, built_from: str, lock: str, make: Callable[[Path], None], refresh: bool
) -> DumpSet:
    """The dumps in a folder of the cache, if they are of these files and `built_from` the same; else `make` fills it.

    `lock` is the name of the cache's lock that others who want them wait for.
    """
    stated = place / "built-from"

    def found() -> DumpSet | None:
        same = stated.exists() and stated.read_text() == built_from
        return cached_set(files, place) if same else None

    if not refresh and (cached := found()) is not None:
        return cached
    with paths.locked(lock):
        made = None if refresh else found()
        if made is None:
            with made_at(place) as folder:
                make(folder)
                (folder / "built-from").write_text(built_from)
            made = found()
    if made is None:
        raise VMError(f"{place} isn't whole right after it was made")
    return made


def _boot_moved(files: KernelFiles, truth: Path, options: dict[str, Any], spin: int | None, quiet: bool) -> VM:
    """The machine, ready, with what it says of itself in `truth`.

    KASLR leaves one kernel in some 500 where it was linked. Dumps are there to show moved ones: it is booted again.
    """
    for boots_left in reversed(range(_BOOTS)):
        vm = boot(files.name, **options, spin=spin, quiet=quiet)
        try:
            said = vm.truth(truth)
            moves = options["kaslr"] and architecture(files.arch).moves and files.system_map is not None
            if not boots_left or not moves or said.kaslr_offset(files):
                break
        except BaseException:
            vm.close()
            raise
        vm.close()
    return vm


def cached_set(files: KernelFiles, place: Path) -> DumpSet | None:
    """The dumps in a folder of the cache, if they are whole and of these files."""
    try:
        info = json.loads((place / "info.json").read_text())
        if info["layout"] != LAYOUT or info["build_id"] != files.build_id:
            return None
        for format, size in info["formats"].items():
            if (place / format).stat().st_size != size:
                return None
        found = {name: place / name for name in info["formats"]}
        return DumpSet(files, place, found, GroundTruth(place / "truth"), bool(info["complete"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def dig_holes(path: Path) -> None:
    """Give the zeros back to the disk; most of a small guest's memory is unused."""
    tool = shutil.which("fallocate")
    if tool is not None:
        subprocess.run([tool, "--dig-holes", str(path)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
