"""The script to source in gdb: `source kplug/gdb/kplug.py`. It only finds the core and loads the front end.

Neither this folder nor the checkout is added to sys.path: `import gdb` would find the folder gdb/ there, and
`import kplug` this file. Sourcing it again reloads everything.
"""

import importlib.util
import os
import sys

import gdb

# Written in the syntax of any Python 3, so that it can report one that is too old.
# ruff: noqa: UP032, UP036
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False


def _load(script):
    if sys.version_info < (3, 9):
        found = "{}.{}".format(*sys.version_info[:2])
        raise gdb.GdbError("kplug needs a gdb with Python 3.9 or newer; this one has " + found)
    here = os.path.dirname(script)
    root = os.path.dirname(here)
    # In a checkout the front end is in a folder of its own; in an installed package this script is in that folder.
    front_end = os.path.join(here, "kplug_gdb")
    if not os.path.isdir(front_end):
        front_end = here
    former = sys.modules.get("kplug_gdb")
    if former is not None:
        former.unload()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("kplug", "kplug_gdb")]:
        del sys.modules[name]
    for name, folder in (("kplug", os.path.join(root, "kplug")), ("kplug_gdb", front_end)):
        start = os.path.join(folder, "__init__.py")
        if not os.path.isfile(start):
            raise gdb.GdbError("kplug: {} is missing: this checkout or package is incomplete".format(start))
        spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[folder])
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    sys.modules["kplug_gdb"].load(root)


# The code's own file name, not __file__: if a Python script sources this one, that has the script's name (CPython's
# PyRun_SimpleFile sets __file__ only where there is none). The name is as it was typed: relative, with ~, a link.
_SCRIPT = os.path.realpath(os.path.expanduser(_load.__code__.co_filename))

try:
    _load(_SCRIPT)
except gdb.GdbError as error:
    # Raised from a script, it would be shown with a traceback.
    gdb.write("{}\n".format(error), gdb.STDERR)
