"""Completion of typed text: commands, options, symbols, modules, CPUs, Python names and attributes."""

from __future__ import annotations

import argparse
import keyword
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Command
from kplug.commands.words import long_options
from kplug.errors import KplugError
from kplug.image.symbols.source_names import with_source_names
from kplug.named_tuples import NamedTuple
from kplug.render.safe import safe
from kplug.repl.python import names_of
from kplug.runtime.modules.module_list import modules_of

if TYPE_CHECKING:
    from kplug.repl.dispatch import Prompt

# More than a screen of names helps nobody.
LIMIT = 100

_NAME = re.compile(r"[\w.]*$")
_CPU = re.compile(r"@(?P<stem>\d*)$")
_REGISTER = re.compile(r"\$(?P<stem>\w*)$")
# A chain of names, members and constant indexes: evaluating it runs no code except properties.
_CHAIN = re.compile(
    r"""(?P<object>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[(?:\d+|"[^"\\]*"|'[^'\\]*')\])*)\.(?P<stem>\w*)$""", re.VERBOSE
)
_VARIABLE = re.compile(r"""prog\[(?P<quote>["'])(?P<stem>\w*)$""")
_PYTHON_NAME = re.compile(r"(?P<stem>[A-Za-z_]\w*)$")
# Symbols of the export tables, one or two for each exported symbol.
_BOOKKEEPING = ("__crc_", "__kstrtab", "__ksymtab_", "__pfx_", "__UNIQUE_ID_", "__cfi_")


class Continuation(NamedTuple):
    """One continuation: the text that replaces the last `length` characters."""

    text: str
    length: int


