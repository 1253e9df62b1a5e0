"""What a page is, as html.parser reads it: its log's text, what that links to, and whether the page is well-formed."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = ("meta",)


class PageReader(HTMLParser):
    """`log` is the text in the log's blocks. What is in `<i>` is taken for what it stands for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str]]] = []
        self.log = ""
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []  # where to, and the text
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}  # of script and style
        self.entries: dict[str, dict[str, str]] = {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs)
        self.tags.append((tag, given))
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append((given["href"], ""))
        if tag not in VOID:
            self.open.append((tag, given))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not self.open:
            assert not data.strip()
            return
        tag, _ = self.open[-1]
        if tag in ("script", "style"):
            self.texts[tag] = self.texts.get(tag, "") + "\0" + data
        if any("b" in given.get("class", "").split() for _, given in self.open):
            self.log += meant(data) if tag == "i" else data
        if tag == "a":
            href, text = self.links[-1]
            self.links[-1] = href, text + data
        entry = next((given["id"] for _, given in self.open if re.fullmatch(r"h\d+", given.get("id", ""))), None)
        if entry is not None:
            self.entries.setdefault(entry, {})[tag] = self.entries.setdefault(entry, {}).get(tag, "") + data


def meant(text: str) -> str:
    r"""What stands as `\x1b` and the like."""
    return re.sub(r"\\(?:x(..)|u(....))", lambda match: chr(int(match.group(1) or match.group(2), 16)), text)


def as_shown(data: bytes) -> str:
    """The text of a log's bytes, of which those that are no UTF-8 are characters of that number."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(chr(ord(each) - 0xDC00) if "\udc80" <= each <= "\udcff" else each for each in text)
