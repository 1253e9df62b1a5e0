"""Memory: bad pages, leaks, and none left."""

from __future__ import annotations

from kplug.log.kinds import EventKind, Heading, Wording
from kplug.log.machinery import ALLOCATING

_ADDRESS = r"(?:0x)?(?P<address>[0-9a-fA-F]{8,16})"
_PAGE_ALLOC = "mm/page_alloc.c"
_DUMP_PAGE = "mm/debug.c, dump_page()"
_SLUB = "mm/slub.c"
_OOM = "mm/oom_kill.c"
_KMEMLEAK = "mm/kmemleak.c"


def _bad_page(
    title: str, sentence: str, *begins: Wording, details: tuple[Wording, ...] = (), alone: bool = False
) -> EventKind:
    return EventKind(
        "bad-page", title, sentence, begins, details, blames=("trace",), passed_over=ALLOCATING, alone=alone
    )


_PAGE = (
    Wording(
        r"(?:page|head|raw|flags|page_type|page flags|memcg|anon flags|ksm flags|aops|addr|file|swapper pgtable):\s?\S"
        r"|(?:anon|ksm) flags:|(?:[\w\" -]{1,60} )?flags: 0x",
        "page: refcount:0 mapcount:-128 mapping:0000000000000000 index:0x0 pfn:0x11a3b",
        _DUMP_PAGE,
    ),
    Wording(
        r"page dumped because: |bad because of flags|page_owner |page last |page allocated |addr:|file:|"
        r"Disabling lock debugging",
        "page dumped because: nonzero mapcount",
        f"{_DUMP_PAGE}; {_PAGE_ALLOC}, bad_page()",
    ),
)
_PAGE_HEADINGS = (
    Heading(r"page last free (?:pid|stack)", "freed", "page last free stack trace:", "mm/page_owner.c", main=False),
)
MEM_INFO = Wording(
    r"(?:Mem-Info:|Node \d{1,4} |(?:in)?active_(?:anon|file):|unevictable:|slab_reclaimable:|mapped:|free:|kernel_misc"
    r"|sec_pagetables|kernel_stack|anon \d|file \d|DMA(?:32)?[: ]|Normal[: ]|HighMem|Movable|lowmem_reserve|per-cpu:"
    r"|CPU\s{1,4}\d{1,5}: hi:|\d{1,10} (?:total |pages |free |reserved |slab )|Swap cache|Free swap|Total swap"
    r"|cache:|rss:|node \d{1,4}: slabs|warn_alloc_show_mem)",
    "Mem-Info:",
    "mm/show_mem.c, __show_mem()",
)

