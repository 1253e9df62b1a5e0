"""What questions will need besides types, made ready while drgn reads these."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kplug.image.kernel_image import KernelImage
from kplug.memory.kernel_note import kaslr_offset_of
from kplug.memory.variables import look_up_names
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel import helpers

# The symbols by which most questions find what the kernel has, beside those of the facts of its address space.
_ASKED_BY_MOST = ("modules", "linux_banner", "page_owner_ops", "__kfence_pool", "__per_cpu_start", "__per_cpu_end")
_ADDRESS = re.compile(r"\b(?:0[xX])?([0-9a-fA-F]{8,})")
_NAME = re.compile(r"\b[A-Za-z_]\w*")
# Of so many names in what is asked the symbols are found beforehand.
_MOST_NAMES = 8


def make_ready(image: KernelImage | None, info: VmcoreInfo, asked: Sequence[str]) -> None:
    """For the texts that will be asked: find the symbols of names; import drgn's helpers for addresses outside of the
    image, which may be of anything. KplugError if the image's symbols are broken.
    """
    if image is not None:
        names = [name for each in asked for name in _NAME.findall(each)]
        look_up_names(image, (*_ASKED_BY_MOST, *names[:_MOST_NAMES]))
    addresses = (int(digits, 16) for each in asked for digits in _ADDRESS.findall(each))
    if any(image is None or not _is_in(image, info, address) for address in addresses):
        helpers.load()


def _is_in(image: KernelImage, info: VmcoreInfo, address: int) -> bool:
    linked = address - kaslr_offset_of(info, image)
    return any(section.address <= linked < section.end for section in image.extents if section.occupies_addresses)
