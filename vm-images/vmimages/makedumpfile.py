"""What makedumpfile makes of a dump: the files that a machine which crashed would have left."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from .errors import VMError

# Each format's options. -d 31 leaves out all pages that a debugger of the kernel hardly needs: the usual choice.
FORMATS: dict[str, tuple[str, ...]] = {
    "makedumpfile-elf": ("-E", "-d", "31"),
    "makedumpfile-zlib": ("-c", "-d", "0"),
    "makedumpfile-lzo": ("-l", "-d", "0"),
    "makedumpfile-zlib-d31": ("-c", "-d", "31"),
    "makedumpfile-flat-d31": ("-F", "-c", "-d", "31"),
}
# What is made of a /proc/vmcore: the file, makedumpfile's options, and how many parts of it there are.
ZLIB, FLAT, SPLIT, INCOMPLETE = "zlib-d31", "flat-d31", "split-d31", "incomplete-d31"
_USUAL = ("-c", "-d", "31")
_PARTS = 3
_SPLIT_BLOCK = "16"  # MB; of 1 GB, the default, a small machine has only one
_SECONDS = 600
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR_SIZE = 56


def available() -> tuple[str, ...]:
    """The formats that this host's makedumpfile knows; none without one."""
    if shutil.which("makedumpfile") is None:
        return ()
    lzo = any(line.split() == ["lzo", "enabled"] for line in _run(["-v"], None, check=False).splitlines())
    return tuple(name for name in FORMATS if lzo or "lzo" not in name)


def convert(format: str, elf: Path, out: Path) -> None:
    """Write the dump `elf` (by physical address, as QEMU makes it) to `out` in another format."""
    source = out.with_name(out.name + ".source")
    try:
        options = FORMATS[format]
        _plain_copy(elf, source)
        if "-F" in options:  # flattened output goes to standard output, as it would over ssh
            _run([*options, str(source)], out)
        else:
            _run([*options, str(source), str(out)], None)
    except OSError as error:
        raise VMError(f"{format}: {error.strerror}: {error.filename}") from None
    finally:
        source.unlink(missing_ok=True)


def of_vmcore(vmcore: Path) -> list[str]:
    """Write to the folder of a dump what its machine might have left instead; the names of the files.

    The incomplete one is of a disk that was full. It is left out where a small filesystem cannot be mounted.
    """
    if shutil.which("makedumpfile") is None:
        return []
    folder, parts = vmcore.parent, [f"{SPLIT}-{number}" for number in range(1, _PARTS + 1)]
    _run([*_USUAL, str(vmcore), str(folder / ZLIB)], None)
    _run([*_USUAL, "-F", str(vmcore)], folder / FLAT)
    _run(
        [*_USUAL, "--splitblock-size", _SPLIT_BLOCK, "--split", str(vmcore), *(str(folder / part) for part in parts)],
        None,
    )
    whole = _on_full_disk(vmcore, folder / INCOMPLETE, (folder / ZLIB).stat().st_size // 2)
    return [ZLIB, FLAT, *parts, *([INCOMPLETE] if whole else [])]


def _on_full_disk(vmcore: Path, out: Path, size: int) -> bool:
    """Let makedumpfile write to a filesystem of so many bytes, in a mount namespace of its own."""
    script = """
        mkdir "$1.disk" && mount -t tmpfs -o size=$2 kplug "$1.disk" || exit 1
        makedumpfile -c -d 31 "$3" "$1.disk/dump" && exit 1
        cp "$1.disk/dump" "$1"
    """
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(out), str(size), str(vmcore)]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        shutil.rmtree(f"{out}.disk", ignore_errors=True)
    return result.returncode == 0 and out.exists()


def _plain_copy(elf: Path, copy: Path) -> None:
    """A copy with the program headers right after the ELF header.

    makedumpfile looks for them only there; QEMU since 7.2 writes its section headers first. There is room: moving
    the program headers forward overwrites only section headers, which say nothing here.
    """
    shutil.copyfile(elf, copy)
    with copy.open("r+b") as file:
        head = list(_EHDR.unpack(file.read(_EHDR.size)))
        offset, count, size = head[5], head[10], head[9]
        if head[0][:6] != b"\x7fELF\x02\x01" or size != _PHDR_SIZE or offset < _EHDR.size:
            raise VMError(f"{elf}: not a dump that makedumpfile can be given")
        if offset == _EHDR.size:
            return
        file.seek(offset)
        table = file.read(count * size)
        # Offset of the program headers; no section headers; the size of the ELF header, which QEMU 7.2 gets wrong.
        head[5], head[6], head[8], head[11], head[12], head[13] = _EHDR.size, 0, _EHDR.size, 0, 0, 0
        file.seek(0)
        file.write(_EHDR.pack(*head) + table)


def _run(arguments: list[str], out: Path | None, check: bool = True) -> str:
    command = ["makedumpfile", *arguments]
    try:
        if out is not None:
            with out.open("wb") as file:
                result = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, timeout=_SECONDS
                )
        else:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS
            )
    except FileNotFoundError:
        raise VMError("makedumpfile isn't installed") from None
    except subprocess.TimeoutExpired:
        raise VMError(f"makedumpfile wasn't done after {_SECONDS} s") from None
    text = ((result.stdout or b"") + (result.stderr or b"")).decode(errors="replace")
    if check and result.returncode != 0:
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        raise VMError(f"makedumpfile: status {result.returncode}: {'; '.join(lines[-3:])}")
    return text
