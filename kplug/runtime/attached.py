"""The session of a Program that was opened elsewhere: at drgn's own prompt, in a drgn script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import drgn

from kplug.errors import ExpressionError, InputError, UsageError
from kplug.expressions import Hints
from kplug.frozen import replace
from kplug.lifetimes import UNTIL_FILES_CHANGE, Memo, remembered
from kplug.memory.dump_header import read_header
from kplug.memory.split_dump import missing, missing_words, part_of
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.opening.request import Opened
from kplug.runtime.session import session_of
from kplug.session import Session

#: How to supply what is missing, in terms of drgn's own command line.
HINTS = Hints(vmlinux="give one with drgn -s FILE", module="drgn -s FILE", kaslr_offset="drgn --vmcoreinfo FILE")

_REMEMBERED = "kplug.session"


def session_for(prog: drgn.Program) -> Session:
    """The session of an open kernel, made at the first call and kept with the Program.

    It is made again once drgn has other debug information, and it forgets what memory said at each call if the kernel
    runs. UsageError if the Program is no kernel; InputError if its vmlinux cannot be read.
    """
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise UsageError(_why_none(prog))
    attached = prog.cache.get(_REMEMBERED)
    if attached is None:
        attached = prog.cache[_REMEMBERED] = _Attached(prog)
    session: Session = attached.session()
    return session


class _Attached:
    """A Program that somebody else opened; what is remembered of it is kept with it."""

    def __init__(self, prog: drgn.Program) -> None:
        self._prog = prog
        self.memo = Memo()

    def session(self) -> Session:
        """The session as things are now."""
        self.memo.notice(UNTIL_FILES_CHANGE, _debug_files(self._prog))
        session = self._made()
        if isinstance(session.target, DrgnTarget) and session.target.kernel.live:
            session.target.kernel.resumed()
        return session

    @remembered(UNTIL_FILES_CHANGE)
    def _made(self) -> Session:
        return _session(self._prog)


@contextmanager
def evaluating(session: Session, names: Mapping[str, Any]) -> Iterator[None]:
    """Inside, expressions of the session that mean nothing else are evaluated as Python: `task.stack`.

    `names` are the globals of the prompt.
    """
    target = session.target
    assert isinstance(target, DrgnTarget)
    with target.evaluating(_evaluator(names)):
        yield


def _evaluator(names: Mapping[str, Any]) -> Callable[[str], Any]:
    def evaluate(expression: str) -> Any:
        try:
            return eval(expression, dict(names))
        except (NameError, SyntaxError):
            raise ExpressionError(f"{expression}: no such symbol, section, register or Python expression") from None
        except Exception as error:  # the expression may raise anything
            raise ExpressionError(f"{expression}: {type(error).__name__}: {' '.join(str(error).split())}") from None

    return evaluate


def _session(prog: drgn.Program) -> Session:
    live = bool(prog.flags & drgn.ProgramFlags.IS_LIVE)
    opened = Opened(prog, _description(prog, live), live, _vmlinux(prog), _vmcoreinfo(prog))
    path = None if live else prog.core_dump_path
    if path is not None:
        with suppress(InputError):  # drgn reads it all the same: only the header's facts are missing
            parts = [part for part in [part_of(path)] if part is not None]
            lost = missing_words(parts)
            warnings = () if lost is None else (f"{path}: {lost}",)
            opened = replace(opened, header=read_header(path), warnings=warnings, missing=tuple(missing(parts)))
    return session_of(opened, HINTS)


def _description(prog: drgn.Program, live: bool) -> str:
    if live:
        return "the running kernel" if prog.flags & drgn.ProgramFlags.IS_LOCAL else "a running guest"
    return f"vmcore {prog.core_dump_path}" if prog.core_dump_path else "a vmcore"


def _vmlinux(prog: drgn.Program) -> str | None:
    try:
        main = prog.main_module()
    except LookupError:  # drgn has not loaded debug information yet
        return None
    path: str | None = main.debug_file_path or main.loaded_file_path
    return path


def _vmcoreinfo(prog: drgn.Program) -> VmcoreInfo:
    try:
        return VmcoreInfo(prog["VMCOREINFO"].string_().decode("utf-8", "replace"))
    except LookupError:
        return VmcoreInfo("")


def _debug_files(prog: drgn.Program) -> frozenset[tuple[str, str]]:
    """The debug files that drgn has by now, which answers may depend on."""
    return frozenset((module.name, module.debug_file_path or "") for module in prog.modules() if module.debug_file_path)


def _why_none(prog: drgn.Program) -> str:
    if prog.platform is None or not prog.flags:
        return "no kernel is open: start drgn with -c VMCORE, with --qemu, or as root"
    return "this program is not a Linux kernel"
