"""The names of kplug's commands in gdb, and the commands of other plugins that had one of them before.

gdb has one command of a name: the last one that was defined. It neither says what it replaces, nor whose command a name
is. But a command in Python can be told that lost its name: its object can be initialized again.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence

import gdb
from kplug.commands.base import Command
from kplug_gdb.settings import SETTINGS, USUAL_PREFIX

# The settings are called so too: `set kplug`.
_FIXED = ("kplug",)


def shown(command: Command) -> str:
    """The name of a command at gdb's prompt: kwhere, or with the prefix that the user chose."""
    if SETTINGS.prefix == USUAL_PREFIX or command.name in _FIXED:
        return command.host_name
    return f"{SETTINGS.prefix}{command.name}"


class Displaced:
    """A command that is not kplug's, and lost its name to one of kplug's: one in Python, or the lines of a `define`."""

    def __init__(self, name: str, command: gdb.Command | None, lines: str | None) -> None:
        self.name = name
        self._command = command
        self._lines = lines

    def put_back(self) -> bool:
        """Give it its name again. False if it is neither, and so cannot be defined again."""
        if self._command is not None:
            gdb.Command.__init__(self._command, self.name, gdb.COMMAND_USER)
        elif self._lines is not None:
            gdb.execute(f"define {self.name}\n{self._lines}\nend", to_string=True)
        else:
            return False
        return True


class Owners:
    """Whose the names are. To be made before kplug defines its commands; `taken` are those that it then took over."""

    def __init__(self, names: Sequence[str]) -> None:
        self.taken: list[str] = []
        self._lines = {name: _defined_lines(name) for name in names if _exists(name)}
        commands = (each for each in gc.get_objects() if isinstance(each, gdb.Command)) if self._lines else ()
        self._commands = [each for each in commands if is_registered(each)]

    def displaced(self, name: str) -> Displaced | None:
        """The command that is not kplug's and had the name, until kplug defined one of that name just now or, by an
        earlier loading, before.
        """
        if name not in self._lines:
            return None
        former = next((each for each in self._commands if not is_registered(each)), None)
        if former is not None:
            self._commands.remove(former)
            if type(former).__module__.partition(".")[0] == __package__:
                return getattr(former, "displaced", None)
        self.taken.append(name)
        return Displaced(name, former, self._lines[name])


def _exists(name: str) -> bool:
    return name in gdb.execute(f"complete {name}", to_string=True).splitlines()


def _defined_lines(name: str) -> str | None:
    """The lines of a command that the user made with `define`; None if it is not one."""
    try:
        text = gdb.execute(f"show user {name}", to_string=True)
    except gdb.error:
        return None
    match = re.match(r'User command "[^"]*":\n', text)
    return text[match.end() :].rstrip() if match else None


def is_registered(command: gdb.Command) -> bool:
    """Whether gdb has this command. If so it cannot be initialized, with whatever (gdb/python/py-cmd.c, cmdpy_init)."""
    try:
        gdb.Command.__init__(command)  # type: ignore[call-arg]  # without a name, nothing is defined
    except RuntimeError:
        return True
    except TypeError:
        pass
    return False
