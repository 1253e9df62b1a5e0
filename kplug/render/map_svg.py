"""Where addresses lie in an address space, as a picture (SVG). No I/O; `areas` and `marks` are all it knows.

The areas are in order, one below the other: to scale they could not be seen beside each other. Within an area it is to
scale. A part of one that has marks, and is too small there, is an area again, below.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from kplug.arch.types.memory_map import KERNEL, Area
from kplug.named_tuples import NamedTuple
from kplug.render.html_text import attribute
from kplug.render.tables import human_size

# All positions across are percentages, so a narrow page has the same letters.
_LABEL, _BAR, _THIN_BAR, _BELOW, _GAP = 16, 18, 4, 15, 10
_LEAST_WIDTH = 0.2
# Marks nearer to each other than this are one, which has all their names.
_NEAR = 0.4
_MOST_NAMES = 12
# What a letter takes of the narrowest page, and how many a name has.
_LETTER, _LONGEST = 1.8, 28
_WHOLE = int(100 / _LETTER)

STYLE = """
.map{font:12px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;color-scheme:light dark;overflow:visible}
.map text{fill:#1f2328;stroke:var(--ground,Canvas);stroke-width:3px;paint-order:stroke}.map .dim{fill:#59636e}
.map .named{font-size:11px}.map .in{stroke:none}
.map .area{fill:#d8dee4;stroke:#8c959f;stroke-width:1}.map .part{fill:#b6bfc9}.map .text{fill:#9ec5f4}
.map .rodata{fill:#c8b6ef}.map .data,.map .percpu{fill:#a8dab5}.map .bss,.map .brk{fill:#cfe8a9}.map .init{fill:#f3cf93}
.map .within{stroke:#8c959f;stroke-dasharray:2 3}.map .mark{stroke:#cf222e;stroke-width:2}
.map .reach{stroke:#000;stroke-opacity:0;stroke-width:11}
.map a:focus{outline:none}.map a:focus .mark,.map a:hover .mark{stroke-width:6}
@media(prefers-color-scheme:dark){.map text{fill:#e6edf3}.map .dim{fill:#9198a1}
.map .area{fill:#2a313c;stroke:#656c76}.map .part{fill:#4a525d}.map .text{fill:#1f4f8f}.map .rodata{fill:#543b91}
.map .data,.map .percpu{fill:#22663a}.map .bss,.map .brk{fill:#4a5f1e}.map .init{fill:#7a5213}
.map .mark{stroke:#ff7b72}}
@media print{.map text{fill:#000}}
"""


class Mark(NamedTuple):
    """An address in the picture, what it is, and what to follow for more."""

    address: int
    name: str
    href: str | None = None


def draw(areas: Sequence[Area], marks: Sequence[Mark], title: str) -> str:
    """The picture. What is none of the kernel's areas, a hole between them above all, is in it where it has marks."""
    ordered = sorted(marks, key=lambda mark: mark.address)
    picture = _Picture(ordered, [mark.address for mark in ordered])
    for area in areas:
        if picture.marks_in(area) or (area.kind == KERNEL and not area.hole):
            picture.add(area)
    drawn = "\n".join(picture.drawn)
    return (
        f'<svg class="map" xmlns="http://www.w3.org/2000/svg" width="100%" height="{picture.height}" role="group" '
        f'aria-label="{attribute(title)}"><style>{STYLE}</style>\n{drawn}\n</svg>\n'
    )


class _Picture:
    """The rows as they are added, from the top."""

    def __init__(self, marks: Sequence[Mark], addresses: Sequence[int]) -> None:
        self._marks = marks
        self._addresses = addresses
        self.drawn: list[str] = []
        self.height = 0

    def marks_in(self, area: Area) -> Sequence[Mark]:
        return self._marks[bisect_left(self._addresses, area.start) : bisect_left(self._addresses, area.end)]

    def add(self, area: Area, is_part: bool = False) -> None:
        """The area's row, and those of its parts that need one."""
        marks = self.marks_in(area)
        height = _BAR if marks else _THIN_BAR
        self.drawn.append(f"<g><title>{attribute(_words(area))}</title>")
        self._title(area, f"{'> ' if is_part else ''}{area.name}", "" if marks else "dim")
        bar = self.height
        style = f"area {_style(area)}" if is_part and not area.parts else "area"
        self.drawn.append(f'<rect class="{style}" x="0" y="{bar}" width="100%" height="{height}"/>')
        for part in area.parts:
            self._part(area, part, bar, height)
        self.drawn.append("</g>")
        groups = list(_together(area, marks))
        self.drawn += [_mark(at, names, bar, height) for at, names in groups]
        self.height = bar + height + _GAP
        self._names([(at, names) for at, names in groups if not names[0].name.startswith(area.name)])
        enlarged = [part for part in area.parts if self.marks_in(part) and (part.parts or _is_small(area, part))]
        for part in enlarged:
            if part is enlarged[0]:
                self._lines_to(area, part, bar + height)
            self.add(part, is_part=True)

    def _title(self, area: Area, name: str, style: str) -> None:
        """The name and where it begins, in one line if both fit there."""
        place = f"{area.start:#x} · {human_size(area.end - area.start)}"
        self.height += _LABEL
        self.drawn.append(f'<text class="{style}" x="0" y="{self.height - 4}">{attribute(_cut(name, _WHOLE))}</text>')
        if (len(name) + len(place) + 1) * _LETTER > 100:
            self.height += _LABEL
        self.drawn.append(f'<text class="dim" x="100%" y="{self.height - 4}" text-anchor="end">{place}</text>')

    def _part(self, area: Area, part: Area, bar: int, height: int) -> None:
        if part.hole:
            return
        start, width = _percent(area, part.start), _percent(area, part.end) - _percent(area, part.start)
        self.drawn.append(
            f'<rect class="{_style(part)}" x="{start:.3f}%" y="{bar + 1}" width="{max(width, _LEAST_WIDTH):.3f}%" '
            f'height="{height - 2}"><title>{attribute(_words(part))}</title></rect>'
        )
        if height == _BAR and len(part.name) * _LETTER < width:
            self.drawn.append(
                f'<text class="named in" x="{start + 0.5:.3f}%" y="{bar + 13}">{attribute(part.name)}</text>'
            )

    def _names(self, groups: Sequence[tuple[float, Sequence[Mark]]]) -> None:
        """The names of marks, as many as there is room for, in one line below the bar."""
        if not groups:
            return
        y, end = self.height + 2, 0.0
        for at, marks in groups:
            name = _cut(marks[0].name, _LONGEST) + (f", {len(marks) - 1} more" if len(marks) > 1 else "")
            width = len(name) * _LETTER
            left = min(at, max(0.0, 100 - width))
            if left < end:
                continue
            anchor, x = ("end", 100.0) if left < at else ("start", left)
            self.drawn.append(
                f'<text class="dim named" x="{x:.3f}%" y="{y}" text-anchor="{anchor}">{attribute(name)}</text>'
            )
            end = left + width + _LETTER
        self.height += _BELOW

    def _lines_to(self, area: Area, part: Area, bottom: int) -> None:
        """From the part in its area's bar to the ends of its own."""
        for x1, x2 in ((_percent(area, part.start), 0), (_percent(area, part.end), 100)):
            self.drawn.append(
                f'<line class="within" x1="{x1:.3f}%" y1="{bottom}" x2="{x2}%" y2="{self.height + _LABEL}"/>'
            )


def _percent(area: Area, address: int) -> float:
    return 100 * (address - area.start) / (area.end - area.start)


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _is_small(area: Area, part: Area) -> bool:
    return 2 * (part.end - part.start) < area.end - area.start


def _style(area: Area) -> str:
    return attribute(area.details.get("class") or "part")


def _words(area: Area) -> str:
    note = area.details.get("note")
    return (
        f"{area.name} {area.start:#x}-{area.end:#x} ({human_size(area.end - area.start)}){f'; {note}' if note else ''}"
    )


def _together(area: Area, marks: Sequence[Mark]) -> Iterator[tuple[float, Sequence[Mark]]]:
    """Where there are marks, and which ones; those that would be drawn over each other are one."""
    kept: list[Mark] = []
    at = 0.0
    for mark in marks:
        here = _percent(area, mark.address)
        if kept and here - at >= _NEAR:
            yield at, kept
            kept = []
        if not kept:
            at = here
        kept.append(mark)
    if kept:
        yield at, kept


def _mark(at: float, marks: Sequence[Mark], bar: int, height: int) -> str:
    names = [f"{mark.address:#x} {mark.name}" for mark in marks[:_MOST_NAMES]]
    if len(marks) > _MOST_NAMES:
        names.append(f"and {len(marks) - _MOST_NAMES} more")
    words = attribute("; ".join(names))
    title = f"<title>{words}</title>"
    ends = f'x1="{at:.3f}%" y1="{bar - 3}" x2="{at:.3f}%" y2="{bar + height + 3}"'
    lines = f'{title}<line class="reach" {ends}/><line class="mark" {ends}/>'
    href = marks[0].href
    if href is None:
        return f"<g>{lines}</g>"
    return f'<a href="{attribute(href)}" aria-label="{words}">{lines}</a>'
