"""The bytes of logs: files, pipes, files that grow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from kplug.errors import InputError

_READ_BYTES = 1 << 20
_POLL_SECONDS = 0.2


def open_log(path: str) -> int:
    """The file descriptor of a log to read; `-` is standard input. InputError, worded for the user."""
    if path == "-":
        return 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.read(descriptor, 0)  # a directory
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return descriptor


def reader(descriptor: int, follow: bool = False) -> Callable[[], bytes]:
    """What reads the bytes that are there, and waits for some; with `follow` also at the file's end."""

    def read() -> bytes:
        while True:
            try:
                data = os.read(descriptor, _READ_BYTES)
            except OSError as error:
                raise InputError(f"the log cannot be read: {error.strerror}") from None
            if data or not follow:
                return data
            if os.fstat(descriptor).st_size < os.lseek(descriptor, 0, os.SEEK_CUR):
                os.lseek(descriptor, 0, os.SEEK_SET)  # it was cut, to be written anew
            time.sleep(_POLL_SECONDS)

    return read
