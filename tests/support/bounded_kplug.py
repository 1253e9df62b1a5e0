"""kplug's command line in a child process with a bounded address space and a clock: what hostile input is fed to.

One child answers many command lines, so a case costs milliseconds. A case that takes too long, or memory beyond the
limit, fails as such; the parent kills a child that does not come back and starts another for the next case.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ADDRESS_SPACE = 1 << 30  # bytes
PATIENCE = 600.0  # seconds until a child counts as hung; how long a case may take is the test's to say
_ROOT = Path(__file__).resolve().parents[2]


class Answer(NamedTuple):
    """What a command line gave. `crash` is a traceback, or says that the child died or hung; None if it came back.

    `seconds` are those of the processor, so that a busy machine fails no test.
    """

    status: int | None
    out: str
    err: str
    seconds: float
    crash: str | None


class BoundedKplug:
    """Runs `kplug WORD...` in the child."""

    def __init__(self, address_space: int = ADDRESS_SPACE, run_by: Sequence[str] = ()) -> None:
        self._run_by = run_by
        self._address_space = address_space
        self._child: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONUTF8": "1"}
        return subprocess.Popen(
            [*self._run_by, sys.executable, __file__, str(self._address_space)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def run(self, *words: str, stdin: bytes = b"") -> Answer:
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        request = json.dumps({"words": words, "stdin": stdin.decode("latin-1")})
        started = time.monotonic()
        child.stdin.write(request.encode() + b"\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], PATIENCE)
        line = child.stdout.readline() if ready else b""
        seconds = time.monotonic() - started
        if not line:
            self.close()
            return Answer(None, "", "", seconds, "died" if ready else f"no answer in {PATIENCE} s")
        reply = json.loads(line)
        return Answer(reply["status"], reply["out"], reply["err"], reply["seconds"], reply["crash"])

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None


def _serve() -> None:
    """The child: one request a line, one reply a line."""
    import gc
    import io
    import resource
    import traceback

    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from kplug.shell.cli import main

    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    gc.freeze()
    for number, line in enumerate(requests):
        request = json.loads(line)
        out, err = io.BytesIO(), io.BytesIO()
        sys.stdin = io.TextIOWrapper(io.BytesIO(request["stdin"].encode("latin-1")), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(out, encoding="utf-8")
        sys.stderr = io.TextIOWrapper(err, encoding="utf-8", errors="backslashreplace")
        status, crash = None, None
        started = time.process_time()
        try:
            status = main(request["words"])
            sys.stdout.flush()
        except BaseException:
            crash = traceback.format_exc()
        seconds = time.process_time() - started
        sys.stderr.flush()
        if seconds > 0.05 or number % 32 == 0:
            gc.collect()  # kplug turns the collector off; what one question left must not count for the next
        reply = {
            "status": status,
            "out": out.getvalue().decode("utf-8", "backslashreplace"),
            "err": err.getvalue().decode("utf-8", "backslashreplace"),
            "seconds": seconds,
            "crash": crash,
        }
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


if __name__ == "__main__":
    _serve()
