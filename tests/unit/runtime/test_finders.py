"""Types without debug information: why there are none."""

from __future__ import annotations

from array import array

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import FakeKernel

from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.image.symbols.symbol_list import SymbolList
from kplug.runtime.finders import Finders
from kplug.runtime.kernel.kernel import Kernel


@pytest.mark.parametrize(
    ("letters", "said"),
    [
        (b"Tt", "kallsyms without variables (no CONFIG_KALLSYMS_ALL) does not say where BTF is"),
        (b"Td", None),  # there is none
    ],
)
def test_why_there_are_no_types(letters: bytes, said: str | None) -> None:
    fake = FakeKernel()
    start = fake.machine.image
    listed = SymbolList(b"\0_text\0thing\0", array("I", [1, 7]), [start, start + 16], letters, "kallsyms")
    image = KernelImage(bare_elf("memory", "x86_64"), listed=listed)
    kernel = Kernel(fake.kernel.prog, PlacedImage(image, as_linked(())), vmcoreinfo=fake.kernel.vmcoreinfo)
    finders = Finders(kernel)
    assert finders.types is None
    assert finders.problem == said