class SymbolNames:
    """The names of a kernel's symbols, joined into one text for searching."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names
        self._text: str | None = None

    def like(self, stem: str, limit: int = LIMIT) -> list[str]:
        """The names that begin with `stem`, then those that contain it, then those that have its letters in order."""
        if not stem:
            return []
        self.load()
        found = dict.fromkeys(self._containing("\n" + stem, limit))
        if len(found) < limit:
            found.update(dict.fromkeys(self._containing(stem, limit)))
        if len(found) < limit and len(stem) > 2:
            found.update(dict.fromkeys(self._fuzzy(stem, limit)))
        return list(found)[:limit]

    def load(self) -> None:
        """Make the text now, instead of at the first completion."""
        if self._text is None:
            names = (name for name in self._names() if not name.startswith(_BOOKKEEPING))
            self._text = "\n" + "\n".join(names) + "\n"

    def _containing(self, part: str, limit: int) -> Iterator[str]:
        """The names around the first places where `part` is, shortest first."""
        text, names = self._text or "", dict[str, None]()
        position = text.find(part)
        while position >= 0 and len(names) < limit:
            end = text.index("\n", position + 1)
            names[text[text.rfind("\n", 0, position + 1) + 1 : end]] = None
            position = text.find(part, end)
        return iter(names if part.startswith("\n") else sorted(names, key=len))

    def _fuzzy(self, stem: str, limit: int) -> list[str]:
        """The names with the letters of `stem` in their order, those with the letters closest together first."""
        letters = [re.escape(letter) for letter in stem]
        pattern = letters[0] + "".join(rf"[^{letter}\n]*{letter}" for letter in letters[1:])
        text, found = self._text or "", []
        for match in re.finditer(pattern, text):
            start, end = text.rfind("\n", 0, match.start() + 1) + 1, text.index("\n", match.end() - 1)
            found.append((match.end() - match.start(), end - start, text[start:end]))
            if len(found) >= 50 * limit:
                break
        return [name for _, _, name in sorted(found)[:limit]]


class Completer:
    """Completes the lines of one session. Reads nothing from the target except for members of objects."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._symbols = SymbolNames(self._symbol_names)

    def complete(self, text: str) -> list[Continuation]:
        """The continuations of the text before the cursor; none if an error occurs."""
        line = text.rpartition("\n")[2]
        try:
            found = list(self._first_word(text)) or list(self._rest(text, line))
        except Exception:  # no error messages while the user is typing
            return []
        return [each for each in dict.fromkeys(found) if safe(each.text) == each.text][: 2 * LIMIT]

    def warm_up(self) -> None:
        """Collect the symbols' names in advance, which takes time."""
        try:
            self._symbols.load()
        except Exception:  # reported when a command needs it
            return

    # -- commands ------------------------------------------------------------------------------------------------------

    def _first_word(self, text: str) -> Iterator[Continuation]:
        """Commands and Python names, while the first word is being typed."""
        match = re.fullmatch(r"\s*(?P<stem>[A-Za-z_]\w*)?", text)
        if match is None:
            return
        stem = match.group("stem") or ""
        for name in self._prompt.commands:
            if name.startswith(stem) and len(name) > 1:
                yield Continuation(name, len(stem))
        if stem:
            yield from self._python_names(stem)

    def _rest(self, text: str, line: str) -> Iterator[Continuation]:
        if text.startswith("!") or not self._prompt.is_command(text):
            yield from self._file_names(line) if text.startswith("!") else self._python(line)
            return
        name = (re.findall(r"[\w?]+", line) or [""])[0]
        command = self._prompt.commands.get(name)
        if command is None:
            return
        if re.search(r"[|>]", line.replace("->", "")):
            yield from self._file_names(line)
            return
        yield from self._arguments(command, line)

    def _arguments(self, command: Command, line: str) -> Iterator[Continuation]:
        last = line.rpartition(" ")[2]
        if last.startswith("-"):
            parser = self._prompt.parser(command)
            yield from (
                Continuation(option, len(last)) for option in long_options(command, parser) if option.startswith(last)
            )
            return
        registers, cpus = _REGISTER.search(line), _CPU.search(line)
        if registers is not None:
            yield from self._registers(registers.group("stem"))
        elif cpus is not None:
            stem = cpus.group("stem")
            yield from (Continuation(cpu, len(stem)) for cpu in self._cpus() if cpu.startswith(stem))
        elif command.name == "help":
            yield from (Continuation(each, len(last)) for each in self._prompt.commands if each.startswith(last))
        elif command.takes_modules:
            yield from (Continuation(each, len(last)) for each in self._modules() if each.startswith(last))
        elif _choices(self._prompt.parser(command)):
            choices = _choices(self._prompt.parser(command))
            yield from (Continuation(each, len(last)) for each in choices if each.startswith(last))
        elif command.takes_symbols:
            yield from self._symbols_or_python(line)

    def _symbols_or_python(self, line: str) -> Iterator[Continuation]:
        if _VARIABLE.search(line) or _CHAIN.search(line):
            python = list(self._python(line))
            if python:
                yield from python
                return
        match = _NAME.search(line)
        stem = match.group() if match else ""
        yield from (Continuation(name, len(stem)) for name in self._symbols.like(stem))

    def _symbol_names(self) -> Iterator[str]:
        """The vmlinux's symbols, also as the source has them; those of modules would have to be read first."""
        main = self._prompt.session.main
        return with_source_names(main.image.symbols.prefix("") if main is not None else ())

    def _registers(self, stem: str) -> Iterator[Continuation]:
        try:
            with self._prompt.lock:
                names = [register.name for register in self._prompt.target.registers()]
        except KplugError:
            return
        yield from (Continuation(name, len(stem)) for name in ["pc", "sp", *names] if name.startswith(stem))

    def _cpus(self) -> list[str]:
        from kplug.runtime.kernel.cpus import possible_cpus

        with self._prompt.lock:
            return [str(cpu) for cpu in possible_cpus(self._prompt.target.kernel)]

    def _modules(self) -> list[str]:
        with self._prompt.lock:
            return sorted(module.name for module in modules_of(self._prompt.target.kernel))

    # -- Python --------------------------------------------------------------------------------------------------------

    def _python(self, line: str) -> Iterator[Continuation]:
        variable, chain, name = _VARIABLE.search(line), _CHAIN.search(line), _PYTHON_NAME.search(line)
        register = _REGISTER.search(line)
        if register is not None:
            yield from self._registers(register.group("stem"))
        elif variable is not None:
            stem, quote = variable.group("stem"), variable.group("quote")
            yield from (Continuation(each + quote + "]", len(stem)) for each in self._symbols.like(stem))
        elif chain is not None:
            yield from self._members(chain.group("object"), chain.group("stem"))
        elif name is not None:
            yield from self._python_names(name.group("stem"))

    def _members(self, expression: str, stem: str) -> Iterator[Continuation]:
        with self._prompt.lock:
            value: Any = eval(expression, self._prompt.python.namespace)
            names = sorted(dir(value))
        hidden = "_" if not stem else "__" if stem == "_" else "\0"
        for name in names:
            if name.startswith(stem) and not name.startswith(hidden):
                yield Continuation(name, len(stem))

    def _python_names(self, stem: str) -> Iterator[Continuation]:
        for name in [*keyword.kwlist, *names_of(self._prompt.python.namespace)]:
            if name.startswith(stem):
                yield Continuation(name, len(stem))

    # -- files ---------------------------------------------------------------------------------------------------------

    def _file_names(self, line: str) -> Iterator[Continuation]:
        last = re.split(r"[\s|>]", line)[-1]
        folder, _, stem = last.rpartition("/")
        where = os.path.expanduser(folder + "/" if "/" in last else ".")
        for entry in sorted(os.scandir(where), key=lambda entry: entry.name):
            if entry.name.startswith(stem) and (stem or not entry.name.startswith(".")):
                yield Continuation(entry.name + ("/" if entry.is_dir() else ""), len(stem))


def _choices(parser: argparse.ArgumentParser) -> Sequence[str]:
    """The choices for a command's first argument, if it has a fixed set."""
    for action in parser._actions:
        if not action.option_strings and action.choices is not None:
            return [str(choice) for choice in action.choices]
    return ()
