"""Which of several symbols at one address to name."""

from __future__ import annotations

from kplug.image.symbols.symbol import Symbol

# Names to avoid if the address has another one: compiler and objtool bookkeeping, static-call machinery.
_SECONDARY_PREFIXES = (
    "__pfx_",
    "__cfi_",
    "__SCT__",
    "__SCK__",
    "__UNIQUE_ID",
    "__BTF_ID__",
    "__initcall__kmod_",
    "__event_",
    "__ia32_",  # an entry of the 32-bit system calls that is the same code as the 64-bit one
    ".L",
)


def preference(symbol: Symbol) -> tuple[bool, bool, bool, int, int, str]:
    """Sort key for symbols at one address, best first: the one that a user would expect.

    Bookkeeping names last, sized before sizeless, global or weak before local, fewer leading underscores, then the
    larger one; the rest only makes the choice stable.
    """
    name = symbol.name
    return (
        name.startswith(_SECONDARY_PREFIXES),
        not symbol.size,
        symbol.binding == "LOCAL",
        len(name) - len(name.lstrip("_")),
        -symbol.size,
        name,
    )
