"""kplug's front end for gdb: its commands, its values, and the core's view of what gdb debugs.

Loaded by kplug.py, which users source. The target is not read, and nothing heavy is imported, before a command needs
it.
"""

from __future__ import annotations

import gdb


def load(root: str) -> None:
    """Register everything with gdb. `root` is the folder that holds the core's package."""
    from kplug_gdb import dependencies
    from kplug_gdb.registration import register

    if int(gdb.VERSION.split(".")[0]) < 12:
        raise gdb.GdbError(f"kplug needs gdb 12 or newer; this is {gdb.VERSION}")
    dependencies.install(root)
    register()


def unload() -> None:
    """Remove gdb's hooks before the modules are reloaded. Commands stay until they are defined again."""
    from kplug_gdb import dependencies
    from kplug_gdb.registration import unregister

    unregister()
    dependencies.uninstall()
