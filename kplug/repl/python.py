"""Lines of Python at the prompt, with drgn's names at hand, and Python expressions as addresses."""

from __future__ import annotations
import __future__ as features

import ast
import builtins
import codeop
import linecache
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from types import CodeType, TracebackType
from typing import Any

import drgn

from kplug.errors import ExpressionError, KplugError

# The function that a line's $reg becomes a call of.
_REGISTER = "__register__"
# Strings and comments, and outside them a $name.
_REGISTER_OR_TEXT = re.compile(
    r"""(?P<text>\"\"\".*?\"\"\"|'''.*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*)|\$(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)
_REGISTER_CALL = re.compile(_REGISTER + r"\('(\w+)'\)")
_COMPOUND = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor, ast.While, ast.If, ast.With),
    *(ast.AsyncWith, ast.Try),
    *(getattr(ast, name) for name in ("Match", "TryStar") if hasattr(ast, name)),
)
# Python's own names, except those that lead to others.
_PYTHONS = frozenset(dir(builtins)) - {"_", "__import__", "breakpoint", "compile", "dir", "eval", "exec", "globals"}
_PYTHONS -= {"help", "input", "locals", "vars"}
# Types that drgn shows as text, not as a constructor call.
_SHOWN_AS_TEXT = (drgn.SourceLocation, drgn.SourceLocationList, drgn.StackFrame, drgn.StackTrace, drgn.Type)


class Python:
    """The Python of one session. `register` gives the value of a register by name, or raises KplugError."""

    def __init__(self, prog: drgn.Program, register: Callable[[str], int]) -> None:
        self._prog = prog
        self._register = register
        self._namespace: dict[str, Any] | None = None
        self._given: frozenset[str] = frozenset()
        self._inputs = 0
        self._compiler = codeop.Compile()

    @property
    def namespace(self) -> dict[str, Any]:
        """The globals for typed code: drgn's own, made at the first use (its helpers take a while to import)."""
        if self._namespace is None:
            input_function = builtins.input  # drgn's choice of a line editor replaces it on some Pythons
            from drgn.cli import default_globals

            builtins.input = input_function
            namespace = default_globals(self._prog)
            namespace[_REGISTER] = self._register
            self._given = frozenset(namespace)
            self._namespace = namespace
        return self._namespace

    def is_own(self, name: str) -> bool:
        """Whether the user has made a variable of that name."""
        return self._namespace is not None and name in self._namespace and name not in self._given

    # -- lines ---------------------------------------------------------------------------------------------------------

    def is_apart(self, text: str) -> bool:
        """Whether the text is an expression of Python's own names (`hex(6*7)`): it has nothing of the kernel's."""
        tree = _tree(text)
        if tree is None or not all(isinstance(statement, ast.Expr) for statement in tree.body):
            return False
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        return names <= _PYTHONS and names.isdisjoint(self._namespace or ())

    def is_complete(self, text: str) -> bool:
        """Whether the text can be run as it stands: nothing is open, and a block has its blank line."""
        if not is_whole(text):
            return False
        if text.count("\n") and text.endswith("\n"):
            return True
        return not is_block(text)

    def run(self, text: str) -> None:
        """Run statements; the values of expressions are shown. Exceptions of the user's code propagate unchanged."""
        self._inputs += 1
        name = f"<input {self._inputs}>"
        source = self._source(text)
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        tree = ast.parse(source, name)
        namespace = {"__builtins__": builtins} if self.is_apart(text) else self.namespace
        for statement in tree.body:
            code = self._compile(ast.Interactive([statement]), name, "single")
            exec(code, namespace)

    def _source(self, text: str) -> str:
        """The text as Python: a `$reg` outside of strings is the register's value."""
        text = text.strip("\n") + "\n"
        if "\n" not in text.rstrip("\n"):
            text = text.lstrip()
        return with_registers(text)

    def _compile(self, tree: Any, name: str, mode: str) -> CodeType:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            code: CodeType = compile(tree, name, mode, self._compiler.flags, True)
        for feature in features.all_feature_names:
            flag = getattr(features, feature).compiler_flag
            if code.co_flags & flag:
                self._compiler.flags |= flag
        return code

    # -- expressions ---------------------------------------------------------------------------------------------------

    def value(self, expression: str) -> Any:
        """The value of a Python expression. ExpressionError if it is not one, or cannot be evaluated."""
        try:
            code = self._compile(ast.parse(with_registers(expression.strip()), "<expression>", "eval"), "", "eval")
        except (SyntaxError, ValueError, RecursionError):
            raise ExpressionError(f"{expression}: no such symbol, section, register or Python expression") from None
        try:
            return eval(code, self.namespace)
        except KplugError:
            raise
        except NameError as error:
            raise ExpressionError(f"{expression}: no such symbol, section or register; Python: {error}") from None
        except Exception as error:
            raise ExpressionError(f"{expression}: {exception_line(error)}") from None

    # -- showing -------------------------------------------------------------------------------------------------------

    def show(self, value: Any, write: Callable[[str], None]) -> None:
        """Show the value of an expression as drgn shows it, and keep it as `_`."""
        if value is None:
            return
        builtins._ = None  # type: ignore[attr-defined]
        write(value_text(value))
        builtins._ = value  # type: ignore[attr-defined]


def value_text(value: Any) -> str:
    """A value as drgn's own prompt shows it."""
    if isinstance(value, drgn.Object):
        try:
            import shutil

            text: str = value.format_(columns=shutil.get_terminal_size((0, 0)).columns)
            return text
        except drgn.FaultError:
            return repr(value)
    cli = sys.modules.get("drgn.cli")
    shown_as_text = getattr(cli, "_DISPLAY_STR_TYPES", _SHOWN_AS_TEXT)  # more types than drgn.cli.display_str was given
    return str(value) if isinstance(value, shown_as_text) else repr(value)


def with_registers(text: str) -> str:
    """The text with each `$reg` outside of strings and comments as a call for its value."""

    def replaced(match: re.Match[str]) -> str:
        name = match.group("name")
        return f"{_REGISTER}({name!r})" if name else match.group()

    return _REGISTER_OR_TEXT.sub(replaced, text) if "$" in text else text


def is_whole(text: str) -> bool:
    """Whether no bracket, string or block of the text is still open; true also for invalid Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return codeop.compile_command(with_registers(text.lstrip()), "<input>", "exec") is not None
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
            return True


def is_block(text: str) -> bool:
    """Whether the text ends in a statement that more lines may belong to: `for`, `def`, ..."""
    tree = _tree(text)
    return bool(tree is not None and tree.body and isinstance(tree.body[-1], _COMPOUND))


def is_assignment(line: str) -> bool:
    """Whether the line assigns to its first word."""
    tree = _tree(line)
    return bool(tree is not None and tree.body and isinstance(tree.body[0], (ast.Assign, ast.AugAssign, ast.AnnAssign)))


def is_python(line: str) -> bool:
    """Whether the line could be Python."""
    return _tree(line) is not None


def _tree(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(with_registers(text.lstrip()))
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None


# -- what the user's code raised ---------------------------------------------------------------------------------------


def exception_line(error: BaseException) -> str:
    """The exception on one line."""
    if isinstance(error, SyntaxError):
        text = _REGISTER_CALL.sub(r"$\1", error.text or "").strip()
        return f"SyntaxError: {error.msg}" + (f": {text}" if text else "")
    return " ".join("".join(traceback.format_exception_only(type(error), error)).split())


def _other_code() -> tuple[str, ...]:
    """The folders of code that is not the user's."""
    kplug = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    standard = os.path.dirname(os.path.abspath(os.__file__))
    return (kplug, os.path.dirname(os.path.abspath(drgn.__file__)), standard, "<frozen", "<string>")


def exception_text(error: BaseException) -> list[str]:
    """The lines to show for an exception: the place in the user's code, unless it is the typed line, and the error."""
    if isinstance(error, SyntaxError):
        lines = "".join(traceback.format_exception_only(type(error), error)).splitlines()
        if any(_REGISTER_CALL.search(line) for line in lines):  # the marks below would be at the wrong place
            lines = [_REGISTER_CALL.sub(r"$\1", line) for line in lines if line.strip(" ^~")]
        return lines[1:] if lines and error.lineno == 1 and lines[0].lstrip().startswith("File") else lines
    frames = _users_frames(error.__traceback__)
    where = [] if _is_obvious(frames) else [line.rstrip("\n") for line in frames.format()]
    only = "".join(traceback.format_exception_only(type(error), error)).rstrip("\n")
    return [row for line in [*where, only] for row in line.split("\n")]


def _users_frames(chain: TracebackType | None) -> traceback.StackSummary:
    others = _other_code()
    frames = [frame for frame in traceback.extract_tb(chain) if not frame.filename.startswith(others)]
    return traceback.StackSummary.from_list(frames)


def _is_obvious(frames: list[traceback.FrameSummary]) -> bool:
    """Whether the error is in the one line that was just typed."""
    return not frames or (len(frames) == 1 and frames[0].name == "<module>" and (frames[0].lineno or 1) == 1)


def names_of(namespace: Mapping[str, Any]) -> list[str]:
    """The names offered for completion."""
    return sorted({*namespace, *dir(builtins)} - {_REGISTER})
