"""What of a question reaches a debugger's own evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.elf_builder import small_vmlinux

from kplug.errors import ExpressionError
from kplug.expressions import NO_HINTS
from kplug.image.images import as_images
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.reader import Reader
from kplug.target import Target


class Calculator(Target):
    """A debugger that knows every name, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def has_memory(self) -> bool:
        return True

    def evaluate(self, expression: str) -> int:
        self.asked.append(expression)
        return 0x1000


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> PlacedImage:
    path: Path = tmp_path_factory.mktemp("reader") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    image = open_vmlinux(str(path))
    return PlacedImage(image, as_linked(image.sections))


def reader(kernel: PlacedImage, target: Target) -> Reader:
    return Reader(as_images([kernel]), target, NO_HINTS, None, None, kernel.image.elf.word, None)


@pytest.mark.parametrize("text", ["nosuch+0x10/0x20", "nosuch-16/32", "? nosuch+0x10/0x20", "nosuch.isra.0+0x1/0x2"])
def test_symbol_offset_and_size_never_do(kernel: PlacedImage, text: str) -> None:
    debugger = Calculator()
    with pytest.raises(ExpressionError, match="no such symbol"):
        reader(kernel, debugger).places(text)
    assert debugger.asked == []


@pytest.mark.parametrize("text", ["(long)nosuch+0x10", "nosuch+0x10", "nosuch", "(nosuch+0x10)/0x20"])
def test_expressions_do(kernel: PlacedImage, text: str) -> None:
    debugger = Calculator()
    assert [place.address for place in reader(kernel, debugger).places(text)] == [0x1000]
    assert debugger.asked == [text]
