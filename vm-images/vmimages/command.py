"""Run a program with a machine: the terminal is the program's."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import VMError


def fill_in(command: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """The command's words with `{name}` replaced; other braces stay as they are."""
    filled = []
    for word in command:
        for name, value in values.items():
            word = word.replace("{" + name + "}", str(value))
        filled.append(word)
    return filled


def run_beside(command: Sequence[str], info: Mapping[str, Any]) -> int:
    """Run the command until it ends, and give its status. A Ctrl-C is the command's business."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        # What is ignored stays ignored in a child; a handler does not, and is the default there.
        process = subprocess.Popen(fill_in(command, info))
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    except OSError as error:
        raise VMError(f"{command[0]}: {error.strerror}") from None
    finally:
        signal.signal(signal.SIGINT, before)
