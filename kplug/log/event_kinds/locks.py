"""Lockdep and the other checks of locks, and of RCU's rules."""

from __future__ import annotations

from kplug.log.forms import NAME, SYMBOL, SYMBOL_AND_MODULE
from kplug.log.kinds import EventKind, Heading, Wording

_LOCKDEP = "kernel/locking/lockdep.c"
_DEBUG = "kernel/locking/spinlock_debug.c"
_OF_TASK = r"(?P<comm>[^\n]{1,64})/(?P<pid>\d{1,10})"
_AT = rf"at: (?:\[<[0-9a-f]{{8,16}}>\])?\s{{0,8}}{SYMBOL_AND_MODULE}"

_DETAILS = (
    Wording(
        rf"{_OF_TASK} (?:\[HC\d[^\n]{{1,60}}\] )?(?:is (?:trying to|freeing|leaving|just)|just changed"
        rf"|takes:)",
        "sh/215 is trying to acquire lock:",
        f"{_LOCKDEP}, print_circular_bug_header() and its likes",
    ),
    Wording(
        rf"(?:[0-9a-f]{{8,16}} )?\([^\n{{]{{1,200}}\{{[^\n}}]{{1,30}}\}}[^\n,]{{0,30}}, {_AT}",
        "ffff88810a3b4c58 (&dev->ring_lock){+.+.}-{3:3}, at: schedule+0x44/0x1a0",
        f"{_LOCKDEP}, print_lock(): the first one is whom the report is about",
    ),
    Wording(
        r"(?:\([^\n]{1,200}\)\{[^\n]{1,30}\}|but |and |which |the |to a |other info|Possible |May be |\*\*\* DEADLOCK"
        r"|CPU0|----|lock\(|rlock\(|sync\(|<Interrupt>|local_irq_|inconsistent \{|Chain exists|context-\{|\.\.\.$"
        r"|Hash chain|Held locks|Locks in cached|depth: |\} ?$|-{20,60}$|={20,60}$|[Tt]he code is fine|you didn't"
        r"|turning off|Please attach|rcu_scheduler_active|RCU used illegally)",
        "but task is already holding lock:",
        f"{_LOCKDEP}: the words around the locks",
    ),
    Wording(
        r"(?P<release>\d\.\d[\w.+~-]{0,128}) #\d{1,5} (?:Not tainted|Tainted)",
        "6.12.9-amd64 #1 Not tainted",
        f"{_LOCKDEP}, print_kernel_ident()",
    ),
)
_HEADINGS = (
    Heading(r"-> #\d{1,5} \(", "lock chain", "-> #1 (kestrel_global){+.+.}-{3:3}:", _LOCKDEP, main=False),
    Heading(
        r"(?:\.\.\. )?[^\n]{0,100}(?:registered|became [^\n]{1,40}|acquired|USE|-ON-[RW]|IN-[^\n]{1,30}) at:",
        "lock chain",
        "{SOFTIRQ-ON-W} state was registered at:",
        _LOCKDEP,
        main=False,
    ),
    Heading(
        r"\.\.\. key {6}at: ", "lock", "... key      at: [<ffffffff83b2d5a8>] key.4+0x0/0x40", _LOCKDEP, main=False
    ),
    Heading(
        rf"{_OF_TASK} is trying to (?:release|contend) lock \([^\n]{{1,200}}\) at:",
        "lock",
        "sh/215 is trying to release lock (&h->sem) at:",
        f"{_LOCKDEP}, print_unlock_imbalance_bug()",
        main=False,
    ),
)
# Names of functions that take or leave a lock for others; kernel/locking, include/linux.
_LOCKING = (r"lock_sock(?:_nested)?|release_sock|_raw_(?:spin|read|write)_.*|(?:down|up)_.*|mutex_.*|rcu_read_.*",)


def _lockdep(
    title: str,
    sentence: str,
    *begins: Wording,
    more: tuple[Wording, ...] = (),
    blames: tuple[str, ...] = ("stated", "trace"),
) -> EventKind:
    return EventKind(
        "lockdep",
        title,
        f"Lockdep found {sentence}[ in {{function}}][, {{by}}].",
        begins,
        (*more, *_DETAILS),
        _HEADINGS,
        blames=blames,
        passed_over=_LOCKING,
    )


