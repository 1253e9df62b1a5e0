"""Registers everything of kplug with gdb, in one place."""

from __future__ import annotations

from kplug_gdb import events


def register() -> None:
    """Define commands, functions and settings, and listen to events."""
    from kplug_gdb import commands, parameters

    parameters.define()
    commands.define_all()
    events.start()


def unregister() -> None:
    """Stop listening."""
    events.stop()
