"""Take what is wanted out of a Debian package, wherever in it that lies."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from .errors import VMError
from .modules import module_name

# Debian's /boot/System.map is a stub of 83 bytes that says where the real one is.
_STUB_SIZE = 4096


def destination(member: str, size: int, release: str, debug_modules: Iterable[str]) -> str | None:
    """Where a package's file goes in the kernel's folder; None for files that aren't wanted.

    Files are known by their names and by `debug` in their paths: the folders have changed over the years
    (/boot and /usr/lib/debug/boot, then /usr/lib/modules/REL and /usr/lib/debug/lib/modules/REL).
    """
    path = PurePosixPath("/") / member
    if ".." in path.parts:
        return None
    debug = "debug" in path.parts
    base = path.name[: -len(release) - 1] if path.name.endswith("-" + release) else path.name
    top = f"/modules/{release}/"
    inside = str(path).partition(top)[2]
    if base in ("vmlinux", "System.map", "vmlinuz", "config", "Image") and "/" not in inside:
        if base == "vmlinux":
            return "vmlinux" if debug else "vmlinuz"  # riscv64's boot image, a flat Image, is called so
        if base == "System.map":
            return "System.map" if size > _STUB_SIZE else None
        return None if debug else {"Image": "vmlinuz"}.get(base, base)
    if not inside:
        return None
    name = module_name(path.name)
    if debug:
        return f"debug-modules/{inside}" if name is not None and name in debug_modules else None
    if name is not None or re.fullmatch(r"modules\.[a-z.]+", inside):
        return f"modules/{inside}"
    return None


def unpack(
    deb: Path,
    choose: Callable[[str, int], str | None],
    into: Path,
    update: Callable[[int], None],
    enough: Callable[[list[str]], bool] = lambda written: False,
) -> list[str]:
    """Write the files for which `choose(path, size)` gives a name, below `into`; return the names. Skips links. The
    rest of the package is not read once `enough(names)` is true."""
    written: list[str] = []
    try:
        process = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise VMError("dpkg-deb isn't installed") from None
    assert process.stdout is not None
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                update(member.offset)
                name = choose(member.name.lstrip("./"), member.size) if member.isfile() else None
                source = archive.extractfile(member) if name is not None else None
                if name is None or source is None:
                    continue
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                written.append(name)
                if enough(written):
                    process.kill()
                    return written
        # What pads the archive's end must be read, or dpkg-deb ends with a broken pipe.
        while process.stdout.read(1 << 20):
            pass
    except tarfile.TarError as error:
        raise VMError(f"{deb.name}: a broken package ({error})") from None
    finally:
        process.stdout.close()
        if process.poll() is None and not written:
            process.kill()
        status = process.wait()
    if status != 0:
        raise VMError(f"{deb.name}: dpkg-deb can't unpack it (status {status})")
    return written
