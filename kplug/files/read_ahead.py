"""Reading a file of /proc on another processor, while Python does something else.

The kernel writes such a file as it is read, a page for each read: /proc/kallsyms takes 30 ms. Python's own reads
need the interpreter's lock again after each page; fread() of the C library reads a chunk without it.
"""

from __future__ import annotations

import _thread
import os
import signal
from collections.abc import Iterator

try:
    import ctypes
except ImportError:  # a Python without libffi
    ctypes = None  # type: ignore[assignment]

# 64 pages: a few milliseconds, and the lock is needed once.
_CHUNK_BYTES = 1 << 18


class ReadAhead:
    """The content of a file, whose reading begins at once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._chunks: list[bytes | Exception] = []
        self._arrival = _thread.allocate_lock()
        self._arrival.acquire()
        try:
            _thread.start_new_thread(self._read_apart, ())
        except RuntimeError:  # no more threads
            self._read()

    def _read_apart(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the program's other threads
        self._read()

    def _read(self) -> None:
        try:
            for chunk in _chunks(self._path):
                self._hand_over(chunk)
            self._hand_over(b"")
        except Exception as error:  # for whoever waits
            self._hand_over(error)

    def _hand_over(self, chunk: bytes | Exception) -> None:
        self._chunks.append(chunk)
        if self._arrival.locked():
            self._arrival.release()

    def chunks(self) -> Iterator[bytes]:
        """The content, as it arrives. OSError if the file cannot be read."""
        number = 0
        while True:
            while number == len(self._chunks):
                self._arrival.acquire()
            chunk = self._chunks[number]
            self._chunks[number] = b""  # not needed any more
            number += 1
            if isinstance(chunk, Exception):
                raise chunk
            if not chunk:
                return
            yield chunk


def _chunks(path: str) -> Iterator[bytes]:
    try:
        library = ctypes.CDLL(None)
        pointer, size_t = ctypes.c_void_p, ctypes.c_size_t
        fopen = ctypes.CFUNCTYPE(pointer, ctypes.c_char_p, ctypes.c_char_p, use_errno=True)(("fopen", library))
        fread = ctypes.CFUNCTYPE(size_t, pointer, size_t, size_t, pointer, use_errno=True)(("fread", library))
        ferror, fclose = (ctypes.CFUNCTYPE(ctypes.c_int, pointer)((name, library)) for name in ("ferror", "fclose"))
    except (AttributeError, OSError):  # a Python, or a C library, without that
        with open(path, "rb", buffering=0) as file:
            yield file.read()
        return
    stream = fopen(os.fsencode(path), b"rbe")
    if not stream:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        buffer = ctypes.create_string_buffer(_CHUNK_BYTES)
        size = _CHUNK_BYTES
        while size == _CHUNK_BYTES:
            size = fread(buffer, 1, _CHUNK_BYTES, stream)
            if ferror(stream):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            if size:
                yield ctypes.string_at(buffer, size)
    finally:
        fclose(stream)
