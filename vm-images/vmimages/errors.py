"""The exceptions that this package raises on purpose."""

from __future__ import annotations


class VMError(Exception):
    """Something the user can act on, said in one line; the command line prints it without a traceback."""


class GuestGone(VMError):
    """The connection to the guest has ended."""


class HeadersGone(VMError):
    """The mirror has a newer kernel than the cache, and no header packages for the cached one any more."""


class QEMUCrashed(VMError):
    """A signal ended QEMU, or the guest panicked on its threads: a fault of QEMU's own, not of the guest's options."""
