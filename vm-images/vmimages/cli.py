"""The command line: one command for each step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import manifest
from .errors import VMError
from .fetch import cached, fetch


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it was done, 2 if not."""
    parser = argparse.ArgumentParser(prog="vm.py", description="Real Debian kernels for kplug's tests and demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    sub = commands.add_parser("fetch")
    sub.add_argument("names", nargs="*")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "fetch":
            for name in arguments.names or manifest.names():
                files = fetch(name)
                print(f"{name}  {files.release}  {files.root}")
        else:
            for row in manifest.KERNELS:
                found = cached(row.name)
                print(f"{row.name:12} {found.release if found else '-'}")
    except VMError as error:
        print(f"vm.py: {error}", file=sys.stderr)
        return 2
    return 0
