"""Reports that are known by their words alone. The file's name sorts last: what the others declare is tried first."""

from __future__ import annotations

from kplug.log.kinds import EventKind, Wording

KINDS = (
    EventKind(
        "other",
        "unregister_netdevice: waiting for DEV to become free",
        "The kernel waits for network device {device} to become free.",
        (
            Wording(
                r"unregister_netdevice: waiting for (?P<device>\S{1,64}) to become free",
                "unregister_netdevice: waiting for eth0 to become free. Usage count = 1",
                "net/core/dev.c, netdev_wait_allrefs_any()",
            ),
        ),
        alone=True,
    ),
    EventKind(
        "other",
        "VFS: {what} (use-after-free)",
        'The VFS reported "{what}".',
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
        "A dentry was still in use[ in {function}][, {by}].",
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
        'The kernel reported a bug[ in {function}][, {by}]: "{what}".',
        (
            Wording(
                r"BUG: (?!KASAN:|memory leak)(?P<what>[A-Za-z][^\n:,!.<>/\[\]{}()]{2,80})",
                "BUG: something is wrong",
                "any other: printk() with BUG in many files",
            ),
        ),
        general=True,
    ),
    EventKind(
        "other",
        "report without its beginning[ in {function}]",
        "A report was made[ in {function}][, {by}], but its beginning is lost.",
        (
            Wording(
                r"CPU: \d{1,5}\s+(?:UID: \d{1,10} )?PID: \d",
                "CPU: 1 UID: 0 PID: 215 Comm: sh Not tainted 6.12.117-cloud-amd64 #1",
                "lib/dump_stack.c, dump_stack_print_info()",
            ),
            Wording(
                r"Pid: \d{1,10}, comm: ",
                "Pid: 1, comm: swapper/0 Not tainted 3.2.0-4-amd64 #1",
                "the same, before 3.10",
            ),
            Wording(
                r"RIP: 0010:|EIP: 0060:|EIP: \w{1,100}\+0x|EIP is at |RIP  ?\[<|IP: \[<",
                "RIP: 0010:schedule+0x4/0xc7",
                "arch/x86, show_regs()",
            ),
            Wording(
                r"pc : \w{1,100}\+0x|PC is at \w", "pc : schedule+0x4/0xc7", "arch/arm64 and arch/arm, show_regs()"
            ),
            Wording(r"epc : \w{1,100}\+0x", "epc : schedule+0x4/0xc7", "arch/riscv, show_regs()"),
            Wording(r"NIP \[", "NIP [c0000000009b8c34] schedule+0x4/0xc7", "arch/powerpc, show_regs()"),
            Wording(r"Krnl PSW : ", "Krnl PSW : 0704d00180000000 0000000000b8c34a (schedule+0x4/0xc7)", "arch/s390"),
            Wording(r"Call [Tt]race:", "Call Trace:", "show_stack() of most architectures"),
        ),
        general=True,
        resumes=True,
        incomplete=True,
        outside=True,
    ),
)
