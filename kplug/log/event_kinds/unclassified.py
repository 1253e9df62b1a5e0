"""What is told by its word alone. The file's name is the last one: what others declare comes before it."""

from __future__ import annotations

from kplug.log.kinds import EventKind, Wording

KINDS = (
    EventKind(
        "other",
        "unregister_netdevice: waiting for DEV to become free",
        (
            Wording(
                r"unregister_netdevice: waiting for \S{1,64} to become free",
                "unregister_netdevice: waiting for eth0 to become free. Usage count = 1",
                "net/core/dev.c, netdev_wait_allrefs_any()",
            ),
        ),
        alone=True,
    ),
    EventKind(
        "other",
        "VFS: {what} (use-after-free)",
        (
            Wording(
                r"VFS: (?P<what>Busy inodes after unmount)",
                "VFS: Busy inodes after unmount of sda1. Self-destruct in 5 seconds.",
                "fs/super.c, generic_shutdown_super()",
            ),
            Wording(
                r"VFS: (?P<what>Close: file count is (?:0|zero))",
                "VFS: Close: file count is 0",
                "fs/open.c, filp_close(): before 6.6",
                title="VFS: Close: file count is zero (use-after-free)",
            ),
        ),
        alone=True,
    ),
    EventKind(
        "bug",
        "BUG: Dentry still in use[ in {where}]",
        (
            Wording(
                r"BUG: Dentry [^\n]{1,200} still in use(?: \(-?\d{1,10}\) \[(?P<where>unmount) of)?",
                "BUG: Dentry ffff880175978600{i=8bb9,n=lo}  still in use (1) [unmount of proc proc]",
                "fs/dcache.c, umount_check()",
            ),
        ),
    ),
    EventKind(
        "bug",
        "BUG: {what}[ in {function}]",
        (
            Wording(
                r"BUG: (?!KASAN:|memory leak)(?P<what>[A-Za-z][^\n:,!.<>/\[\]{}()]{2,80})",
                "BUG: something is wrong",
                "any other: printk() with BUG in many files",
            ),
        ),
        general=True,
    ),
)
