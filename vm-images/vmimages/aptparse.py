"""What apt prints, as data. Nothing here runs anything."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_DEPENDENCY = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\(\s*(<<|<=|=|>=|>>)\s*([^)\s]+)\s*\))?")
# The fields of one line that TARGET_FORMAT asks for; apt leaves `$(NAME)` in place for what it doesn't know.
TARGET_FORMAT = "\t".join(f"$({name})" for name in ("REPO_URI", "RELEASE", "LABEL", "COMPONENT", "CREATED_BY"))


@dataclass(frozen=True)
class Package:
    """One version of one package, from the index."""

    name: str
    version: str
    depends: tuple[tuple[str, str | None], ...]  # (name, exact version if one is asked for)
    sha256: str
    size: int


@dataclass(frozen=True)
class Mirrors:
    """The repositories that the machine itself uses."""

    main: str
    security: str | None


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of control data. Folded lines are joined with a newline."""
    current: dict[str, str] = {}
    field = ""
    for line in text.splitlines():
        if not line.strip():
            if current:
                yield current
            current, field = {}, ""
        elif line[0] in " \t":
            if field:
                current[field] += "\n" + line.strip()
        else:
            field, colon, value = line.partition(":")
            if colon:
                current[field] = value.strip()
            else:
                field = ""
    if current:
        yield current


def depends(text: str) -> tuple[tuple[str, str | None], ...]:
    """Of a Depends field the first alternatives, each with its version if that one exactly is asked for."""
    found: list[tuple[str, str | None]] = []
    for part in text.split(","):
        match = _DEPENDENCY.match(part)
        if match:
            found.append((match[1], match[3] if match[2] == "=" else None))
    return tuple(found)


def packages(text: str) -> list[Package]:
    """The packages in the output of `apt-cache show`, as far as they can be downloaded with a checksum."""
    found = []
    for stanza in stanzas(text):
        size = stanza.get("Size", "")
        if {"Package", "Version", "SHA256"} <= stanza.keys() and size.isdigit():
            wanted = depends(stanza.get("Depends", ""))
            found.append(Package(stanza["Package"], stanza["Version"], wanted, stanza["SHA256"].lower(), int(size)))
    return found


def mirrors(text: str, codenames: Iterable[str]) -> Mirrors | None:
    """Debian's mirrors in the output of `apt-get indextargets --format TARGET_FORMAT`.

    A repository's label is known only after the machine's first `apt-get update`; before, the release's name has to
    do, which is why `codenames` lists those that count as Debian's.
    """
    known = set(codenames)
    main: str | None = None
    security: str | None = None
    for line in text.splitlines():
        fields = [("" if field.startswith("$(") else field) for field in line.split("\t")]
        if len(fields) != 5 or fields[4] != "Packages" or not fields[0].startswith(("http:", "https:", "file:")):
            continue
        uri, release, label = fields[:3]
        # Without a label take only what is surely Debian's: third parties have names of their own.
        if not label and re.split(r"[-/]", release)[0] in known:
            label = "Debian-Security" if release.endswith(("-security", "/updates")) else "Debian"
        if label == "Debian-Security":
            security = security or uri
        elif label == "Debian":
            main = main or uri
    return Mirrors(main, security) if main else None


def config_lines(dump: str) -> list[str]:
    """Of `apt-config dump` the lines about how to reach a mirror (proxies, retries, certificates)."""
    drop = ("Acquire::IndexTargets", "Acquire::Languages", "Acquire::CompressionTypes", "Acquire::Changelogs")
    lines = []
    for line in dump.splitlines():
        if line.startswith("Acquire::") and not line.startswith(drop) and not line.endswith(' "";'):
            lines.append(line)
    return lines


def _order(char: str) -> int:
    # Debian policy 5.6.12: a tilde sorts before the end of the string, letters before all else.
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256


def _compare_part(left: str, right: str) -> int:
    pattern = re.compile(r"([^0-9]*)([0-9]*)")
    while left or right:
        parts_l, parts_r = pattern.match(left), pattern.match(right)
        assert parts_l is not None  # both groups may be empty: it always matches
        assert parts_r is not None
        text_l, text_r = parts_l[1], parts_r[1]
        for index in range(max(len(text_l), len(text_r))):
            order_l = _order(text_l[index]) if index < len(text_l) else 0
            order_r = _order(text_r[index]) if index < len(text_r) else 0
            if order_l != order_r:
                return -1 if order_l < order_r else 1
        number_l, number_r = int(parts_l[2] or 0), int(parts_r[2] or 0)
        if number_l != number_r:
            return -1 if number_l < number_r else 1
        left, right = left[parts_l.end() :], right[parts_r.end() :]
    return 0


def compare_versions(left: str, right: str) -> int:
    """-1, 0 or 1, by Debian's rules for versions."""

    def split(version: str) -> tuple[int, str, str]:
        epoch, colon, rest = version.partition(":")
        if not colon:
            epoch, rest = "0", version
        upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
        return (int(epoch) if epoch.isdigit() else 0), upstream, revision

    one, two = split(left), split(right)
    if one[0] != two[0]:
        return -1 if one[0] < two[0] else 1
    return _compare_part(one[1], two[1]) or _compare_part(one[2], two[2])


version_key = functools.cmp_to_key(compare_versions)
