"""Names of functions as a reader knows them: without what compilers and the kernel's build add to them."""

from __future__ import annotations

import re

# .isra.0, .constprop.0, .part.0, .cold and .lto_priv of gcc, .llvm.HASH of clang's LTO and CFI.
_SUFFIX = re.compile(
    r"\.(?:isra|constprop|part|cold|lto_priv|llvm|localalias|specialized|resume|cfi|cfi_jt|warm|clone)"
    r"(?:\.\d{1,20})?(?=\.|$)"
)
_NUMBER = re.compile(r"\.\d{1,10}$")
_PREFIXES = ("__pfx_", "__cfi_", "__pi_", "__kprobes_text_")
_FILE = re.compile(r"^'?[\w.+-]{1,255}\.[A-Za-z]{1,4}'?::?(?=[A-Za-z_])")
# Rust's mangling, and nested names of C++: a path of identifiers with their lengths; the last one is the function.
_MANGLED = re.compile(r"_(?:R|ZN|Z)(?=[A-Za-z0-9])")
# Disambiguators and back references of Rust's; an identifier's length, with _ where it would run on; other letters.
_TOKEN = re.compile(r"[sB][0-9A-Za-z]{0,20}_|(?P<length>[1-9]\d{0,2})(?:_(?=[\d_]))?|[A-Za-z]")
_HASH = re.compile(r"h[0-9a-f]{16}$")
_MOST_PARTS = 32


def normal(name: str) -> str:
    """The function that a symbol is of, the same whichever compiler built it."""
    name = _FILE.sub("", name)
    for _ in range(4):
        shorter = next((name[len(prefix) :] for prefix in _PREFIXES if name.startswith(prefix)), name)
        shorter = _NUMBER.sub("", _SUFFIX.sub("", shorter))
        if shorter == name or not shorter:
            break
        name = shorter
    parts = _identifiers(name)
    return "::".join(parts) if parts else name


def _identifiers(name: str) -> list[str]:
    """The identifiers in a mangled name, outermost first, without the hash of rustc; none if it is no such name."""
    parts: list[str] = []
    start = _MANGLED.match(name)
    position = start.end() if start is not None else len(name)
    while len(parts) < _MOST_PARTS:
        match = _TOKEN.match(name, position)
        if match is None:
            break
        position = match.end()
        if match.group("length"):
            # Where the identifier has a _ itself, there are two.
            text = name[position : position + int(match.group("length"))]
            position += len(text)
            if not _HASH.match(text):
                parts.append(text)
    return parts
