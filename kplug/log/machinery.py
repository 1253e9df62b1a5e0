"""Functions that report an event, or that it is handed down to, and are not guilty of it: patterns, with their sources.

What is guilty is the first frame below them.
"""

from __future__ import annotations

import re
from functools import cache

# Each row: patterns of whole names, and where these functions are.
MACHINERY = (
    (
        "(?:__)?dump_stack(?:_.*)?|show_stack(?:_.*)?|show_regs(?:_.*)?|show_trace(?:_.*)?|dump_backtrace(?:_.*)?",
        "lib/dump_stack.c, arch/*",
    ),
    (
        "unwind_backtrace|walk_stackframe|arch_stack_walk.*|stack_trace_save.*|save_stack.*|__unwind_start|unwind_.*",
        "kernel/stacktrace.c",
    ),
    (
        "__warn(?:_.*)?|warn_slowpath_.*|warn_bogus.*|report_bug|handle_bug|fixup_bug|bug_handler|call_break_hook|brk_handler|do_el1_brk64|bug_brk_handler",
        "kernel/panic.c, lib/bug.c",
    ),
    ("(?:v?panic|nmi_panic|__stack_chk_fail|print_oops_end_marker|check_panic_on_warn|panic_on_.*)", "kernel/panic.c"),
    (
        "(?:__)?die(?:_.*)?|oops_(?:begin|end|enter|exit)|no_context|__?bad_area(?:_.*)?|page_fault_oops|kernelmode_fixup.*|make_task_dead|do_exit|rewind_stack_.*|die_kernel_fault|arm_notify_die|arm64_notify_die",
        "arch/*/mm/fault.c, kernel/exit.c",
    ),
    (
        "(?:do_|__do_|exc_|asm_exc_|async_|trace_|do_kern_|do_user_)?(?:page_fault|general_protection|invalid_op|divide_error|double_fault|error_trap|trap|int3|debug|nmi|kern_addr_fault|addr_fault|mem_abort|translation_fault|bad_area|sp_pc_abort|undefinstr)(?:_.*)?",
        "arch/*/kernel/traps.c",
    ),
    (
        "asm_(?:sysvec|exc|common|load)_.*|exc_.*|error_entry|ret_from_exception|handle_exception|common_exception|xen_.*_iret",
        "arch/x86/entry",
    ),
    (
        "el[01][ht]?_?(?:64|32)?_?(?:sync|irq|error|dbg|abort|undef|da|ia|pc|brk64|inv|ia_xol)(?:_.*)?|el1h_64_.*|el1_.*|__bad_stack",
        "arch/arm64/kernel/entry-common.c",
    ),
    (
        "__dabt_svc|__pabt_svc|__und_svc|__irq_svc|do_DataAbort|do_PrefetchAbort|do_translation_fault|do_undefinstr|arm_.*_abort",
        "arch/arm/kernel/entry-armv.S",
    ),
    (
        "(?:do_)?(?:program_check|pgm_check)(?:_.*)?|__do_pgm_check|illegal_op|bad_page_fault|handle_page_fault|data_access_common_virt|program_check_common(?:_.*)?|__?kernel_.*_fault",
        "arch/s390, arch/powerpc",
    ),
    (
        "kasan_.*|__kasan_.*|__asan_.*|__hwasan_.*|check_memory_region(?:_.*)?|memory_is_poisoned.*|print_address_description(?:_.*)?|print_report|end_report|report_.*access.*|object_err|check_region_inline|__asan_report_.*",
        "mm/kasan",
    ),
    ("kfence_.*|__kfence_.*", "mm/kfence"),
    ("kmsan_.*|__msan_.*|__kmsan_.*", "mm/kmsan"),
    ("kcsan_.*|__tsan_.*|__kcsan_.*", "kernel/kcsan"),
    ("ubsan_.*|__ubsan_.*|val_to_string|handle_overflow", "lib/ubsan.c"),
    (
        "fortify_panic|__fortify_.*|usercopy_abort|__check_.*object|check_heap_object|__check_object_size|check_object_size|copy_overflow|__copy_overflow",
        "lib/string_helpers.c, mm/usercopy.c",
    ),
    (
        "lockdep_.*|lock_(?:acquire|release|acquired|contended|is_held_type)|__lock_(?:acquire|release)|validate_chain|check_prevs?_add|check_noncircular|check_deadlock|print_.*(?:bug|dependency|deadlock|usage|unlock|irq|lock).*|mark_(?:lock|held_locks|usage)(?:_.*)?|valid_state|check_usage.*|register_lock_class|assign_lock_key|debug_check_no_locks_.*|check_.*irq_usage|check_wait_context|print_usage_bug.*|trace_hardirqs_.*|trace_softirqs_.*",
        "kernel/locking/lockdep.c",
    ),
    (
        "rcu_.*(?:stall|dump|sched_clock_irq|check_callbacks|check_gp).*|print_(?:other_)?cpu_stall(?:_.*)?|check_cpu_stall(?:_.*)?|__rcu_pending|rcu_pending|rcu_lockdep_.*|rcu_sched_clock_irq|rcu_dump_cpu_stacks",
        "kernel/rcu/tree_stall.h",
    ),
    (
        "watchdog(?:_.*)?|check_hung_.*|hung_task_.*|softlockup_.*|is_hardlockup|debug_show_all_.*|sched_show_task|show_state_.*",
        "kernel/watchdog.c, kernel/hung_task.c",
    ),
    (
        "nmi_(?:cpu_backtrace|trigger_cpumask_backtrace)(?:_.*)?|arch_trigger_.*|trigger_.*backtrace|nmi_handle|default_do_nmi|end_repeat_nmi|nmi_restore|asm_exc_nmi|first_nmi",
        "lib/nmi_backtrace.c",
    ),
    (
        "(?:hrtimer|__hrtimer|tick|timer|update_process|local_apic_timer|sysvec|smp_apic|apic_timer|__sysvec|smp_trace_apic)_.*|hrtimer_interrupt|arch_timer_handler_.*|handle_percpu_devid_irq|handle_domain_irq|generic_handle_.*|gic_handle_irq|handle_irq_desc|__handle_domain_irq|call_on_irq_stack|do_interrupt_handler|instr_sysvec_.*|run_sysvec.*",
        "kernel/time, the interrupt that saw it",
    ),
    ("refcount_.*|__refcount_.*|refcount_warn_saturate", "lib/refcount.c"),
    (
        "debug_print_object|debug_object_.*|__debug_object_.*|debug_check_no_obj_freed|__debug_check_no_obj_freed|debug_objects_.*",
        "lib/debugobjects.c",
    ),
    (
        "__list_(?:add|del)(?:_entry)?(?:_valid)?(?:_or_report)?|__list_del_entry|list_(?:add|del)(?:_tail|_init|_rcu)?",
        "lib/list_debug.c",
    ),
    (
        "spin_(?:bug|dump)|do_raw_spin_(?:lock|unlock|trylock)|_raw_(?:spin|read|write)_.*|do_raw_.*_lock|queued_spin_.*|native_queued_spin_.*|__pv_queued_.*|pv_.*_slowpath|kvm_wait|osq_lock|__mutex_lock(?:_.*)?|mutex_lock(?:_.*)?|down_(?:read|write)(?:_.*)?|up_(?:read|write)|rwsem_.*|rt_mutex_.*|__rt_mutex_.*",
        "kernel/locking",
    ),
    (
        "___?might_(?:sleep|resched)|__might_sleep|__schedule_bug|__might_fault|might_fault|__might_resched",
        "kernel/sched/core.c",
    ),
    (
        "bad_page(?:_reason|_.*)?|free_pages_check.*|free_page_is_bad.*|check_new_page.*|print_bad_pte|print_bad_page_map|__free_pages_ok|free_pages_prepare",
        "mm/page_alloc.c, mm/memory.c",
    ),
    (
        "warn_alloc|__alloc_pages_slowpath.*|dump_header|oom_kill_process|out_of_memory|oom_.*|mem_cgroup_out_of_memory|__alloc_pages_may_oom|slab_out_of_memory",
        "mm/oom_kill.c, mm/page_alloc.c",
    ),
    (
        "(?:__|___|__pi_|__arch_|arm64_|x86_)?(?:mem(?:cpy|move|set|cmp|chr|scan|copy|zero)|str(?:n?len|n?cpy|scpy|lcpy|n?cmp|n?chr|rchr|n?cat|lcat|str|sep|pbrk|s?pn|ncasecmp|casecmp))(?:_.*|\\d{0,2})?",
        "lib/string.c and the arch/*/lib",
    ),
    (
        "(?:_|__|___|raw)?copy_(?:to|from|in)_(?:user|iter|kernel|user_nmi)(?:_.*)?|_?copy_.*_iter(?:_.*)?|clear_(?:user|page)(?:_.*)?|copy_page(?:_.*)?|copy_(?:mc_)?(?:enhanced|user)_.*|rep_movs.*|rep_stos.*|(?:__)?(?:get|put)_user(?:_.*)?|(?:_)?copy_(?:to|from)_user|csum_partial.*|__raw_copy_.*|instrument_.*|copyin|copyout",
        "lib/usercopy.c, the arch/*/lib",
    ),
    (
        "__read_once_size.*|__write_once_size|(?:arch_|raw_)?atomic(?:64|_long)?_.*|(?:arch_)?(?:test|set|clear|change)_bit.*|_test_bit|_find_.*_bit.*|find_.*_bit|(?:__)?native_.*",
        "include/linux",
    ),
    (
        "(?:k|kv|v|kz)free(?:_.*)?|__kmem_cache_.*|kmem_cache_(?:free|alloc).*|(?:___?|__do_)?slab_(?:free|alloc|post_alloc).*|___slab_alloc|__kmalloc.*|kmalloc.*|kzalloc.*|cache_(?:alloc|free).*|(?:do_)?slab_.*|check_slab|free_to_partial_list|free_debug_processing",
        "mm/slub.c",
    ),
    ("ftrace_.*|kprobe_.*|opt_pre_handler|trampoline.*|__fentry__|mcount", "kernel/trace"),
    ("__sanitizer_.*|__bpf_trap|__stack_chk_.*", "kernel/kcov.c"),
)


@cache
def _pattern() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{names})" for names, _ in MACHINERY))


@cache
def _own(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for each in patterns))


def is_machinery(function: str, passed_over: tuple[str, ...] = ()) -> bool:
    """Whether a function of that name is not the guilty one; `passed_over`: patterns of the kind's own."""
    if _pattern().fullmatch(function) is not None:
        return True
    return bool(passed_over) and _own(passed_over).fullmatch(function) is not None
