"""`kplug`, and `python3 -m kplug` from a checkout that is not installed. Imports nothing before it runs."""

import sys


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    try:
        from kplug.shell.cli import main as run
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "elftools":
            raise
        sys.exit("kplug: pyelftools is not installed for this Python: pip install pyelftools")
    return run()


if __name__ == "__main__":
    sys.exit(main())
