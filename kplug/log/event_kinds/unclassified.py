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
        strays=0,
    ),
    EventKind(
        "bug",
        "BUG: {what}[ in {function}]",
        (
            Wording(
                r"BUG: (?!KASAN:|memory leak)(?P<what>[A-Za-z][^\n:,!.<>/\[\]]{2,80})",
                "BUG: Dentry still in use",
                "any other: printk() with BUG in many files",
            ),
        ),
        general=True,
    ),
)
