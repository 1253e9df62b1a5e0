"""Modules and programs for a guest, built on the host: against the kernel's own header packages, with its compiler if
that is installed. For a guest of another architecture they are built by Debian's cross compiler.

What was built is kept in the cache under the digest of its sources.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import manifest, paths
from .apt import PrivateApt
from .aptparse import Package
from .architectures import architecture, host
from .errors import HeadersGone, VMError
from .fetching import KernelFiles
from .package_tree import unpack_with_needed
from .progress import Progress

_SECONDS = 600
# A segment of its own for the code of a program, in pages of 4 KiB: what amd64's linker does unasked.
_TEXT_APART = ("-Wl,-z,separate-code", "-Wl,-z,max-page-size=4096")


def module(files: KernelFiles, source: Path, quiet: bool = False) -> Path:
    """The module NAME.ko of the folder NAME, which has its Makefile, for that kernel; without debug information."""
    tree, tools = headers(files, quiet), architecture(files.arch).tools
    place = tree / "usr/src" / f"linux-headers-{files.release}"
    return _module(source, files.release, [f"--directory={place}", *_compiler(place, tools)], tools)


def module_for_tree(files: KernelFiles, source: Path) -> Path:
    """As `module`, for the kernel of a build tree, whose `headers` are what modules need of its sources."""
    words = [f"--directory={files.root / 'headers'}", f"O={files.root}"]
    return _module(source, f"{files.release}-{files.build_id[:8]}", words, architecture(files.arch).tools)


def _module(source: Path, release: str, words: list[str], tools: str) -> Path:
    """The module of a folder; `words` are for make, `tools` before the names of the programs."""
    name = source.name

    def build(folder: Path) -> None:
        place = folder / "source"
        shutil.copytree(source, place)
        _run(["make", *words, f"M={place}", "modules"])
        _run([f"{tools}strip", "--strip-debug", str(place / f"{name}.ko"), "-o", str(folder / f"{name}.ko")])
        shutil.rmtree(place)

    return _built(sorted(source.iterdir()), f"{release}-{name}", build) / f"{name}.ko"


def _compiler(headers: Path, tools: str) -> list[str]:
    """For make: what compiler there is, where the kernel's own is not installed, as that of a newer Debian is not."""
    found = re.search(r'^CONFIG_CC_VERSION_TEXT="(\S+)', (headers / ".config").read_text(), re.MULTILINE)
    # Debian builds arm64's on arm64: what has the same name here is this machine's.
    if found is None or (found[1].startswith(tools) and shutil.which(found[1])):
        return []
    if shutil.which(f"{tools}gcc") is None:
        raise VMError(f"{tools}gcc isn't installed: .ci/setup build does that")
    return [f"CC={tools}gcc", "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT="]  # an option that gcc has since 14


def program(arch: str, source: Path) -> Path:
    """The program of one C file, for Debian's architecture `arch`; it needs no library."""

    def build(folder: Path) -> None:
        compiler = f"{architecture(arch).tools}gcc"
        _run([compiler, "-static", "-O1", *_TEXT_APART, "-o", str(folder / source.stem), str(source)])

    return _built([source], f"{arch}-{source.stem}", build) / source.stem


def _built(sources: list[Path], label: str, build: Callable[[Path], None]) -> Path:
    """The folder that `build` filled from these sources."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    place = paths.cache_root() / "built" / f"{label}-{digest}"
    with paths.locked("built-lock"):
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{label}.", dir=place.parent) as temporary:
                folder = Path(temporary) / "made"
                folder.mkdir()
                build(folder)
                folder.replace(place)
    return place


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except FileNotFoundError:
        raise VMError(f"{command[0]} isn't installed (apt-get install {command[0]})") from None
    except subprocess.TimeoutExpired:
        raise VMError(f"{command[0]} took longer than {_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line or "***" in line]
        raise VMError(f"{command[0]} failed: {lines[0] if lines else f'status {done.returncode}'}")


def headers(files: KernelFiles, quiet: bool = False) -> Path:
    """The unpacked header packages of a kernel. Their Makefiles find each other there.

    A mirror has those of its own kernels only: HeadersGone for an older one.
    """
    place = paths.cache_root() / "headers" / f"{files.name}-{files.release}"
    with paths.locked("headers-lock"):
        if place.exists():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        progress = Progress(f"{files.name} headers", quiet=quiet)
        with tempfile.TemporaryDirectory(prefix=f".{files.name}.", dir=place.parent) as temporary:
            root = Path(temporary) / "root"
            with paths.locked("lock"):  # apt's folders are shared with the fetching of kernels
                apt, package = _apt_with(f"linux-headers-{files.release}", files, progress)
                unpack_with_needed(apt, package.name, lambda name: name.startswith("linux-headers-"), root, progress)
                # The programs among them run here, whatever the kernel's architecture is. The C library is for those
                # that need their own version of it. The rest that is needed is the compiler: it is the host's.
                programs = next(name for name, _ in package.depends if name.startswith("linux-kbuild-"))
                apt = PrivateApt(apt.suites, host())
                apt.update(progress.note)
                unpack_with_needed(apt, programs, "libc6".__eq__, root, progress)
            for makefile in root.glob("usr/src/linux-headers-*/Makefile"):
                makefile.write_text(makefile.read_text().replace("/usr/src/", f"{place}/usr/src/"))
            # Type information for a module needs pahole; the guest needs none.
            for vmlinux in root.glob("usr/src/linux-headers-*/vmlinux"):
                vmlinux.unlink()
            _make_runnable(root, place)
            root.replace(place)
        progress.done(f"in {progress.elapsed:.0f} s")
    return place


def _apt_with(package: str, files: KernelFiles, progress: Progress) -> tuple[PrivateApt, Package]:
    """The suites that have a package, of those the kernel may be from, and their newest version of it."""
    for source in manifest.find(files.name).sources:
        apt = PrivateApt(source.suites, files.arch)
        progress.update(f"reading the package lists of {source.suites[0]}")
        apt.update(progress.note)
        found = apt.show(package)
        if found:
            return apt, found[0]
    raise HeadersGone(f"{package} is gone from the mirror: take the newer kernel (vm.py fetch {files.name} --refresh)")


def _make_runnable(root: Path, place: Path) -> None:
    """Have programs of a newer Debian than the host's run by that one's C library. `root` will be at `place`."""
    loader, library = (next(root.rglob(name), None) for name in ("ld-linux-x86-64.so.2", "libc.so.6"))
    if loader is None or library is None:
        return
    for tool in [path for path in root.glob("usr/lib/linux-kbuild-*/**/*") if path.is_file()]:
        with tool.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        needs = subprocess.run(["ldd", str(tool)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if b"GLIBC_" not in needs.stdout + needs.stderr:
            continue
        own = tool.with_name(f"own-{tool.name}")
        tool.rename(own)
        words = [place / path.relative_to(root) for path in (loader, library.parent, own)]
        tool.write_text(f'#!/bin/sh\nexec {words[0]} --library-path {words[1]} {words[2]} "$@"\n')
        tool.chmod(0o755)
