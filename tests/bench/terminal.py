"""Time until a program on a pseudo-terminal is ready for input: it showed its prompt, took a line and answered it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from bench.commands import BenchError

_SECONDS = 120.0
# What a terminal says when it is asked where its cursor is; prompt-toolkit asks.
_CURSOR_ASKED, _CURSOR_ANSWER = b"\x1b[6n", b"\x1b[1;1R"


def seconds_until_ready(
    command: Sequence[str], prompt: bytes, line: bytes, answer: bytes, environment: Mapping[str, str]
) -> tuple[float, float]:
    """Wall seconds from the start until `prompt` is shown, and until `line`, typed then, has brought `answer`.

    BenchError if either does not come.
    """
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    begin = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        env={**environment, "TERM": "xterm"},
    )
    os.close(inside)
    try:
        seen, shown = b"", 0.0
        while True:
            wait = begin + _SECONDS - time.perf_counter()
            if wait <= 0 or not select.select([outside], [], [], wait)[0]:
                raise BenchError(f"{' '.join(command)} is not ready after {_SECONDS:.0f} s: {seen[-500:]!r}")
            try:
                data = os.read(outside, 1 << 16)
            except OSError:
                raise BenchError(f"{' '.join(command)} has left: {seen[-500:]!r}") from None
            if _CURSOR_ASKED in data:
                os.write(outside, _CURSOR_ANSWER)
            seen += data
            now = time.perf_counter() - begin
            if not shown and prompt in seen:
                shown, seen = now, b""
                os.write(outside, line + b"\r")
            elif shown and answer in seen:
                return shown, now
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(outside)
