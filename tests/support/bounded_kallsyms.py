"""The kallsyms finder in a child process with a bounded address space and a clock: what hostile tables are fed to."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

ADDRESS_SPACE = 1 << 30  # bytes
PATIENCE = 600.0  # seconds until the child counts as hung; how long a case may take is the test's to say
_ROOT = Path(__file__).resolve().parents[2]


class Bounded:
    """Finds and decodes the tables of an image in the child."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def find(self, data: bytes) -> dict[str, Any]:
        """`error` (the line), `number` of symbols, `seconds` of processor time, `crash` (a traceback): None if not."""
        if self._child is None:
            environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
            pipe = subprocess.PIPE
            self._child = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, env=environment)
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"%d\n" % len(data) + data)
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], PATIENCE)
        line = child.stdout.readline() if ready else b""
        if not line:
            self.close()
            return {"crash": "died" if ready else f"no answer in {PATIENCE} s", "error": None, "seconds": PATIENCE}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None


def _serve() -> None:
    """The child: a size and so many bytes a request, one line a reply."""
    import resource
    import time
    import traceback

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    from kplug.image.kallsyms.finder import find_tables
    from kplug.image.kallsyms.symbols import decode
    from kplug.image.kallsyms.tables import KallsymsNotFoundError

    for line in iter(sys.stdin.buffer.readline, b""):
        data = sys.stdin.buffer.read(int(line))
        answer: dict[str, Any] = {"error": None, "number": None, "crash": None}
        started = time.process_time()
        try:
            symbols = decode(data, find_tables(data))
            answer["number"] = len(symbols)
            assert len(symbols.letters) == len(symbols.name_offsets) == len(symbols.names) == len(symbols)
        except KallsymsNotFoundError as error:
            answer["error"] = str(error)
            assert "\n" not in answer["error"]
        except BaseException:
            answer["crash"] = traceback.format_exc()
        answer["seconds"] = time.process_time() - started
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
