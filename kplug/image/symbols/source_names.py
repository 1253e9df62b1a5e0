"""The name that a function has in its source, of a symbol to whose name a compiler added something.

`finish_task_switch.isra.0` is finish_task_switch in its source, in DWARF and in BTF. The kernel prints symbols as their
table has them, except for clang's LTO: from 5.14 on it cut what follows the first dot or `$`, later `.llvm.N` alone
(cleanup_symbol_name() in kernel/kallsyms.c; 8cc32a9bbf29), and since 6.11 nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, cached_property
from itertools import islice

from kplug.named_tuples import NamedTuple

# Names searched for one by one, before a dictionary of all is made.
_FEW_QUESTIONS = 64
# No kernel has more; a broken table may.
_MOST_TAILS, _MOST_MANGLED, _MOST_NAME_BYTES = 1 << 16, 1 << 14, 1024


class Affix(NamedTuple):
    """What is added to a name: a pattern, and who adds it.

    `is_part`: the symbol is not the function itself, but something that belongs to it. `code_only`: only a function's
    name is taken to have it, since every static variable of a function has the same.
    """

    pattern: str
    added_by: str
    is_part: bool = False
    code_only: bool = False


SUFFIXES = (
    Affix(r"\.isra\.\d+", "gcc: parameters were removed (ipa-sra.cc)"),
    Affix(r"\.constprop\.\d+", "gcc: parameters are constants (ipa-cp.cc)"),
    Affix(r"\.part\.\d+", "gcc: the part that was not inlined (ipa-split.cc)"),
    Affix(r"\.cold(?:\.\d+)?", "gcc, LLVM: blocks that are rarely run", is_part=True),
    Affix(r"\.localalias(?:\.\d+)?", "gcc: an alias for calls in the same file (ipa-visibility.cc)"),
    Affix(r"\.lto_priv\.\d+", "gcc's LTO: a static function (lto-partition.cc)"),
    Affix(r"\.llvm\.[0-9a-f]+", "LLVM's ThinLTO: a static symbol that another module needs (ModuleSummaryIndex.h)"),
    Affix(r"\.__uniq\.\d+", "LLVM: -funique-internal-linkage-names (UniqueInternalLinkageNames.cpp)"),
    Affix(r"\.cfi_jt", "LLVM's CFI: the entry of the jump table (LowerTypeTests.cpp)", is_part=True),
    Affix(r"\.cfi", "LLVM's CFI: the function itself (LowerTypeTests.cpp)"),
    Affix(r"\.specialized\.\d+", "LLVM: parameters are constants (FunctionSpecialization.cpp)"),
    Affix(r"\.(?:argprom|argelim|retelim)", "LLVM: parameters were removed (DeadArgumentElimination.cpp)"),
    Affix(r"\.__part\.\d+", "LLVM: a section of basic blocks (MachineFunction.cpp)", is_part=True),
    Affix(r"\$[0-9a-f]+", "LLVM before 13: ThinLTO with CFI (cleanup_symbol_name() in the kernel)"),
    Affix(r"\.(?:\d+|[0-9a-f]{32})", "gcc, LLVM: one of several with this name", code_only=True),
)
PREFIXES = (
    Affix("__pfx_", "objtool --prefix: the padding before a function (6.2)", is_part=True),
    Affix("__cfi_", "LLVM's kCFI: the type before a function (6.1)", is_part=True),
)


class SourceName(NamedTuple):
    """A symbol's name in the source, and what `Affix` says of the affixes."""

    name: str
    is_part: bool
    code_only: bool


def _any_of(affixes: Iterable[Affix]) -> str:
    return "|".join(affix.pattern for affix in affixes)


_PARTS = _any_of(affix for affix in SUFFIXES if affix.is_part)
_OF_PART, _AFTER_PREFIX = rf"(.+)(?:{_PARTS})", rf"(?:{_any_of(PREFIXES)})(.+)"


@cache
def _affixed() -> re.Pattern[str]:
    code = _any_of(affix for affix in SUFFIXES if affix.code_only)
    rest = _any_of(affix for affix in SUFFIXES if not affix.is_part and not affix.code_only)
    return re.compile(
        rf"(?P<before>{_any_of(PREFIXES)})?(?P<name>.+?)(?:{rest}|(?P<part>{_PARTS})|(?P<code>{code}))*", re.DOTALL
    )


def source_name(name: str) -> SourceName:
    """The name without what compilers add; the name itself where they added nothing."""
    match = _affixed().fullmatch(name) if "." in name or "$" in name or name.startswith("__") else None
    if match is None:
        return SourceName(name, False, False)
    is_part = bool(match.group("before")) or match.group("part") is not None
    return SourceName(match.group("name"), is_part, match.group("code") is not None)


def whole_of(name: str) -> str | None:
    """The symbol of which one with that name is a part: of `foo.isra.0.cold` that is foo.isra.0. None if it is none."""
    match = re.fullmatch(_OF_PART, name) or re.fullmatch(_AFTER_PREFIX, name)
    return match.group(1) if match else None


