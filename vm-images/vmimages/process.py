"""Start a child that can't outlive this process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import BinaryIO

from .errors import VMError

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 5.0


def _die_with(parent: int) -> Callable[[], None]:
    # Loaded here, not in the child: between fork and exec nothing may import or allocate more than it must.
    libc = ctypes.CDLL(None, use_errno=True)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child


def start(command: Sequence[str], log: BinaryIO, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start `command`, its output to `log`.

    In a session of its own: a Ctrl-C is meant for whoever waits (a debugger, pytest), and that one ends the child in
    its own time. Should this process be killed, the kernel kills the child; the same goes for the thread that calls
    this, so it is to be one that lives long enough.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            preexec_fn=_die_with(os.getpid()),
        )
    except FileNotFoundError:
        raise VMError(f"{command[0]} isn't installed; see vm-images/apt-packages.txt") from None
    except OSError as error:
        raise VMError(f"{command[0]} can't be started: {error.strerror}") from None


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the child, if it hasn't ended; only ever this one."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
