"""`kplug`, and `python3 -m kplug` from a checkout that is not installed. Imports nothing before it runs."""

import sys


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    try:
        from kplug.shell.cli import main as run
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
