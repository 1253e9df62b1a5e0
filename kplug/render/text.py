"""Answers as text, for a person. Derived from the same data as the JSON; coloured only where the front end says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kplug import model
from kplug.model import Annotation, Layer
from kplug.outputs import Address, Brief, Column, Hex, HumanSize, NamedFacts, Problem, Range, Size, Table
from kplug.render.json_lines import MAX_REMEMBERED
from kplug.render.safe import safe
from kplug.render.summary import summarize

_IMAGES = (model.IMAGE, model.MODULE)
_LABEL_WIDTH = 9
_NAME_WIDTH = 26
# A table's cell: (colour, text) of each part.
_Cell = tuple[tuple[str, str], ...]


class Style(NamedTuple):
    """The escape sequences of each role; empty strings for plain text. `reset` ends any of them."""

    address: str = ""
    symbol: str = ""
    label: str = ""
    section: str = ""
    warning: str = ""
    heading: str = ""
    reset: str = ""


PLAIN = Style()
COLOURED = Style(
    address="\x1b[34m",
    symbol="\x1b[1;32m",
    label="\x1b[36m",
    section="\x1b[33m",
    warning="\x1b[31m",
    heading="\x1b[1m",
    reset="\x1b[0m",
)


class TextRenderer:
    """Turns outputs into lines. A layer that serves many addresses is laid out once, all but its offset."""

    def __init__(self, style: Style = PLAIN) -> None:
        self._style = style
        # By the layer's id: the layer (which keeps it alive, so its id stays its own), where offsets count from (None:
        # none is shown), its line, and what follows the offset.
        self._layers: dict[int, tuple[Layer, int | None, str, str]] = {}

    def annotation(self, annotation: Annotation, brief: bool = False) -> str:
        """The answer for one address: the one-line answer, then a line for each layer. No newline at the end."""
        lines = [self.brief(annotation)]
        if not brief:
            address, laid_out = annotation.address, self._layers
            for layer in annotation.layers:  # no call for each of them: logs are long
                _, start, line, of = laid_out.get(id(layer)) or self._lay_out(layer)
                if start is not None:
                    lines.append(f"{line}  +{address - start:#x}{of}")
                elif layer.kind == model.LINE:
                    lines += [line, *(self._labelled("", safe(words)) for words in _caller_words(layer))]
                elif layer.kind in _IMAGES and annotation.link_address is not None:
                    lines.append(f"{line}, link {annotation.link_address:#x}")
                else:
                    lines.append(line)
            state = _state_words(annotation)
            if state:
                lines.append(self._labelled("state", state))
        lines += [self._labelled("warning", safe(warning), self._style.warning) for warning in annotation.warnings]
        return "\n".join(lines)

    def brief(self, annotation: Annotation) -> str:
        """The one-line answer."""
        style = self._style
        head, tail = summarize(annotation)
        address = self._paint(style.address, f"{annotation.address:#018x}")
        words = [self._paint(style.section, safe(word)) for word in tail]
        return "  ".join([address, self._paint(style.symbol, safe(head)), *words])

    def table(self, table: Table, width: int | None = None) -> Iterator[str]:
        """The lines of a table: headings, then rows, columns as wide as their widest cell; empty columns left out.

        Lines end at `width` characters where that is given.
        """
        columns = [column for column in table.columns if any(row.get(column.key) is not None for row in table.rows)]
        cells = [[self._table_cell(row, column, table.indented) for column in columns] for row in table.rows]
        lengths = [[sum(len(text) for _, text in cell) for cell in row] for row in cells]
        widths = [max(len(column.heading), *(row[number] for row in lengths)) for number, column in enumerate(columns)]
        aligned = [(column.right, width) for column, width in zip(columns, widths)]
        if table.title:
            yield safe(table.title)
        headings = [((self._style.heading, column.heading),) for column in columns]
        if any(column.heading for column in columns):
            yield self._table_line(headings, aligned, width)
        for row in cells:
            yield self._table_line(row, aligned, width)

    def _table_cell(self, row: Mapping[str, Any], column: Column, indented: str) -> _Cell:
        value = row.get(column.key)
        if isinstance(value, Brief):
            return tuple(self._brief_cell(value.annotation))
        text = _cell(value)
        colour: str = getattr(self._style, column.role) if column.role else ""
        return ((colour, "  " * row["depth"] + text if column.key == indented else text),)

    def _brief_cell(self, annotation: Annotation) -> Iterator[tuple[str, str]]:
        head, tail = summarize(annotation)
        yield self._style.symbol, safe(head)
        for word in tail:
            yield "", "  "
            yield self._style.section, safe(word)

    def _table_line(self, row: Sequence[_Cell], aligned: Sequence[tuple[bool, int]], limit: int | None) -> str:
        """One line of cells in columns that are aligned (to the right?, width), no longer than `limit`."""
        pieces: list[tuple[str, str]] = []
        for number, (cell, (right, width)) in enumerate(zip(row, aligned)):
            padding = " " * (width - sum(len(text) for _, text in cell))
            pieces += [("", "  ")] if number else []
            pieces += [("", padding), *cell] if right else [*cell, ("", padding)]
        while pieces and not pieces[-1][1].strip():
            pieces.pop()
        line, length = "", 0
        for colour, text in pieces:
            if limit is not None and length + len(text) > limit:
                return line + self._paint(colour, text[: max(0, limit - length)]) if limit > length else line
            line += self._paint(colour, text) if text else ""
            length += len(text)
        return line.rstrip()

    def facts(self, facts: NamedFacts) -> Iterator[str]:
        """The lines of named facts, aligned; a list's items are numbered, a mapping's stand below its first."""
        lines = list(_fact_lines(facts.facts))
        width = max((len(label) for label, _ in lines), default=0)
        for label, words in lines:
            yield f"{self._paint(self._style.label, label.ljust(width))}  {words}".rstrip()

    def problem(self, problem: Problem) -> str:
        """The line for what could not be answered."""
        return self._paint(self._style.warning, safe(problem.message))

    # -- one layer -----------------------------------------------------------------------------------------------------

    def _lay_out(self, layer: Layer) -> tuple[Layer, int | None, str, str]:
        if len(self._layers) > MAX_REMEMBERED:
            self._layers.clear()
        words, shows_offset = _LAYER_WORDS.get(layer.kind, _range_words)(layer)
        of = ""
        if layer.kind == model.SYMBOL and layer.start is not None and layer.end is not None:
            of = f" of {layer.end - layer.start:#x}" if layer.end > layer.start else ""
        start = layer.start if shows_offset else None
        label = "table" if layer.kind == model.PAGETABLE else layer.kind
        entry = self._layers[id(layer)] = layer, start, self._labelled(label, safe(words)), of
        return entry

    def _labelled(self, label: str, words: str, colour: str | None = None) -> str:
        return f"  {self._paint(colour or self._style.label, label.ljust(_LABEL_WIDTH - 1))} {words}"

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{self._style.reset}" if colour else text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Range):
        return f"{value.start:#x}-{value.end:#x}"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    if isinstance(value, HumanSize):
        return _human_size(value)
    if isinstance(value, Address):
        return f"{value:#018x}"
    return f"{value:#x}" if isinstance(value, (Hex, Size)) else safe(str(value))


def _human_size(size: int) -> str:
    """A number of bytes in the largest unit of which it has one whole: exact (`64 TiB`), or with one digit after it."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = max(0, min(len(units) - 1, (size.bit_length() - 1) // 10))
    whole, rest = divmod(size, 1 << 10 * power)
    return f"{size / (1 << 10 * power):.1f} {units[power]}" if rest else f"{whole} {units[power]}"


