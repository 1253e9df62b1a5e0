"""The boundary between kplug and gdb: any error inside reaches the user as one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import gdb


@contextmanager
def guard() -> Iterator[None]:
    """Turn errors into gdb's own. With `set python print-stack full` bugs in kplug keep their traceback."""
    try:
        yield
    except gdb.GdbError:
        raise
    except gdb.error as error:
        raise gdb.GdbError(_first_line(str(error))) from None
    except ImportError as error:
        raise gdb.GdbError(f"kplug is incomplete: {error}") from None
    except Exception as error:  # the one boundary: no error of ours may end in a traceback
        from kplug.errors import KplugError

        if isinstance(error, KplugError):
            from kplug.render.safe import safe

            raise gdb.GdbError(safe(str(error))) from None
        if gdb.parameter("python print-stack") == "full":
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise gdb.GdbError(
            f"kplug: internal error: {type(error).__name__}: {_first_line(str(error))} "
            f"({place.filename}:{place.lineno}; `set python print-stack full` shows more)"
        ) from None


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["unknown error"])[0]
