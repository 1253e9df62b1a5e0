"""What a declaration of a container is made of, and the errors of opening one.

A container's declaration says how it is recognised and where in it the kernel is; `containers` has them all, and one
opener (`boot_image`) works through them, as deep as they are nested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kplug.image.boot.window import Window
from kplug.named_tuples import NamedTuple


class BadImageError(Exception):
    """What is wrong with the image, for a line that names the file."""


class NoKernelError(BadImageError):
    """There is nothing in it that could be a kernel."""


class Part(NamedTuple):
    """Where a container has a kernel: its bytes (from `start`, `size` of them), and what the container says about it.

    `compression` None: it is told from the data. `is_packed`: the container says that it is packed. `is_exact`: the
    kernel, packed or not, begins at `start`; else it is somewhere in the part.
    """

    start: int
    size: int
    compression: str | None = None
    unpacked_size: int | None = None
    machine: str | None = None
    is_packed: bool = False
    is_exact: bool = True


class Container(NamedTuple):
    """One format that holds kernels.

    `source` says where it is described, `kernel` where in it a kernel is, for the documentation. `magic` is what it is
    recognised by, `magic_at` where that is. `parts` gives its kernels, the one that is booted first; None if the data
    is not of this format after all; BadImageError if it is, and broken. `searched`: the magic is long enough to be
    looked for in data without a known header.
    """

    name: str
    source: str
    kernel: str
    magic: tuple[bytes, ...]
    magic_at: int
    parts: Callable[[Window], Sequence[Part] | None]
    searched: bool = True

    def begins(self, data: Window | bytes) -> bool:
        """Whether data has the magic in its place."""
        return any(data[self.magic_at : self.magic_at + len(magic)] == magic for magic in self.magic)


def inside(part: Part, data: Window, container: str) -> Part:
    """The part; BadImageError if it is empty, or not in the data."""
    end = part.start + part.size
    if end > len(data):
        raise BadImageError(f"truncated: its {container} header claims {end} bytes, it has {len(data)}")
    if part.size <= 0:
        raise BadImageError(f"its {container} header points to no kernel")
    return part
