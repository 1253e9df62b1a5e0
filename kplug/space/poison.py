"""Values that the kernel writes to be recognised later. Tables only.

Collected from include/linux/poison.h, include/uapi/linux/magic.h and the files named in the rows. `versions` says which
of the trees read (4.19 to 7.3) have the value; "" means all of them.
"""

from __future__ import annotations

from kplug.arch.types.special_values import Poison

_POISON_H = "include/linux/poison.h"

# Pointers: offsets from POISON_POINTER_DELTA.
POINTERS = (
    Poison(0x100, "LIST_POISON1", "the next pointer of an entry that was deleted from its list", _POISON_H),
    Poison(0x122, "LIST_POISON2", "the prev pointer of an entry that was deleted from its list", _POISON_H, "5.x on"),
    Poison(0x200, "LIST_POISON2", "the prev pointer of an entry that was deleted from its list", _POISON_H, "4.19"),
    Poison(0x300, "TIMER_ENTRY_STATIC", "the entry of a timer that was initialised statically", _POISON_H),
    Poison(0x400, "TAIL_MAPPING", "the mapping of a tail page of a compound page", _POISON_H),
    Poison(0x500, "MUTEX_POISON_WW_CTX", "the context of a wait/wound mutex that is no longer held", _POISON_H),
    Poison(0x40, "PP_SIGNATURE", "the pp_magic of a page that belongs to a page pool", _POISON_H, "5.15 on"),
    Poison(0xEB9F, "BPF_PTR_POISON", "a pointer that BPF has given up", _POISON_H, "6.1 on"),
    Poison(0xF5, "VFS_PTR_POISON", "a pointer that the VFS has given up", _POISON_H, "6.1 on"),
    Poison(0x800, "SKB_LIST_POISON_NEXT", "the next pointer of a packet freed as part of a list", _POISON_H, "6.6 on"),
    Poison(0x801, "NET_PTR_POISON", "a pointer that the network stack has given up", _POISON_H, "6.12 on"),
    Poison(0xD390, "STACK_DEPOT_POISON", "the next pool of a stack depot that may grow no more", _POISON_H, "6.12 on"),
    Poison(0x1091, "IO_URING_PTR_POISON", "a pointer that io_uring has given up", _POISON_H, "6.18 on"),
)

# Bytes that memory is filled with.
FILLS = (
    Poison(0x6B, "POISON_FREE", "memory of a slab object that was freed (use after free)", _POISON_H),
    Poison(0x5A, "POISON_INUSE", "memory of a slab object that was allocated and not initialised", _POISON_H),
    Poison(0xAA, "PAGE_POISON", "a page that was freed (page poisoning)", _POISON_H),
    Poison(
        0xAA,
        "INIT_STACK_ALL_PATTERN (clang)",
        "a local variable that was not initialised",
        "security/Kconfig.hardening",
    ),
    Poison(0xCC, "POISON_FREE_INITMEM", "init memory that was freed after boot", _POISON_H),
    Poison(0xCC, "SLUB_RED_ACTIVE", "red zone around a slab object in use", _POISON_H),
    Poison(0xBB, "SLUB_RED_INACTIVE", "red zone around a slab object that is free", _POISON_H),
    Poison(
        0xFE,
        "INIT_STACK_ALL_PATTERN (gcc)",
        "a local variable that was not initialised",
        "security/Kconfig.hardening",
    ),
    Poison(0xA7, "POOL_POISON_FREED", "memory of a DMA pool that was freed", _POISON_H),
    Poison(0xA9, "POOL_POISON_ALLOCATED", "memory of a DMA pool that was not initialised", _POISON_H),
    Poison(0x5B, "JBD_POISON_FREE", "a journal head that jbd freed", _POISON_H),
    Poison(0x5C, "JBD2_POISON_FREE", "a journal head that jbd2 freed", _POISON_H),
    Poison(0x6C, "FLEX_ARRAY_FREE", "a free element of a flex_array", _POISON_H, "4.19"),
    Poison(0x11, "MUTEX_DEBUG_INIT", "a mutex waiter just initialised (CONFIG_DEBUG_MUTEXES)", _POISON_H),
    Poison(0x22, "MUTEX_DEBUG_FREE", "a mutex waiter no longer in use (CONFIG_DEBUG_MUTEXES)", _POISON_H),
    Poison(0xBD, "KEY_DESTROY", "a key that was destroyed", _POISON_H),
    Poison(0x12, "ATM_POISON_FREE", "memory that an ATM driver freed", _POISON_H, guess=True),
    Poison(0xFB, "KASAN_SLAB_FREE", "KASAN shadow of a slab object that was freed", "mm/kasan/kasan.h", guess=True),
    Poison(0xFC, "KASAN_SLAB_REDZONE", "KASAN shadow of a slab red zone", "mm/kasan/kasan.h", guess=True),
    Poison(0xFE, "KASAN_PAGE_REDZONE", "KASAN shadow of a page red zone", "mm/kasan/kasan.h", guess=True),
    Poison(0xFA, "KASAN_SLAB_FREE_META", "KASAN shadow of a freed slab object", "mm/kasan/kasan.h", guess=True),
    Poison(0xF9, "KASAN_GLOBAL_REDZONE", "KASAN shadow after a global variable", "mm/kasan/kasan.h", guess=True),
    Poison(0xF8, "KASAN_VMALLOC_INVALID", "KASAN shadow of vmalloc space not in use", "mm/kasan/kasan.h", guess=True),
)

