"""`kplug`, and `python3 -m kplug` from a checkout that is not installed. Imports nothing before it runs."""

import gc
import sys

# Options of `where` that name no source of symbols. One that is missing here costs the early start, nothing else.
_NO_SOURCE = ("-", "-b", "--brief", "-l", "--lines", "--json")


def _begin_to_read() -> None:
    """Read the running kernel's symbols while kplug is imported, where they will be asked for: it takes as long."""
    words = sys.argv[1:]
    if words[:1] == ["where"] and all(word in _NO_SOURCE or not word.startswith("-") for word in words[1:]):
        from kplug.files.read_ahead import ReadAhead

        ReadAhead.begin("/proc/kallsyms")


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    # The collector would walk all that is imported again and again; a prompt turns it on again (kplug.repl.main).
    gc.disable()
    try:
        _begin_to_read()
        from kplug.shell.cli import main as run
    except KeyboardInterrupt:
        return 130
    try:
        return run()
    finally:
        gc.freeze()  # the collection at exit would walk all that there is, for nothing


if __name__ == "__main__":
    sys.exit(main())
