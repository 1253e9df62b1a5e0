"""Reading a file of /proc on another processor, while Python does something else.

The kernel writes such a file as it is read, a page for each read: /proc/kallsyms takes 30 ms. Python's own reads need
the interpreter's lock again after each page; one fread() of the C library reads all of it without, and no thread waits
for the other before the end.
"""

from __future__ import annotations

import _thread
import os
import signal
from collections.abc import Iterator
from mmap import mmap
from typing import ClassVar, Union

try:
    import ctypes
except ImportError:  # a Python without libffi
    ctypes = None  # type: ignore[assignment]

Text = Union[bytes, mmap]
# 190,000 symbols are 9 MB; kernels with everything built in have fewer than a million.
MAX_BYTES = 1 << 27
# Between two looks at what has arrived: some 100 KB.
_LOOK_SECONDS = 0.0005
# Memory is made ready this far ahead of what has arrived. (5.14, 4ca9b3859dac "mm/madvise: introduce
# MADV_POPULATE_(READ|WRITE) to prefault page tables"; in <linux/mman.h>.)
_READY_BYTES = 1 << 21
_MADV_POPULATE_WRITE = 23


class ReadAhead:
    """The content of a file of at most `MAX_BYTES`, whose reading begins at once."""

    _begun: ClassVar[dict[str, ReadAhead]] = {}

    def __init__(self, path: str) -> None:
        self._path = path
        self._outcome: int | Exception = 0
        self._done = _thread.allocate_lock()
        self._done.acquire()
        # Only what has arrived takes memory; the rest is zero.
        self._memory: mmap | None = None
        try:
            memory = mmap(-1, MAX_BYTES)
            _thread.start_new_thread(self._read_apart, (memory,))
            self._memory = memory
        except (OSError, RuntimeError):  # no room for the largest file, or no more threads: it is read when asked for
            pass

    @classmethod
    def begin(cls, path: str) -> None:
        """Begin to read a file that `of` will probably be asked for."""
        cls._begun[path] = cls(path)

    @classmethod
    def of(cls, path: str) -> ReadAhead:
        """The content of a file, as it is now or was when its reading was begun; each reading serves once."""
        return cls._begun.pop(path, None) or cls(path)

    def _read_apart(self, memory: mmap) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the program's other threads
        try:
            self._outcome = _read_into(memory, self._path)
        except Exception as error:  # for whoever waits
            self._outcome = error
        self._done.release()

    def arrived(self) -> Iterator[tuple[Text, int]]:
        """The memory that the text is read into, and how many bytes of it have arrived: each time more, until all have.
        What comes after a zero counts as not there yet."""
        memory, end, ready = self._memory, 0, 0
        if memory is None:
            return
        while True:
            if ready - end < _READY_BYTES // 2:
                ready = _make_ready(memory, ready)
            if self._done.acquire(timeout=_LOOK_SECONDS):
                break
            now = memory.find(b"\0", end)
            if now > end:
                end = now
                yield memory, end
        self._done.release()

    def content(self) -> Text:
        """All of it, as soon as it is there. OSError if it cannot be read."""
        if self._memory is None:
            with open(self._path, "rb", buffering=0) as file:
                return file.read()
        with self._done:
            if isinstance(self._outcome, Exception):
                raise self._outcome
            if not self._outcome:
                return b""
            self._memory.resize(self._outcome)
            return self._memory


def _make_ready(memory: mmap, start: int) -> int:
    """Have the kernel back the next part of the memory now, on this processor: else each page costs the reader a fault,
    a tenth of its time. Returns where that part ends."""
    end = min(start + _READY_BYTES, len(memory))
    try:
        if end > start:
            memory.madvise(_MADV_POPULATE_WRITE, start, end - start)
    except OSError:  # an older kernel, or no memory: then the reader takes the faults
        return len(memory)
    return end


def _read_into(memory: mmap, path: str) -> int:
    try:
        library = ctypes.CDLL(None)
        pointer, size_t = ctypes.c_void_p, ctypes.c_size_t
        fopen = ctypes.CFUNCTYPE(pointer, ctypes.c_char_p, ctypes.c_char_p, use_errno=True)(("fopen", library))
        fread = ctypes.CFUNCTYPE(size_t, pointer, size_t, size_t, pointer, use_errno=True)(("fread", library))
        ferror, fclose = (ctypes.CFUNCTYPE(ctypes.c_int, pointer)((name, library)) for name in ("ferror", "fclose"))
    except (AttributeError, OSError):  # a Python, or a C library, without that
        return _read_by_python(memory, path)
    stream = fopen(os.fsencode(path), b"rbe")
    if not stream:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        size = fread(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, len(memory), stream)
        if ferror(stream):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(size)
    finally:
        fclose(stream)


def _read_by_python(memory: mmap, path: str) -> int:
    size = 0
    with open(path, "rb", buffering=0) as file, memoryview(memory) as room:
        while got := file.readinto(room[size:]):
            size += got
    return size
