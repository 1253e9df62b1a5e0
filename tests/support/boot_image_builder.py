"""Boot images and packed data made by hand, from the formats' own descriptions: the smallest that holds together.

What Python cannot pack (zstd, lz4, lzo) is packed here without being made smaller, which every unpacker takes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Callable

ZSTD_MAGIC, LZ4_MAGIC, LZO_MAGIC = b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"\x89LZO\x00\r\n\x1a\n"
LZ4_FRAME_MAGIC = b"\x04\x22\x4d\x18"
LZ4_BLOCK = 1 << 23
ZSTD_BLOCK = 1 << 17
LZO_BLOCK = 1 << 18


def zstd(data: bytes) -> bytes:
    """RFC 8878: a frame of raw blocks, which says its content's size in four bytes."""
    blocks = [data[at : at + ZSTD_BLOCK] for at in range(0, len(data), ZSTD_BLOCK)] or [b""]
    packed = ZSTD_MAGIC + bytes([0xA0]) + struct.pack("<I", len(data))
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        packed += (len(block) << 3 | last).to_bytes(3, "little") + block
    return packed


def zstd_bomb(size: int) -> bytes:
    """The same byte again and again: four bytes for 128 KiB, in a frame that does not say its size."""
    packed = bytearray(ZSTD_MAGIC + bytes([0x00, 0x38]))
    for left in range(size, 0, -ZSTD_BLOCK):
        count = min(left, ZSTD_BLOCK)
        packed += (count << 3 | 1 << 1 | (left <= ZSTD_BLOCK)).to_bytes(3, "little") + b"\0"
    return bytes(packed)


def lz4(data: bytes) -> bytes:
    """The legacy frame: blocks of literals alone."""
    packed = LZ4_MAGIC
    for at in range(0, len(data), LZ4_BLOCK):
        literals = data[at : at + LZ4_BLOCK]
        long = len(literals) - 15
        lengths = bytes([255]) * (long // 255) + bytes([long % 255]) if long >= 0 else b""
        block = bytes([min(len(literals), 15) << 4]) + lengths + literals
        packed += struct.pack("<I", len(block)) + block
    return packed


def lz4_bomb(blocks: int) -> bytes:
    """Blocks of 8 MiB: a zero, a match that repeats it, and the five literals that must end a block."""
    match = LZ4_BLOCK - 1 - 5 - 4 - 15
    block = b"\x1f\0" + b"\x01\0" + bytes([255]) * (match // 255) + bytes([match % 255]) + b"\x50" + bytes(5)
    return LZ4_MAGIC + (struct.pack("<I", len(block)) + block) * blocks


def lz4_frame(data: bytes) -> bytes:
    """lz4_Frame_format.md: blocks of up to 4 MiB that are stored; 0x73 is the checksum of the descriptor 0x60 0x70."""
    packed = LZ4_FRAME_MAGIC + b"\x60\x70\x73"
    for at in range(0, len(data), 1 << 22):
        block = data[at : at + (1 << 22)]
        packed += struct.pack("<I", len(block) | 1 << 31) + block
    return packed + bytes(4)


def lzo(data: bytes) -> bytes:
    """lzop's file: a header with its checksum, blocks that are stored, each with the Adler-32 of what it unpacks to."""
    header = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 5, 0x03000001, 0o100644, 0, 0, 0)
    packed = LZO_MAGIC + header + struct.pack(">I", zlib.adler32(header))
    for at in range(0, len(data), LZO_BLOCK):
        block = data[at : at + LZO_BLOCK]
        packed += struct.pack(">III", len(block), len(block), zlib.adler32(block)) + block
    return packed + bytes(4)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE, preset=9),
    "lzo": lzo,
    "lz4": lz4,
    "zstd": zstd,
}


def with_size(name: str, packed: bytes, size: int) -> bytes:
    """As the kernel's build does: the unpacked size appended, where the format does not end with it (gzip)."""
    return packed if name == "gzip" else packed + struct.pack("<I", size)


def bzimage(payload: bytes, setup_sectors: int = 2, payload_offset: int = 0x20, version: int = 0x20F) -> bytes:
    """Documentation/arch/x86/boot.rst: the setup header at 0x1f1, the protected-mode part after the setup sectors."""
    data = bytearray((setup_sectors + 1) * 512 + payload_offset)
    data[0x1F1] = setup_sectors
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, version)
    struct.pack_into("<II", data, 0x248, payload_offset, len(payload))
    return bytes(data) + payload + b"\x90" * 64


def zboot(payload: bytes, name: str, size: int) -> bytes:
    """drivers/firmware/efi/libstub/zboot-header.S; the size after the payload is not counted."""
    data = bytearray(0x200)
    data[:8] = b"MZ\0\0zimg"
    struct.pack_into("<II", data, 8, 0x200, len(payload))
    data[24 : 24 + len(name)] = name.encode()
    struct.pack_into("<I", data, 0x3C, 0x40)
    data[0x40:0x46] = b"PE\0\0" + struct.pack("<H", 0xAA64)
    return bytes(data) + with_size(name, payload, size) + bytes(64)


def uimage(payload: bytes, compression: int = 0, machine: int = 22, kind: int = 2) -> bytes:
    """U-Boot's include/image.h: big-endian, with a checksum of the header and one of the data."""
    fields = (0x27051956, 0, 0, len(payload), 0x80000, 0x80000, zlib.crc32(payload), 5, machine, kind, compression)
    header = bytearray(struct.pack(">7I4B32s", *fields, b"Linux"))
    struct.pack_into(">I", header, 4, zlib.crc32(header))
    return bytes(header) + payload