def _words(words: str, example: str, since: str = "") -> tuple[Wording, ...]:
    """With WARNING, and as kernels before 4.12 have it: in brackets, with INFO or BUG."""
    source = f"{_LOCKDEP}{since}"
    of_old = f"{source}, before 4.12"
    return (
        Wording(rf"WARNING: {words}", f"WARNING: {example}", source, states=(("level", "WARNING"),)),
        Wording(rf"\[ INFO: {words}", f"[ INFO: {example} ]", of_old, states=(("level", "INFO"),)),
        Wording(rf"\[ BUG: {words}", f"[ BUG: {example} ]", of_old, states=(("level", "BUG"),)),
    )


# The locks that a task holds, each with who took it.
_HELD = Wording(
    rf"#\d{{1,3}}:\s{{1,9}}(?:[0-9a-f]{{8,16}} )?\([^\n]{{1,300}}, {_AT}",
    "#0: ffff888104f2c068 (&pipe->mutex){+.+.}-{3:3}, at: schedule+0x2f/0x40",
    f"{_LOCKDEP}, lockdep_print_held_locks()",
)
_SPIN_BUGS = (
    r"lockup suspected|lockup|write-lockup|cpu-lockup|already unlocked|recursion|cpu recursion|bad magic|wrong owner"
    r"|wrong CPU|trylock failure on UP|uninitialized"
)