KINDS: tuple[EventKind, ...] = (
    EventKind(
        "bad-page",
        "BUG: Bad page {what}[ in {function}]",
        'The kernel reported "bad page {what}"[ in {function}][, {by}].',
        (
            Wording(
                r"BUG: Bad page (?P<what>state|cache) in process (?P<comm>[^\n]{1,64}?)\s{1,2}pfn:",
                "BUG: Bad page state in process sh  pfn:11a3b",
                f"{_PAGE_ALLOC}, bad_page()",
            ),
        ),
        _PAGE,
        _PAGE_HEADINGS,
        blames=("trace",),
        passed_over=ALLOCATING,
    ),
    _bad_page(
        "BUG: Bad page map",
        "The kernel found a bad page table entry[ in {function}][, {by}].",
        Wording(
            r"BUG: Bad page map in process (?P<comm>[^\n]{1,64}?)\s{1,2}pte:",
            "BUG: Bad page map in process sh  pte:800000011a3b4867 pmd:10a2c067",
            "mm/memory.c, print_bad_pte()",
        ),
        details=_PAGE,
    ),
    _bad_page(
        "BUG: Bad rss-counter state",
        "The kernel found a wrong rss counter[ in {function}] as it freed an address space.",
        Wording(
            r"BUG: Bad rss-counter state mm:",
            "BUG: Bad rss-counter state mm:00000000f1e2d3c4 type:MM_ANONPAGES val:3",
            "kernel/fork.c, check_mm()",
        ),
        alone=True,
    ),
    _bad_page(
        "BUG: non-zero {what} on freeing mm",
        "The kernel found {what} not zero[ in {function}] as it freed an address space.",
        Wording(
            r"BUG: non-zero (?P<what>\w{1,30}) on freeing mm:",
            "BUG: non-zero pgtables_bytes on freeing mm: 4096",
            "kernel/fork.c, check_mm()",
        ),
        alone=True,
    ),
    EventKind(
        "leak",
        "memory leak[ in {function}]",
        "Kmemleak suspects a leak[, allocated in {function}][ by {task}].",
        (Wording(r"BUG: memory leak", "BUG: memory leak", "syzkaller's reports, above what kmemleak prints"),),
        general=True,
        blames=("trace",),
        passed_over=ALLOCATING,
    ),
    EventKind(
        "leak",
        "memory leak[ in {function}]",
        "Kmemleak suspects a leak[ of {bytes} bytes][, allocated in {function}][ by {task}].",
        (
            Wording(
                rf"unreferenced object (?:\(percpu\) )?{_ADDRESS} \(size (?P<bytes>\d{{1,20}})\):",
                "unreferenced object 0xffff88810b1c2d00 (size 128):",
                f"{_KMEMLEAK}, print_unreferenced()",
            ),
        ),
        (
            Wording(
                r"comm \"(?P<comm>[^\"\n]{0,64})\", pid (?P<pid>\d{1,10}), jiffies",
                'comm "sh", pid 2210, jiffies 4294961200 (age 21.410s)',
                f"{_KMEMLEAK}, print_unreferenced()",
            ),
            Wording(
                r"hex dump \(first \d|(?:[0-9a-f]{2} ){4}",
                "hex dump (first 32 bytes):",
                f"{_KMEMLEAK}, hex_dump_object()",
            ),
        ),
        (
            Heading(
                r"backtrace(?: \(crc [0-9a-f]{1,8}\))?:", "task", "backtrace (crc 3d1a2b4c):", f"{_KMEMLEAK}, since 6.7"
            ),
        ),
        blames=("trace",),
        passed_over=ALLOCATING,
    ),
    EventKind(
        "leak",
        "memory leak",
        "Kmemleak suspects [{count} ]new memory leaks.",
        (
            Wording(
                r"kmemleak: (?P<count>\d{1,10}) new suspected memory leaks",
                "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
                f"{_KMEMLEAK}, kmemleak_scan()",
            ),
        ),
        alone=True,
    ),
    EventKind(
        "oom",
        "Out of memory[: killed {victim}]",
        "[The OOM killer killed {victim} (pid {victim_pid})|{who} invoked the OOM killer].",
        (
            Wording(
                r"(?P<comm>\S[^\n]{0,63}?) invoked oom-killer: ",
                "sh invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
                f"{_OOM}, dump_header()",
                has=(" invoked oom-killer: ",),
            ),
        ),
        (
            MEM_INFO,
            Wording(
                r"(?:\w[\w/-]{0,64} cpuset=|Tasks state|\[\s{0,6}pid\s{0,6}\]|\[\s{0,8}\d{1,10}\]"
                r"|(?:memory|swap|kmem): usage|memory\+swap|Memory cgroup stats|Unreclaimable slab|Name\s{5}"
                r"|oom-kill:|Task in /|oom_reaper: "
                r"|(?:O|Memory cgroup o)ut of memory: Kill process|\w[\w-]{0,40} {1,40}\d{1,12}KB|COMPACTION)",
                "Tasks state (memory values in pages):",
                f"{_OOM}, dump_tasks() and dump_header()",
            ),
        ),
        ends=(
            Wording(
                r"(?:[\w ()-]{0,80}: )?Killed process (?P<victim_pid>\d{1,10}),?(?: UID \d{1,10},)?"
                r" \((?P<victim>[^)\n]{1,64})\)",
                "Out of memory: Killed process 2501 (sh) total-vm:1860088kB, anon-rss:1799200kB, file-rss:0kB",
                f"{_OOM}, __oom_kill_process()",
            ),
        ),
        blames=(),
    ),
    EventKind(
        "oom",
        "Out of memory[: killed {victim}]",
        "[The OOM killer killed {victim} (pid {victim_pid})|{who} invoked the OOM killer].",
        (
            Wording(
                r"(?:Memory cgroup o|O)ut of memory(?: \([^)\n]{1,40}\))?: Kill(?:ed)? process "
                r"(?P<victim_pid>\d{1,10}) \((?P<victim>[^)\n]{1,64})\)",
                "Out of memory: Killed process 2501 (sh) total-vm:1860088kB, anon-rss:1799200kB, file-rss:0kB",
                f"{_OOM}, __oom_kill_process(): its first lines are lost",
            ),
        ),
        general=True,
        blames=(),
        alone=True,
    ),
    EventKind(
        "alloc-failure",
        "{what}[ in {function}]",
        '{who} met "{what}"[ of order {order}][ in {function}].',
        (
            Wording(
                r"(?P<comm>\S[^\n]{0,63}?): (?P<what>page allocation (?:failure|stalls))[:. ]"
                r"(?: ?order:(?P<order>\d{1,3}))?",
                "sh: page allocation failure: order:9, mode:0x40dc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)",
                f"{_PAGE_ALLOC}, warn_alloc()",
                has=(": page allocation ",),
            ),
            Wording(
                r"(?P<comm>\S[^\n]{0,63}?): (?P<what>vmalloc error|vmalloc: allocation failure)[:, ]",
                "sh: vmalloc error: size 8392704, page order 0, failed to allocate pages",
                "mm/vmalloc.c, __vmalloc_area_node()",
                has=(": vmalloc",),
            ),
            Wording(
                r"(?P<what>SLUB: Unable to allocate memory)",
                "SLUB: Unable to allocate memory on CPU 1 (of node 0) on node -1, gfp=0xa20(GFP_ATOMIC)",
                f"{_SLUB}, slab_out_of_memory()",
            ),
        ),
        (MEM_INFO,),
        blames=("trace",),
        passed_over=ALLOCATING,
    ),
)
