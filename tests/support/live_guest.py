"""A guest that has Python and kplug on its disks, as somebody at its shell has it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from support.guest_server import ANSWER, ASK

if TYPE_CHECKING:
    from vmimages import VM, GroundTruth

_ENVIRONMENT = "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={site}:{more} TERM=dumb HOME=/tmp"
_SECONDS = 900.0


class Guest:
    """The guest, as somebody at its shell has it."""

    def __init__(self, vm: VM) -> None:
        from vmimages import disk

        self.vm = vm
        self._root = disk.ROOT
        self._python = f"{_ENVIRONMENT.format(site=disk.SITE, more=disk.SECOND)} chroot {disk.ROOT} {disk.PYTHON}"
        self._given = 0
        log, ready = f"{disk.ROOT}/tmp/log", f"[ -p {disk.ROOT}{ANSWER} ]"
        vm.run(f"{ready} || {self._python} -m guest_server >{log} 2>&1 </dev/null &")  # once for each guest
        vm.run(f"n=0; until {ready} || [ $n = 6000 ]; do sleep 0.1; n=$((n + 1)); done; cat {log}; {ready}", _SECONDS)

    @cached_property
    def truth(self) -> GroundTruth:
        """What the guest says of itself; asked once."""
        return self.vm.truth()

    def python(self, code: str, **options: Any) -> tuple[int, str]:
        """Run Python code. Returns the exit status, and the output of both kinds."""
        return self._asked("", code, (), **options)

    def module(self, name: str, words: str, **options: Any) -> tuple[int, str]:
        """Run `python -m NAME WORDS`, as `python`."""
        return self._asked(name, "", shlex.split(words), **options)

    def kplug(self, words: str, **options: Any) -> tuple[int, str]:
        """Run `kplug WORDS`, as `python`."""
        return self.module("kplug", words, **options)

    def kplug_from_the_start(self, words: str) -> tuple[int, str]:
        """Run `kplug WORDS` in a Python that has nothing imported yet."""
        status, output = self.vm.run_bytes(f"{self._python} -m kplug {words} </dev/null", _SECONDS)
        return status, output.decode()

    def where(self, addresses: Iterable[int]) -> list[dict[str, Any]]:
        """kplug's answers for addresses of the running kernel, in one call."""
        status, output = self.kplug("where -c /proc/kcore --json -", given=map(hex, addresses))
        assert status == 0, output[-2000:]
        return [json.loads(line) for line in output.splitlines()]

    def _asked(
        self, module: str, code: str, words: Sequence[str], *, root: bool = True, given: Iterable[str] = ()
    ) -> tuple[int, str]:
        """As root or as nobody; the lines of `given` are its standard input."""
        request = {"module": module, "code": code, "words": words, "root": root, "given": self._write(given)}
        ask, answer = (f"{self._root}{path}" for path in (ASK, ANSWER))
        command = f"printf '%s\\n' {shlex.quote(json.dumps(request))} > {ask}; cat {answer}"
        _, found = self.vm.run_bytes(command, _SECONDS)
        status, _, output = found.decode().partition("\n")
        return int(status), output

    def _write(self, lines: Iterable[str]) -> str:
        """A file of the guest with these lines (of numbers and names)."""
        self._given += 1
        path = f"/tmp/given-{self._given}"
        words = list(lines)
        self.vm.run(f": > {self._root}{path}")
        for start in range(0, len(words), 200):  # the channel's commands are short lines
            self.vm.run(f"printf '%s\\n' {' '.join(words[start : start + 200])} >> {self._root}{path}")
        return path
