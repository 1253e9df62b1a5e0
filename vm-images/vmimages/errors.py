"""The one exception that this package raises on purpose."""

from __future__ import annotations


class VMError(Exception):
    """Something the user can act on, said in one line; the command line prints it without a traceback."""
