"""Calling drgn: what it writes to its log meanwhile, and the environment variables that it looks at."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import drgn

from kplug.errors import TargetError
from kplug.memory.reading import UnmappedError

# drgn says it of every flattened file; reading one is as fast as reading another once it is open.
_NOISE = ("makedumpfile flattened format",)


def error_words(error: BaseException) -> str:
    """What a library said, on one line; the file's name is said elsewhere."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class _Listener(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if not any(noise in text for noise in _NOISE) and text not in self._messages:
            self._messages.append(text)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What drgn logs inside is put into the list, without what says nothing, instead of on standard error."""
    messages: list[str] = []
    logger, listener = logging.getLogger("drgn"), _Listener(messages)
    propagate = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate


@contextmanager
def switched(name: str, value: str) -> Iterator[None]:
    """One of drgn's switches, set inside, unless the user has set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def reader_of(prog: drgn.Program) -> Callable[[int, int], bytes]:
    def read(address: int, size: int) -> bytes:
        try:
            return bytes(prog.read(address, size))
        except (drgn.FaultError, ValueError, OverflowError) as error:
            raise UnmappedError(error_words(error)) from None
        except Exception as error:
            raise TargetError(error_words(error)) from None

    return read
