"""The kinds of layers that an image has: itself, its segments, sections, regions, symbols and lines, and gaps."""

from __future__ import annotations

from collections.abc import Iterator

from kplug import model
from kplug.kinds import NAME_WIDTH, Kind, Role, before_range, range_words, register
from kplug.model import Layer


def _kaslr_offset_words(layer: Layer) -> str:
    kaslr_offset = layer.details.get("slide")
    if kaslr_offset is None:
        return ""
    sign = "" if kaslr_offset.startswith("-") else "+"
    return f"  KASLR {sign}{kaslr_offset}" if kaslr_offset != "0x0" else f"  not moved ({layer.source})"


def _image_words(layer: Layer) -> tuple[str, bool]:
    words = (layer.name, layer.details.get("release") or "", _kaslr_offset_words(layer) or f"  {layer.source}")
    return " ".join(filter(None, words)), False


def _module_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = layer.name
    if details.get("what"):  # not a module: code that kallsyms lists like one
        words += f"  ({details['what']})"
    if details.get("state") not in (None, "live"):
        words += f"  {details['state']}"
    if details.get("memory"):
        words += f"  {details['memory']}{' memory, freed' if details.get('freed') else ''}"
    if details.get("before"):
        words += f"  (before it, {', '.join(details['before'])})"
    if details.get("taints"):
        words += f"  taints {details['taints']}"
    return before_range(words, layer), layer.start is not None


def _segment_words(layer: Layer) -> tuple[str, bool]:
    return before_range(f"{layer.name}  {layer.details['flags']}", layer), True


def _section_words(layer: Layer) -> tuple[str, bool]:
    words = f"{layer.name}  {layer.details['type'] or ''} {layer.details['flags']}".rstrip()
    if layer.details.get("object"):
        words += f"  {layer.details['object']}"
    if layer.details.get("sizeless"):
        words += "  (to the next section)"
    return before_range(words, layer), True


def _region_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    bounds = f"{details['start_symbol']} .. {details['end_symbol'] or 'its length'}"
    fate = "  freed after boot" if details["freed_after_boot"] else ""
    return f"{layer.name:<{NAME_WIDTH}} {bounds}{fate}", False


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
    return f"{words:<{NAME_WIDTH}}", True


def _line_words(layer: Layer) -> tuple[str, bool]:
    chain = layer.details["inlined"]
    return f"{layer.name:<{NAME_WIDTH}} {chain[0]['function']}" if chain else layer.name, False


def _callers(layer: Layer) -> Iterator[str]:
    """The callers into which the line's function was inlined, innermost first; the last one is no longer inlined."""
    for entry in layer.details["inlined"][1:]:
        # gdb does not give the line that calls an inlined function.
        place = f"{entry['file']}:{entry['line']}" if entry["file"] else "line not known"
        yield f"{place:<{NAME_WIDTH}} {entry['function']}  (calls it inline)"


def _gap_words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = f"between {details['after']} and {details['before']}: {details['why']}"
    return f"{words}  {range_words(layer)}".rstrip(), True


def _gap_phrase(layer: Layer, offset: int) -> str:
    after, before = layer.details["after"], layer.details["before"]
    return f"padding after {after}" if layer.name == "padding" else f"between {after} and {before}"


_OF_IMAGE = {
    "release": "",
    "build_id": "",
    "slide": "(`null` if not known)",
    "path": "",
    "start_symbol": "",
    "end_symbol": "",
}

register(Kind(model.IMAGE, 400, _OF_IMAGE, words=_image_words, linked=True, role=Role.NONE))
MODULE = register(
    Kind(
        model.MODULE,
        410,
        {
            **_OF_IMAGE,
            "slide": "(always `null`)",
            "memory": "(`text`, `rodata`, `ro_after_init`, `data`, `init_text`, ..., `percpu`: the layer is that part"
            " of the module; of a kernel that has memory)",
            "state": "",
            "freed": "(the layer is its init memory, which is gone)",
            "before": "(modules that had init memory there before that one)",
            "class": "(of init memory that is gone)",
            "taints": "",
            "version": "",
            "symbols_from": "(`debug file`, `kallsyms in memory`, `null`)",
            "what": "(of code that is no module's, but is listed as kallsyms calls it: `bpf`, `__builtin__ftrace`,"
            " `__builtin__kprobes`)",
        },
        words=_module_words,
        linked=True,
        role=Role.MODULE,
    )
)
register(Kind(model.SEGMENT, 420, {"type": "", "flags": "", "index": ""}, words=_segment_words, role=Role.PLACE))
register(
    Kind(
        model.SECTION,
        430,
        {
            "type": "(`input` of an input section of a link map; `null` where that is not known)",
            "flags": "",
            "link_start": "",
            "object": "(the file of an input section)",
            "sizeless": "(of a module without a debug file: the kernel keeps where its sections start, and no sizes)",
        },
        words=_section_words,
        role=Role.SECTION,
    )
)
register(
    Kind(
        model.REGION,
        440,
        {"start_symbol": "", "end_symbol": "", "freed_after_boot": "", "read_only_after_init": ""},
        words=_region_words,
        role=Role.REGION,
    )
)
register(
    Kind(
        model.GAP,
        450,
        {"after": "", "before": "(the names of the neighbours)", "why": ""},
        words=_gap_words,
        role=Role.GAP,
        phrase=_gap_phrase,
    )
)
register(
    Kind(
        model.SYMBOL,
        460,
        {
            "type": "(nm's letter, put right where nm goes by the section's flags and these hold for code and data:"
            " x86_64's `.data` since 6.14)",
            "listed_type": "(nm's own letter, or that of the list, where `type` differs)",
            "binding": "(`null` where a list does not say)",
            "size": "",
            "sizeless": "(no table states the size: the symbol reaches to the next one; of lists such as kallsyms"
            " `size` is that distance)",
            "aliases": "",
            "file": "(of a local symbol)",
            "part_of": "(of a `.cold` or `__pfx_` one)",
            "class": "(of code that is no module's)",
            "probe": "(what a kprobe's slot is the copy of)",
        },
        words=_symbol_words,
        sized=True,
        role=Role.PLACE,
        object_type=lambda layer: None if str(layer.details.get("type")).lower() == "t" else "",
    )
)
register(
    Kind(
        model.LINE,
        470,
        {
            "file": "",
            "line": "",
            "inlined": "(the functions at the address, innermost first: `function`, `file`, `line`; empty where nothing"
            " is inlined; the last one is the function that holds the others)",
        },
        words=_line_words,
        more=_callers,
        role=Role.NONE,
    )
)
