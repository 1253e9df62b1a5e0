"""A writer of cpio archives in the one format that the kernel unpacks ("newc").

Our own rather than the `cpio` tool: it is thirty lines, needs no root for device nodes, no scratch folder, and gives
the same bytes for the same content.
"""

from __future__ import annotations

import stat
from typing import BinaryIO

_TRAILER = "TRAILER!!!"


class CpioWriter:
    """Writes entries one after the other; `close()` (or leaving the `with`) ends the archive."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written = 0
        self._inode = 0
        self._folders: set[str] = set()

    def __enter__(self) -> CpioWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()

    def directory(self, path: str) -> None:
        """A folder, and those above it: a file in a folder that isn't there would be lost."""
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count])
            if folder and folder not in self._folders:
                self._folders.add(folder)
                self._entry(folder, stat.S_IFDIR | 0o755, b"", links=2)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file; the folders above it come by themselves."""
        self.directory(path.strip("/").rpartition("/")[0])
        self._entry(path.strip("/"), stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link."""
        self.directory(path.strip("/").rpartition("/")[0])
        self._entry(path.strip("/"), stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """A character device."""
        self.directory(path.strip("/").rpartition("/")[0])
        self._entry(path.strip("/"), stat.S_IFCHR | mode, b"", device=(major, minor))

    def close(self) -> None:
        """The end mark."""
        self._entry(_TRAILER, 0, b"")
        self._write(bytes(-self._written % 512))

    def _entry(self, path: str, mode: int, data: bytes, links: int = 1, device: tuple[int, int] = (0, 0)) -> None:
        name = path.encode() + b"\0"
        self._inode += 1
        # inode, mode, uid, gid, links, mtime, size, the filesystem's device, the node's device, name size, check
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0)
        self._write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        self._pad()
        self._write(data)
        self._pad()

    def _pad(self) -> None:
        self._write(bytes(-self._written % 4))

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)
