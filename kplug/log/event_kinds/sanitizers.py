"""KASAN, KFENCE, KMSAN, KCSAN and UBSAN: what the kernel's own checks of memory and arithmetic report."""

from __future__ import annotations

from kplug.log.common_lines import END_OF_TRACE
from kplug.log.forms import NAME, PLACE, SYMBOL_AND_MODULE
from kplug.log.kinds import EventKind, Heading, Wording

_ADDRESS = r"(?:0x)?(?P<address>[0-9a-fA-F]{1,16})"
_TASK = r"by task (?P<comm>[^\n]{0,64})/(?P<pid>\d{1,10})"
_KASAN = "mm/kasan/report.c"
_KFENCE = "mm/kfence/report.c"
_KMSAN = "mm/kmsan/report.c"
_KCSAN = "kernel/kcsan/report.c"
_UBSAN = "lib/ubsan.c"
_RULE = "=" * 66
_IN = rf"in (?:{SYMBOL_AND_MODULE}|(?P<named>{NAME}) {PLACE}|(?:0x)?[0-9a-f]{{8,16}})"

_KASAN_TITLE = "KASAN: {bug}[ {Access}][ in {function}]"
_KASAN_SENTENCE = 'KASAN reported "{bug}"[ in {function}][{how}][{object}].'
_KASAN_DETAILS = (
    Wording(
        rf"(?P<access>Read|Write) of size (?P<bytes>\d{{1,20}})(?: at addr (?:{_ADDRESS}|\(null\)))? {_TASK}",
        "Read of size 8 at addr ffff888012345718 by task sh/812",
        f"{_KASAN}, print_error_description(); without the address before 4.11",
    ),
    Wording(
        rf"(?P<access>Read|Write) at addr {_ADDRESS} {_TASK}",
        "Read at addr f7ff000008ace040 by task sh/99",
        f"{_KASAN}: of tags in hardware, which do not know the size",
    ),
    Wording(rf"Free of addr {_ADDRESS} {_TASK}", "Free of addr ffff888012345708 by task sh/88", f"{_KASAN}, 6.3"),
    Wording(r"Pointer tag: \[", "Pointer tag: [f7], memory tag: [f5]", "mm/kasan/report_tags.c"),
    Wording(r"Asynchronous fault: ", "Asynchronous fault: no details available", f"{_KASAN}, kasan_report_async()"),
    Wording(
        r"which belongs to the cache (?P<cache>\S{1,64}) of size (?P<object_size>\d{1,20})",
        "which belongs to the cache kmalloc-64 of size 64",
        f"{_KASAN}, describe_object()",
    ),
    Wording(
        r"The buggy address (?:belongs|is located) |which belongs to the cache |\d{1,10} bytes (?:inside|to the) "
        r"|(?:freed |allocated )?\d{1,10}-byte region \[",
        "The buggy address belongs to the object at ffff888012345700",
        f"{_KASAN}, describe_object()",
    ),
    Wording(r"\(stack is (?:not|empty)", "(stack is not available)", f"{_KASAN}, print_track()"),
    Wording(r"This frame has \d|\[\d{1,10}, \d{1,10}\) '", "[32, 36) 'key'", "mm/kasan/report_generic.c"),
    Wording(
        r"(?:page|head|raw|flags|page_type|page flags|memcg|anon|anon flags|ksm|memcg|aops|pcp|cpu_id):",
        "raw: 0100000000000000 ffff888001041a00 0000000000000000 dead000000000001",
        "mm/debug.c, dump_page()",
    ),
    Wording(r"page dumped because: ", "page dumped because: kasan: bad access detected", "mm/debug.c, dump_page()"),
    Wording(
        r"Memory state around the buggy address:|>?\s?[0-9a-f]{8,16}: (?:[0-9a-f]{2}\s){3}|\^$",
        ">ffff888012345700: fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb",
        f"{_KASAN}, print_memory_metadata()",
    ),
    Wording(
        r"BUG \S{1,64} \([^)\n]{1,120}\): kasan: bad access detected|-{70,80}$",
        "BUG kmalloc-32 (Not tainted): kasan: bad access detected",
        "mm/slub.c, object_err(): before 4.8",
    ),
    Wording(
        r"INFO: (?:Allocated|Freed|Slab|Object) |(?:Bytes b4|Object|Redzone|Padding) [0-9a-f]{8,16}: ",
        "INFO: Slab 0xffffea0000048d00 objects=32 used=11 fp=0xffff88001234c400 flags=0x100000000000080",
        "mm/slub.c, print_trailer(): before 4.8",
    ),
    Wording(r"Disabling lock debugging due to", "Disabling lock debugging due to kernel taint", "kernel/panic.c"),
    Wording(r"PID = \d", "PID = 123", f"{_KASAN}, print_track(): 4.8 to 4.10"),
)
_ON_CPU = r"(?: on cpu (?P<cpu>\d{1,5}) at [\d.]{1,30}s)?"
_KASAN_HEADINGS = (
    Heading(
        rf"Allocated(?: by task (?P<pid>\d{{1,10}}){_ON_CPU})?:",
        "allocated",
        "Allocated by task 812:",
        f"{_KASAN}, print_track()",
        main=False,
    ),
    Heading(
        rf"Freed(?: by task (?P<pid>\d{{1,10}}){_ON_CPU})?:",
        "freed",
        "Freed by task 45 on cpu 1 at 12.101010s:",
        f"{_KASAN}, print_track()",
        main=False,
    ),
    Heading(
        r"(?:Second to )?[Ll]ast (?:potentially related work creation|call_rcu\(\)|one call_rcu\(\) call stack):",
        "related work",
        "Last potentially related work creation:",
        "mm/kasan/report_generic.c, kasan_print_aux_stacks(): 5.8 and later",
        main=False,
    ),
    Heading(
        r"(?:The buggy address belongs to the variable:|and is located at offset \d{1,20} in frame:"
        r"|\[[0-9a-f]{8,16}, [0-9a-f]{8,16}\) created by:)",
        "variable",
        "The buggy address belongs to the variable:",
        f"{_KASAN}, print_address_description()",
        main=False,
    ),
)
_KASAN_ENDS = (Wording(r"={66}$", _RULE, f"{_KASAN}, end_report()"),)


