"""Fetch a kernel: resolve, download, unpack next to its place, check, then move it there in one step."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import elf, manifest, modules, trees, unpack
from .apt import PrivateApt, sha256
from .errors import VMError
from .manifest import Kernel
from .paths import cache_root, kernel_dir, locked, remove_tree
from .progress import Progress, size_text
from .resolve import Candidate, candidates

# Raised when the layout of a kernel's folder changes: older ones are then made again.
LAYOUT = 1
_NEEDED = ("vmlinux", "vmlinuz", "config")


@dataclass(frozen=True)
class KernelFiles:
    """A fetched kernel. The paths exist, but for `system_map` where the packages have none."""

    name: str
    arch: str
    release: str
    version: str
    build_id: str
    root: Path
    vmlinux: Path
    vmlinuz: Path
    config: Path
    system_map: Path | None
    modules: Path
    debug_modules: Path
    busybox: Path

    @property
    def info(self) -> Path:
        """The stamp, which also has the packages' checksums."""
        return self.root / "info.json"


def cached(name: str) -> KernelFiles | None:
    """The kernel `name` if the cache has all of it, as it was written; needs no network."""
    row = manifest.find(name)
    root = kernel_dir(name)
    try:
        info = json.loads((root / "info.json").read_text())
        wanted = () if row.files_only else manifest.DEBUG_MODULES
        if info["layout"] != LAYOUT or not set(wanted) <= set(info["debug_modules_wanted"]):
            return None
        if not row.files_only and "busybox" not in info["files"]:
            return None
        for path, about in info["files"].items():
            if (root / path).stat().st_size != about["size"]:
                return None
        system_map = root / "System.map"
        return KernelFiles(
            name=name, arch=row.arch, release=info["release"], version=info["version"], build_id=info["build_id"],
            root=root, vmlinux=root / "vmlinux", vmlinuz=root / "vmlinuz", config=root / "config",
            system_map=system_map if "System.map" in info["files"] else None,
            modules=root / "modules", debug_modules=root / "debug-modules", busybox=root / "busybox",
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def verify(files: KernelFiles) -> list[str]:
    """The files whose content is no longer what was unpacked."""
    info = json.loads(files.info.read_text())
    return [path for path, about in info["files"].items() if sha256(files.root / path) != about["sha256"]]


def fetch(name: str, refresh: bool = False, keep_archives: bool = False, quiet: bool = False) -> KernelFiles:
    """The kernel `name`, fetched if the cache doesn't have it. `refresh` asks the mirror for a newer one."""
    return obtain(name, refresh, keep_archives, quiet)(threading.Event())


def obtain(
    name: str, refresh: bool = False, keep_archives: bool = False, quiet: bool = False
) -> Callable[[threading.Event], KernelFiles]:
    """Download the packages of the kernel `name` if the cache doesn't have it.

    What is returned unpacks them, in any thread, until the event is set: others can be downloaded meanwhile.
    """
    row = manifest.find(name)
    found = None if refresh else cached(name)
    if found is None and row.tree is not None:
        return lambda stop: _from_tree(row, quiet)
    with contextlib.ExitStack() as locks:
        if found is None:
            locks.enter_context(locked(f"{name}-lock"))
            # Another process may have fetched it while this one waited.
            found = cached(name)
        packages = None
        if found is None or refresh:
            progress = Progress(name, quiet=quiet)
            # One at a time: apt's folders are shared by several kernels.
            with locked("lock"):
                packages = _packages(row, found, progress)
        held = locks.pop_all()

    def unpacked(stop: threading.Event) -> KernelFiles:
        with held:
            if packages is not None:
                _unpack(row, packages, progress, stop)
                if not keep_archives:
                    packages.apt.forget(packages.files)
            files = cached(name)
        if files is None:
            raise VMError(f"{name}: the cache isn't whole right after fetching; is {cache_root()} being changed?")
        return files

    return unpacked


@dataclass(frozen=True)
class _Packages:
    """A kernel's packages, downloaded."""

    apt: PrivateApt
    candidate: Candidate
    debs: Sequence[Path]  # the debug twin first
    busybox: tuple[Path, str] | None  # and its version; None where nothing boots the kernel

    @property
    def files(self) -> list[Path]:
        return [*self.debs, *([self.busybox[0]] if self.busybox is not None else [])]


def _packages(row: Kernel, present: KernelFiles | None, progress: Progress) -> _Packages | None:
    """The newest packages that are whole on the mirror; None if they are those of what is present."""
    reasons = []
    for source in row.sources:
        apt = PrivateApt(source.suites, row.arch, row.name)
        try:
            progress.update(f"reading the package lists of {source.suites[0]}")
            apt.update(progress.note)
        except VMError as error:
            reasons.append(str(error))
            continue
        listed = 0
        for candidate in candidates(apt, source):
            listed += 1
            if present is not None and (present.release, present.version) == (candidate.release, candidate.version):
                progress.done(f"{present.release} is the newest")
                return None
            try:
                # The debug twin first: it is the one that may be missing, and then the image is of no use.
                debs = [_download(apt, package, progress) for package in (candidate.debug, *candidate.images)]
                return _Packages(apt, candidate, debs, _busybox(apt, progress) if not row.files_only else None)
            except VMError as error:
                reasons.append(str(error))
                progress.note(f"{candidate.release}: {error}")
        if not listed:
            reasons.append(f"{source.image} and its debug twin aren't in {', '.join(source.suites)}")
    raise VMError(f"{row.name}: nothing could be fetched: {'; '.join(dict.fromkeys(reasons))}")


def _download(apt: PrivateApt, package: Any, progress: Progress) -> Path:
    total = package.size

    def update(fraction: float) -> None:
        progress.update(f"downloading {package.name}  {fraction:4.0%} of {size_text(total)}")

    update(0)
    return apt.download(package, update)


def _busybox(apt: PrivateApt, progress: Progress) -> tuple[Path, str]:
    """The newest that is whole on the mirror: a suite that is archived may list files that are gone."""
    failed = f"busybox-static isn't in {', '.join(apt.suites)}"
    for package in apt.show("busybox-static"):
        try:
            return _download(apt, package, progress), package.version
        except VMError as error:
            failed = str(error)
    raise VMError(failed)


def _unpack(row: Kernel, packages: _Packages, progress: Progress, stop: threading.Event) -> None:
    """Unpack next to the place, then rename: what is at the place is always complete."""
    candidate = packages.candidate
    with _folder_of(row) as temporary:
        sizes: dict[str, int] = {}

        def choose(path: str, size: int) -> str | None:
            name = unpack.destination(path, size, candidate.release, manifest.DEBUG_MODULES)
            if name is not None and row.files_only and "/" in name:
                return None
            # Of two files that could be one thing the bigger is the real one.
            if name is None or size <= sizes.get(name, -1):
                return None
            sizes[name] = size
            return name

        def update(at: int) -> None:
            if stop.is_set():
                raise VMError(f"{row.name}: interrupted")
            progress.update(f"unpacking  {size_text(at)}")

        for deb in packages.debs:
            # A debug twin has thousands of modules after it.
            unpack.unpack(deb, choose, temporary, update, lambda written: row.files_only and "vmlinux" in written)
        if packages.busybox is not None:
            unpack.unpack(
                packages.busybox[0],
                lambda path, _: "busybox" if path.endswith("bin/busybox") else None,
                temporary,
                update,
            )
        if packages.busybox is not None:
            os.chmod(temporary / "busybox", 0o755)
        progress.update("reading the modules and computing checksums")
        taken = {package.name: package for package in (*candidate.images, candidate.debug)}
        about = {
            "release": candidate.release,
            "version": candidate.version,
            "packages": {name: {"version": p.version, "sha256": p.sha256} for name, p in taken.items()},
            "busybox_version": packages.busybox[1] if packages.busybox is not None else None,
        }
        _finish(row, temporary, about)
    progress.done(f"{candidate.release} in {progress.elapsed:.0f} s")


def _from_tree(row: Kernel, quiet: bool) -> KernelFiles:
    """The kernel of a build tree in the form of a fetched one. Its guest's program is a fetched one's."""
    assert row.tree is not None
    with locked(f"{row.name}-lock"):
        found = cached(row.name)
        if found is not None:
            return found
        progress = Progress(row.name, quiet=quiet)
        progress.update("building it")
        tree, busybox = trees.tree(row.tree), fetch(trees.BUSYBOX_OF, quiet=quiet).busybox
        with _folder_of(row) as temporary:
            release = trees.fill(tree, temporary, busybox)
            _finish(row, temporary, {"release": release, "version": release})
        progress.done(f"{release} in {progress.elapsed:.0f} s")
        found = cached(row.name)
    assert found is not None
    return found


@contextlib.contextmanager
def _folder_of(row: Kernel) -> Iterator[Path]:
    """A folder next to the kernel's place, to be filled; then it goes there."""
    place = kernel_dir(row.name)
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f".{row.name}.*"):  # what an interrupted run left; the lock says nobody uses it
        remove_tree(left)
    temporary = Path(tempfile.mkdtemp(prefix=f".{row.name}.", dir=place.parent))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        _swap(temporary, place)
    except OSError as error:
        raise VMError(f"{row.name}: {error.strerror}: {error.filename}") from None
    finally:
        remove_tree(temporary)