def _fact_lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(label, words) of each line."""
    for name, value in facts.items():
        label = name.replace("_", " ")
        if not isinstance(value, list):
            yield label, _cell(value) or "not known"
            continue
        single = label.removesuffix("s")
        for number, item in enumerate(value, 1):
            numbered = f"{single} {number}" if len(value) > 1 else single
            if not isinstance(item, dict):
                yield numbered, _cell(item)
                continue
            first, *others = _fact_lines(item)
            yield numbered, first[1]
            yield from (("  " + sub_label, words) for sub_label, words in others)


def _range(layer: Layer) -> str:
    if layer.start is None or layer.end is None:
        return ""
    return f"{layer.start:#018x}-{layer.end:#018x}"


def _range_words(layer: Layer) -> tuple[str, bool]:
    """Any kind that has no form of its own: name and range."""
    return f"{layer.name:<{_NAME_WIDTH}} {_range(layer)}".rstrip(), True


def _area_words(layer: Layer) -> tuple[str, bool]:
    unsure = "  (as compiled; the kernel may have randomised it)" if layer.details.get("nominal") else ""
    return _range_words(layer)[0] + unsure, not unsure


def _image_words(layer: Layer) -> tuple[str, bool]:
    words = [layer.name, layer.details.get("release") or ""]
    slide = layer.details.get("slide")
    if slide is not None:
        sign = "" if slide.startswith("-") else "+"
        words.append(f"  KASLR {sign}{slide}" if slide != "0x0" else f"  not moved ({layer.source})")
    elif layer.kind == model.IMAGE:
        words.append(f"  {layer.source}")
    return " ".join(filter(None, words)), False


def _module_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = layer.name
    if details.get("what"):  # no module: code that kallsyms lists as that of one
        words += f"  ({details['what']})"
    if details.get("state") not in (None, "live"):
        words += f"  {details['state']}"
    if details.get("memory"):
        words += f"  {details['memory']}"
    if details.get("taints"):
        words += f"  taints {details['taints']}"
    return f"{words:<{_NAME_WIDTH}} {_range(layer)}".rstrip(), layer.start is not None


def _segment_words(layer: Layer) -> tuple[str, bool]:
    return f"{f'{layer.name}  ' + layer.details['flags']:<{_NAME_WIDTH}} {_range(layer)}", True


def _section_words(layer: Layer) -> tuple[str, bool]:
    words = f"{layer.name}  {layer.details['type']} {layer.details['flags']}".rstrip()
    if layer.details.get("object"):
        words += f"  {layer.details['object']}"
    return f"{words:<{_NAME_WIDTH}} {_range(layer)}", True


def _region_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    bounds = f"{details['start_symbol']} .. {details['end_symbol'] or 'its length'}"
    fate = "  freed after boot" if details["freed_after_boot"] else ""
    return f"{layer.name:<{_NAME_WIDTH}} {bounds}{fate}", False


def _symbol_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = f"{layer.name}  {details['type']}"
    if details.get("file"):
        words += f"  {details['file']}"
    if details.get("part_of"):
        words += f"  part of {details['part_of']}"
    if details.get("probe"):
        words += f"  of the probe at {details['probe']}"
    if details.get("listed_type"):
        words += f"  (listed as {details['listed_type']})"
    if details["sizeless"] and layer.end != layer.start:
        words += "  (to the next symbol)" if details["size"] else "  (sizeless)"
    if details["aliases"]:
        words += f"  = {', '.join(details['aliases'][:4])}{', ...' if len(details['aliases']) > 4 else ''}"
    return f"{words:<{_NAME_WIDTH}}", True


def _line_words(layer: Layer) -> tuple[str, bool]:
    chain = layer.details["inlined"]
    return f"{layer.name:<{_NAME_WIDTH}} {chain[0]['function']}" if chain else layer.name, False


def _caller_words(layer: Layer) -> Iterator[str]:
    """The callers into which the line's function was inlined, innermost first; the last one is no longer inlined."""
    for entry in layer.details["inlined"][1:]:
        # gdb does not tell from where an inlined function is called.
        place = f"{entry['file']}:{entry['line']}" if entry["file"] else "line not known"
        yield f"{place:<{_NAME_WIDTH}} {entry['function']}  (calls it inline)"


