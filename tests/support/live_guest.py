"""A guest that has Python and kplug on its disks, as somebody at its shell has it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmimages import VM

_ENVIRONMENT = "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={site}:{more} TERM=dumb HOME=/tmp"
_NOBODY = 65534
_SECONDS = 300.0


class Guest:
    """The guest, as somebody at its shell has it."""

    def __init__(self, vm: VM) -> None:
        from vmimages import disk

        self.vm = vm
        self._disk = disk
        self._environment = _ENVIRONMENT.format(site=disk.SITE, more=disk.SECOND)
        self._given = 0

    def python(self, words: str, *, root: bool = True, given: Iterable[str] = ()) -> tuple[int, str]:
        """Run Python with these words, as root or as nobody; the lines of `given` are its standard input.

        Returns the exit status, and the output of both kinds.
        """
        interpreter = f"chroot {self._disk.ROOT} {self._disk.PYTHON}"
        if not root:
            become = f"import os, sys; os.setgid({_NOBODY}); os.setuid({_NOBODY}); p = sys.executable; "
            interpreter = f"{interpreter} -c '{become} os.execv(p, [p, *sys.argv[1:]])'"
        file = self.write(given)
        status, output = self.vm.run_bytes(f"{self._environment} {interpreter} {words} < {file}", _SECONDS)
        return status, output.decode()

    def kplug(self, words: str, **options: Any) -> tuple[int, str]:
        """Run `kplug WORDS`, as `python`."""
        return self.python(f"-m kplug {words}", **options)

    def where(self, addresses: Iterable[int]) -> list[dict[str, Any]]:
        """kplug's answers for addresses of the running kernel, in one call."""
        status, output = self.kplug("where -c /proc/kcore --json -", given=map(hex, addresses))
        assert status == 0, output[-2000:]
        return [json.loads(line) for line in output.splitlines()]

    def write(self, lines: Iterable[str]) -> str:
        """A file of the guest with these lines (of numbers and names)."""
        self._given += 1
        path = f"/tmp/given-{self._given}"
        words = list(lines)
        self.vm.run(f": > {path}")
        for start in range(0, len(words), 200):  # the channel's commands are short lines
            self.vm.run(f"printf '%s\\n' {' '.join(words[start : start + 200])} >> {path}")
        return path
