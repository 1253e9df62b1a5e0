"""Files with a machine's memory in formats that cannot be opened: what they are, and what makes of them one that can.

Each is known by a magic number at its start; the source of that is named with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from kplug.files.compression import recognise
from kplug.memory.kdump_pages import bytes_at
from kplug.named_tuples import NamedTuple

_VIRSH = "virsh dump --memory-only (QEMU's dump-guest-memory) writes what can be opened"
_CRASH = "crash reads it, drgn does not"


class _Format(NamedTuple):
    """A format: its magics, and where these are defined; its name, and the remedy, for the user."""

    magics: tuple[bytes, ...]
    source: str
    name: str
    remedy: str


def _either_order(form: str, *numbers: int) -> tuple[bytes, ...]:
    return tuple(struct.pack(order + form, number) for number in numbers for order in "<>")


_FORMATS: tuple[_Format, ...] = (
    _Format(
        (b"QEVM",),
        "QEMU_VM_FILE_MAGIC in QEMU's migration/savevm.h",
        "a QEMU migration stream (virsh dump without --memory-only, migrate to a file)",
        _VIRSH,
    ),
    _Format(
        (b"LibvirtQemudSave", b"LibvirtQemudPart"),
        "QEMU_SAVE_MAGIC and QEMU_SAVE_PARTIAL in libvirt's src/qemu/qemu_saveimage.h",
        "a guest as virsh save left it",
        f"virsh restore brings it back, and {_VIRSH}",
    ),
    _Format(
        # XC_CORE_MAGIC and its HVM twin. Newer ones are ELF files: `xen_dump_core`.
        (struct.pack("<I", 0xF00FEBED), struct.pack("<I", 0xF00FEBEE)),
        "XC_CORE_MAGIC in Xen's tools/libxc/xenctrl.h, up to 3.1",
        "Xen's dump-core of a guest",
        _CRASH,
    ),
    _Format(
        tuple(struct.pack("<I", magic) for magic in (0xBED0BED0, 0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2)),
        "CPTDUMP_MAGIC_NUMBER and the others in crash's vmware_vmss.h",
        "a VMware snapshot or suspended guest (.vmss, .vmsn)",
        "VMware's vmss2core makes a core file of it",
    ),
    _Format(
        _either_order("Q", 0xA8190173618F23ED, 0xA8190173618F23CD),
        "DUMP_MAGIC_NUMBER and DUMP_MAGIC_LIVE in LKCD's dump.h",
        "an LKCD dump",
        _CRASH,
    ),
    _Format(
        (struct.pack(">Q", 0xA8190173618F23FD), struct.pack(">Q", 0xA8190173618F23FE)),
        "DF_S390_MAGIC and DF_S390_MAGIC_EXT in s390-tools' df_s390.h",
        "a standalone dump of s390",
        "zgetdump -f elf FILE makes an ELF core file of it",
    ),
    _Format(
        (b"AVML",),
        "MAGIC of version 2 in AVML's src/image.rs",
        "a compressed memory image of AVML",
        "avml-convert FILE NEW makes a LiME image of it",
    ),
)
_UNPACKERS = {
    "gzip": "gunzip",
    "xz": "unxz",
    "bzip2": "bunzip2",
    "lzma": "unlzma",
    "lzo": "lzop -d",
    "lz4": "lz4 -d",
    "zstd": "zstd -d",
}

XEN = f"Xen's dump-core of a guest (xl dump-core): {_CRASH}; kdump in the guest leaves what can be opened"
_MOST_SECTIONS = 64
_MOST_NAMES = 1 << 12


def foreign(head: bytes) -> str | None:
    """What a file that starts so is, and the remedy, for the user; None for an unknown one."""
    for each in _FORMATS:
        if head.startswith(each.magics):
            return f"{each.name}: {each.remedy}"
    packed = recognise(head)
    if packed is not None:
        return f"compressed with {packed}: unpack it first ({_UNPACKERS[packed]})"
    return None


def xen_dump_core(file: BinaryIO, order: str, wide: bool, head: bytes) -> bool:
    """Whether an ELF core file without program headers is Xen's: docs/misc/dump-core-format.txt has its sections."""
    return b".note.Xen" in _section_names(file, order, wide, head)


def _section_names(file: BinaryIO, order: str, wide: bool, head: bytes) -> Iterator[bytes]:
    offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 40 if wide else 32)[0]
    size, count, names = struct.unpack_from(order + "HHH", head, 58 if wide else 46)
    form = struct.Struct(order + ("IIQQQQ" if wide else "6I"))
    if count > _MOST_SECTIONS or names >= count or size < form.size:
        return
    table = bytes_at(file, offset, size * count)
    if len(table) != size * count:
        return
    rows = [form.unpack_from(table, index * size) for index in range(count)]
    text = bytes_at(file, rows[names][4], min(rows[names][5], _MOST_NAMES))
    for row in rows:
        yield text[row[0] :].split(b"\0", 1)[0]
