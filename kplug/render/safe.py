"""Text from files and targets, made safe for a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, and the characters that reorder or hide what follows (bidirectional overrides, zero width).
UNSAFE = "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"


def safe(text: str) -> str:
    r"""`text` with control and invisible characters as `\x1b`-like escapes; ordinary text unchanged."""
    return re.sub(UNSAFE, _escape, text) if not text.isascii() or not text.isprintable() else text


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
