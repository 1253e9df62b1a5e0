"""kplug answers one question about a Linux kernel: what is this address?

The core knows kernels and no debugger. `kplug.resolver.Resolver` collects the layers that hold an address, from the
widest to the narrowest: from files on disk (`kplug.image`), the linker script (`kplug.linker`), the address space
(`kplug.space`) and a running target. Front ends (`kplug.shell`, `kplug.repl`, `gdb/`) only ask and show.

    >>> session = kplug.open("vmlinux", kaslr_offset=0x22800000)
    >>> next(session.where("schedule+0x10")).last("symbol").name
    'schedule'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kplug.session import Session

__version__ = "0.1.0"


def open(vmlinux: str | None = None, **source: Any) -> Session:
    """Open the kernel that the arguments name. Returns a `Session`, which answers questions about it.

    `where("schedule+0x10")` gives an `Annotation` for each place that an expression means, `resolver.where(ADDRESS)`
    one for a runtime address, `resolver.bulk(ADDRESSES)` columns for many. The arguments are the fields of
    `kplug.source.Source`: `vmlinux`, `core`, `kaslr_offset` and so on. Without arguments it is the running kernel.

    Raises `kplug.errors.KplugError`, worded for the user, if the kernel cannot be opened, and TypeError for an argument
    that `Source` does not have.
    """
    from kplug.opening import open_session  # `import kplug` costs nothing: plug-ins and scripts do it at their start
    from kplug.source import Source

    return open_session(Source(vmlinux=vmlinux, **source))
