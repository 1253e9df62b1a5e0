"""The mappings of a user program: the file or memory at an address of the selected task, or that nothing is there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress

import drgn

from kplug import model
from kplug.arch.types.page_tables import Paging
from kplug.errors import TargetError
from kplug.kinds import Kind, before_range, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.pseudo_files import pseudo_name
from kplug.runtime.locators.registry import locates
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.user_space import UserSpace

# include/linux/mm.h; permissions are written as in /proc/PID/maps.
_READ, _WRITE, _EXECUTE, _SHARED = 1, 2, 4, 8
# The usual vm.mmap_min_addr: nothing is mapped below, and such a number is no user address.
_LEAST = 0x10000
# What the kernel calls shared memory without a file of its own (shmem_zero_setup()).
_SHARED_ANONYMOUS = "/dev/zero (deleted)"


def _words(layer: Layer) -> tuple[str, bool]:
    words = f"{layer.name}  {layer.details.get('flags') or ''}".rstrip()
    if layer.details.get("file_offset"):
        words += f"  file offset {layer.details['file_offset']}"
    return before_range(words, layer), True


KIND = register(Kind("vma", 500, {"pid": "", "comm": "", "path": "", "file_offset": "", "flags": ""}, words=_words))


def _paging_of_users(kernel: Kernel, address: int) -> Paging | None:
    """How the kernel maps memory, if the address is one of user programs."""
    paging = page_tables(kernel).paging
    return paging if paging is not None and paging.is_user(address) and paging.is_canonical(address) else None


class VmaLocator:
    """The mapping of the selected task's program that holds a user address."""

    def __init__(self, kernel: Kernel, user: UserSpace) -> None:
        self._kernel = kernel
        self._user = user

    def locate(self, address: int) -> Iterable[Layer]:
        paging = _paging_of_users(self._kernel, address)
        if paging is None:
            return
        program = self._user.program()
        if program is None:
            return
        with self._kernel.reading(f"the mappings of {program.tid} ({program.comm})"):
            vma = helpers.vma_find(program.mm, address)
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
            path = _path(self._kernel, vma)
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
        what = _named(path) or ("anonymous memory" if not file and problem is None else "mapping")
        yield Layer(KIND.name, f"{what} of {program.tid} ({program.comm})", start, end, self._user.source, details)
        if problem is not None:
            raise problem


class HoleLocator:
    """The hole between two mappings of the selected task's program."""

    def __init__(self, kernel: Kernel, user: UserSpace) -> None:
        self._kernel = kernel
        self._user = user

    def locate(self, address: int) -> Iterable[Layer]:
        paging = _paging_of_users(self._kernel, address)
        if paging is None:
            return
        image = self._kernel.image
        if not self._user.is_asked and (address < _LEAST or (image is not None and image.piece(address) is not None)):
            return  # rather a number near NULL, or a per-CPU variable's offset
        space = space_of(self._kernel)
        area = space.area_at(address) if space is not None else None
        if area is not None and area.hole:
            return  # the guard page above user addresses, where no program has any
        try:
            program = self._user.program()
        except TargetError:  # the locator of mappings says so
            return
        if program is None:
            return
        whose = f"{program.tid} ({program.comm})"
        mappings = _mappings_of(self._kernel, program.mm.value_())
        number = bisect_right(mappings, (address, paging.user_end, 0))
        first, last = mappings[max(0, number - 1) : number], mappings[number : number + 1]
        if first and first[0].end > address:
            return
        details = {
            "after": self._neighbour(first, "the first address"),
            "before": self._neighbour(last, "the end of the user half"),
            "why": f"{whose} has nothing mapped here",
        }
        start = first[0].end if first else 0
        end = last[0].start if last else paging.user_end if area is None else min(area.end, paging.user_end)
        yield Layer(model.GAP, "hole", start, end, self._user.source, details)

    def _neighbour(self, mappings: Sequence[_Mapping], otherwise: str) -> str:
        for mapping in mappings:
            vma = drgn.Object(self._kernel.prog, "struct vm_area_struct *", mapping.vma)
            try:
                path = _path(self._kernel, vma)
            except TargetError:
                path = None
            return f"{_named(path) or 'a mapping' if path else 'anonymous memory'} at {mapping.start:#x}"
        return otherwise


class _Mapping(NamedTuple):
    """A mapping, `[start, end)`, and the address of its vm_area_struct."""

    start: int
    end: int
    vma: int


@remembered(UNTIL_RESUMED)
def _mappings_of(kernel: Kernel, mm: int) -> Sequence[_Mapping]:
    """The mappings of an mm_struct, in the order of their addresses. TargetError if they have none: a corrupted list
    may go in circles.
    """
    what = "the mappings of a program"
    found: list[_Mapping] = []
    with kernel.reading(what):
        for vma in helpers.for_each_vma(drgn.Object(kernel.prog, "struct mm_struct *", mm)):
            mapping = _Mapping(vma.vm_start.value_(), vma.vm_end.value_(), vma.value_())
            if mapping.start >= mapping.end or (found and mapping.start < found[-1].end):
                raise TargetError(f"{what}: corrupted: {mapping.start:#x}-{mapping.end:#x} is out of order")
            found.append(mapping)
    return found


def _named(path: str | None) -> str | None:
    """What a mapping with that path is called in an answer."""
    return "shared anonymous memory" if path == _SHARED_ANONYMOUS else path


def _path(kernel: Kernel, vma: drgn.Object) -> str | None:
    """The last column of a mapping's line in /proc/PID/maps; None if that is empty."""
    with kernel.reading(f"the name of the mapping at {vma.vm_start.value_():#x}"):
        file = vma.vm_file.read_()
        name = pseudo_name(kernel, file.f_path.dentry) if file else None
        name = name or helpers.vma_name(vma) or _special_name(kernel, vma)
        if file and name.startswith(b"/") and not name.endswith(b" (deleted)") and _is_unlinked(file.f_path.dentry):
            name += b" (deleted)"
        return name.decode(errors="backslashreplace") or None


def _is_unlinked(dentry: drgn.Object) -> bool:
    """Whether the file is in its directory no more, as d_unlinked()."""
    with suppress(AttributeError):
        return not dentry.d_hash.pprev and dentry.d_parent.value_() != dentry.value_()
    return False


def _special_name(kernel: Kernel, vma: drgn.Object) -> bytes:
    """The name of a mapping that the kernel itself made, such as arm64's [vdso] and [vvar]; empty for others."""
    operations = kernel.symbol("special_mapping_vmops")
    if operations is None or vma.vm_ops.value_() != operations:
        return b""
    name: bytes = drgn.cast("struct vm_special_mapping *", vma.vm_private_data).name.string_()
    return name


locates(KIND, VmaLocator)
locates(KIND, HoleLocator)
