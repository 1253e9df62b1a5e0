"""What is kept of the layers that many addresses share shows each of them as if it were the only one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.elf_builder import BASE_64, small_vmlinux

from kplug import model
from kplug.frozen import replace
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_it_runs, as_linked, moved_by
from kplug.model import Annotation, Layer, State
from kplug.render import remembered
from kplug.render.json_lines import JsonLines
from kplug.render.style import COLOURED, PLAIN
from kplug.render.text import TextRenderer
from kplug.resolver import Resolver
from kplug.space.address_space import AddressSpaceFacts, address_space


def single(annotation: Annotation) -> Annotation:
    """The same, of which renderers keep nothing: a state that was looked for is that of one address."""
    return replace(annotation, state=State())


def assert_shown_alike(annotations: list[Annotation]) -> None:
    texts, lines = [TextRenderer(PLAIN), TextRenderer(COLOURED)], JsonLines()
    for annotation in annotations:
        for text in texts:
            assert text.annotation(annotation) == text.annotation(single(annotation))
        assert lines.annotation(annotation) == lines.annotation(single(annotation))


@pytest.mark.parametrize("few", [False, True])
def test_a_kernel_in_several_places(tmp_path: Path, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:
        monkeypatch.setattr(remembered, "_MOST_FORMS", 1)
    path = tmp_path / "100%s %#x"
    path.write_bytes(bytes(small_vmlinux()))
    image, annotations = open_vmlinux(str(path)), []
    space = address_space("x86_64", AddressSpaceFacts())
    for placement in (
        as_linked(image.sections),
        moved_by(image.sections, 0x8A00000, "%d"),
        as_it_runs(image.sections, ""),
    ):
        resolver = Resolver([PlacedImage(image, placement)], space)
        start = placement.runtime(BASE_64)
        annotations += [resolver.where(start + offset) for offset in range(-8, 0x4008, 8)]
        annotations += [resolver.where(number) for number in (0, 8, 1 << 47, (1 << 64) - 2)]
    assert any("%" in layer.source for annotation in annotations for layer in annotation.layers)
    assert_shown_alike(random.Random(2).sample(annotations, len(annotations)))


def test_layers_that_have_more_lines_and_the_same_ones_elsewhere() -> None:
    chain = [{"function": "f%", "file": "a.c", "line": 1}, {"function": "g", "file": "b%.c", "line": 2}]
    image = Layer(model.IMAGE, "vmlinux%d", None, None, "as linked")
    line = Layer(model.LINE, "a.c:1", None, None, "DWARF", {"file": "a.c", "line": 1, "inlined": chain})
    gap = Layer(model.GAP, "padding", 0x1000, 0x2000, "", {"after": "a%x", "before": "b", "why": "because"})
    layers = (image, line, gap)
    annotations = [
        Annotation("", 0x1010, 0x10, model.TEXT, layers),
        Annotation("", 0x1020, 0x20, model.TEXT, layers),
        Annotation("", 0x1020, None, model.TEXT, layers),
        Annotation("", 0x1030, 0x20, model.TEXT, layers),
        Annotation("", 0x1030, 0x20, model.TEXT, layers[1:]),
        Annotation("", 0x1030, 0x20, model.TEXT, layers[2:]),
        Annotation("", 0x1030, None, model.NO_CLASS, ()),
    ]
    assert_shown_alike(annotations)
