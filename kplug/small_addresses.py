"""A value that is known to be an address: a small one is near NULL, and no per-CPU variable's offset."""

from __future__ import annotations

from kplug import model
from kplug.frozen import replace
from kplug.kinds import as_pointer
from kplug.model import Annotation


def as_place(annotation: Annotation) -> Annotation:
    """The answer for an address."""
    if not any(layer.details.get("what") == "null" for layer in annotation.layers):
        return annotation
    return replace(annotation, link_address=None, region_class=model.NO_CLASS, layers=as_pointer(annotation.layers))