def _gap_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    return f"between {details['after']} and {details['before']}: {details['why']}  {_range(layer)}".rstrip(), True


def _special_words(layer: Layer) -> tuple[str, bool]:
    guess = " (a guess)" if layer.details.get("guess") else ""
    return f"{layer.name}: {layer.details['meaning']}{guess}", False


def _percpu_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = f"{layer.name}  {details.get('kind') or ''}".rstrip()
    if details.get("variable"):
        words += f"  {details['variable']}"
    return f"{words:<{_NAME_WIDTH}} {_range(layer)}", True


def _page_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = [layer.name]
    describes = details.get("describes")
    if describes:
        words[0] += f" ({describes})"
    if details.get("pfn") is not None:
        words += [f"pfn {details['pfn']:#x}", f"physical {details['physical']}"]
    if details.get("refcount") is not None:
        mapcount = "" if details.get("mapcount") is None else f", mapcount {details['mapcount']}"
        words.append(f"refcount {details['refcount']}{mapcount}")
    if details.get("free_list") not in (None, "buddy"):
        words.append(f"on a {details['free_list']}")
    if "in_dump" in details:
        words.append(
            "excluded from the dump" if details["in_dump"] is False else "all zeros, or excluded from the dump"
        )
    words += [details.get("flags") or "", details.get("path") or "", _range(layer) if describes else ""]
    return "  ".join(filter(None, words)), bool(describes)


