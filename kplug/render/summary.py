"""The one-line answer, derived from the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kplug import model
from kplug.model import Annotation, Layer

# Special values beside which the area says nothing more.
_WHOLE_AREAS = frozenset(("user", "non-canonical", "percpu-offset", "null", "errptr", "poison"))
# Few functions of a kernel are longer, in bytes.
_FAR = 0x1000
_IMAGE_KINDS = frozenset((model.SYMBOL, model.GAP, model.SECTION, model.REGION, model.SEGMENT))
# What memory tells of who has the address now; a later one in an answer is the narrower. A page is named where nothing
# says more.
_OWNERS = frozenset((model.VMAP, model.SLAB, model.STACK, model.TASK, model.PAGETABLE, model.VMA, model.ALIAS))


class Summary(NamedTuple):
    """What the address is, in the fewest words (`schedule+0x4`, `padding after foo`, `ERR_PTR(-ENOMEM)`), and where it
    lies: section and region path, or the area where it lies in no image."""

    head: str
    tail: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.head, *self.tail))


def summarize(annotation: Annotation) -> Summary:
    """Head and tail of the one-line answer: `schedule+0x4 .text [text > sched.text]`."""
    area = part = special = module = section = narrowest = owner = page = percpu = cpu = None
    regions = []
    address = annotation.address
    for layer in annotation.layers:  # one pass: this is done for each address of a long log
        kind = layer.kind
        if kind in _IMAGE_KINDS:
            # A boundary symbol names its very address, although it holds nothing and a gap begins there.
            if kind != model.GAP or narrowest is None or narrowest.kind != model.SYMBOL or narrowest.end != address:
                narrowest = layer
            if kind == model.SECTION:
                section = section or layer  # the output section; an input section of the link map comes after it
            elif kind == model.REGION:
                regions.append(layer.name)
        elif kind == model.AREA:
            if area is None:
                area = layer
            else:
                part = layer  # a slot of the fixmap, a CPU's entry area
        elif kind == model.SPECIAL:
            special = special or layer
        elif kind == model.MODULE:
            module = layer
        elif kind in _OWNERS:
            # A second address of the memory has the place of an owner only where it names one.
            if kind != model.ALIAS or layer.start is not None:
                owner = layer
        elif kind == model.PAGE:
            page = layer
        elif kind == model.PERCPU:
            percpu, cpu = layer, cpu or layer
    # As the kernel prints it: the module in brackets behind the symbol.
    tail: tuple[str, ...] = (f"[{module.name}]",) if module is not None else ()
    if section is not None:
        tail += (section.name,)
    if regions:
        tail += (f"[{' > '.join(regions)}]",)
    if cpu is not None:
        tail += (f"({cpu.name})",)
    if narrowest is not None and annotation.state.freed:
        # arm64: the image's own vmap area goes on being listed.
        now = page if owner is None or owner.kind == model.VMAP else owner
        tail += ("freed" if now is None else f"freed; now {_owner_words(now, address)}",)
    if narrowest is not None and owner is not None and owner.kind == model.STACK and narrowest.kind == model.GAP:
        narrowest = owner  # the guard page of a stack, which is nobody's memory
    if special is not None and special.details["what"] == "user" and owner is not None:
        special = None  # whose it is says more
    shown = narrowest or special or percpu or owner or part or page or area
    if (
        not tail
        and area is not None
        and shown is not area
        and not (special and special.details["what"] in _WHOLE_AREAS)
    ):
        tail = (f"({area.name})",)
    # Without sections the letter tells, which a list of symbols always has.
    executable = (
        "X" in section.details["flags"]
        if section is not None
        else narrowest is not None and str(narrowest.details.get("type")).lower() == "t"
    )
    return Summary(_head(shown, special, address, executable), tail)


def _head(layer: Layer | None, special: Layer | None, address: int, executable: bool) -> str:
    if layer is None:
        return "unknown"
    if special is None or layer is special:
        return _words(layer, address, executable)
    if special.details["what"] == "percpu-template":
        return f"per-CPU template of {_words(layer, address)}"
    # A small number has two readings, and both are told.
    reading = f"{address:#x} ({_words(layer, address)})" if layer.kind == model.GAP else f"of {_words(layer, address)}"
    words = f"per-CPU offset {reading}"
    return words if special.details["what"] == "percpu-offset" else f"{special.name}, or {words}"


def _words(layer: Layer, address: int, executable: bool = False) -> str:
    if layer.kind == model.GAP:
        after, before = layer.details["after"], layer.details["before"]
        return f"padding after {after}" if layer.name == "padding" else f"between {after} and {before}"
    if layer.kind == model.SPECIAL or layer.start is None:
        return layer.name
    if layer.kind in _OWNERS or layer.kind == model.PAGE:
        return now_words(layer, address)
    if layer.kind == model.PERCPU:
        return f"{_percpu_words(layer.details)}+{address - layer.start:#x}"
    words = f"{layer.name}+{address - layer.start:#x}"
    # Code labels have no size as a rule; of data, and far into code, it means that nobody says how far it goes.
    offset = address - layer.start
    unsure = layer.kind == model.SYMBOL and layer.details["sizeless"] and offset >= (_FAR if executable else 1)
    return f"{words} (sizeless)" if unsure else words


def _percpu_words(details: Mapping[str, Any]) -> str:
    """Per-CPU memory that is no variable."""
    if details.get("allocated") is None:
        return f"per-CPU {details.get('kind') or ''} memory"
    return "per-CPU allocation" if details["allocated"] else "free per-CPU memory"


def _owner_words(layer: Layer, address: int) -> str:
    """Who has memory now that was something else's: of a page, in which the place says nothing, what it is."""
    if layer.kind != model.PAGE:
        return now_words(layer, address)
    return f"{'an' if layer.name[:1] in 'aeiou' else 'a'} {layer.name}"


def now_words(layer: Layer, address: int) -> str:
    """What memory says of who has the address: `slab object task_struct+0x18`, `stack of 1 (init)+0x3f80`."""
    details, offset = layer.details, layer.offset(address) or 0
    if layer.kind == model.SLAB:
        state = details.get("state")
        free = f"{state} " if state and state != "allocated" else ""
        return f"{free}slab object {layer.name}+{offset:#x}" if details.get("object") else f"slab {layer.name}"
    if layer.kind == model.PAGE and details.get("describes"):
        # A pointer to a member is one thing, one that no compiler makes another.
        misaligned = ", misaligned" if offset % 4 else ""
        return f"{layer.name}+{offset:#x} ({details['describes']}{misaligned})"
    if layer.kind == model.PAGE:
        return f"{layer.name}+{offset:#x}"
    if layer.kind == model.STACK and details["guard"]:
        return layer.name
    if layer.kind == model.VMAP and details["guard"]:
        return f"guard page behind {layer.name}"
    prefix = {model.ALIAS: "alias of ", model.TASK: "task "}
    return f"{prefix.get(layer.kind, '')}{layer.name}+{offset:#x}"
