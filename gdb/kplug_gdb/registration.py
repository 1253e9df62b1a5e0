"""Registers everything of kplug with gdb, in one place."""

from __future__ import annotations

from kplug_gdb import events


def register() -> None:
    """Define commands, functions and settings, and listen to events."""
    from kplug.commands import COMMANDS
    from kplug_gdb import commands, functions, parameters

    parameters.define()
    for command in COMMANDS.values():
        commands.define(command)
    for function in functions.FUNCTIONS:
        function()
    events.start()


def unregister() -> None:
    """Stop listening."""
    events.stop()
