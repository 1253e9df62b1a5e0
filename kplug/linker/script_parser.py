"""Reads a linker script: the syntax of GNU ld as far as kernels use it.

https://sourceware.org/binutils/docs/ld/Scripts.html describes it. Expressions are skipped, not evaluated. One pass over
the tokens with an explicit state: no recursion, time linear in the script's length.
"""

from __future__ import annotations

import re

from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.linker.script import Assignment, Input, LinkerScript, OutputSection

LARGEST_SCRIPT = 8 << 20  # bytes; a kernel's is about 20 KB
_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\f\v]+)
  | (?P<newline>\n)
  | (?P<comment>/\*.*?\*/)
  | (?P<marker>\#[^\n]*)
  | (?P<string>"[^"]*")
  | (?P<assign><<=|>>=|[-+*/&|]=|=(?!=))
  | (?P<operator>==|!=|<=|>=|<<|>>|&&|\|\||[<>!&|%^:])
  | (?P<punctuation>[{}();,])
  | (?P<name>(?:[A-Za-z0-9_.$\\~*?\[\]@`]|[-+](?!=)|/(?![*=]))+)
    """,
    re.VERBOSE | re.DOTALL,
)
_PROVIDERS = frozenset({"PROVIDE", "PROVIDE_HIDDEN", "HIDDEN"})
_SORTERS = frozenset(
    {"SORT", "SORT_BY_NAME", "SORT_BY_ALIGNMENT", "SORT_BY_INIT_PRIORITY", "SORT_NONE", "REVERSE", "KEEP"}
)
_FILTERS = frozenset({"EXCLUDE_FILE", "INPUT_SECTION_FLAGS"})
_STATEMENTS_WITHOUT_INPUT = frozenset(
    {"BYTE", "SHORT", "LONG", "QUAD", "SQUAD", "FILL", "ASSERT", "ASCIZ", "LINKER_VERSION"}
)
_BLOCKS_TO_SKIP = frozenset({"PHDRS", "MEMORY", "VERSION"})


def read_linker_script(path: str) -> LinkerScript:
    """The script in the file at `path`. InputError names it, and the line."""
    with open_file(path) as file:
        data = file.read(LARGEST_SCRIPT + 1)
    return parse_linker_script(data.decode("utf-8", "backslashreplace"), path)


def parse_linker_script(text: str, name: str) -> LinkerScript:
    """Parses a preprocessed linker script. InputError names `name` and the line."""
    if len(text) > LARGEST_SCRIPT:
        raise InputError(f"{name}: larger than {LARGEST_SCRIPT >> 20} MiB: not a linker script")
    return _Parser(text, name).parse()


class _Parser:
    """One pass over the tokens; the position is the only state that the methods share."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.kinds: list[str] = []
        self.words: list[str] = []
        self.lines: list[int] = []
        self._tokenize(text)
        self.position = 0

    def _tokenize(self, text: str) -> None:
        offset, line = 0, 1
        while offset < len(text):
            match = _TOKEN.match(text, offset)
            if match is None:
                what = {'"': "unterminated string", "/": "unterminated comment"}.get(text[offset])
                raise self._error(line, what or f"unexpected character {text[offset]!r}")
            kind, word = match.lastgroup or "", match.group()
            if kind not in ("space", "newline", "comment", "marker"):
                self.kinds.append(kind)
                self.words.append(word.strip('"') if kind == "string" else word)
                self.lines.append(line)
            if kind in ("newline", "comment", "string"):
                line += word.count("\n")
            offset = match.end()
        self.kinds.append("end")
        self.words.append("")
        self.lines.append(line)

    def _error(self, line: int, what: str) -> InputError:
        return InputError(f"{self.name}: line {line}: {what}")

    def _unexpected(self, wanted: str) -> InputError:
        word = self.words[self.position]
        found = f"{word[:40]!r}" if self.kinds[self.position] != "end" else "the end of the file"
        return self._error(self.lines[self.position], f"expected {wanted}, found {found}")

    def _is(self, word: str, ahead: int = 0) -> bool:
        position = min(self.position + ahead, len(self.words) - 1)
        return self.words[position] == word and self.kinds[position] != "string"

    def _skip_group(self, opening: str, closing: str) -> None:
        """Skips from the opening bracket at the position past the one that closes it."""
        first = self.lines[self.position]
        depth = 0
        while True:
            if self._is(opening):
                depth += 1
            elif self._is(closing):
                depth -= 1
            elif self.kinds[self.position] == "end":
                raise self._error(first, f"{opening!r} without a closing {closing!r}")
            self.position += 1
            if depth == 0:
                return

    def parse(self) -> LinkerScript:
        statements: list[Assignment | OutputSection] = []
        inside = False  # SECTIONS { ... }
        seen = False
        while self.kinds[self.position] != "end":
            word = self.words[self.position]
            if inside and self._is("}"):
                inside = False
                self.position += 1
            elif not inside and word == "SECTIONS" and self._is("{", 1):
                inside = seen = True
                opened = self.lines[self.position]
                self.position += 2
            elif not inside and word in _BLOCKS_TO_SKIP:
                self._skip_block()
            elif inside and word == "OVERLAY":
                statements += self._overlay()
            elif not self._skip_trivia():
                assignment = self._assignment()
                if assignment is not None:
                    statements.append(assignment)
                elif self._is("(", 1) and self._is_command():
                    self.position += 1
                    self._skip_group("(", ")")
                elif inside:
                    statements.append(self._section())
                elif word == "INCLUDE":
                    self.position = min(self.position + 2, len(self.words) - 1)
                else:
                    raise self._unexpected("a statement")
        if inside:
            raise self._error(opened, "'SECTIONS {' without a closing '}'")
        if not seen:
            raise InputError(f"{self.name}: not a linker script: it has no SECTIONS")
        return LinkerScript(self.name, tuple(statements))

    def _skip_block(self) -> None:
        while not self._is("{"):
            if self.kinds[self.position] == "end":
                raise self._unexpected("'{'")
            self.position += 1
        self._skip_group("{", "}")

    def _is_command(self) -> bool:
        """Whether the name at the position, followed by a bracket, is a command and not a section.

        A section's name may be followed by a bracket too, with its address or type.
        """
        if self.kinds[self.position] != "name":
            return False
        depth, position = 0, self.position + 1
        while self.kinds[position] != "end":  # past the bracket
            depth += (self.words[position] == "(") - (self.words[position] == ")")
            position += 1
            if depth == 0:
                break
        return self.words[position] not in (":", "(") and not self.words[self.position].startswith(".")

    def _skip_trivia(self) -> bool:
        """Skips what may follow an output section (`:phdr`, `>region`, `=fill`) and empty statements."""
        if self._is(";") or self._is(","):
            self.position += 1
        elif self._is(":") or self._is(">"):
            self.position += 1
            if self.kinds[self.position] not in ("name", "string"):
                raise self._unexpected("a name")
            self.position += 1
        elif self._is("="):
            self.position += 1
            if self._is("("):
                self._skip_group("(", ")")
            elif self.kinds[self.position] == "name":
                self.position += 1
            else:
                raise self._unexpected("a fill value")
        elif self._is("AT") and self._is(">", 1):
            self.position += 3
        else:
            return False
        self.position = min(self.position, len(self.words) - 1)
        return True

    def _assignment(self) -> Assignment | None:
        """The assignment at the position, or None: `a = b;`, also within PROVIDE() and its kin."""
        provided = self.words[self.position] in _PROVIDERS and self._is("(", 1)
        if provided:
            self.position += 2
        position = self.position
        if self.kinds[position] not in ("name", "string") or self.kinds[position + 1] != "assign":
            if provided:
                raise self._unexpected("an assignment")
            return None
        line, symbol = self.lines[position], self.words[position]
        self.position += 2
        first = self.position
        depth = 0
        while depth or not (self._is(")") if provided else (self._is(";") or self._is(","))):
            if self._is("("):
                depth += 1
            elif self._is(")"):
                depth -= 1
            if depth < 0 or self.kinds[self.position] == "end" or self._is("{") or self._is("}") or self._is(";"):
                raise self._error(line, f"the assignment to {symbol[:60]!r} has no end")
            self.position += 1
        words = self.words[first : self.position]
        self.position += 1
        return Assignment(symbol, " ".join(words), line, words in (["."], ["ABSOLUTE", "(", ".", ")"]))

    def _overlay(self) -> list[OutputSection]:
        """OVERLAY [address] : [NOCROSSREFS] [AT(...)] { name { ... } ... }: sections that share their addresses."""
        first = self.lines[self.position]
        while not self._is("{"):
            if self.kinds[self.position] == "end" or self._is("}"):
                raise self._error(first, "OVERLAY without '{'")
            self.position += 1
        self.position += 1
        sections: list[OutputSection] = []
        while not self._is("}"):
            if self._skip_trivia():
                continue
            if self.kinds[self.position] not in ("name", "string") or not self._is("{", 1):
                raise self._unexpected("a section of the OVERLAY")
            name, line = self.words[self.position], self.lines[self.position]
            self.position += 2
            sections.append(OutputSection(name, line, self._body(line)))
        self.position += 1
        return sections

    def _section(self) -> OutputSection:
        """name [address] [(type)] : [AT(...)] [ALIGN(...)] ... { ... }"""
        if self.kinds[self.position] not in ("name", "string"):
            raise self._unexpected("a statement")
        name, line = self.words[self.position], self.lines[self.position]
        colon = False
        self.position += 1
        while not self._is("{"):
            if self._is("("):
                self._skip_group("(", ")")
                continue
            if self.kinds[self.position] == "end" or self._is("}") or self._is(";"):
                raise self._error(line, f"the output section {name[:60]!r} has no '{{'")
            colon = colon or self._is(":")
            self.position += 1
        if not colon:
            raise self._error(line, f"the output section {name[:60]!r} has no ':'")
        self.position += 1
        return OutputSection(name, line, self._body(line))

    def _body(self, first: int) -> tuple[Assignment | Input, ...]:
        """The statements of an output section, from after its opening brace to past the closing one."""
        statements: list[Assignment | Input] = []
        while not self._is("}"):
            if self.kinds[self.position] == "end":
                raise self._error(first, "'{' without a closing '}'")
            if self._is(";") or self._is(",") or self._is(":"):
                self.position += 1
                continue
            assignment = self._assignment()
            if assignment is not None:
                statements.append(assignment)
                continue
            if self.kinds[self.position] not in ("name", "string"):
                raise self._unexpected("a statement of an output section")
            word, line = self.words[self.position], self.lines[self.position]
            if word in _STATEMENTS_WITHOUT_INPUT:
                self.position += 1
                if self._is("("):
                    self._skip_group("(", ")")
            elif self._is("(", 1):
                patterns = self._input()
                if patterns:
                    statements.append(Input(patterns, line))
            else:
                self.position += 1  # CONSTRUCTORS, or a file taken in whole
        self.position += 1
        return tuple(statements)

    def _input(self) -> tuple[str, ...]:
        """The section patterns of `file(patterns)`, bare or within KEEP() and SORT()."""
        first = self.lines[self.position]
        patterns: list[str] = []
        depth = 0
        # The bracket at which patterns begin: after the file's name, which KEEP() or SORT() may wrap.
        patterns_from = 1 if self.words[self.position] not in _SORTERS else 2
        while True:
            if self.kinds[self.position] == "end" or self._is("{") or self._is("}") or self._is(";"):
                raise self._error(first, "'(' without a closing ')'")
            if self.words[self.position] in _FILTERS and self._is("(", 1):
                self.position += 1
                self._skip_group("(", ")")
                continue
            if self._is("("):
                depth += 1
            elif self._is(")"):
                depth -= 1
                if depth == 0 and not self._is("(", 1):  # not the end of SORT(file)(patterns)
                    self.position += 1
                    return tuple(patterns)
            elif self.kinds[self.position] in ("name", "string"):
                word = self.words[self.position]
                if depth >= patterns_from and not (word in _SORTERS and self._is("(", 1)):
                    patterns.append(word)
            self.position += 1
