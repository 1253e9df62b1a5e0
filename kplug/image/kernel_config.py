"""The kernel's configuration in its image (CONFIG_IKCONFIG): kernel/configs.c has it gzipped between two marks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from kplug.errors import InputError

_START, _END = b"IKCFG_ST\x1f\x8b\x08", b"IKCFG_ED"
# allmodconfig of 7.x is 300 KB, a seventh of that packed.
MAX_PACKED_BYTES = 1 << 21
_MAX_BYTES = 1 << 23


def packed_config(pieces: Iterable[bytes]) -> bytes | None:
    """The gzipped configuration in the pieces of an image; None if there is none, or several that differ."""
    for data in pieces:
        start, end = data.find(_START), 0
        while start >= 0 <= end:
            begin = start + len(b"IKCFG_ST")
            if end < begin:
                end = data.find(_END, begin)
            if begin < end <= begin + MAX_PACKED_BYTES:
                return data[begin:end]
            start = data.find(_START, begin)
    return None


def config_text(path: str, packed: bytes) -> str:
    """The text of a packed configuration. InputError naming `path` if it cannot be unpacked or is something else."""
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        data = unpacking.decompress(packed, _MAX_BYTES)
    except zlib.error as error:
        raise InputError(f"{path}: its configuration (IKCONFIG) cannot be unpacked: {error}") from None
    if not unpacking.eof:
        why = f"unpacks to over {_MAX_BYTES >> 20} MiB" if len(data) == _MAX_BYTES else "is truncated"
        raise InputError(f"{path}: its configuration (IKCONFIG) {why}")
    text = data.decode("utf-8", "backslashreplace")
    if not re.search(r"^(?:# )?CONFIG_\w+(?:=| is not set$)", text, re.MULTILINE):
        raise InputError(f"{path}: what is marked as its configuration (IKCONFIG) is not one")
    return text


def config_lines(text: str, pattern: str) -> list[str]:
    """The lines that set options matching `pattern`: with or without CONFIG_, with `*` and `?`, in any case."""
    from fnmatch import fnmatchcase

    wanted = pattern.upper()
    wanted = wanted if wanted.startswith(("CONFIG_", "*", "?")) else f"CONFIG_{wanted}"
    found = []
    for line in text.splitlines():
        match = re.match(r"(?:# )?(CONFIG_\w+)(?:=| is not set$)", line)
        if match is not None and fnmatchcase(match.group(1).upper(), wanted):
            found.append(line)
    return found