def _finish(row: Kernel, root: Path, about: Mapping[str, Any]) -> None:
    """Check what is in a kernel's folder, and write what says of it that it is whole."""
    needed = (*_NEEDED, *([] if row.files_only else ["busybox"]))
    missing = [name for name in needed if not (root / name).exists()]
    if missing:
        raise VMError(f"{row.name}: the packages of {about['release']} have no {', '.join(missing)}")
    for folder in ("modules", "debug-modules"):
        (root / folder).mkdir(exist_ok=True)
    (root / "modules" / "modules.dep").write_text(modules.make_modules_dep(root / "modules"))
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    info = {
        "layout": LAYOUT,
        "name": row.name,
        "arch": row.arch,
        **about,
        "build_id": elf.build_id(root / "vmlinux"),
        "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "debug_modules_wanted": [] if row.files_only else list(manifest.DEBUG_MODULES),
        "files": {str(path.relative_to(root)): {"size": path.stat().st_size, "sha256": sha256(path)} for path in paths},
    }
    (root / "info.json").write_text(json.dumps(info, indent=1) + "\n")


def _swap(new: Path, place: Path) -> None:
    """Put `new` at `place`. A folder can't replace another in one step: the old one moves aside first."""
    if place.exists() or place.is_symlink():
        old = place.with_name(f".{place.name}.old")
        remove_tree(old)
        place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(place)
