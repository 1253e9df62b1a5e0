"""Functions that are not guilty of the event whose trace they are in: the guilty one is the first frame below them.

Names, with * for any characters; of each group where its functions are.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from kplug.named_tuples import NamedTuple


class Functions(NamedTuple):
    names: str
    source: str


# Functions that allocate or free memory for whom they are called by.
ALLOCATING = (
    r"(?:__)?(?:k|v|kv)[mcz]alloc(?:_.*)?|(?:__)?k(?:re|v)alloc.*|krealloc.*|(?:__)?kmem_cache_.*|__kmalloc.*|"
    r"kmalloc.*|"
    r"kmemdup.*|kstrn?dup.*|kmemleak_.*|(?:___?)?slab_.*|(?:__)?do_kmalloc.*|(?:__)?alloc_(?:frozen_)?pages.*|"
    r"alloc_page.*|vma_alloc_.*|(?:__)?get_free_pages?.*|get_zeroed_page.*|(?:__)?vmalloc_.*|vmalloc|vzalloc|new_slab|"
    r"allocate_slab|cache_alloc.*|kmem_getpages|fallback_alloc|folio_alloc.*|(?:__)?folio_alloc.*|warn_alloc.*|"
    r"alloc_debug_processing|get_partial_node.*|get_any_partial|create_object|object_cache_.*",
    r"(?:__)?free_(?:unref|frozen|one|the|hot_cold|pages?|pcp).*|free_pages?(?:_.*)?|(?:__)?put_page.*|"
    r"(?:__)?folio_put.*|"
    r"release_pages|prep_new_page|get_page_from_freelist|rmqueue.*|(?:__)?free_slab|discard_slab|(?:k|v|kv|kz)free.*|"
    r"check_(?:object|slab|bytes_and_report)|free_(?:consistency_checks|debug_processing)|print_trailer|slab_err|"
    r"object_err|slab_bug|(?:__)?(?:set|reset)_page_owner.*|post_alloc_hook.*|slab_pad_check|check_pad_bytes|"
    r"on_freelist|bad_page.*|print_bad_pte|page_remove_rmap",
)

# What reports an event, and what the CPU or the kernel enters to do so.
REPORTING = (
    Functions(
        """dump_stack dump_stack_* __dump_stack show_stack show_stack_* show_regs show_regs_* show_trace show_trace_*
        dump_backtrace dump_backtrace_* unwind_backtrace walk_stackframe arch_stack_walk* stack_trace_save*
        save_stack save_stack_trace* __save_stack_trace* is_bpf_text_address kernel_text_address
        __kernel_text_address in_task_stack get_stack_info* bpf_ksym_find deref_stack_reg kasan_save_* set_track
        stack_depot_*""",
        "lib/dump_stack.c, kernel/stacktrace.c, arch/*/kernel/stacktrace.c",
    ),
    Functions(
        """__warn __warn_printk warn_slowpath_* __report_bug report_bug report_bug_entry handle_bug fixup_bug
        bug_handler call_break_hook brk_handler do_el1_brk64 bug_brk_handler do_trap_break is_valid_bugaddr
        do_bug_brk *_brk_handler""",
        "kernel/panic.c, lib/bug.c, the arch/*/kernel/traps.c",
    ),
    Functions(
        "panic vpanic nmi_panic __stack_chk_fail check_panic_on_warn panic_bad_stack handle_bad_stack bad_stack",
        "kernel/panic.c",
    ),
    Functions("Ldiv0 Ldiv0_64 .Ldiv0* __div0", "arch/arm/lib/lib1funcs.S, arch/arm/kernel/traps.c"),
    Functions(
        """die die_* __die __die_* oops_begin oops_end oops_enter oops_exit no_context __bad_area* bad_area*
        page_fault_oops kernelmode_fixup_or_oops* make_task_dead rewind_stack_* arm_notify_die arm64_notify_die
        __do_kernel_fault die_kernel_fault do_kern_addr_fault do_user_addr_fault show_fault_oops pgtable_bad
        crash_kexec __crash_kexec handle_stack_overflow __die_body bad_kernel_*""",
        "arch/*/mm/fault.c, kernel/exit.c",
    ),
    Functions(
        """page_fault do_page_fault __do_page_fault exc_page_fault async_page_fault do_async_page_fault
        trace_page_fault trace_do_page_fault general_protection do_general_protection invalid_op do_invalid_op
        divide_error do_divide_error double_fault do_double_fault df_debug do_error_trap do_trap do_trap_no_signal
        int3 do_int3 do_debug handle_page_fault do_mem_abort do_translation_fault do_bad_area do_sp_pc_abort do_sea
        do_undefinstr do_alignment_fault do_DataAbort do_PrefetchAbort arm64_serror_panic do_serror
        do_tag_check_fault do_sp_pc_fault bad_page_fault ___do_page_fault __bad_page_fault handle_exception
        error_code common_exception* error_entry asm_exc_* asm_sysvec_* asm_common_* irqentry_* irq_entries_start
        asm_load_* exc_* ret_from_exception do_kernel_fault xen_*_iret do_per_trap do_protection_exception
        do_dat_exception *_common_virt *_check_common* illegal_op program_check_exception _exception data_access_*
        __do_pgm_check pgm_check_handler""",
        "arch/*/mm/fault.c, arch/*/kernel/traps.c, arch/*/entry",
    ),
    Functions(
        """el1_sync el1_sync_* el1_irq_* el1_error_* el1_irq el1_error el1_dbg el1_abort el1_undef el1_da el1_ia el1_pc
        el1_brk64 el1_bti el1_fpac el1_interrupt el1t_* el1h_* __el1_* el0_irq el0_interrupt __bad_stack __dabt_svc
        __pabt_svc __und_svc __irq_svc __und_svc_finish call_on_irq_stack do_interrupt_handler""",
        "arch/arm64/kernel/entry-common.c, arch/arm/kernel/entry-armv.S",
    ),
    Functions(
        """kasan_* __kasan_* __asan_* __hwasan_* check_memory_region check_memory_region_inline check_region_inline
        memory_is_poisoned* memory_is_nonzero bytes_is_nonzero print_address_description* print_report end_report
        object_err print_trailer check_bytes_and_report addr_has_metadata* init_object""",
        "mm/kasan, mm/slub.c",
    ),
    Functions("kfence_* __kfence_* check_canary*", "mm/kfence"),
    Functions("kmsan_* __kmsan_* __msan_*", "mm/kmsan"),
    Functions("kcsan_* __kcsan_* __tsan_* find_watchpoint insert_watchpoint check_access", "kernel/kcsan"),
    Functions(
        "ubsan_* __ubsan_* val_to_string handle_overflow __sanitizer_cov_* write_comp_data",
        "lib/ubsan.c, kernel/kcov.c",
    ),
    Functions(
        """fortify_panic fortify_overflow __fortify_panic __fortify_report usercopy_abort __check_object_size
        check_object_size __check_heap_object check_heap_object check_stack_object check_page_span copy_overflow
        __copy_overflow usercopy_warn""",
        "lib/string_helpers.c, mm/usercopy.c",
    ),
    Functions(
        """lockdep_* lock_acquire lock_release lock_acquired lock_contended lock_is_held_type __lock_acquire
        __lock_release __lock_acquired __lock_is_held lock_acquire.* validate_chain check_prev_add check_prevs_add
        check_noncircular check_deadlock check_path check_redundant check_irq_usage check_usage check_usage_*
        check_wait_context check_flags print_circular_bug* print_deadlock_bug* print_bad_irq_dependency*
        print_usage_bug* print_irq_inversion_bug* print_unlock_imbalance_bug* print_freed_lock_bug*
        print_held_locks_bug* print_lock_invalid_wait_context print_bfs_bug print_shortest_lock_dependencies
        mark_lock mark_lock_irq mark_held_locks mark_usage mark_irqflags valid_state register_lock_class
        assign_lock_key debug_check_no_locks_* add_lock_to_list look_up_lock_class trace_hardirqs_* trace_softirqs_*
        reacquire_held_locks __lock_set_class debug_rt_mutex_* debug_mutex_*""",
        "kernel/locking/lockdep.c",
    ),
    Functions(
        """rcu_dump_cpu_stacks rcu_check_gp_kthread_* rcu_stall_* rcu_sched_clock_irq rcu_check_callbacks rcu_pending
        __rcu_pending print_cpu_stall* print_other_cpu_stall check_cpu_stall rcu_lockdep_* rcu_check_gp_start_stall*""",
        "kernel/rcu/tree_stall.h",
    ),
    Functions(
        """watchdog watchdog_timer_fn watchdog_overflow_callback watchdog_hardlockup_* check_hung_task
        check_hung_uninterruptible_tasks hung_task_* softlockup_* is_hardlockup debug_show_all_locks*
        debug_show_held_locks* sched_show_task _sched_show_task dump_cpu_task rcu_dump_* sysrq_*_show* retint_kernel
        retint_user show_state_filter touch_softlockup_* update_report_ts""",
        "kernel/watchdog.c, kernel/hung_task.c",
    ),
    Functions(
        """nmi_cpu_backtrace* nmi_trigger_cpumask_backtrace arch_trigger_* trigger_*_backtrace nmi_handle*
        default_do_nmi do_nmi end_repeat_nmi nmi_restore first_nmi nmi repeat_nmi perf_event_nmi_handler
        smp_handle_nmi_ipi cpu_backtrace_* ipi_handler do_handle_IPI handle_IPI""",
        "lib/nmi_backtrace.c, arch/*/kernel/nmi.c",
    ),
    Functions(
        """hrtimer_interrupt __hrtimer_run_queues __run_hrtimer hrtimer_run_queues tick_sched_timer tick_sched_handle
        tick_nohz_handler tick_periodic tick_handle_periodic update_process_times local_apic_timer_interrupt
        sysvec_* __sysvec_* smp_apic_timer_interrupt smp_trace_apic_* apic_timer_interrupt
        trace_apic_timer_interrupt reschedule_interrupt call_function_interrupt irq_work_interrupt
        arch_timer_handler_* handle_percpu_devid_irq handle_domain_irq __handle_domain_irq generic_handle_*
        handle_irq_desc gic_handle_irq* instr_sysvec_* run_sysvec_* irq_enter irq_exit* timer_interrupt
        __timer_interrupt riscv_timer_interrupt riscv_intc_irq do_irq handle_riscv_irq __do_IRQ do_IRQ
        common_interrupt ret_from_intr""",
        "kernel/time, kernel/irq: the interrupt that saw it",
    ),
    Functions("refcount_* __refcount_* warn_bogus_irq_restore", "lib/refcount.c"),
    Functions(
        """debug_print_object debug_object_* __debug_object_* debug_check_no_obj_freed __debug_check_no_obj_freed
        debug_objects_* debug_timer_* debug_hrtimer_* timer_is_static_object""",
        "lib/debugobjects.c",
    ),
    Functions(
        """___might_sleep __might_sleep might_sleep __might_resched __might_fault might_fault __schedule_bug
        check_preemption_disabled debug_smp_processor_id __this_cpu_preempt_check schedule_debug *_slowpath_bug
        preempt_count_add preempt_count_sub""",
        "kernel/sched/core.c, lib/smp_processor_id.c",
    ),
    Functions(
        """bad_page bad_page_reason free_pages_check* free_page_is_bad* check_new_page* print_bad_pte
        print_bad_page_map free_tail_page_prepare free_tail_pages_check dump_page* __dump_page* dump_header
        oom_kill_process __oom_kill_process out_of_memory mem_cgroup_out_of_memory mem_cgroup_oom warn_alloc
        slab_out_of_memory""",
        "mm/page_alloc.c, mm/memory.c, mm/oom_kill.c",
    ),
    Functions(
        """printk _printk vprintk vprintk_* vprintk_emit print_prefix msg_print_text printk_* console_unlock
        console_flush_all console_emit_* console_trylock* serial8250_console_* wait_for_xmitr univ8250_console_*
        dev_printk* dev_vprintk* __dev_printk netdev_printk __netdev_printk dev_warn* dev_err* _dev_* __dynamic_*
        seq_buf_*""",
        "kernel/printk",
    ),
    Functions("rust_helper_BUG core::panicking::* *::rust_begin_unwind *::panic_const::*", "rust, library/core"),
    Functions("ref_tracker_* ref_tracker_dir_*", "lib/ref_tracker.c"),
    Functions(
        """ftrace_call ftrace_caller ftrace_regs_caller ftrace_regs_call ftrace_graph_* ftrace_stub
        kprobe_ftrace_handler kprobe_handler opt_pre_handler optimized_callback __fentry__ mcount arch_ftrace_*
        __bpf_trap __x86_indirect_thunk_* __x86_return_thunk *_thunk* __cfi_* __ubsan_* cfi_* should_fail* fail_dump
        should_failslab __should_fail*""",
        "kernel/trace, kernel/kprobes.c, lib/fault-inject.c",
    ),
)
# What notices that its caller's data is bad, or does as it is told: every caller's trace ends in it.
HELPERS = (
    Functions(
        """memcpy* memmove* memset* memcmp* memchr* memscan* memzero* __memcpy* __memmove* __memset* __memcmp*
        __pi_mem* __pi_str* __arch_memcpy* __arch_memset* arm64_mem* strlen* strnlen* strcpy* strncpy* strscpy*
        strlcpy* strlcat* strcmp* strncmp* strchr* strnchr* strrchr* strcat* strncat* strstr strnstr strsep strpbrk
        strspn strcspn strcasecmp strncasecmp sized_strscpy* vsnprintf vscnprintf snprintf scnprintf sprintf string
        string_nocheck hex_string format_decode pointer put_dec* number kvasprintf* kasprintf* kobject_set_name*
        bcmp __strnlen* __strlen*""",
        "lib/string.c, arch/*/lib",
    ),
    Functions(
        """copy_to_user* copy_from_user* copy_in_user _copy_to_user* _copy_from_user* __copy_to_user* __copy_from_user*
        raw_copy_* __raw_copy_* copy_user_* copy_to_iter* _copy_to_iter* simple_copy_to_iter copy_from_iter*
        _copy_from_iter* copy_page_to_iter* copy_page_from_iter* copy_mc_* __arch_copy_* __asm_copy_* arm_copy_*
        clear_user* __clear_user* copy_page_* copyin copyout rep_movs* rep_stos* get_user* __get_user* put_user*
        __put_user* csum_partial* csum_and_copy_* instrument_* __strncpy_from_user strncpy_from_user* fault_in_*""",
        "lib/usercopy.c, lib/iov_iter.c, arch/*/lib",
    ),
    Functions(
        """__read_once_size* __read_once_word_nocheck read_word_at_a_time work_is_static_object __write_once_size
        __raw_readb __raw_readw __raw_readl __raw_readq __raw_writeb __raw_writew __raw_writel __raw_writeq atomic_*
        atomic64_* atomic_long_* arch_atomic* raw_atomic* arch_test_and_* test_bit _test_bit set_bit clear_bit
        test_and_* arch_set_bit arch_clear_bit change_bit find_*_bit crc16* crc32* __crc32* crc_itu_t* crc_ccitt*
        aes_encrypt* aes_decrypt* jhash* hex_dump_to_buffer print_hex_dump* va_format xas_* xa_find* rhashtable_*
        __rhashtable_* _atomic_dec_and_lock* kthread ret_from_fork* ret_from_kernel_thread kthread_should_park
        _find_* native_* __native_* pv_native_* __xchg* __cmpxchg* rep_nop cpu_relax arch_static_branch*
        _compound_head constant_test_bit __preempt_count_* arch_local_* current_thread_info""",
        "include/linux, arch/*/include",
    ),
    Functions(
        """__list_add __list_add_valid* __list_del_entry __list_del_entry_valid* __list_del list_add list_add_tail
        list_del list_del_init list_del_rcu __hlist_del hlist_del* hlist_add_* list_move* rb_erase* rb_insert_*
        __rb_insert_* __rb_erase_color rb_first* rb_next* rb_prev rb_last rb_replace_* __rb_* ____rb_*
        timerqueue_add klist_next klist_put klist_del klist_prev llist_* plist_* perf_trace_*
        trace_event_raw_event_* trace_event_buffer_*""",
        "lib/list_debug.c, lib/rbtree.c, lib/klist.c",
    ),
    Functions(
        """spin_bug spin_dump rwlock_bug do_raw_spin_* do_raw_read_* do_raw_write_* _raw_spin_* _raw_read_*
        _raw_write_* __raw_spin_* __raw_read_* __raw_write_* queued_spin_* queued_read_* queued_write_*
        native_queued_spin_* __pv_queued_* pv_queued_* osq_lock osq_unlock mutex_lock mutex_lock_* mutex_unlock
        mutex_trylock __mutex_* mutex_optimistic_spin mutex_spin_on_owner mutex_remove_waiter ldsem_* down down_* up
        up_read up_write __down __down_* rwsem_* rt_mutex_* __rt_mutex_* rtlock_* rt_spin_* rt_read_* rt_write_*
        spin_lock* spin_unlock* lock_sock_nested debug_spin_* debug_mutex_* ww_mutex_* ticket_spin_lock*
        arch_spin_lock* __local_bh_enable_ip local_bh_enable* _local_bh_enable debug_lockdep_* __seqprop_assert*
        percpu_down_* percpu_up_* seqcount_*""",
        "kernel/locking, kernel/softirq.c",
    ),
    Functions(
        "__delay __udelay __ndelay __const_udelay __timer_delay __loop_delay __loop_udelay __delay_cycles delay_tsc"
        " delay_loop delay_halt delay_halt_* udelay ndelay mdelay udelay_simple",
        "arch/*/lib/delay.c: who waits without sleeping",
    ),
    Functions(
        """kfree kfree_* kvfree kvfree_* kzfree* kmem_cache_free* kmem_cache_alloc* __kmem_cache_* slab_free*
        __slab_free do_slab_free slab_alloc* __slab_alloc ___slab_alloc slab_post_alloc_hook slab_pre_alloc_hook
        __kmalloc* kmalloc* kzalloc* kcalloc* kvmalloc* __kvmalloc* krealloc* __do_krealloc __do_kmalloc*
        cache_alloc* cache_free* ____cache_alloc* ___cache_free __cache_free check_slab free_debug_processing
        free_to_partial_list alloc_debug_processing slab_err kmem_cache_destroy* kmemdup* sock_kmalloc sock_kzalloc
        sk_prot_alloc sk_alloc __alloc_skb alloc_skb* __netdev_alloc_skb* netdev_alloc_skb* alloc_inode
        radix_tree_node_alloc* radix_tree_extend idr_get_free* new_skb dev_alloc_skb xas_alloc pcpu_mem_zalloc
        pcpu_alloc* __list_lru_init list_lru_init* kstrdup* free_large_kmalloc large_kmalloc_* __free_slab free_slab
        discard_slab new_slab allocate_slab __do_kmalloc_* alloc_pages alloc_pages_* alloc_page_interleave
        memdup_user* __alloc_pages* __alloc_frozen_pages* alloc_frozen_pages* get_page_from_freelist prep_new_page
        post_alloc_hook free_pages* __free_pages* free_unref_* __get_free_page* __folio_alloc* folio_alloc*
        vma_alloc_* ___kmalloc_* vmalloc*
        vzalloc* __vmalloc* vfree __vunmap __virt_to_phys* __phys_addr* virt_to_head_page* __kmalloc_large_node*
        kmemdup_nul alloc_slab_page* free_frozen_page*""",
        "mm/slub.c, mm/page_alloc.c, mm/vmalloc.c, mm/util.c",
    ),
    Functions(
        """skb_panic skb_over_panic skb_under_panic skb_push* skb_pull* __skb_pull* skb_put* __skb_put*
        pskb_expand_head __pskb_pull_tail skb_put_data __skb_push kobject_put kobject_get kobject_add* kobject_del
        kref_put kref_get* sysfs_remove_group* sysfs_remove_file* add_uevent_var device_del device_unregister
        device_release device_destroy device_remove_file* put_device get_device get_device_parent
        kobject_init_and_add __kobject_del device_add dpm_sysfs_* kobject_uevent* devres_release_all drop_nlink
        inc_nlink clear_nlink set_nlink folio_unlock unlock_page folio_lock mark_buffer_dirty ida_free ida_remove
        ida_simple_remove idr_remove fast_dput retain_dentry dput cleanup_srcu_struct __srcu_read_lock
        __srcu_read_unlock percpu_ref_* usb_submit_urb assertfail __flush_work flush_work* drain_workqueue
        destroy_workqueue __queue_work queue_work* queue_delayed_work* __queue_delayed_work cancel_work_sync*
        __cancel_work* flush_workqueue* kthread_stop* lock_timer_base mod_timer __mod_timer del_timer* timer_delete*
        __timer_delete* add_timer* detach_if_pending try_to_del_timer* __try_to_del_timer* hrtimer_active
        hrtimer_try_to_cancel hrtimer_cancel __wake_up* finish_wait prepare_to_wait* wait_for_completion*
        __wait_for_common wait_for_common* do_wait_for_common usleep_range* __usb_kill* usb_kill_urb
        usb_kill_anchored_urbs usb_start_wait_urb add_wait_queue* autoremove_wake_function try_to_wake_up
        wake_up_process complete complete_all swake_up* default_wake_function __init_work""",
        "net/core/skbuff.c, lib, drivers/base, fs/inode.c, kernel/workqueue.c, kernel/time/timer.c",
    ),
)


class _Names:
    """The names of some rows: whole ones, beginnings, and the rest as a pattern."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._whole = frozenset(name for name in names if "*" not in name)
        self._beginnings = tuple(name[:-1] for name in names if name.endswith("*") and name.count("*") == 1)
        others = [name for name in names if "*" in name and not (name.endswith("*") and name.count("*") == 1)]
        self._other = re.compile("|".join(re.escape(name).replace(r"\*", ".{0,80}") for name in others) or "(?!)")

    def has(self, name: str) -> bool:
        return name in self._whole or name.startswith(self._beginnings) or self._other.fullmatch(name) is not None


@cache
def _names(rows: tuple[Functions, ...]) -> _Names:
    return _Names(tuple(name for row in rows for name in row.names.split()))


@lru_cache(maxsize=64)
def _own(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for each in patterns))


@lru_cache(maxsize=4096)
def is_reporting(function: str, passed_over: tuple[str, ...] = ()) -> bool:
    """Whether a function of that name reports the event; `passed_over`: patterns of the kind's own."""
    return _names(REPORTING).has(function) or (bool(passed_over) and _own(passed_over).fullmatch(function) is not None)


@lru_cache(maxsize=4096)
def is_machinery(function: str, passed_over: tuple[str, ...] = ()) -> bool:
    """Whether a function of that name is not the guilty one, if there is another."""
    return is_reporting(function, passed_over) or _names(HELPERS).has(function)
