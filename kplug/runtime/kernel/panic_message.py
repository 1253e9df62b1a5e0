"""What a crashed kernel said about the crash, from its log."""

from __future__ import annotations

from kplug.errors import TargetError
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.kernel import Kernel

# Starts of the messages of panic(), die() and its callers: arch/x86/mm/fault.c, lib/bug.c, arch/*/kernel/traps.c.
_PANIC = "Kernel panic - not syncing: "
_REASONS = (
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "Internal error: ",
    "Unable to handle kernel ",
    "general protection fault",
    "watchdog: BUG: ",
)
_END = "---[ end trace "
_MAX_RECORDS = 1 << 20


class LastWords(NamedTuple):
    """The message of the panic, and the error that the kernel reported before it; None if there is none."""

    panic: str | None
    reason: str | None


def last_words(kernel: Kernel) -> LastWords:
    """The messages of a kernel with types. TargetError if its log cannot be read."""
    panic = reason = None
    reported = False  # the first line of a report says the most; the report ends with an end trace
    with kernel.reading("the kernel's log"):
        for number, record in enumerate(helpers.get_printk_records(kernel.prog)):
            if number > _MAX_RECORDS:
                raise TargetError("the kernel's log does not end")
            text = record.text.decode("utf-8", "backslashreplace")
            if text.startswith(_PANIC):
                panic = text[len(_PANIC) :]
                break  # the rest belongs to the panic itself
            if text.startswith(_END):
                reported = False
            elif text.startswith(_REASONS) and not reported:
                reason, reported = text, True
    return LastWords(panic, reason if panic is not None else None)
