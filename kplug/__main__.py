"""`python3 -m kplug`, also from a checkout that is not installed."""

import sys

try:
    from kplug.cli import main
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "elftools":
        raise
    sys.exit("kplug: pyelftools is not installed for this Python: pip install pyelftools")

sys.exit(main())
