"""Opening a file that the user named."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from kplug.errors import InputError


def open_file(path: str) -> BinaryIO:
    """The file at `path`, open for reading. InputError if it cannot be read at any offset or may block, like a pipe."""
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
            what = "a directory" if stat.S_ISDIR(kind) else "a pipe" if stat.S_ISFIFO(kind) else "a device or socket"
            raise InputError(f"{path}: {what}, not a file")
        return open(path, "rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
