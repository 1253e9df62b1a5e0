"""Which member of a structure an address is: the answer to `0x18 as struct task_struct`.

A locator cannot know which type is meant, so this layer is only there where the question names one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kplug import model
from kplug.errors import ExpressionError
from kplug.frozen import replace
from kplug.kinds import NAME_WIDTH, Kind, Role, as_pointer, kind_of, register
from kplug.model import Annotation, Layer
from kplug.named_tuples import NamedTuple
from kplug.type_layouts import Found, TypeLayout, TypeLayouts, at_offset

_TYPE = re.compile(
    r"(?:(?P<keyword>struct|union|class|enum)\s+)?(?P<name>[A-Za-z_][\w ]*?)\s*(?:\[(?P<count>[0-9]{1,18})\])?"
)
_MAX_GUESSES = 16
# Special values through which a member may have been meant.
_BASES = ("null", "errptr", "poison")


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    if details["padding"]:
        words = f"padding {_after(details)}"
    else:
        words = f"{_dotted(details['member'])}{_bits(details)}  {details['member_type']}".strip()
    place = f"{details['member_offset']} into {details['type']} at {details['base']} ({details['base_of']})"
    return f"{words:<{NAME_WIDTH}} {place}", layer.start is not None


def _after(details: Mapping[str, Any]) -> str:
    return f"after {_dotted(str(details['member']))}" if details["member"] else "before its first member"


def _dotted(path: str) -> str:
    return path if not path or path.startswith("[") else f".{path}"


def _bits(details: Mapping[str, Any]) -> str:
    bits = details["bits"]
    return f":{bits[1]} (bit {bits[0]})" if isinstance(bits, list) else ""


def _phrase(layer: Layer, offset: int) -> str:
    rest = f"+{offset:#x}" if layer.start is not None else ""
    return f"{layer.name}{rest}"


def _more(layer: Layer) -> Iterator[str]:
    for other in layer.details["others"]:
        yield f"or {_dotted(other)}"


KIND = register(
    Kind(
        "member",
        2000,
        {
            "type": "(as the question names it)",
            "member": "(its path, `se.load.weight`; of padding the member before it)",
            "member_type": "",
            "member_offset": "(in the type)",
            "bits": "(of a bit-field: first bit in its bytes, and how many)",
            "padding": "",
            "base": "(where the structure begins)",
            "base_of": "(how that is known)",
            "others": "(further members there: of a union, or bit-fields of one byte)",
            "guess": "(of `--members`, and of a member whose container_of() of NULL an error pointer may be)",
        },
        "only where the question names a type, or with `--members`; the layer's offset is what is left over",
        words=_words,
        sized=True,
        more=_more,
        role=Role.MEMBER,
        phrase=_phrase,
    )
)


class _Base(NamedTuple):
    """Where the structure begins, what is there, and the size of that, None if it has none."""

    address: int
    what: str
    size: int | None = None


def type_named(text: str, sources: Sequence[TypeLayouts]) -> tuple[TypeLayout, str]:
    """The type that `text` names, and how it is known. ExpressionError if no source has it."""
    match = _TYPE.fullmatch(" ".join(text.split()))
    if match is None:
        raise ExpressionError(f"{text}: not the name of a type")
    keyword, name = match.group("keyword") or "", match.group("name")
    for source in sources:
        # `foo` alone is struct foo where no typedef has the name, as in gdb's C++ and in crash.
        for kind in (keyword,) if keyword else ("", "struct", "union"):
            layout = source.named("struct" if kind == "class" else kind, name)
            if layout is not None and layout.size is not None:
                count = match.group("count")
                return (_array(layout, int(count)) if count else layout), source.source
    tried = ", ".join(dict.fromkeys(source.source for source in sources))
    raise ExpressionError(f"{text}: no such type ({tried})" if tried else f"{text}: there are no types here")


def _array(layout: TypeLayout, count: int) -> TypeLayout:
    return TypeLayout(f"{layout.name} [{count}]", (layout.size or 0) * count, element=lambda: layout, count=count)


def with_member(annotation: Annotation, layout: TypeLayout, source: str, base: int | None = None) -> Annotation:
    """The answer with the member of a type that the address is. `base` is where the structure begins, if the question
    says so; `source` is how the type is known."""
    text = layout.name
    start, warning = _start_of(annotation, text, layout.size or 0) if base is None else (_Base(base, "as given"), None)
    layers = list(_contained(annotation, layout, text, source)) if base is None else []
    offset = annotation.address - start.address
    found, shown = _found(layout, text, offset, start.size)
    if found:
        layers.append(_layer(found, shown, start, source))
        if shown != text:
            warning = (
                f"taken as an array of {text}, for which {start.what} has room (`as {text} at START` gives another)"
            )
    elif offset < 0:
        warning = f"{annotation.address:#x} is {-offset:#x} bytes before {start.address:#x} ({start.what})"
    else:
        warning = f"{offset:#x} is past the end of {text}, which has {layout.size or 0:#x} bytes ({start.what})"
    warnings = (*annotation.warnings, warning) if warning else annotation.warnings
    if not start.address and base is None:  # a pointer near NULL is meant, not a per-CPU variable's offset
        annotation = replace(
            annotation, link_address=None, region_class=model.NO_CLASS, layers=as_pointer(annotation.layers)
        )
    return replace(annotation, layers=(*annotation.layers, *layers), warnings=warnings)


def with_guesses(annotation: Annotation, names: Sequence[str], sources: Sequence[TypeLayouts]) -> Annotation:
    """The answer with what it may be in the types of those names, where it is at a member's first byte."""
    guesses: list[Layer] = []
    asked = [each for each in annotation.layers if each.kind == KIND.name]
    plain = replace(annotation, layers=tuple(each for each in annotation.layers if each.kind != KIND.name))
    for name in names:
        try:
            layout, source = type_named(name, sources)
        except ExpressionError:
            continue
        answer = with_member(plain, layout, source)
        layer = answer.last(KIND.name)
        # Nor where the object there has no room for the type, or for many, as a stack has.
        if layer is None or answer.warnings != plain.warnings or layer.details["type"] != layout.name:
            continue
        if layer in asked or layer.details["padding"] or layer.start != annotation.address or layer.details["guess"]:
            continue
        if int(layer.details["base"], 16) != annotation.address and len(guesses) < _MAX_GUESSES:
            why = f"{layer.details['base_of']}; a guess: the selected frame has a pointer to such a structure"
            guesses.append(replace(layer, details={**layer.details, "base_of": why, "guess": True}))
    if guesses:
        return replace(annotation, layers=(*annotation.layers, *guesses))
    why = "no variable of the selected frame is known to point to a structure with a member there"
    return replace(annotation, warnings=(*annotation.warnings, why))


