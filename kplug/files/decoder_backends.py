"""Decoders for formats that Python itself lacks: Python modules, C libraries through ctypes, command-line tools.

Each raises NotInstalledError if it is not installed.
"""

from __future__ import annotations

import importlib
from typing import Any

from kplug.files.bounded_output import CHUNK, BoundedOutput, NotInstalledError, broken


def python_module(name: str) -> Any:
    """The Python module of that name."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotInstalledError from None


def c_library(name: str) -> Any:
    """A C library by its soname. A search by name (ctypes.util.find_library) may start a compiler."""
    try:
        import ctypes

        return ctypes.CDLL(name)
    except (ImportError, OSError):
        raise NotInstalledError from None


def declare(library: Any, name: str, result: Any, arguments: list[Any]) -> None:
    """Declare what a function of a C library takes and returns."""
    try:
        function = getattr(library, name)
    except AttributeError:
        raise NotInstalledError from None
    function.restype, function.argtypes = result, arguments


def run_tool(name: str, command: tuple[str, ...], data: memoryview, out: BoundedOutput) -> None:
    """Unpack with a command-line tool that reads standard input; it is killed when its output exceeds the limit."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)
        try:
            process = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError:
            raise NotInstalledError from None
        with process:
            assert process.stdout is not None
            try:
                while chunk := process.stdout.read(CHUNK):
                    out.write(chunk)
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        raise broken(name, f"{command[0]} could not unpack it")