def zimage(payload: bytes, little: bool = True) -> bytes:
    """arch/arm/boot/compressed/head.S: the magic, where it starts and ends; the packed kernel somewhere after it."""
    size = 0x400 + len(payload) + 64
    head = bytes(0x24) + struct.pack("<3I" if little else ">3I", 0x016F2818, 0, size)
    return head.ljust(0x400, b"\0") + payload + bytes(64)


def uncompressed_img(kernel: bytes) -> bytes:
    """Qualcomm's LK, app/aboot/aboot.c: 20 bytes, and a device tree after the kernel."""
    return b"UNCOMPRESSED_IMG" + struct.pack("<I", len(kernel)) + kernel + b"\xd0\x0d\xfe\xed" + bytes(60)


def mediatek(kernel: bytes) -> bytes:
    """MediaTek's LK, union prt_img_hdr: 512 bytes, filled with ones."""
    return (struct.pack("<II32s", 0x58881688, len(kernel), b"KERNEL")).ljust(512, b"\xff") + kernel


def chromeos(body: bytes) -> bytes:
    """vboot_reference, 2struct.h: a key block, a preamble with the body's size in its signature, the body."""
    preamble = bytearray(0xF80)
    struct.pack_into("<I", preamble, 0, len(preamble))
    struct.pack_into("<I", preamble, 72 + 16, len(body))
    return b"CHROMEOS" + struct.pack("<3I", 2, 1, 0x80).ljust(0x78, b"\0") + bytes(preamble) + body + bytes(512)


def flat_image(data: bytes, magic: bytes = b"ARM\x64", offset: int = 0x38) -> bytes:
    """Documentation/arch/arm64/booting.rst: 64 bytes of header before the code."""
    header = bytearray(64)
    struct.pack_into("<3Q", header, 8, 0, 64 + len(data) + 4096, 0xA)
    header[offset : offset + 4] = magic
    return bytes(header) + data


def efi_image(image: bytes) -> bytes:
    """The flat Image as a PE file that EFI starts (arch/arm64/kernel/efi-header.S), all in one section."""
    data = bytearray(image)
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, 0x40)
    struct.pack_into("<4s2H12xH", data, 0x40, b"PE\0\0", 0xAA64, 1, 0)
    struct.pack_into("<8s8x2I16x", data, 0x58, b".text", len(image) - 0x40, 0x40)
    return bytes(data)


def android(kernel: bytes, version: int = 2, page: int = 2048) -> bytes:
    """AOSP, system/tools/mkbootimg: the kernel's size first, the page size at 36, the version at 40."""
    header = bytearray(4096 if version >= 3 else page)
    header[:8] = b"ANDROID!"
    struct.pack_into("<I", header, 8, len(kernel))
    if version < 3:
        struct.pack_into("<I", header, 36, page)
    struct.pack_into("<I", header, 40, version)
    return bytes(header) + kernel + bytes(-len(kernel) % 4096)


def unified(linux: bytes) -> bytes:
    """A PE file with a section .linux (UAPI group, Unified Kernel Image)."""
    data = bytearray(0x400)
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, 0x40)
    data[0x40:0x44] = b"PE\0\0"
    struct.pack_into("<HH", data, 0x44, 0x8664, 2)
    struct.pack_into("<H", data, 0x40 + 20, 0)
    for number, (name, size, offset) in enumerate(((b".osrel", 16, 0x3F0), (b".linux", len(linux), 0x400))):
        struct.pack_into("<8s8x2I16x", data, 0x58 + 40 * number, name, size, offset)
    return bytes(data) + linux


def fit(kernel: bytes, compression: str = "none", arch: str = "arm64") -> bytes:
    """A flattened device tree (Devicetree Specification, 5) with /images/kernel-1."""
    strings = b""

    def name(text: str) -> int:
        nonlocal strings
        at = len(strings)
        strings += text.encode() + b"\0"
        return at

    def node(text: str) -> bytes:
        return struct.pack(">I", 1) + (text.encode() + b"\0").ljust(len(text) + 4 & ~3, b"\0")

    def words(text: str, value: bytes) -> bytes:
        return struct.pack(">3I", 3, len(value), name(text)) + value + bytes(-len(value) % 4)

    end = struct.pack(">I", 2)
    ramdisk = node("ramdisk-1") + words("type", b"ramdisk\0") + words("data", b"ram") + end
    body = words("type", b"kernel\0") + words("arch", arch.encode() + b"\0")
    body += words("compression", compression.encode() + b"\0") + words("data", kernel)
    tree = node("") + node("images") + ramdisk + node("kernel-1") + body + end + end + end + struct.pack(">I", 9)
    total = 40 + 16 + len(tree) + len(strings)
    header = struct.pack(">10I", 0xD00DFEED, total, 56, 56 + len(tree), 40, 17, 16, 0, len(strings), len(tree))
    return header + bytes(16) + tree + strings


def without_sections(elf: bytes) -> bytes:
    """A 64-bit little-endian ELF file with segments alone: e_shoff, e_shnum and e_shstrndx are 0 (gABI)."""
    return elf[:40] + bytes(8) + elf[48:60] + bytes(4) + elf[64:]
