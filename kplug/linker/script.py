"""The linker script of a build tree (`arch/*/kernel/vmlinux.lds`, preprocessed), as far as regions need it.

Addresses cannot be worked out from a script: they need the sizes of everything that was linked. What it gives is the
names: which symbols the linker assigns, in which order, and what lies between them. The syntax is GNU ld's
(https://sourceware.org/binutils/docs/ld/Scripts.html), to the extent that kernels use it; expressions are skipped over,
not evaluated. One pass over the tokens with an explicit state: no recursion, time linear in the script's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os.path import commonpath

from kplug.errors import InputError
from kplug.files.opening import open_file

LARGEST_SCRIPT = 8 << 20  # bytes; a kernel's is about 20 KB
_FEW = 16  # input statements; a pair around more of them has no one word

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


@dataclass(frozen=True)
class Assignment:
    """`symbol = expression;`; `here` says that the expression is the location counter itself."""

    symbol: str
    expression: str
    line: int
    here: bool


@dataclass(frozen=True)
class Input:
    """Input sections taken in, by their patterns: `*(.sched.text)` or `KEEP(*(SORT(.ctors.*)))`."""

    patterns: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class OutputSection:
    """An output section with what its braces hold, in order."""

    name: str
    line: int
    statements: tuple[Assignment | Input, ...]

    @property
    def discarded(self) -> bool:
        return self.name == "/DISCARD/"


@dataclass(frozen=True)
class Bracket:
    """Two symbols that the script assigns around something; `name` is the script's word for what they bracket."""

    name: str
    start_symbol: str
    end_symbol: str


@dataclass(frozen=True)
class LinkerScript:
    """What a linker script says, in its order. `name` is what to call it in answers and errors."""

    name: str
    statements: tuple[Assignment | OutputSection, ...]

    @property
    def sections(self) -> tuple[OutputSection, ...]:
        """The output sections that the linker writes."""
        return tuple(item for item in self.statements if isinstance(item, OutputSection) and not item.discarded)

    def assignments(self) -> Iterator[Assignment]:
        """Every assignment to a symbol, those inside output sections too; not those to the location counter."""
        for item in self.statements:
            if isinstance(item, Assignment):
                if item.symbol != ".":
                    yield item
            else:
                yield from (inner for inner in item.statements if isinstance(inner, Assignment) and inner.symbol != ".")

    def order(self) -> dict[str, int]:
        """The position of each symbol's assignment."""
        return {assignment.symbol: position for position, assignment in enumerate(self.assignments())}

    def brackets(self, known: Iterable[str] = ()) -> list[Bracket]:
        """The pairs of symbols that bracket something, in the order of their starts.

        First the symbols whose names pair up. Then, among the rest, two that follow each other with input between
        them and no other mark left over in between. `known` are symbols whose pairing is known already.
        """
        return _brackets(self, frozenset(known))


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
                what = {'"': "a string without its end", "/": "a comment without its end"}.get(text[offset])
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
        return self._error(self.lines[self.position], f"{found} where {wanted} should be")

    def _is(self, word: str, ahead: int = 0) -> bool:
        position = min(self.position + ahead, len(self.words) - 1)
        return self.words[position] == word and self.kinds[position] != "string"

    def _skip_group(self, opening: str, closing: str) -> None:
        """Skips from the opening bracket at the position to behind the one that closes it."""
        first = self.lines[self.position]
        depth = 0
        while True:
            if self._is(opening):
                depth += 1
            elif self._is(closing):
                depth -= 1
            elif self.kinds[self.position] == "end":
                raise self._error(first, f"{opening!r} without its {closing!r}")
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
            raise self._error(opened, "'SECTIONS {' without its '}'")
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
        """Whether the name at the position, which a bracket follows, stands for itself and not for a section.

        A section's name may be followed by a bracket too: its address, or its type.
        """
        if self.kinds[self.position] != "name":
            return False
        depth, position = 0, self.position + 1
        while self.kinds[position] != "end":  # to behind the bracket
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
                raise self._error(first, "OVERLAY without its '{'")
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
        """The statements of an output section, from behind its opening brace to behind the closing one."""
        statements: list[Assignment | Input] = []
        while not self._is("}"):
            if self.kinds[self.position] == "end":
                raise self._error(first, "'{' without its '}'")
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
        # The bracket at which patterns begin: behind the file's name, which KEEP() or SORT() may wrap.
        patterns_from = 1 if self.words[self.position] not in _SORTERS else 2
        while True:
            if self.kinds[self.position] == "end" or self._is("{") or self._is("}") or self._is(";"):
                raise self._error(first, "'(' without its ')'")
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


@dataclass(frozen=True)
class _Mark:
    """A symbol that takes the location counter's value, and where in the script it does.

    `section` counts the output sections begun before it, `depth` is 1 inside one; `content` counts everything placed
    before it, so that two marks of one count hold nothing between them.
    """

    symbol: str
    section: int
    inside: bool
    content: int
    position: int