def _found(layout: TypeLayout, text: str, offset: int, room: int | None) -> tuple[Sequence[Found], str]:
    """What is at an offset of the type, or of as many of them as the object at the base has room for."""
    size = layout.size or 0
    if 0 <= offset < size or (offset >= size and _ends_open(layout)):
        return at_offset(layout, offset), text
    count = room // size if room and size else 0
    if 0 <= offset < count * size:
        return at_offset(_array(layout, count), offset), f"{text} [{count}]"
    return (), text


def _ends_open(layout: TypeLayout) -> bool:
    """Whether a struct ends with an array without a size."""
    members = layout.members() if layout.members is not None else ()
    last = members[-1].layout() if members else None
    return last is not None and last.element is not None and not last.size


def _layer(found: Sequence[Found], text: str, base: _Base, source: str) -> Layer:
    first = found[0]
    details = {
        "type": text,
        "member": first.path,
        "member_type": None if first.padding else first.type_name,
        "member_offset": hex(first.offset),
        "bits": None if first.bits is None else list(first.bits),
        "padding": first.padding,
        "base": hex(base.address),
        "base_of": base.what,
        "others": [each.path for each in found[1:]],
        "guess": False,
    }
    start = base.address + first.offset
    name = f"{text}{_dotted(first.path)}"
    name = f"padding after {name}" if first.padding and first.path else f"padding of {text}" if first.padding else name
    return Layer(KIND.name, name, start, start + (first.size or 0), source, details)


def _contained(annotation: Annotation, layout: TypeLayout, text: str, source: str) -> Iterator[Layer]:
    """The member that has the distance from an address just below 0, where container_of() of a NULL pointer leads."""
    value = next((each for each in annotation.layers if each.name.startswith("NULL-")), None)
    distance = int(value.name[len("NULL-") :], 16) if value is not None else 0
    found = [each for each in at_offset(layout, distance) if each.offset == distance and not each.padding]
    if 0 < distance < (layout.size or 0) and found:
        base = _Base(annotation.address, "a guess: container_of() of a NULL pointer to this member")
        layer = _layer(found, text, base, source)
        name = f"container_of(NULL, {text}, {found[0].path})"
        yield replace(layer, name=name, start=None, end=None, details={**layer.details, "guess": True})


def _start_of(annotation: Annotation, text: str, size: int) -> tuple[_Base, str | None]:
    """Where the structure begins that holds an address, and a warning where that is not certain.

    Near NULL or a poison it is that value; else the narrowest object, of those that are large enough for the type if
    there are any. The last members of a task_struct are not allocated where the CPU needs less for its registers.
    """
    address = annotation.address
    values = [each for each in annotation.layers if each.kind == model.SPECIAL and each.start is not None]
    values = [each for each in values if each.details["what"] in _BASES and (each.start or 0) <= address]
    for value in values:
        if not value.details.get("guess"):
            return _value(value), None
    too_small: tuple[_Base, str] | None = None
    for layer in reversed(annotation.layers):
        kind = kind_of(layer)
        known = kind.object_type(layer)
        if known is None or layer.start is None:
            continue
        room = layer.end - layer.start if layer.end is not None else None
        base = _Base(layer.start, kind.phrase(layer, 0).replace("+0x0", ""), room)
        if room is None or room >= size or known == text:
            return base, None
        too_small = too_small or (base, f"{base.what} has {room:#x} bytes, {text} {size:#x}")
    for value in values:
        if value.start is not None and address - value.start < size:
            return _value(value), None
    if too_small is not None:
        return too_small
    base = _Base(address, "the address itself")
    return base, f"no object is known to be there: taken as the start of {text} (`as {text} at START` gives another)"


def _value(layer: Layer) -> _Base:
    assert layer.start is not None
    name = re.sub(r"[-+]0x[0-9a-f]+$", "", layer.name)
    return _Base(layer.start, name)
