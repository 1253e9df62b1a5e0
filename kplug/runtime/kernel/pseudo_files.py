"""Files in no directory, such as shared memory: the names that their file systems give them."""

from __future__ import annotations

import drgn

from kplug.runtime.kernel.kernel import Kernel


def pseudo_name(kernel: Kernel, dentry: drgn.Object) -> bytes | None:
    """The name of a file in no directory (shared memory, memfd), as d_path() has it; None for any other."""
    operations = dentry.d_op.read_()
    if not operations:
        return None
    function = operations.d_dname.value_()
    own: bytes = dentry.d_name.name.string_()
    if function and function == kernel.symbol("simple_dname"):  # of shmem and hugetlbfs
        return b"/" + own + b" (deleted)"
    if function and function == kernel.symbol("anon_inodefs_dname"):
        return b"anon_inode:" + own
    return None


def pseudo_name_of_inode(kernel: Kernel, inode: drgn.Object) -> bytes | None:
    """The same by its inode."""
    try:
        alias = inode.i_dentry.first.read_()
        return pseudo_name(kernel, drgn.container_of(alias, "struct dentry", "d_u.d_alias")) if alias else None
    except (AttributeError, LookupError):
        return None