def _brackets(script: LinkerScript, known: frozenset[str]) -> list[Bracket]:
    marks: list[_Mark] = []
    inputs: list[tuple[str, ...]] = []  # what was placed, in order
    sections: list[tuple[str, int, int]] = []  # name, and which of the inputs are its own: [first, last)
    for item in script.statements:
        inner: tuple[Assignment | Input, ...] = (item,) if isinstance(item, Assignment) else item.statements
        is_section = isinstance(item, OutputSection)
        if isinstance(item, OutputSection) and item.discarded:
            continue
        first = len(inputs)
        for statement in inner:
            if isinstance(statement, Input):
                inputs.append(statement.patterns)
            elif statement.symbol != "." and statement.here:
                marks.append(_Mark(statement.symbol, len(sections), is_section, len(inputs), len(marks)))
            elif statement.symbol == "." and "ALIGN" not in statement.expression:
                inputs.append(())  # room left free: it is content, of no name
        if isinstance(item, OutputSection):
            sections.append((item.name, first, len(inputs)))
    pairs = _pairs(marks, known)
    pairs.sort(key=lambda pair: (pair[0].position, -pair[1].position))
    return [
        Bracket(_bracket_name(start, end, inputs, sections), start.symbol, end.symbol)
        for start, end in pairs
        if end.content > start.content or end.section > start.section
    ]


def _pairs(marks: list[_Mark], known: frozenset[str]) -> list[tuple[_Mark, _Mark]]:
    by_symbol = {mark.symbol: mark for mark in marks}
    pairs: list[tuple[_Mark, _Mark]] = []
    taken = set(known)
    for mark in marks:
        if mark.symbol in known:
            continue
        for end_symbol in partners(mark.symbol):
            end = by_symbol.get(end_symbol)
            if end is not None and end_symbol not in known and end.position > mark.position:
                pairs.append((mark, end))
                taken.update((mark.symbol, end_symbol))
                break
    left = [mark for mark in marks if mark.symbol not in taken]
    position = 0
    while position + 1 < len(left):
        start, end = left[position], left[position + 1]
        if (
            start.inside == end.inside
            and (not start.inside or start.section == end.section)
            and (end.content > start.content)
            and not any(mark.symbol in taken for mark in marks[start.position + 1 : end.position])
        ):
            pairs.append((start, end))
            position += 2
        else:
            position += 1
    return pairs


def partners(start: str) -> tuple[str, ...]:
    """The names that a symbol's partner at the other end may have, likeliest first."""
    found: list[str] = []
    for prefix in ("__start_", "_start_"):
        if start.startswith(prefix):
            stem = start[len(prefix) :]
            found += [prefix.replace("start", "stop") + stem, prefix.replace("start", "end") + stem]
    for suffix in ("_start", "_begin", "start", "begin"):
        if start.endswith(suffix) and len(start) > len(suffix):
            stem = start[: -len(suffix)]
            found += [f"{stem}{'_' * suffix.startswith('_')}{end}" for end in ("end", "stop")]
            break
    for prefix in ("__s", "_s"):
        if start.startswith(prefix):
            found.append(prefix[:-1] + "e" + start[len(prefix) :])
            break
    found += [start + "_end", start + "end"]
    return tuple(found)


def _bracket_name(start: _Mark, end: _Mark, inputs: list[tuple[str, ...]], sections: list[tuple[str, int, int]]) -> str:
    """The one output section that the pair takes in whole, else the one input pattern, else the stem of the names."""
    if not start.inside and not end.inside:
        if end.section - start.section == 1:
            return plain(sections[start.section][0])
    elif start.inside and end.inside and start.section == end.section < len(sections):
        name, first, last = sections[start.section]
        if start.content == first and end.content == last:
            return plain(name)
        if end.content - start.content <= _FEW:
            words = {plain(pattern) for patterns in inputs[start.content : end.content] for pattern in patterns}
            if len(words) == 1:
                return words.pop()
    return stem(start.symbol, end.symbol)


def plain(name: str) -> str:
    """A section's name or pattern as a region is named: without the leading dots, underscores and wildcards."""
    return name.strip("*+").lstrip("._").rstrip("._") or name


def stem(start_symbol: str, end_symbol: str) -> str:
    """What the names of two boundary symbols share."""
    for word in ("__start_", "_start_"):
        if start_symbol.startswith(word):
            return start_symbol[len(word) :].strip("_") or start_symbol
    for word in ("_start", "_begin"):
        if start_symbol.endswith(word):
            return start_symbol[: -len(word)].strip("_") or start_symbol
    if end_symbol.startswith(start_symbol):
        return start_symbol.strip("_")
    if start_symbol.lstrip("_")[:1] == "s" and start_symbol.lstrip("_")[1:] == end_symbol.lstrip("_")[1:]:
        return start_symbol.lstrip("_")[1:]
    return commonpath([start_symbol, end_symbol]).strip("_") or start_symbol.strip("_")
