"""The bounded buffer that compressed data is unpacked into, and the errors of unpacking."""

from __future__ import annotations

import io
from collections.abc import Callable

from kplug.named_tuples import NamedTuple

# Called with the fraction of the compressed bytes that is done, 0 to 1.
ProgressCallback = Callable[[float], None]

# Bytes unpacked at a time.
CHUNK = 1 << 20
# Kernels unpack to 20 to 200 MiB, modules and debug builds of kernels without their DWARF to less than this.
MAX_UNPACKED_BYTES = 1 << 29
# zstd -22 packs a kernel to a fifth. A file that unpacks to far more than that was made to fill memory.
_MAX_UNPACKING_RATIO = 100
_ALWAYS_UNPACKED_BYTES = 1 << 24


def unpacking_limit(packed_size: int) -> int:
    """The bytes that a kernel or module of that packed size unpacks to at most."""
    return min(MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, _MAX_UNPACKING_RATIO * packed_size))


class UnpackError(Exception):
    """Compressed data cannot be unpacked. `str()` is the reason, for a line that names the file.

    `unpacked` is how many bytes came out before the error.
    """

    def __init__(self, reason: str, unpacked: int = 0) -> None:
        super().__init__(reason)
        self.unpacked = unpacked


class MissingUnpackerError(UnpackError):
    """Nothing that unpacks this format is installed; the reason says what to install."""


class TooLargeError(UnpackError):
    """The data unpacks to more than was allowed."""


class EnoughError(Exception):
    """As many bytes were unpacked as were requested."""


class NotInstalledError(Exception):
    """This way of unpacking is not installed here."""


class Unpacked(NamedTuple):
    """The unpacked data, and the size of the compressed stream."""

    data: bytes
    consumed: int


class BoundedOutput:
    """Collects what is unpacked, up to `limit` bytes.

    `write` raises TooLargeError beyond that; with `enough`, EnoughError as soon as `limit` bytes are there. `total` is
    the number of compressed bytes, for `progress`.
    """

    def __init__(self, limit: int, enough: bool, total: int, progress: ProgressCallback | None) -> None:
        self._stream = io.BytesIO()
        self._limit = limit
        self._enough = enough
        self._total = max(total, 1)
        self._progress = progress

    def write(self, chunk: bytes, consumed: int = 0) -> None:
        self._stream.write(chunk)
        if self._enough and self._stream.tell() >= self._limit:
            raise EnoughError
        if self._stream.tell() > self._limit:
            raise TooLargeError(f"unpacks to more than {_size(self._limit)}")
        if self._progress is not None:
            self._progress(consumed / self._total)

    @property
    def size(self) -> int:
        return self._stream.tell()

    def bytes(self) -> bytes:
        return self._stream.getvalue()


def broken(name: str, why: object = "") -> UnpackError:
    return UnpackError(f"the {name} data is broken" + (f": {why}" if str(why) else ""))


def truncated(name: str) -> UnpackError:
    return UnpackError(f"truncated: the {name} data ends too early")


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"
