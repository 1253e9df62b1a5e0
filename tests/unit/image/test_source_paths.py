"""Paths of source files: from the top of the kernel's tree, whatever machine built it."""

from __future__ import annotations

import pytest

from kplug.image.source_paths import in_tree


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("kernel/sched/core.c", "kernel/sched/core.c"),
        ("/build/reproducible-path/linux-6.1.192/arch/x86/entry/entry_64.S", "arch/x86/entry/entry_64.S"),
        ("/build/linux-6.1/debian/build/build_amd64_none_amd64/include/generated/a.h", "include/generated/a.h"),
        ("debian/build/build_amd64/fs/ext4/inode.c", "debian/build/build_amd64/fs/ext4/inode.c"),
        ("/build/pkg/debian/build/build_amd64_none_amd64/fs/ext4/inode.c", "fs/ext4/inode.c"),
        ("/usr/src/linux-headers-6.1.0-57-common/include/linux/list.h", "include/linux/list.h"),
        ("/usr/src/linux-headers-6.12.117+deb12-common/arch/x86/include/asm/io.h", "arch/x86/include/asm/io.h"),
        ("/usr/src/debug/kernel-6.9/linux-6.9.7-200.fc40.x86_64/mm/slub.c", "mm/slub.c"),
        ("/b/linux-6.10/include/linux/io_uring/cmd.h", "include/linux/io_uring/cmd.h"),
        ("/b/linux-6.1/arch/x86/kernel/../../x86/xen/xen-head.S", "arch/x86/xen/xen-head.S"),
        ("./arch/x86/include/generated/asm/syscalls_64.h", "arch/x86/include/generated/asm/syscalls_64.h"),
        # Not of the kernel's tree, or not known to be.
        ("/home/me/module/thing.c", "/home/me/module/thing.c"),
        ("/home/linux/kernel/thing.c", "/home/linux/kernel/thing.c"),
        ("/home/me/linux-6.1/thing.c", "/home/me/linux-6.1/thing.c"),
        ("thing.c", "thing.c"),
        ("", ""),
    ],
)
def test_from_the_top_of_the_tree(path: str, expected: str) -> None:
    assert in_tree(path) == expected
