"""A user program of a fake kernel: include/linux/mm_types.h, lib/maple_tree.c of 6.12, the red-black tree before 6.1.

The maple tree is one leaf (maple_range_64), the red-black tree a chain: enough to be searched.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import drgn

from kplug.runtime.threads.selection import Selection, Thread
from kplug.runtime.threads.user_space import UserSpace
from support.fake_kernel import FakeKernel
from support.fake_machines import PAGE
from support.fake_tasks import FakeTasks

VM_READ, VM_WRITE, VM_EXEC, VM_SHARED = 1, 2, 4, 8
_MAPLE_LEAF, _MAPLE_ROOT_BITS = 1, 2  # enum maple_type maple_leaf_64; xa_mk_internal()


class FakeProgram:
    """The program of a task, without mappings at first. `maple` says which tree its mappings are in."""

    def __init__(self, fake: FakeKernel, *, maple: bool = True, pid: int = 42) -> None:
        self.fake, self.maple, self.pid = fake, maple, pid
        fake.struct("rb_node", 24, rb_right=("struct rb_node *", 8), rb_left=("struct rb_node *", 16))
        fake.struct("rb_root", 8, rb_node=("struct rb_node *", 0))
        fake.struct("maple_tree", 16, ma_flags=("unsigned int", 0), ma_root=("void *", 8))
        fake.enum("maple_type", maple_dense=0, maple_leaf_64=1, maple_range_64=2, maple_arange_64=3)
        fake.struct("maple_metadata", 2, end=("unsigned char", 0), gap=("unsigned char", 1))
        fake.struct(
            "maple_range_64", 256, parent=("void *", 0), pivot=("unsigned long [15]", 8), slot=("void *[16]", 128),
            meta=("struct maple_metadata", 254),
        )  # fmt: skip
        fake.struct("maple_node", 256, mr64=("struct maple_range_64", 0), ma64=("struct maple_range_64", 0))
        tree = {"mm_mt": ("struct maple_tree", 8)} if maple else {"mm_rb": ("struct rb_root", 8)}
        words = ("start_brk", "brk", "start_stack")
        rest = {name: ("unsigned long", 32 + 8 * number) for number, name in enumerate(words)}
        fake.struct("mm_struct", 64, pgd=("unsigned long *", 0), **tree, **rest)
        fake.struct("vfsmount", 16, mnt_root=("struct dentry *", 0))
        fake.struct(
            "mount", 64, mnt_parent=("struct mount *", 0), mnt_mountpoint=("struct dentry *", 8),
            mnt=("struct vfsmount", 16),
        )  # fmt: skip
        fake.struct("qstr", 16, name=("char *", 8))
        fake.struct("dentry_operations", 16, d_dname=("void *", 0))
        fake.struct(
            "dentry", 64, d_parent=("struct dentry *", 0), d_name=("struct qstr", 8), d_inode=("struct inode *", 24),
            d_op=("struct dentry_operations *", 32),
        )  # fmt: skip
        fake.struct("path", 16, mnt=("struct vfsmount *", 0), dentry=("struct dentry *", 8))
        fake.struct("file", 32, f_path=("struct path", 0))
        fake.struct("vm_operations_struct", 16, name=("void *", 0))
        fake.struct("vm_special_mapping", 16, name=("char *", 0))
        fake.struct(
            "vm_area_struct", 96, vm_start=("unsigned long", 0), vm_end=("unsigned long", 8),
            vm_mm=("struct mm_struct *", 16), vm_flags=("unsigned long", 24), vm_rb=("struct rb_node", 32),
            vm_ops=("struct vm_operations_struct *", 56), vm_pgoff=("unsigned long", 64),
            vm_file=("struct file *", 72), vm_private_data=("void *", 80),
        )  # fmt: skip
        self.special_name = fake.machine.image + 0x400
        fake.function("special_mapping_name", self.special_name)
        self.special_operations = fake.variable("special_mapping_vmops", "struct vm_operations_struct")
        self.root = fake.take(PAGE)
        self.mm = fake.make("mm_struct", {"pgd": self.root})
        self.tasks = FakeTasks(fake)
        self.task = self.tasks.task(pid, "shell", mm=self.mm)
        self._areas: list[tuple[int, int, int]] = []

    def mapping(self, start: int, end: int, **members: int) -> int:
        """A mapping, and where its vm_area_struct is. They have to come in the order of their addresses."""
        fake = self.fake
        vma = fake.make("vm_area_struct", {"vm_start": start, "vm_end": end, "vm_mm": self.mm, **members})
        if self.maple:
            self._areas.append((start, end, vma))
            self._write_leaf()
        else:
            if self._areas:
                fake.put("vm_area_struct", self._areas[-1][2], {"vm_rb.rb_right": vma + 32})
            else:
                fake.put("mm_struct", self.mm, {"mm_rb.rb_node": vma + 32})
            self._areas.append((start, end, vma))
        return vma

    def file(self, *names: str) -> int:
        """A file by its path in the root file system, as a struct file."""
        fake = self.fake
        top = fake.make("dentry")
        fake.words(top, top)
        mount = fake.make("mount", {"mnt.mnt_root": top, "mnt_mountpoint": top})
        fake.put("mount", mount, {"mnt_parent": mount})
        dentry = top
        for name in names:
            dentry = fake.make("dentry", {"d_parent": dentry, "d_name.name": fake.text(name)})
        return fake.make("file", {"f_path.mnt": mount + 16, "f_path.dentry": dentry})

    def user(self) -> UserSpace:
        """The user addresses of this program, as those of the selected task."""
        task = drgn.Object(self.fake.prog, "struct task_struct *", self.task)
        selection = SimpleNamespace(thread=Thread(self.pid, "shell", None, False, task))
        return UserSpace(self.fake.kernel, cast(Selection, selection))

    def _write_leaf(self) -> None:
        """One leaf with a slot for each mapping and each hole; its pivots are the last addresses of these."""
        ranges: list[tuple[int, int]] = []
        place = 0
        for start, end, vma in self._areas:
            if start > place:
                ranges.append((start - 1, 0))
            ranges.append((end - 1, vma))
            place = end
        node = self.fake.take(256, 256)
        values = {f"pivot[{number}]": last for number, (last, _) in enumerate(ranges)}
        values.update({f"slot[{number}]": vma for number, (_, vma) in enumerate(ranges)})
        self.fake.put("maple_range_64", node, {**values, "meta.end": len(ranges)})
        entry = node | _MAPLE_LEAF << 3 | _MAPLE_ROOT_BITS
        self.fake.put("mm_struct", self.mm, {"mm_mt.ma_root": entry})
