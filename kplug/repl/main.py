"""Opening a kernel and running commands on it: from -e, a script on standard input, or the prompt."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kplug.errors import UsageError
from kplug.repl.output import Screen, is_dumb
from kplug.source import Source

if TYPE_CHECKING:
    from kplug.repl.dispatch import Prompt


def run(source: Source, commands: Sequence[str], color: str) -> int:
    """Open what `source` names; then run `commands`, or those on standard input. Returns the exit status."""
    interactive = not commands and sys.stdin is not None and sys.stdin.isatty()
    editing = interactive and sys.stdout.isatty() and not is_dumb()
    if editing:
        from kplug.repl import background

        background.start("kplug.repl.prompt")
    try:
        prompt = _open(source, Screen(color, paging=interactive), [each for each in commands if _asks(each)])
        if interactive:
            gc.enable()
            gc.freeze()
            return _interactive(prompt, editing)
        return _script(prompt, commands)
    finally:
        if editing:
            background.finish()


def _asks(command: str) -> bool:
    """Whether a command of -e asks about the kernel, for which drgn's types are needed."""
    from kplug.commands import COMMANDS

    name = (command.split() or [""])[0].partition("/")[0]
    return any(name == each.host_name for each in COMMANDS.values())


def _open(source: Source, screen: Screen, questions: Sequence[str]) -> Prompt:
    """The kernel, open. For the questions about it, drgn reads its types while this file's imports are done."""
    from kplug.opening import memory_session

    def imports() -> None:
        import kplug.repl.dispatch  # noqa: F401

    asked = [each.partition(" ")[2] for each in questions]  # without the commands' names
    session = memory_session(source, asked or None, imports)  # where drgn is not installed, this says so
    import drgn

    from kplug.repl.dispatch import Prompt
    from kplug.runtime.drgn_target import DrgnTarget

    assert isinstance(session.target, DrgnTarget)
    drgn.set_default_prog(session.target.kernel.prog)
    sys.path.insert(0, "")  # import modules from the working directory, as at drgn's prompt
    return Prompt(session, session.target, screen)


def _script(prompt: Prompt, commands: Sequence[str]) -> int:
    from kplug.repl.dispatch import Leave, Status

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    worst = Status.ANSWERED
    try:
        if commands:
            for command in commands:
                worst = max(worst, prompt.run_all(command.split("\n"), lambda _: "kplug: "))
        elif sys.stdin is not None:
            worst = prompt.run_all(sys.stdin, lambda number: f"kplug: line {number}: ")
    except Leave as leave:
        return worst if leave.status is None else leave.status
    return worst


def _interactive(prompt: Prompt, editing: bool) -> int:
    from kplug.repl.plain import Plain

    if not editing:
        return Plain(prompt).loop()
    try:
        from kplug.repl.prompt import Terminal
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "prompt_toolkit":
            raise
        raise UsageError(
            "the prompt needs prompt-toolkit: pip install prompt-toolkit (-e CMD and commands on standard input do not)"
        ) from None
    return Terminal(prompt).loop()