def with_source_names(names: Iterable[str]) -> Iterator[str]:
    """The names, and before each that compilers made of a function's its name in the source: for completion. A name may
    come more than once."""
    for name in names:
        if "." in name or "$" in name:
            source = source_name(name)
            if source.name != name and not source.is_part and not source.code_only:
                yield source.name
        yield name


class OtherNames:
    """The names of a table that are others in the source: compilers added something to them, or they are mangled.

    `tails` gives what follows certain bytes, with them, to the end of a name. That the names begin there is not asked
    of it: linkers merge a name into the tail of a longer one. `before` is the byte before a name that does begin, and
    `names` gives all.
    """

    def __init__(
        self,
        tails: Callable[[bytes], Iterable[bytes]],
        names: Callable[[], Iterable[str]],
        before: bytes = b"\0",
    ) -> None:
        self._tails = tails
        self._names = names
        self._before = before
        self._questions = 0
        self._last: tuple[str, Collection[str]] | None = None

    def of(self, name: str) -> Collection[str]:
        """The names whose source name is `name`, without that name, and perhaps some that the table does not have."""
        if self._last is None or self._last[0] != name:  # who asks, asks more than once
            self._last = name, self._found(name)
        return self._last[1]

    def _found(self, name: str) -> Collection[str]:
        mangled = self._mangled_as(name) or ()
        prefixed = [prefix.pattern + each for prefix in PREFIXES for each in mangled]
        return {*self._affixed(name), *mangled, *prefixed}

    def unread(self, name: str) -> Sequence[str]:
        """The mangled names that may be `name` in the source, if there is nothing to demangle them with."""
        return self._alike(name) if self._mangled_as(name) is None else ()

    def _affixed(self, name: str) -> Iterable[str]:
        if not name.isidentifier():  # another expression: the search takes milliseconds
            return ()
        wanted = source_name(name).name  # of __pfx_foo, which may be __pfx_foo.llvm.1 in the table, it is foo
        prefix = name[: -len(wanted)]
        self._questions += 1
        if self._questions > _FEW_QUESTIONS:
            return [each for each in self._by_source_name.get(wanted, ()) if each.startswith(prefix)]
        encoded = name.encode("utf-8", "surrogateescape")
        parts = (encoded + b".", encoded + b"$", *(prefix.pattern.encode() + encoded for prefix in PREFIXES))
        found = {each for part in parts for each in self._tails(part)}
        texts = map(_text, found)
        return [text for text in texts if source_name(text).name == wanted and text.startswith(prefix)]

    @cached_property
    def _by_source_name(self) -> dict[str, list[str]]:
        """All that something was added to: only worthwhile for many questions."""
        names: dict[str, list[str]] = {}
        for each in self._names():
            source = source_name(each).name
            if source != each:
                names.setdefault(source, []).append(each)
        return names

    def _alike(self, name: str) -> Sequence[str]:
        """The mangled names that have the last identifier of `name`."""
        if not self._mangled:
            return ()
        from kplug.image.symbols.mangled import last_identifier

        part = last_identifier(name)
        alike = (each for each in self._mangled if part in each)
        return list(islice(alike, _MOST_MANGLED)) if part else ()

    @cached_property
    def _mangled(self) -> Sequence[str]:
        """What looks like a mangled name."""
        # If there are any, some are of Rust functions in a module, or some begin where a name does.
        if not any(True for part in (b"_RNv", self._before + b"_Z") for _ in self._tails(part)):
            return ()
        from kplug.image.symbols.mangled import may_be_mangled

        names = (_text(each) for start in (b"_R", b"_Z") for each in self._tails(start))
        return sorted(set(filter(may_be_mangled, names)))

    def _mangled_as(self, name: str) -> Sequence[str] | None:
        """The mangled names that are `name` in the source; None if there is nothing to demangle them with."""
        alike = self._alike(name)
        if not alike:
            return ()
        from kplug.image.symbols.mangled import NoDemanglerError, demangled, endings

        wanted = " ".join(name.split())
        try:
            texts = demangled([source_name(each).name for each in alike])
        except NoDemanglerError:
            return None
        return [each for each, text in zip(alike, texts) if wanted in endings(text)]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def may_have(strings: bytes, name: str) -> bool:
    """Whether a name in a string table may have that source name."""
    return bool(OtherNames(lambda part: tails(strings, part), tuple).of(name))


def tails(strings: bytes, part: bytes, after: bytes = b"\0") -> Iterator[bytes]:
    """The tails of names, each of which ends before `after` (one byte), that begin with these bytes."""
    position = strings.find(part)
    for _ in range(_MOST_TAILS):
        if position < 0:
            return
        end = strings.find(after, position + 1, position + _MOST_NAME_BYTES)
        if end >= 0:
            yield strings[position:end]
        position = strings.find(part, position + 1)
