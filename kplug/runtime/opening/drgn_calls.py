"""Calling drgn: its log messages, and the environment variables that it uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import drgn

from kplug.errors import TargetError
from kplug.memory.reading import FaultError

# drgn logs it for every flattened file; once open, such a file is as fast to read as others.
_NOISE = ("makedumpfile flattened format",)


def error_words(error: BaseException) -> str:
    """A library's error message on one line, without the file's name."""
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
    """Collects what drgn logs inside in the list, without useless messages, instead of on standard error."""
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
    """Sets one of drgn's environment variables inside, unless the user has set it."""
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
            raise FaultError(error_words(error)) from None
        except Exception as error:
            raise TargetError(error_words(error)) from None

    return read