KINDS = (
    _lockdep(
        "possible deadlock[ in {function}]",
        "a possible deadlock",
        *_words("possible circular locking dependency detected", "possible circular locking dependency detected"),
        *_words("possible recursive locking detected", "possible recursive locking detected"),
        *_words("possible irq lock inversion dependency detected", "possible irq lock inversion dependency detected"),
        *_words(
            r"\S{1,40}-safe -> \S{1,40}-unsafe lock order detected",
            "HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
        ),
    ),
    _lockdep(
        "inconsistent lock state[ in {function}]",
        "a lock in an inconsistent state",
        *_words("inconsistent lock state", "inconsistent lock state"),
    ),
    _lockdep(
        "{level}: bad unlock balance[ in {function}]",
        "a lock that is released and not held",
        *_words("bad unlock balance detected", "bad unlock balance detected!"),
        blames=("trace",),
    ),
    _lockdep(
        "{level}: bad contention[ in {function}]",
        "contention for a lock that is not held",
        *_words("bad contention detected", "bad contention detected!"),
        blames=("trace",),
    ),
    _lockdep(
        "{level}: held lock freed[ in {function}]",
        "that memory with a held lock is freed",
        *_words("held lock freed", "held lock freed!"),
    ),
    _lockdep(
        "{level}: still has locks held[ in {function}]",
        "that a task still holds locks",
        *_words(rf"{_OF_TASK} still has locks held", "sh/215 still has locks held!"),
        more=(_HELD,),
    ),
    _lockdep(
        "{level}: lock held when returning to user space[ in {function}]",
        "a lock that is held when returning to user space",
        *_words("lock held when returning to user space", "lock held when returning to user space!"),
        more=(_HELD,),
    ),
    _lockdep(
        "{level}: nested lock was not taken[ in {function}]",
        "that the outer lock of a nested one is not held",
        *_words("Nested lock was not taken", "Nested lock was not taken"),
    ),
    _lockdep(
        "{level}: chain_key collision[ in {function}]",
        "a chain_key collision",
        *_words("chain_key collision", "chain_key collision"),
    ),
    _lockdep(
        "BUG: Invalid wait context[ in {function}]",
        "an invalid wait context",
        Wording(r"\[ BUG: Invalid wait context", "[ BUG: Invalid wait context ]", f"{_LOCKDEP}, 5.7 and later"),
    ),
    _lockdep(
        "INFO: trying to register non-static key[ in {function}]",
        "a lock whose key is not static",
        Wording(
            r"INFO: trying to register non-static key",
            "INFO: trying to register non-static key.",
            f"{_LOCKDEP}, assign_lock_key()",
        ),
        blames=("trace",),
    ),
    _lockdep(
        "BUG: {limit} too low!",
        "that its limit {limit} is too low",
        Wording(r"BUG: (?P<limit>MAX_[A-Z_]{3,40}) too low", "BUG: MAX_LOCKDEP_ENTRIES too low!", _LOCKDEP),
        blames=("trace",),
    ),
    _lockdep(
        "BUG: {what}[ in {function}]",
        "misuse of a lock ({what})",
        Wording(
            r"BUG: (?P<what>key) [0-9a-f]{8,16} (?:has not been registered|not in \.data)",
            "BUG: key ffff88810c0f2e40 has not been registered!",
            f"{_LOCKDEP}, lockdep_init_map_type()",
            title="BUG: key has not been registered[ in {function}]",
        ),
        Wording(r"BUG: (?P<what>looking up invalid subclass)", "BUG: looking up invalid subclass: 9", _LOCKDEP),
        blames=("trace",),
    ),
    _lockdep(
        "WARNING: locking bug[ in {function}]",
        "a locking bug",
        Wording(
            rf"WARNING: (?:CPU: \d{{1,5}} PID: \d{{1,10}} )?(?:at"
            rf" )?\S{{0,200}}kernel/locking/lockdep\.c:\d{{1,6}}(?: at)?\s{{1,9}}"
            rf"{SYMBOL}",
            "WARNING: CPU: 0 PID: 1 at kernel/locking/lockdep.c:4702 __lock_acquire+0x4/0xc7",
            f"DEBUG_LOCKS_WARN_ON() in {_LOCKDEP}",
        ),
    ),
    EventKind(
        "rcu-usage",
        "{level}: suspicious RCU usage[ in {function}]",
        "RCU was used suspiciously[ in {function}][ at {place}][, {by}].",
        _words("suspicious RCU usage", "suspicious RCU usage", ", lockdep_rcu_suspicious()"),
        (
            Wording(
                r"(?P<place>[^\s:]{1,200}:\d{1,7}) (?:suspicious|RCU|Illegal|\w{1,60}\(\)|[a-z])",
                "net/core/dev.c:212 suspicious rcu_dereference_check() usage!",
                f"{_LOCKDEP}, lockdep_rcu_suspicious()",
            ),
            *_DETAILS,
        ),
        blames=("trace",),
        passed_over=(r".*rcu_(?:dereference|read|lock).*",),
    ),
    EventKind(
        "bug",
        "BUG: {lock} {what}[ in {function}]",
        'The kernel reported "{lock} {what}"[ in {function}][, {by}].',
        (
            Wording(
                rf"BUG: (?P<lock>spinlock|rwlock) (?P<what>{_SPIN_BUGS}) on CPU#(?P<cpu>\d{{1,5}}), {_OF_TASK}",
                "BUG: spinlock bad magic on CPU#1, sh/215",
                f"{_DEBUG}, spin_dump() and rwlock_bug()",
            ),
        ),
        (
            Wording(
                r"lock: \S{1,300}(?: \[\S{1,64}\])?, \.magic: ",
                "lock: 0xffff88810c0f2e40, .magic: 00000000, .owner: <none>/-1, .owner_cpu: 0",
                f"{_DEBUG}, spin_dump()",
            ),
        ),
        blames=("trace",),
        passed_over=(r".*(?:spin_(?:un)?lock|(?:read|write)_(?:un)?lock|rwlock_bug|spin_bug|spin_dump).*",),
    ),
    EventKind(
        "bug",
        "BUG: using {what}() in preemptible code[ in {function}]",
        "{who} used {what}() in preemptible code[ in {function}].",
        (
            Wording(
                rf"BUG: using (?P<what>{NAME})\(\) in preemptible \[[0-9a-f]{{1,16}}\] code: {_OF_TASK}",
                "BUG: using smp_processor_id() in preemptible [00000000] code: sh/215",
                "lib/smp_processor_id.c, check_preemption_disabled()",
            ),
        ),
        (Wording(rf"caller is {SYMBOL_AND_MODULE}", "caller is schedule+0x1a/0x80", "lib/smp_processor_id.c"),),
        blames=("stated", "trace"),
        passed_over=(r"check_preemption_disabled|debug_smp_processor_id|__this_cpu_preempt_check",),
    ),
)