# The last word of a freed slab object: POISON_FREE, and then POISON_END as its last byte.
FREE_END = Poison(0xA5, "POISON_FREE ... POISON_END", "the last {} bytes of a freed slab object", _POISON_H)
FREE_BYTE = 0x6B
HEX_DUMP_ORDER = ", in the order of a hex dump"

# 64-bit values; an access may be up to VALUE_REACH bytes after them.
VALUE_REACH = 0x1000
VALUES = (
    Poison(0xFFFFFFFFFFFF4111, "STACKLEAK_POISON", "stack erased at the end of a system call", "linux/stackleak.h"),
    Poison(0xADACAFAEA9A8ABAA, "KFENCE_CANARY_PATTERN_U64", "canary around a KFENCE object", "mm/kfence/kfence.h"),
    Poison(0x09F911029D74E35B, "RED_INACTIVE", "red zone around a SLAB object that is free", _POISON_H, "up to 6.6"),
    Poison(0xD84156C5635688C0, "RED_ACTIVE", "red zone around a SLAB object in use", _POISON_H, "up to 6.6"),
    Poison(0xFFFFFFFFFFFFFFFF, "PAGE_POISON_PATTERN", "a struct page that was never initialised", "linux/page-flags.h"),
    Poison(
        0xFFFFFFFFFFFFFFFF, "SPINLOCK_OWNER_INIT", "owner of a spinlock that nobody holds", "linux/spinlock_types.h"
    ),
)

# 32-bit values: alone, or in the upper half of a word.
MAGICS = (
    Poison(0x57AC6E9D, "STACK_END_MAGIC", "lowest word of a kernel stack", "uapi/linux/magic.h"),
    Poison(0xDEAD4EAD, "SPINLOCK_MAGIC", "magic of a spinlock (CONFIG_DEBUG_SPINLOCK)", "linux/spinlock_types.h"),
    Poison(0xDEAF1EED, "RWLOCK_MAGIC", "magic of a read-write lock (CONFIG_DEBUG_SPINLOCK)", "linux/rwlock_types.h"),
    Poison(0x41B58AB3, "KASAN stack frame magic", "start of a stack frame that KASAN guards", "mm/kasan/kasan.h"),
    Poison(0xDEADBEEF, "ATM_POISON", "memory that an ATM driver freed, or anybody's marker", _POISON_H, guess=True),
    Poison(
        0xC0000000, "REFCOUNT_SATURATED", "a reference count that over- or underflowed", "linux/refcount.h", guess=True
    ),
)
