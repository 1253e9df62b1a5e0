"""A user program's half of the address space, as the selected task has it: its page tables and mapped files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import drgn
from drgn.helpers.linux.mm import vma_find, vma_name

from kplug import model
from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel, reading
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.selection import Selection

# include/linux/mm.h; the rights as /proc/PID/maps writes them.
_READ, _WRITE, _EXECUTE, _SHARED = 1, 2, 4, 8

_X86_NO_EXECUTE, _X86_PRESENT = 1 << 63, 1


class _Program(NamedTuple):
    """The task whose addresses are meant, its mm_struct, and the physical address of its top page table."""

    tid: int
    comm: str
    mm: drgn.Object
    root: int


class UserSpace:
    """The user addresses of the task that is selected; they mean nothing without one, or if it is a kernel thread."""

    def __init__(self, kernel: Kernel, selection: Selection | None) -> None:
        self._kernel = kernel
        self._selection = selection

    def program(self) -> _Program | None:
        """The selected task's program. None if there is none; TargetError if it cannot be read."""
        if self._selection is None or not self._kernel.has_types:
            return None
        thread = self._selection.thread
        if thread.task is None:
            return None
        key = ("program", thread.task.value_())
        return self._kernel.remembered(key, lambda: self._read(thread.tid, thread.comm, thread.task))

    def _read(self, tid: int, comm: str, task: drgn.Object) -> _Program | None:
        with reading(f"the memory of {tid} ({comm})"):
            mm = task.mm.read_()
            if not mm:
                return None
            root = page_tables(self._kernel).linear_physical(mm.pgd.value_())
        return _Program(tid, comm, mm, root) if root is not None else None

    def root(self, address: int) -> int | None:
        """The physical address of the page tables through which the program itself reaches an address of its own."""
        program, tables = self.program(), page_tables(self._kernel)
        paging = tables.paging
        if program is None or paging is None:
            return None
        if self._kernel.machine != "x86_64":
            return program.root
        # Under page-table isolation the kernel's own copy of the top entry forbids to execute, and the one that the
        # program runs on is in the page behind it (pti_set_user_pgtbl()). An entry without a copy is not isolated.
        slot = (address >> paging.address_bits - 9 & 0x1FF) * 8
        entry = tables.entry(program.root + slot)
        if not entry & _X86_NO_EXECUTE or not entry & _X86_PRESENT:
            return program.root
        copy = tables.entry(program.root + paging.page_size + slot)
        return program.root + paging.page_size if copy == entry & ~_X86_NO_EXECUTE else program.root


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
        yield Layer(model.VMA, name, start, end, "mappings of the selected task", details)
        if problem is not None:
            raise problem

    def _special_name(self, vma: drgn.Object) -> bytes:
        """The name of what the kernel itself mapped, arm64's [vdso] and [vvar] say; empty for other memory."""
        operations = self._kernel.symbol("special_mapping_vmops")
        if operations is None or vma.vm_ops.value_() != operations:
            return b""
        name: bytes = drgn.cast("struct vm_special_mapping *", vma.vm_private_data).name.string_()
        return name
