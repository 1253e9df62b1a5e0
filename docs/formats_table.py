#!/usr/bin/env python3
"""Writes the table of boot images in docs/sources.md: each container's row is its declaration (kplug/image/boot)."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kplug.files.compression import FORMATS  # noqa: E402
from kplug.image.boot.containers import CONTAINERS, is_packed_file  # noqa: E402

PAGE = ROOT / "docs" / "sources.md"
HEADING = "| container | recognised by | its kernel | described in |"


def _magic(magic: bytes) -> str:
    return magic.decode() if magic.isascii() and magic.decode().isprintable() else magic.hex(" ")


def _recognised(magics: tuple[bytes, ...], place: int) -> str:
    return " or ".join(f"`{_magic(magic)}`" for magic in magics) + (f" at {place:#x}" if place else "")


def written(page: str) -> str:
    """The page with the table of containers as they are declared."""
    rows = [HEADING, "| --- | --- | --- | --- |"]
    for each in CONTAINERS:
        if not is_packed_file(each):
            rows.append(f"| {each.name} | {_recognised(each.magic, each.magic_at)} | {each.kernel} | {each.source} |")
    for name, compression in FORMATS.items():
        rows.append(f"| {name} file | {_recognised(compression.magics, 0)} | what it unpacks to | |")
    before, _, rest = page.partition(HEADING)
    _, _, after = rest.partition("\n\n")
    return f"{before}{chr(10).join(rows)}\n\n{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
