"""Mangled names: Rust's (v0 and legacy) and C++'s, found by the name in the source.

They are demangled by what there is: c++filt of binutils or LLVM, which takes milliseconds for all names of a kernel and
bounds what a hostile name costs, else the Python packages rust-demangler and cxxfilt. libstdc++ alone does not know
Rust's v0, and libiberty is no shared library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from kplug.errors import KplugError

# How mangled names begin.
RUST, CPP_OR_LEGACY_RUST = "_R", "_Z"
TOOLS = (("c++filt",), ("llvm-cxxfilt",))
REMEDY = "c++filt of binutils, or `pip install rust-demangler cxxfilt`, reads mangled names"
_SECONDS = 20
# Types in types at the start of a path; no compiler goes further.
_MOST_NESTED = 64
_PLAIN = re.compile(r"[\w.$]+", re.ASCII)
# What tells apart crates and functions of one name: core[8ba17034e3ec14a8], and the end of legacy names.
_HASH = re.compile(r"\[[0-9a-f]{8,16}\]|::h[0-9a-f]{16}\Z")
_MANGLED = re.compile(r"_R[CMXYNIB\d]|_Z[A-Za-z\d]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


class NoDemanglerError(KplugError):
    """There is nothing to demangle names with."""


def may_be_mangled(name: str) -> bool:
    """Whether a name looks like a mangled one."""
    return _MANGLED.match(name) is not None


def last_identifier(name: str) -> str:
    """The last identifier of a path, which all manglings write as it is. Empty if there is none."""
    path = _without_arguments(_without_parameters(_without_result(name)))
    found = _IDENTIFIER.findall(path) or _IDENTIFIER.findall(name)
    return found[-1] if found else ""


def demangled(names: Sequence[str]) -> list[str]:
    """The names as the source has them; a name that nothing can demangle as it is.

    NoDemanglerError if there is nothing to demangle with.
    """
    for command in TOOLS:
        found = _by_tool(command, names)
        if found is not None:
            return found
    return _by_packages(names)


def _by_tool(command: Sequence[str], names: Sequence[str]) -> list[str] | None:
    """What a tool that reads names from standard input makes of them; None if it is not installed."""
    import subprocess

    text = "".join(f"{name if _PLAIN.fullmatch(name) else ''}\n" for name in names)
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    return lines if done.returncode == 0 and len(lines) == len(names) else None


def _by_packages(names: Sequence[str]) -> list[str]:
    ways = dict(_packages())
    if not any(name.startswith(tuple(ways)) for name in names):
        raise NoDemanglerError(REMEDY)
    return [_by_package(name, ways) for name in names]


def _packages() -> Iterator[tuple[str, Callable[[str], str]]]:
    """The start of the names that an installed package demangles, and its function."""
    from importlib import import_module

    for start, package in ((RUST, "rust_demangler"), (CPP_OR_LEGACY_RUST, "cxxfilt")):
        try:
            yield start, import_module(package).demangle
        except Exception:  # not installed, or without the C++ library that it needs
            continue


def _by_package(name: str, ways: dict[str, Callable[[str], str]]) -> str:
    demangle = next((function for start, function in ways.items() if name.startswith(start)), None)
    try:
        return demangle(name) if demangle is not None else name
    except Exception:  # each package has its own
        return name


def endings(text: str) -> Iterable[str]:
    """The ways to write a demangled name: whole, without generic arguments and parameters, and the ends of its path."""
    text = _HASH.sub("", " ".join(text.split()))
    function = _without_result(text)
    path = _without_parameters(function)
    for each in dict.fromkeys((text, function, path, _without_arguments(path))):
        yield each
        position = 0
        while (position := each.find("::", position)) >= 0:
            position += 2
            yield each[position:]


def _without_result(text: str) -> str:
    """A C++ function without what is before its path, which templates have: the type of the result."""
    depth, start = 0, 0
    for position, character in enumerate(text.removesuffix(" const")):
        depth += (character in "<({[") - (character in ">)}]")
        if character == " " and not depth and not text[:position].endswith(("operator", " as")):
            start = position + 1
    return text[start:]


def _without_parameters(text: str) -> str:
    """A C++ function without its parameters."""
    path = text.removesuffix(" const")
    depth = 0
    for position in range(len(path) - 1, -1, -1) if path.endswith(")") else ():
        depth += (path[position] == ")") - (path[position] == "(")
        if not depth:
            return path[:position]
    return text


def _without_arguments(text: str) -> str:
    """A path without generic arguments: `<time::Duration as fmt::Debug>::fmt` is time::Duration::fmt."""
    text = re.sub(r"::\{closure[#:]*\d+\}|::\{shim[^}]*\}", "", text)
    for _ in range(_MOST_NESTED):
        if not text.startswith("<"):
            break
        end = _closing(text)
        text = _self_type(text[1:end]) + text[end + 1 :]
    kept, depth = "", 0
    for character in text.replace("->", "  "):
        depth += character == "<"
        kept += character if not depth else ""
        depth -= character == ">" and depth > 0
    return kept.replace("::::", "::").removesuffix("::")


def _self_type(text: str) -> str:
    """The type before `as`: of `<X as Y>::Z as W`, all but ` as W`."""
    depth, last = 0, len(text)
    for position, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if not depth and text.startswith(" as ", position):
            last = position
    return text[:last]


def _closing(text: str) -> int:
    """The position of the > that closes the < at the start."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if not depth:
            return position
    return len(text)
