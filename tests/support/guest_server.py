"""Runs Python programs in a guest, each in a process of its own that has kplug and drgn imported already.

An emulated guest takes three seconds to import them. This file is a program of the guest's: it has the standard library
and what lies on the guest's disks.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import traceback
from typing import Any

# Each request is a line of JSON in the one, each answer a line with the exit status and the output in the other.
ASK, ANSWER = "/tmp/ask", "/tmp/answer"
NOBODY = 65534
_OUTPUT = "/tmp/output"
_IMPORTED = ("drgn.cli", "kplug.runtime.opening.opening", "kplug.runtime.session", "kplug.shell.cli")


def serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    os.umask(0)
    for path in (ASK, ANSWER):
        os.mkfifo(path)
    while True:
        with open(ASK) as file:
            request = json.loads(file.readline())
        child = os.fork()
        if not child:
            _child(request)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with open(_OUTPUT, "rb") as output, open(ANSWER, "wb") as answer:
            answer.write(b"%d\n" % status + output.read())


def _child(request: dict[str, Any]) -> None:
    """Becomes what was asked for, as `python -m MODULE WORDS` or `python -c CODE`, and ends."""
    status = 1
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for number, descriptor in enumerate((os.open(request["given"], os.O_RDONLY), os.open(_OUTPUT, flags, 0o666))):
            os.dup2(descriptor, number)
        os.dup2(1, 2)
        if not request["root"]:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        sys.argv[1:] = request["words"]
        if request["module"]:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        else:
            exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
