"""What Python's own modules import, which is no fault of kplug's."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
try:
    import _colorize
except ImportError:
    pass
else:
    print(*sys.modules)
"""


def of_colours() -> set[str]:
    """The modules that argparse, traceback and logging import since Python 3.14 for colours: dataclasses, inspect."""
    return {*subprocess.check_output([sys.executable, "-S", "-c", _PROGRAM], text=True).split()}
