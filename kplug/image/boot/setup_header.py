"""The real-mode header of x86's bzImage, for boot loaders (Documentation/arch/x86/boot.rst)."""

from __future__ import annotations

import struct

from kplug.named_tuples import NamedTuple

HEAD_BYTES = 0x8000  # the setup code, which contains the version string, has at most 64 sectors
_MAGIC_AT = 0x202
# The bits of xloadflags (XLF_*, arch/x86/include/uapi/asm/bootparam.h), lowest first.
_XLOADFLAGS = (
    *("KERNEL_64", "CAN_BE_LOADED_ABOVE_4G", "EFI_HANDOVER_32", "EFI_HANDOVER_64", "EFI_KEXEC"),
    *("5LEVEL", "5LEVEL_ENABLED", "MEM_ENCRYPTION"),
)


class SetupHeader(NamedTuple):
    """The fields of the header; None if its protocol is too old for one. Sizes and alignment in bytes."""

    protocol: str
    version: str | None
    relocatable: bool | None
    alignment: int | None
    preferred_address: int | None
    init_size: int | None
    load_flags: list[str] | None


def setup_header(head: bytes) -> SetupHeader | None:
    """The header in the first bytes of a file (HEAD_BYTES); None if it has none."""
    if len(head) < 0x264 or head[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS":
        return None
    protocol = struct.unpack_from("<H", head, 0x206)[0]
    flags = struct.unpack_from("<H", head, 0x236)[0]
    return SetupHeader(
        f"{protocol >> 8}.{protocol & 0xFF:02}",
        _version(head),
        bool(head[0x234]) if protocol >= 0x205 else None,
        struct.unpack_from("<I", head, 0x230)[0] if protocol >= 0x205 else None,
        struct.unpack_from("<Q", head, 0x258)[0] if protocol >= 0x20A else None,
        struct.unpack_from("<I", head, 0x260)[0] if protocol >= 0x20A else None,
        [word for bit, word in enumerate(_XLOADFLAGS) if flags >> bit & 1] if protocol >= 0x20C else None,
    )


def _version(head: bytes) -> str | None:
    """The string that kernel_version points to: release, who built it, and uname -v."""
    offset = struct.unpack_from("<H", head, 0x20E)[0]
    text, end, _ = head[0x200 + offset : 0x200 + offset + 512].partition(b"\0")
    return text.decode("utf-8", "backslashreplace") if offset and end else None
