"""What is known of an opened kernel, where its dump does not say all that drgn needs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("drgn")

import drgn
from support.elf_builder import BASE_32, small_vmlinux

from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_vmlinux
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.opening import opening
from kplug.runtime.opening.request import OpenTarget, Request


def test_a_kaslr_offset_that_vmcoreinfo_lacks_is_for_drgn_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """i386: else its answers would be said to come from a line that the dump does not have."""
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux(32)))
    image, noted = open_vmlinux(str(path)), f"OSRELEASE=6.1\nSYMBOL(_stext)={BASE_32 + 0xA000000:x}\n"
    given: list[str | None] = []

    def with_vmlinux(
        request: Request, text: str | None, _: KernelImage | None
    ) -> tuple[OpenTarget, VmcoreInfo, KernelImage, bool]:
        given.append(text)
        return OpenTarget("dump", drgn.Program(), "vmcore dump"), VmcoreInfo(text or noted), image, False

    monkeypatch.setattr(opening, "_with_vmlinux", with_vmlinux)
    opened = opening.open_kernel(Request(core="dump"))
    assert given[0] is None
    assert VmcoreInfo(given[1] or "").kaslr_offset == 0xA000000
    assert opened.vmcoreinfo.kaslr_offset is None
    assert opened.how == ("KASLR offset: not in VMCOREINFO; from its _stext and that of the vmlinux",)
