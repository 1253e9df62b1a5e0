"""A prompt for dumb terminals (TERM=dumb), or for output that goes elsewhere."""

from __future__ import annotations

import sys

from kplug.repl.dispatch import Leave, Prompt

PROMPT = "kplug> "
CONTINUATION = "   ... "


class Plain:
    """Reads lines as the terminal delivers them."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt

    def loop(self) -> int:
        """Run what is typed until the user leaves; the exit status."""
        while True:
            try:
                text = self._read()
                if text is None:
                    return 0
                if text.strip():
                    self._prompt.run_all(text.split("\n"))
            except KeyboardInterrupt:
                self._prompt.interrupted()
                print(flush=True)
            except Leave as leave:
                return leave.status or 0

    def _read(self) -> str | None:
        """The next input, with all lines of a block; None at the end of input."""
        text = _line(PROMPT)
        if text is None:
            print(flush=True)
            return None
        while not self._prompt.is_command(text) and not self._prompt.python.is_complete(text):
            line = _line(CONTINUATION)
            if line is None:
                break
            text += "\n" + line
        return text


def _line(prompt: str) -> str | None:
    sys.stdout.write(prompt)
    sys.stdout.flush()
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
