"""What the kernel checks of its own objects: lists, counters, states, and the copies of them."""

from __future__ import annotations

from kplug.log.common_lines import END_OF_TRACE
from kplug.log.forms import SYMBOL, SYMBOL_AND_MODULE
from kplug.log.kinds import EventKind, Heading, Wording
from kplug.log.machinery import ALLOCATING

_USERCOPY = "mm/usercopy.c"
_SLUB = "mm/slub.c"
_LIST = "lib/list_debug.c"
_READ = (("access", "read"), ("direction", "to"))
_WRITE = (("access", "write"), ("direction", "from"))

_USERCOPY_WORDS = r"[Kk]ernel memory {} attempt detected {} (?:(?P<address>[0-9a-f]{{8,16}})|\S)"


def warning_at(file: str, function: str) -> Wording:
    """The line of WARN() in a file that only warns of one thing."""
    return Wording(
        rf"WARNING: (?:CPU: \d{{1,5}} PID: \d{{1,10}} )?(?:at )?\S{{0,200}}{file}:\d{{1,6}}(?: at)?(?:\s{SYMBOL})?",
        f"WARNING: CPU: 0 PID: 1 at {file.replace(chr(92), '')}:28 {function}+0x4/0xc7",
        "kernel/panic.c, __warn()",
    )


def _bug_at(file: str) -> Wording:
    return Wording(
        rf"kernel BUG at (?P<file>\S{{0,200}}{file}):(?P<source_line>\d{{1,7}})",
        f"kernel BUG at {file.replace(chr(92), '')}:59!",
        "lib/bug.c, report_bug()",
    )


def _found_out(
    type: str, title: str, sentence: str, *words: Wording, places: tuple[Wording, ...], passed: str = "-"
) -> EventKind:
    """What is said on a line of its own, before or after that of BUG() or WARN() in the file that checks it."""
    every = (*words, *places)
    return EventKind(
        type,
        title,
        sentence,
        every,
        every,
        ends=(END_OF_TRACE,),
        blames=("trace",),
        passed_over=(passed,),
        resumes=True,
    )


