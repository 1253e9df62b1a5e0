"""The errors that a user sees: one line each, raised where the fact is known.

Front ends turn them into an exit status or a host error in one place; nothing else is caught broadly.
"""

from __future__ import annotations


class KplugError(Exception):
    """Base of all errors worded for the user. `str()` is the one line to show."""


class UsageError(KplugError):
    """A command was given wrong arguments (exit status 2)."""


class InputError(KplugError):
    """A file cannot be used: missing, truncated, not what it claims to be (exit status 2)."""


class MismatchError(InputError):
    """The vmlinux at hand is not the kernel that the target runs."""


class ExpressionError(KplugError):
    """An expression has no address: unknown symbol, bad syntax (exit status 1: the others are still answered)."""


class UnplacedError(ExpressionError):
    """A name is known, but not the address that is meant: nothing else can evaluate it either."""


class TargetError(KplugError):
    """The target cannot be read: unreadable memory, a dropped connection."""
