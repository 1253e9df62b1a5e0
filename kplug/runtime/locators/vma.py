"""The mappings of a user program: the file or memory at an address of the selected task."""

from __future__ import annotations

from collections.abc import Iterable

import drgn
from drgn.helpers.linux.mm import vma_find, vma_name

from kplug.errors import TargetError
from kplug.kinds import Kind, before_range, register
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel, reading
from kplug.runtime.locators.registry import locates
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.user_space import UserSpace

# include/linux/mm.h; permissions are written as in /proc/PID/maps.
_READ, _WRITE, _EXECUTE, _SHARED = 1, 2, 4, 8


def _words(layer: Layer) -> tuple[str, bool]:
    words = f"{layer.name}  {layer.details.get('flags') or ''}".rstrip()
    if layer.details.get("file_offset"):
        words += f"  file offset {layer.details['file_offset']}"
    return before_range(words, layer), True


KIND = register(Kind("vma", 500, {"pid": "", "comm": "", "path": "", "file_offset": "", "flags": ""}, words=_words))


class VmaLocator:
    """The mapping of the selected task's program that holds a user address."""

    def __init__(self, kernel: Kernel, user: UserSpace) -> None:
        self._kernel = kernel
        self._user = user

    def locate(self, address: int) -> Iterable[Layer]:
        paging = page_tables(self._kernel).paging
        if paging is None or not paging.is_user(address) or not paging.is_canonical(address):
            return
        program = self._user.program()
        if program is None:
            return
        with reading(f"the mappings of {program.tid} ({program.comm})"):
            vma = vma_find(program.mm, address)
            if not vma:
                return
            start, end, flags = vma.vm_start.value_(), vma.vm_end.value_(), vma.vm_flags.value_()
            if not start <= address < end:
                told = f"what is at {vma.value_():#x} should map {address:#x}, and has {start:#x}-{end:#x}"
                raise TargetError(f"the mappings of {program.tid} ({program.comm}): {told}")
            file = vma.vm_file.read_()
            offset = vma.vm_pgoff.value_() * paging.page_size if file else None
        path = None
        problem = None
        try:
            with reading(f"the name of the mapping at {start:#x}"):
                path = (vma_name(vma) or self._special_name(vma)).decode(errors="backslashreplace") or None
        except TargetError as error:
            problem = error
        rights = "".join(
            letter if flags & bit else "-" for bit, letter in ((_READ, "r"), (_WRITE, "w"), (_EXECUTE, "x"))
        )
        details = {
            "pid": program.tid,
            "comm": program.comm,
            "path": path,
            "file_offset": None if offset is None else hex(offset),
            "flags": rights + ("s" if flags & _SHARED else "p"),
        }
        # A mapping whose file's name is not in the dump is not anonymous memory.
        kind = "anonymous memory" if not file and problem is None else "mapping"
        name = f"{path or kind} of {program.tid} ({program.comm})"
        yield Layer(KIND.name, name, start, end, "mappings of the selected task", details)
        if problem is not None:
            raise problem

    def _special_name(self, vma: drgn.Object) -> bytes:
        """The name of a mapping that the kernel itself made, such as arm64's [vdso] and [vvar]; empty for others."""
        operations = self._kernel.symbol("special_mapping_vmops")
        if operations is None or vma.vm_ops.value_() != operations:
            return b""
        name: bytes = drgn.cast("struct vm_special_mapping *", vma.vm_private_data).name.string_()
        return name


locates(KIND, VmaLocator)