KINDS: tuple[EventKind, ...] = (
    _found_out(
        "usercopy",
        "BUG: bad usercopy[ in {function}]",
        "Hardened usercopy refused a copy[ {direction} user space][ in {function}][, {by}].",
        Wording(
            rf"(?:usercopy: )?{_USERCOPY_WORDS.format('exposure', 'from')}",
            "usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-64' (offset 16, size 128)!",
            f"{_USERCOPY}, usercopy_abort()",
            states=_READ,
        ),
        Wording(
            rf"(?:usercopy: )?{_USERCOPY_WORDS.format('overwrite', 'to')}",
            "usercopy: kernel memory overwrite attempt detected to ffff9b4a7c0e1a40 (kmalloc-32) (200 bytes)",
            f"{_USERCOPY}, report_usercopy(): before 4.16",
            states=_WRITE,
        ),
        places=(_bug_at(r"mm/usercopy\.c"),),
        passed=r"usercopy_.*|report_usercopy|__check_.*",
    ),
    _found_out(
        "usercopy",
        "WARNING: bad usercopy[ in {function}]",
        "Hardened usercopy warned of a copy to or from user space[ in {function}][, {by}].",
        Wording(
            r"Bad or missing usercopy whitelist\? Kernel memory (?:exposure|overwrite) ",
            "Bad or missing usercopy whitelist? Kernel memory exposure attempt detected from SLUB object 'x'",
            f"{_USERCOPY}, usercopy_warn(): 4.16 to 5.14",
        ),
        places=(warning_at(r"mm/usercopy\.c", "usercopy_warn"),),
        passed=r"usercopy_.*|report_usercopy|__check_.*",
    ),
    _found_out(
        "list-corruption",
        "BUG: corrupted list[ in {function}]",
        "The kernel found a corrupted list[ in {function}][, {by}]"
        "[: a pointer of an entry is {poison}, as its deletion leaves it].",
        Wording(
            r"(?:list_debug: )?list_(?:add|del) (?:corruption|double add)"
            r"(?:, ?\w{1,40}->\w{4} is (?P<poison>LIST_POISON[12]))?",
            "list_del corruption, ffff88810c0f2e40->next is LIST_POISON1 (dead000000000100)",
            _LIST,
        ),
        places=(_bug_at(r"lib/list_debug\.c"), warning_at(r"lib/list_debug\.c", "__list_add")),
        passed=r"(?:__)?list_(?:add|del|move|replace|splice).*",
    ),
    _found_out(
        "refcount",
        "WARNING: refcount bug[ in {function}]",
        "The kernel found a wrong reference count[ in {function}][, {by}][: {what}].",
        Wording(
            r"refcount_t: (?P<what>[^\n]{1,100})",
            "refcount_t: underflow; use-after-free.",
            "lib/refcount.c, 4.12 and later",
        ),
        Wording(
            rf"refcount_t (?P<what>[a-z ]{{1,40}}) at {SYMBOL_AND_MODULE} in"
            rf" (?P<comm>[^\n]{{1,64}})\[(?P<pid>\d{{1,10}})\]",
            "refcount_t overflow at schedule+0x4/0xc7 in sh[215], uid/euid: 0/0",
            "kernel/panic.c, refcount_error_report(): arch/x86 of 4.14 to 5.4",
        ),
        places=(warning_at(r"lib/refcount\.c", "refcount_warn_saturate"),),
        passed=r"refcount_.*|ex_handler_refcount|fixup_exception|kref_.*|kobject_(?:get|put)",
    ),
    _found_out(
        "odebug",
        "WARNING: ODEBUG bug[ in {function}]",
        "Debugobjects found an object in the wrong state[ in {function}][, {by}][: {what}].",
        Wording(
            r"ODEBUG: (?P<what>\w[\w ]{1,40}?) \(active state",
            "ODEBUG: free active (active state 0) object: ffff88810b2d4058 object type: timer_list hint: 0x0",
            "lib/debugobjects.c, debug_print_object()",
        ),
        Wording(
            r"ODEBUG: (?P<what>\w[\w ]{1,40}?)(?: \(| object)",
            "ODEBUG: free active object type: timer_list",
            "lib/debugobjects.c, debug_print_object(): 2.6",
        ),
        places=(warning_at(r"lib/debugobjects\.c", "debug_print_object"),),
        passed=r"(?:__)?debug_.*|(?:try_to_)?del_timer.*|timer_delete.*|" + "|".join(ALLOCATING),
    ),
    EventKind(
        "bug",
        "slab error in {symbol}",
        "The slab allocator found an error in cache {cache}[ in {function}][, {by}].",
        (
            Wording(
                r"slab error in (?P<symbol>\w{1,100})\(\): cache [`'](?P<cache>[^'\n]{1,64})'",
                "slab error in cache_free_debugcheck(): cache `size-64': double free, or memory"
                " outside object was overwritten",
                "mm/slab.c, slab_error(): before 6.8",
            ),
        ),
        blames=("trace",),
        passed_over=ALLOCATING,
    ),
    EventKind(
        "bug",
        "BUG {cache}: {what}",
        'The slab allocator found "{what}" in cache {cache}[ in {function}][, {by}][{object}].',
        (
            Wording(
                r"BUG:? (?P<cache>\S{1,64}) \((?:Not tainted|Tainted: [^)\n]{1,60})\): (?!kasan:)"
                r"(?P<what>[^.,(\n]{1,80})",
                "BUG kmalloc-128 (Tainted: G    B      OE    ): Poison overwritten",
                f"{_SLUB}, slab_bug()",
            ),
        ),
        (
            Wording(
                r"(?:INFO: |0x)?(?:0x)?[0-9a-f]{8,16}-0x[0-9a-f]{8,16}(?: @offset|\. First byte)",
                "0xffff88810a1b2c48-0xffff88810a1b2c4b @offset=3144. First byte 0x6a instead of 0x6b",
                f"{_SLUB}, check_bytes_and_report()",
            ),
            Wording(
                r"(?:INFO: )?(?:Slab|Object) 0x[0-9a-f]|(?:Bytes b4|Object|Redzone"
                r"|Padding)\s{1,4}[0-9a-f]{8,16}: |-{60,80}$"
                r"|FIX \S{1,64}: |\[[\w ]{1,40} overwritten\]",
                "Slab 0xffffea0004286c80 objects=21 used=21 fp=0x0000000000000000 flags=0x17ffffc0000200",
                f"{_SLUB}, print_trailer()",
            ),
            Wording(r"Disabling lock debugging", "Disabling lock debugging due to kernel taint", "kernel/panic.c"),
        ),
        (
            Heading(
                rf"(?:INFO: )?Allocated in {SYMBOL}",
                "allocated",
                "Allocated in kfree+0x2f/0x60 age=120 cpu=1 pid=77",
                f"{_SLUB}, print_track()",
                main=False,
            ),
            Heading(
                rf"(?:INFO: )?Freed in {SYMBOL}",
                "freed",
                "Freed in kfree+0x1e/0x40 age=61 cpu=0 pid=77",
                f"{_SLUB}, print_track()",
                main=False,
            ),
        ),
        blames=("trace",),
        passed_over=ALLOCATING,
    ),
)
