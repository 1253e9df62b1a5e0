"""`kplug`, and `python3 -m kplug` from a checkout that is not installed. Imports nothing before it runs."""

import gc
import sys


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    # The collector would walk all that is imported again and again; a prompt turns it on again (kplug.repl.main).
    gc.disable()
    try:
        from kplug.shell.cli import main as run
    except KeyboardInterrupt:
        return 130
    try:
        return run()
    finally:
        gc.freeze()  # the collection at exit would walk all that there is, for nothing


if __name__ == "__main__":
    sys.exit(main())