def _kasan(*begins: Wording, general: bool = False, blames: tuple[str, ...] = ("stated", "trace")) -> EventKind:
    return EventKind(
        "kasan", _KASAN_TITLE, _KASAN_SENTENCE, begins, _KASAN_DETAILS, _KASAN_HEADINGS, _KASAN_ENDS, general, blames
    )


KINDS: tuple[EventKind, ...] = (
    _kasan(
        Wording(
            rf"BUG: KASan: use after free {_IN}(?: at addr {_ADDRESS})?",
            "BUG: KASan: use after free in kfree+0x41/0x90 at addr ffff880035d3c018",
            f"{_KASAN}, print_error_description() of 4.0",
            title="KASAN: use-after-free[ {Access}][ in {function}]",
            sentence='KASAN reported "use-after-free"[ in {function}][{how}][{object}].',
        ),
        Wording(
            rf"BUG: KASan: out of bounds (?:access |on stack )?{_IN}(?: at addr {_ADDRESS})?",
            "BUG: KASan: out of bounds access in kfree+0x41/0x90 at addr ffff880035d3c018",
            f"{_KASAN}, print_error_description() of 4.0",
            title="KASAN: out-of-bounds[ {Access}][ in {function}]",
            sentence='KASAN reported "out-of-bounds"[ in {function}][{how}][{object}].',
        ),
        Wording(
            rf"BUG: KAS[Aa][Nn]: (?P<bug>[\w -]{{1,60}}?) {_IN}(?: at addr {_ADDRESS})?(?![^\n]{{0,200}}\[inline\])",
            "BUG: KASAN: slab-use-after-free in kfree+0x1f4/0x2b0 [ext4]",
            f"{_KASAN}, print_error_description()",
        ),
        Wording(
            rf"BUG: KASAN: (?P<bug>[\w-]{{1,60}}) on address\s{{1,16}}(?:{_ADDRESS}|\(null\))",
            "BUG: KASAN: null-ptr-deref on address 0000000000000008",
            f"{_KASAN}, kasan_report_error(): before 4.12",
        ),
    ),
    _kasan(
        Wording(
            r"BUG: KASAN: (?P<bug>[\w-]{1,60})\s*$", "BUG: KASAN: invalid-access", f"{_KASAN}, kasan_report_async()"
        ),
        blames=(),
    ),
    _kasan(
        Wording(
            rf"BUG: KASAN: (?P<bug>[\w -]{{1,60}}?) in (?P<named>{NAME}) {PLACE} \[inline\]",
            "BUG: KASAN: use-after-free in list_empty include/linux/list.h:373 [inline]",
            "syzkaller's reports: what was inlined into the function of the next line",
        ),
        general=True,
    ),
    EventKind(
        "kfence",
        "KFENCE: {bug}[ {access}][ in {function}]",
        'KFENCE reported "{bug}[ {access}]"[ in {function}][, {by}][{object}].',
        (
            Wording(
                rf"BUG: KFENCE: (?P<bug>out-of-bounds|use-after-free|invalid) (?P<access>read|write) {_IN}",
                "BUG: KFENCE: out-of-bounds read in kfree+0xa6/0x234",
                f"{_KFENCE}, kfence_report_error()",
            ),
            Wording(
                rf"BUG: KFENCE: (?P<bug>memory corruption|invalid free) {_IN}",
                "BUG: KFENCE: memory corruption in kfree+0x75/0x90",
                f"{_KFENCE}, kfence_report_error()",
            ),
        ),
        (
            Wording(
                rf"(?:Out-of-bounds|Use-after-free|Invalid) (?:read|write) at {_ADDRESS}",
                "Out-of-bounds read at 0xffff8c3f2e291fff (1B left of kfence-#72):",
                f"{_KFENCE}, kfence_report_error()",
            ),
            Wording(
                rf"(?:Corrupted memory at|Invalid free of) {_ADDRESS}",
                "Corrupted memory at 0xffff8c3f33557b00 [ ! . . . ] (in kfence-#156):",
                f"{_KFENCE}, kfence_report_error()",
            ),
            Wording(
                r"kfence-#\d{1,10}: 0x[0-9a-f]{1,16}-0x[0-9a-f]{1,16},"
                r" size=(?P<object_size>\d{1,20}), cache=(?P<cache>\S{1,64})",
                "kfence-#72: 0xffff8c3f2e292000-0xffff8c3f2e29201f, size=32, cache=kmalloc-32",
                f"{_KFENCE}, kfence_print_object()",
            ),
            Wording(
                r"kfence-#\d{1,10}: |no (?:allocation|deallocation) stack",
                "kfence-#72: 0xffff8c3f2e292000-0xffff8c3f2e29201f, size=32, cache=kmalloc-32",
                f"{_KFENCE}, kfence_print_object()",
            ),
        ),
        (
            Heading(
                r"allocated by task (?P<pid>\d{1,10})(?: on cpu (?P<cpu>\d{1,5}) at [^\n]{1,80})?:",
                "allocated",
                "allocated by task 484 on cpu 0 at 32.919330s:",
                f"{_KFENCE}, kfence_print_stack()",
                main=False,
            ),
            Heading(
                r"(?:rcu )?free(?:d|ing) by task (?P<pid>\d{1,10})(?: on cpu (?P<cpu>\d{1,5}) at [^\n]{1,80})?:",
                "freed",
                "freed by task 484 on cpu 1 at 32.919431s (0.001s ago):",
                f"{_KFENCE}, kfence_print_stack()",
                main=False,
            ),
        ),
        (Wording(r"={66}$", _RULE, f"{_KFENCE}, kfence_report_error()"),),
        blames=("stated", "trace"),
    ),
    EventKind(
        "kmsan",
        "KMSAN: {bug}[ in {function}]",
        'KMSAN reported "{bug}"[ in {function}][, {by}][; {allocated} allocated the memory].',
        (
            Wording(
                rf"BUG: KMSAN: (?P<bug>[\w-]{{1,60}}) {_IN}",
                "BUG: KMSAN: uninit-value in kfree+0x2a1/0x5d0",
                f"{_KMSAN}, kmsan_report()",
            ),
        ),
        (
            Wording(r"Bytes? \d{1,10}(?:-\d{1,10})? of \d", "Bytes 12-15 of 16 are uninitialized", _KMSAN),
            Wording(
                rf"Memory access of size (?P<bytes>\d{{1,20}}) starts at {_ADDRESS}",
                "Memory access of size 8 starts at ffff8881170b3e00",
                _KMSAN,
            ),
            Wording(
                r"Data copied to user address |\(stack is not available\)|<Zero or more stacks",
                "Data copied to user address 0000000020000180",
                _KMSAN,
            ),
        ),
        (
            Heading(
                r"Uninit was stored to memory at:", "stored", "Uninit was stored to memory at:", _KMSAN, main=False
            ),
            Heading(r"Uninit was created at:", "allocated", "Uninit was created at:", _KMSAN, main=False),
            Heading(
                r"Local variable \S{1,200} created at:",
                "allocated",
                "Local variable key created at:",
                _KMSAN,
                main=False,
            ),
        ),
        (Wording(r"={53}$", "=" * 53, f"{_KMSAN}, kmsan_report()"),),
        blames=("stated", "trace"),
    ),
    EventKind(
        "kcsan",
        "KCSAN: {bug}[ in {symbol}][ / {other}]",
        'KCSAN reported "{bug}"[ in {function}][ and {other}].',
        (
            Wording(
                rf"BUG: KCSAN: (?P<bug>[\w:, -]{{1,60}}?) in (?P<symbol>{NAME}) / (?P<other>{NAME})",
                "BUG: KCSAN: data-race in tick_sched_do_timer / tick_do_update_jiffies64",
                f"{_KCSAN}, print_report()",
            ),
            Wording(
                rf"BUG: KCSAN: (?P<bug>[\w:, -]{{1,60}}?) {_IN}",
                "BUG: KCSAN: data-race in kfree+0x88/0x120",
                f"{_KCSAN}, print_report(): the other thread is not known",
            ),
        ),
        (
            Wording(
                r"value changed: |bits changed: ", "value changed: 0x00000000000009a6 -> 0x00000000000009b2", _KCSAN
            ),
            Wording(
                r"Reported by Kernel Concurrency Sanitizer on:|\|$|\+-> reordered to: ",
                "Reported by Kernel Concurrency Sanitizer on:",
                _KCSAN,
            ),
        ),
        (
            Heading(
                r"(?:race at unknown origin, with )?(?P<access>read|write|[a-z][\w() -]{1,40}) to (?:0x)?"
                r"(?P<address>[0-9a-f]{8,16}) of (?P<bytes>\d{1,10}) bytes by (?:task (?P<pid>\d{1,10})|interrupt)"
                r" on cpu (?P<cpu>\d{1,5}):",
                "task",
                "write to 0xffff888104bb6b60 of 8 bytes by task 2519 on cpu 0:",
                f"{_KCSAN}, print_report()",
            ),
        ),
        (Wording(r"={66}$", _RULE, f"{_KCSAN}, print_report()"),),
        blames=("stated", "trace"),
    ),
    EventKind(
        "ubsan",
        "UBSAN: {bug}[ in {function}]",
        "UBSAN reported [{bug}|undefined behaviour][ in {function}][ at {place}][, {by}].",
        (
            Wording(
                rf"UBSAN: Undefined behaviour in (?P<place>{PLACE})",
                "UBSAN: Undefined behaviour in fs/ext4/super.c:88:23",
                f"{_UBSAN}, ubsan_prologue(): before 5.9",
                title="UBSAN: undefined-behaviour[ in {function}]",
            ),
            Wording(
                rf"UBSAN: (?P<bug>[\w -]{{1,60}}?) in (?P<place>{PLACE})",
                "UBSAN: shift-out-of-bounds in fs/ext4/super.c:88:23",
                f"{_UBSAN}, ubsan_prologue()",
            ),
            Wording(
                r"(?:Oops: |Internal error: )?UBSAN: (?P<bug>[\w -]{1,60}): [0-9a-f]{1,16} \[#",
                "Internal error: UBSAN: array index out of bounds: 00000000f2005512 [#1] PREEMPT SMP",
                f"{_UBSAN}, report_ubsan_failure(): CONFIG_UBSAN_TRAP",
            ),
        ),
        (
            Wording(
                r"index -?\d{1,20} is out of range|shift exponent |left shift of |load of |store to |member access "
                r"|signed integer |division |-?\d{1,40} [-+*/] -?\d{1,40} cannot|negation of |which requires "
                r"|object |for an object |with insufficient |variable length |calling |assumption of ",
                "index 16 is out of range for type 'u32 [16]'",
                _UBSAN,
            ),
        ),
        ends=(END_OF_TRACE, Wording(r"={80}$", "=" * 80, f"{_UBSAN}, ubsan_epilogue(): before 6.9")),
        blames=("ip", "trace"),
        passed_over=(r"handle_(?:null_ptr_deref|misaligned_access|object_size_mismatch|overflow)",),
    ),
)
