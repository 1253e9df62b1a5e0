"""Names of functions as a reader knows them: without what compilers and the kernel's build add to them."""

from __future__ import annotations

import re

# .isra.0, .constprop.0, .part.0, .cold and .lto_priv of gcc, .llvm.HASH of clang's LTO and CFI.
_SUFFIX = re.compile(
    r"\.(?:isra|constprop|part|cold|lto_priv|llvm|localalias|specialized|resume|cfi|cfi_jt|warm|clone)(?:\.\d{1,20})?(?=\.|$)"
)
_NUMBER = re.compile(r"\.\d{1,10}$")
_PREFIXES = ("__pfx_", "__cfi_", "__pi_", "__kprobes_text_")
_FILE = re.compile(r"^'?[\w.+-]{1,255}\.[A-Za-z]{1,4}'?::?(?=[A-Za-z_])")
# Rust's mangling, and nested names of C++: a path of identifiers with their lengths; the last one is the function.
_RUST_OR_CPP = re.compile(r"^(?:_R|_ZN|__ZN|_Z)")
_LENGTH = re.compile(r"(?P<length>[1-9]\d{0,2})(?=[A-Za-z_])")
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
    if _RUST_OR_CPP.match(name):
        parts = _identifiers(name)
        if parts:
            return "::".join(parts)
    return name


def _identifiers(name: str) -> list[str]:
    """The identifiers in a mangled name, outermost first, without the hash that rustc adds."""
    position = 0
    parts: list[str] = []
    while position < len(name) and len(parts) < _MOST_PARTS:
        match = _LENGTH.search(name, position)
        if match is None:
            break
        length = int(match.group("length"))
        text = name[match.end() : match.end() + length]
        if len(text) < length:
            break
        text = text[1:] if text.startswith("_") and text[1:2].isdigit() else text
        position = match.end() + length
        if not _HASH.match(text):
            parts.append(text)
    return parts
