"""The prompt at a terminal: editing, completion, history, colours and the toolbar, by prompt-toolkit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completion
from prompt_toolkit.completion import Completer as ToolkitCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import completion_is_selected, has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from kplug.repl.completion import Completer, Continuation
from kplug.repl.dispatch import Leave, Prompt
from kplug.repl.history import KeptHistory, history_path
from kplug.repl.lexer import STYLE, LineLexer
from kplug.repl.output import colourful
from kplug.repl.plain import CONTINUATION, PROMPT
from kplug.repl.toolbar import Toolbar

_INDENT = "    "


class _Completions(ToolkitCompleter):
    """The completer's continuations as prompt-toolkit completions."""

    def __init__(self, complete: Callable[[str], Sequence[Continuation]]) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for found in self._complete(document.text_before_cursor):
            yield Completion(found.text, -found.length)


class Terminal:
    """Reads what the user types and runs it."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._is_warm = False
        # Whether the selection may be another one than the toolbar read last.
        self._is_used = False
        self._completer = Completer(prompt)
        self._toolbar = Toolbar(prompt.session, prompt.target, prompt.lock, self._redraw)
        colours = colourful()
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=lambda width, number, wrapped: CONTINUATION,
            lexer=LineLexer(prompt.is_command),
            completer=_Completions(self._completer.complete),
            complete_while_typing=False,
            history=KeptHistory(history_path()),
            auto_suggest=AutoSuggestFromHistory(),
            bottom_toolbar=self._toolbar_parts,
            key_bindings=self._keys(),
            style=Style.from_dict(STYLE) if colours else None,
            include_default_pygments_style=False,
            color_depth=None if colours else ColorDepth.DEPTH_1_BIT,
            enable_suspend=True,
            reserve_space_for_menu=6,
        )

    def loop(self) -> int:
        """Run what is typed until the user leaves; the exit status."""
        self._session.app.after_render += self._drawn
        try:
            while True:
                running = False
                try:
                    text = self._session.prompt(pre_run=self._refresh)
                    running = True
                    apart = self._prompt.is_apart(text)
                    self._is_used = not apart
                    with nullcontext() if apart else self._prompt.lock:
                        self._prompt.run_all(text.split("\n"))
                except KeyboardInterrupt:
                    self._prompt.interrupted()
                    sys.stdout.write("\n" if running else "")
                except EOFError:
                    return 0
                except Leave as leave:
                    return leave.status or 0
        finally:
            self._toolbar.finish()

    def _refresh(self) -> None:
        """Have the toolbar read the current selection; the first time it waits until the prompt is shown."""
        if self._is_warm and self._is_used:
            self._toolbar.refresh()

    def _drawn(self, _: object) -> None:
        """Called when the prompt is shown. Background work starts only now, so as not to delay the prompt."""
        if not self._is_warm:
            self._is_warm = True
            self._toolbar.refresh()
            self._warm_up()

    def _warm_up(self) -> None:
        """Prepare, while the user types, what the first Tab and the first line of Python need."""
        from kplug.repl import background

        background.start("drgn.cli")
        threading.Thread(target=self._read_names, name="names", daemon=True).start()

    def _read_names(self) -> None:
        self._toolbar.finish()  # a typed line has to wait for this, but not for the names
        self._completer.warm_up()

    def _redraw(self) -> None:
        with suppress(Exception):
            self._session.app.invalidate()

    def _toolbar_parts(self) -> StyleAndTextTuples:
        return [("", self._toolbar.text)]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter", filter=has_focus(DEFAULT_BUFFER) & ~completion_is_selected)
        def _(event: KeyPressEvent) -> None:
            """Run the input if it is complete; else begin another line, indented as in Python."""
            buffer = event.current_buffer
            text = buffer.text
            if self._is_complete(text) and (buffer.document.is_cursor_at_the_end or "\n" not in text):
                buffer.validate_and_handle()
                return
            line = buffer.document.current_line_before_cursor
            indent = line[: len(line) - len(line.lstrip())] if line.strip() else ""
            buffer.insert_text("\n" + indent + (_INDENT if line.rstrip().endswith(":") else ""))

        @keys.add("enter", filter=has_focus(DEFAULT_BUFFER) & completion_is_selected)
        def _(event: KeyPressEvent) -> None:
            """Accept the completion."""
            event.current_buffer.complete_state = None

        @keys.add("tab", filter=has_focus(DEFAULT_BUFFER))
        def _(event: KeyPressEvent) -> None:
            """Complete the part that is certain; show the choices after it."""
            buffer = event.current_buffer
            before = buffer.document.current_line_before_cursor
            if buffer.complete_state is not None:
                buffer.complete_next()
            elif not before.strip():
                buffer.insert_text(_INDENT)
            else:
                certain = certain_part(before, self._completer.complete(buffer.document.text_before_cursor))
                if certain:
                    buffer.insert_text(certain)
                else:
                    buffer.start_completion(select_first=False)

        @keys.add("c-\\")
        def _(event: KeyPressEvent) -> None:
            """As the terminal would have it."""
            run_in_terminal(lambda: os.kill(os.getpid(), signal.SIGQUIT))

        return keys

    def _is_complete(self, text: str) -> bool:
        if "\n" not in text and self._prompt.is_command(text):
            return True
        return self._prompt.python.is_complete(text.rstrip(" "))


def certain_part(before: str, found: Sequence[Continuation]) -> str:
    """The common text of all continuations that begin as typed; the whole continuation if there is only one."""
    rest = [each.text[each.length :] for each in found if before.endswith(each.text[: each.length])]
    return os.path.commonprefix(rest)  # noqa: RUF071
