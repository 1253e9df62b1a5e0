"""The one-line answer, derived from the layers."""

from __future__ import annotations

from kplug import model
from kplug.model import Annotation, Layer


def plus(offset: int) -> str:
    """An offset as it follows a name: `+0x10`."""
    return f"+{offset:#x}"


def head(annotation: Annotation) -> str:
    """What the address is, in the fewest words: `schedule+0x4`, `padding after foo`, `ERR_PTR(-ENOMEM)`."""
    address = annotation.address
    layer = _narrowest(annotation)
    if layer is None:
        return "unknown"
    if layer.kind == model.SYMBOL:
        return layer.name + plus(address - (layer.start or 0))
    if layer.kind == model.GAP:
        after, before = layer.details.get("after"), layer.details.get("before")
        if layer.name == "padding":
            return f"padding after {after}"
        return f"between {after} and {before}"
    if layer.kind == model.SPECIAL or layer.start is None:
        return layer.name
    return f"{layer.name}{plus(address - layer.start)}"


def _narrowest(annotation: Annotation) -> Layer | None:
    """The layer that says most: an image's own, a special value's, or at last the area."""
    for layer in reversed(annotation.layers):
        if layer.kind in (model.SYMBOL, model.GAP, model.SECTION, model.REGION, model.SEGMENT, model.SPECIAL):
            if layer.kind == model.SYMBOL and layer.start == layer.end and annotation.address != layer.start:
                continue
            return layer
    return annotation.layers[-1] if annotation.layers else None


def tail(annotation: Annotation) -> list[str]:
    """Where it lies: section and region path, or the area where it lies in no image."""
    words = []
    section = annotation.last(model.SECTION)
    if section is not None:
        words.append(section.name)
    regions = [layer.name for layer in annotation.layers if layer.kind == model.REGION]
    if regions:
        words.append(f"[{' > '.join(regions)}]")
    if not words:
        area = annotation.first(model.AREA)
        narrowest = _narrowest(annotation)
        if area is not None and narrowest is not area:
            words.append(f"({area.name})")
    return words


def summary(annotation: Annotation) -> str:
    """Head and tail in one line: `schedule+0x4 .text [text > sched.text]`."""
    return " ".join([head(annotation), *tail(annotation)])
