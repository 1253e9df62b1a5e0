"""The history of typed lines, kept between sessions, readable by its owner only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import History

# The file is cut to its newer half when it is larger than this, in bytes.
_MOST = 1 << 20


def history_path() -> Path | None:
    """The path of the history ($XDG_STATE_HOME/kplug/history); None for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(state) if state else Path.home() / ".local" / "state") / "kplug" / "history"
    except RuntimeError:
        return None


class KeptHistory(History):
    """prompt-toolkit's history in a file: an entry is lines that begin with "+", then an empty line.

    Errors of reading or writing the file are ignored.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """The entries, newest first."""
        entries: list[str] = []
        lines: list[str] = []
        for line in [*self._text().split("\n"), ""]:
            if line.startswith("+"):
                lines.append(line[1:])
            elif lines:
                entries.append("\n".join(lines))
                lines = []
        return reversed(entries)

    def store_string(self, string: str) -> None:
        """Append one entry."""
        if self._path is None:
            return
        entry = "".join(f"+{line}\n" for line in string.split("\n")) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self._path, "a", encoding="utf-8", errors="surrogateescape", opener=_for_its_owner) as file:
                file.write(entry)
        except OSError:
            pass

    def _text(self) -> str:
        if self._path is None:
            return ""
        try:
            text = self._path.read_text("utf-8", "surrogateescape")
            if len(text) > _MOST:
                text = text[text.find("\n\n", len(text) - _MOST // 2) + 2 :]
                with open(self._path, "w", encoding="utf-8", errors="surrogateescape", opener=_for_its_owner) as file:
                    file.write(text)
        except OSError:
            return ""
        return text


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