def _slab_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = f"{layer.name}  {details.get('state') or ''}".rstrip()
    if details.get("object_size") is not None:
        words += f"  object size {details['object_size']:#x}"
    return f"{words:<{_NAME_WIDTH}} {_range(layer)}", True


def _vmap_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = [layer.name]
    if details.get("pages"):
        words.append(f"{details['pages']} pages")
    words += [details.get("flags") or "", "guard page" if details.get("guard") else ""]
    return f"{'  '.join(filter(None, words)):<{_NAME_WIDTH}} {_range(layer)}", True


def _vma_words(layer: Layer) -> tuple[str, bool]:
    words = f"{layer.name}  {layer.details.get('flags') or ''}".rstrip()
    if layer.details.get("file_offset"):
        words += f"  file offset {layer.details['file_offset']}"
    return f"{words:<{_NAME_WIDTH}} {_range(layer)}", True


def _stack_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = layer.name
    if details.get("depth") is not None:
        words += f"  depth {details['depth']:#x}"
    return f"{words:<{_NAME_WIDTH}} {_range(layer)}", True


def _alias_words(layer: Layer) -> tuple[str, bool]:
    why = layer.details.get("why") or ""
    return f"{layer.details.get('of') or ''}  {layer.name}{f'  ({why})' if why != layer.name else ''}", True


_LAYER_WORDS = {
    model.AREA: _area_words,
    model.IMAGE: _image_words,
    model.MODULE: _module_words,
    model.SEGMENT: _segment_words,
    model.SECTION: _section_words,
    model.REGION: _region_words,
    model.SYMBOL: _symbol_words,
    model.LINE: _line_words,
    model.GAP: _gap_words,
    model.SPECIAL: _special_words,
    model.PERCPU: _percpu_words,
    model.PAGE: _page_words,
    model.SLAB: _slab_words,
    model.VMAP: _vmap_words,
    model.VMA: _vma_words,
    model.STACK: _stack_words,
    model.ALIAS: _alias_words,
}


def _state_words(annotation: Annotation) -> str:
    """What memory says, in words; what is not known is left out. Where the ELF file has other rights, those too."""
    state = annotation.state
    words = []
    if state.mapped is not None:
        mapped = f"mapped {state.permissions or ''}".rstrip()
        if state.page_size is not None:
            mapped += f" by a page of {size_words(state.page_size)}"
        words.append(mapped if state.mapped else "not mapped")
        segment = annotation.first(model.SEGMENT)
        flags = segment.details["flags"] if segment is not None else None
        if flags is not None and state.permissions not in (None, _rights(flags)):
            words.append(f"the ELF file says {flags}")
    if state.freed is not None:
        words.append("freed" if state.freed else "not freed")
    return "; ".join(words)


def _rights(flags: str) -> str:
    """A segment's flags as rights are written: "R E" is "r-x"."""
    return "".join(right if letter in flags else "-" for letter, right in (("R", "r"), ("W", "w"), ("E", "x")))


def size_words(size: int) -> str:
    """A number of bytes in the largest binary unit that divides it: "2 MiB"."""
    for shift, unit in ((60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size:#x} bytes"
