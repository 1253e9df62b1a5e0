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
from kplug.model import Annotation, Layer, SharedLayers, State
from kplug.render import remembered
from kplug.render.json_lines import JsonLines
from kplug.render.style import COLOURED, PLAIN
from kplug.render.text import TextRenderer
from kplug.resolver import Resolver
from kplug.space.address_space import AddressSpaceFacts, address_space


def single(annotation: Annotation) -> Annotation:
    """The same, of which renderers keep no more than each layer."""
    return replace(annotation, layers=tuple(annotation.layers))


def assert_shown_alike(annotations: list[Annotation]) -> None:
    texts, lines = [TextRenderer(PLAIN), TextRenderer(COLOURED)], JsonLines()
    for annotation in annotations:
        for text in texts:
            assert text.annotation(annotation) == text.annotation(single(annotation))
            assert text.brief(annotation) == text.brief(single(annotation))
        assert lines.annotation(annotation) == lines.annotation(single(annotation))


@pytest.mark.parametrize("few", [False, True])
def test_a_kernel_in_several_places(tmp_path: Path, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:
        monkeypatch.setattr(remembered, "MAX_REMEMBERED", 1)
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
    assert sum(isinstance(annotation.layers, SharedLayers) for annotation in annotations) > len(annotations) / 2
    assert_shown_alike(random.Random(2).sample(annotations, len(annotations)))


def test_the_state_is_that_of_one_address(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    image = open_vmlinux(str(path))
    resolver = Resolver([PlacedImage(image, as_linked(image.sections))])
    annotations = [resolver.where(BASE_64 + offset) for offset in range(0, 0x40, 8)]
    freed = [replace(annotation, state=State(mapped=True, freed=True)) for annotation in annotations]
    renderer = TextRenderer(PLAIN)
    for annotation, other in zip(annotations, freed):
        assert "freed" not in renderer.annotation(annotation)
        assert "freed" in renderer.brief(other)
    assert_shown_alike([each for pair in zip(annotations, freed) for each in pair])


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
