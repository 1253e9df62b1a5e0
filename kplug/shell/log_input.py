"""The bytes of logs: files, pipes, files that grow."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable

from kplug.errors import InputError

_READ_BYTES = 1 << 20
_POLL_SECONDS = 0.2
# A log's end, with a time stamp or two.
_COMPARED_BYTES = 256


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


def reader(descriptor: int) -> Callable[[], bytes]:
    """What reads the bytes that are there, and waits for some, but not at a file's end."""
    return lambda: _read(descriptor)


def follower(descriptor: int, path: str) -> Callable[[], bytes]:
    """What reads a file, and waits for more at its end. One that was cut, or replaced, is read anew."""
    last = b""

    def read() -> bytes:
        nonlocal last
        while True:
            is_replaced = _is_replaced(descriptor, path)  # asked first: until then the old file may have grown
            if not _stands(last, descriptor):
                os.lseek(descriptor, 0, os.SEEK_SET)
                last = b""
            data = _read(descriptor)
            if data:
                last = data[-_COMPARED_BYTES:]
                return data
            if is_replaced:
                successor = open_log(path)
                os.dup2(successor, descriptor, inheritable=False)
                os.close(successor)
                last = b""
            else:
                time.sleep(_POLL_SECONDS)

    return read


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError as error:
        raise InputError(f"the log cannot be read: {error.strerror}") from None


def _is_replaced(descriptor: int, path: str) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:  # moved away, and nothing there yet
        return False


def _stands(last: bytes, descriptor: int) -> bool:
    """Whether what was read last still is what the file has there: it may be long again when it is looked at."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return True
    return os.pread(descriptor, len(last), os.lseek(descriptor, 0, os.SEEK_CUR) - len(last)) == last
