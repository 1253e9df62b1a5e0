"""A command run as a user who may not read every file, also where the tests run as root."""

from __future__ import annotations

import os

# Root reads every file by two capabilities, which a program does not get without them in the bounding set.
_WITHOUT = "--bounding-set=-dac_override,-dac_read_search"
ORDINARY_USER = ("setpriv", _WITHOUT) if os.geteuid() == 0 else ()
