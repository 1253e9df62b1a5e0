"""Text from files and targets as HTML: never markup, and no character of it moves or hides another."""

from __future__ import annotations

import re
from html import escape

from kplug.render.safe import UNSAFE, safe

# A carriage return at the end of a line; a colour code; what `safe` escapes, but for what lays lines out.
_ODD = re.compile(rf"\r+(?=\n)|\x1b\[[0-9;]{{0,20}}[A-Za-z]|(?:(?![\t\n]){UNSAFE})+")
# Bytes that are no UTF-8, as Python decodes them.
_BYTES = {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}


def attribute(text: str) -> str:
    """Any text as an attribute's value, or as an element's text of one line."""
    return escape(safe(text))


def as_text(data: bytes) -> str:
    """Bytes of a log as text, each of which `log_text` shows."""
    return data.decode("utf-8", "surrogateescape")


def log_text(text: str) -> str:
    r"""Text of a log as it is: a reader of the page gets the same. What is no text is `<i>\x1b</i>`."""
    return _ODD.sub(_shown, escape(text))


def _shown(match: re.Match[str]) -> str:
    text = match.group()
    if text.strip("\r"):
        return f"<i>{safe(text.translate(_BYTES))}</i>"
    return "&#13;" * len(text) if match.string[match.end() :][:1] == "\n" else f"<i>{safe(text)}</i>"
