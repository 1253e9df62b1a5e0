"""A machine's files as they were saved of a guest: a folder that stands for its `/`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vmimages import KernelFiles
    from vmimages.truth import Symbol

# What a guest was asked, and where it has that itself.
_SAVED = {
    "kallsyms": "proc/kallsyms",
    "modules": "proc/modules",
    "iomem": "proc/iomem",
    "version": "proc/version",
    "notes": "sys/kernel/notes",
}
VMLINUX, BOOT_IMAGE, SYSTEM_MAP, MODULES = "vmlinux", "boot image", "System.map", "modules"


class Guest(NamedTuple):
    """A kernel's files, what its guest said of itself, and the lines of that guest's /proc/kallsyms."""

    files: KernelFiles
    truth: Path
    symbols: Sequence[Symbol]


def saved_tree(root: Path, truth: Path, files: KernelFiles, having: Iterable[str] = ()) -> Path:
    """The guest's /proc and /sys below `root`, as root sees them, with those files of its kernel."""
    for name, path in _SAVED.items():
        _write(root / path, (truth / name).read_bytes())
    for line in (truth / "sections").read_text().splitlines():
        path, _, address = line.rpartition(":")
        _write(root / "sys/module" / path, address.encode() + b"\n")
    for line in (truth / "module-build-ids").read_text().splitlines():
        module, build_id = line.split()
        note = struct.pack("<III4s", 4, 20, 3, b"GNU\0") + bytes.fromhex(build_id)
        _write(root / f"sys/module/{module}/notes/.note.gnu.build-id", note)
    release = files.release
    links = {
        VMLINUX: (f"usr/lib/debug/boot/vmlinux-{release}", files.vmlinux),
        BOOT_IMAGE: (f"boot/vmlinuz-{release}", files.vmlinuz),
        SYSTEM_MAP: (f"boot/System.map-{release}", files.system_map),
        MODULES: (f"lib/modules/{release}", files.modules),
    }
    for name in having:
        place, file = links[name]
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(file)
    return root


def hide_addresses(root: Path) -> None:
    """Make the tree what somebody without CAP_SYSLOG sees: zeros, and no sections."""
    kallsyms = root / "proc/kallsyms"
    lines = kallsyms.read_bytes().splitlines(keepends=True)
    kallsyms.write_bytes(b"".join(b"0" * 16 + line[16:] for line in lines))
    modules = root / "proc/modules"
    words = [line.rpartition(" 0x") for line in modules.read_text().splitlines()]
    modules.write_text("".join(f"{start} 0x{'0' * 16}{rest[16:]}\n" for start, _, rest in words))
    iomem = root / "proc/iomem"
    named = [line.partition(" : ")[2] for line in iomem.read_text().splitlines()]
    iomem.write_text("".join(f"00000000-00000000 : {name}\n" for name in named))
    for folder in (root / "sys/module").glob("*/sections"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
