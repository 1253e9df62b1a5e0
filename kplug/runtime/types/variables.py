"""The C types of the kernel's variables, for kernels without DWARF whose BTF does not have them.

BTF has the types of functions and, unless pahole was told to leave them out (5.10's was), of per-CPU variables, not of
others. Here are those that `kplug.runtime` and the drgn helpers that it calls need, and others that users ask for, as
far as their declarations are the same from 5.2, the first kernel with BTF, to 7.x. An array whose length depends on the
configuration has no length here.
"""

from __future__ import annotations

from kplug.arch.registry import named

# Declared type -> (file that declares them, variables).
_DECLARED: tuple[tuple[str, str, str], ...] = (
    # mm
    ("struct mm_struct", "mm/init-mm.c", "init_mm"),
    ("struct list_head", "mm/slab_common.c", "slab_caches"),
    ("struct kset *", "mm/slub.c", "slab_kset"),
    # SPARSEMEM_EXTREME, which every architecture here has (mm/Kconfig)
    ("struct mem_section **", "mm/sparse.c", "mem_section"),
    ("unsigned long", "mm/sparse.c", "__highest_present_section_nr"),
    ("struct list_head", "mm/vmalloc.c, up to 6.8", "vmap_area_list purge_vmap_area_list"),
    ("struct rb_root", "mm/vmalloc.c, up to 6.8", "vmap_area_root"),
    ("struct vmap_node *", "mm/vmalloc.c, since 6.9", "vmap_nodes"),
    ("unsigned int", "mm/vmalloc.c, since 6.9", "nr_vmap_nodes vmap_zone_size"),
    ("void *", "mm/percpu.c", "pcpu_base_addr"),
    ("const unsigned long *", "mm/percpu.c", "pcpu_unit_offsets"),
    ("struct pcpu_chunk *", "mm/percpu.c", "pcpu_first_chunk pcpu_reserved_chunk"),
    ("int", "mm/percpu.c", "pcpu_nr_slots"),
    ("struct list_head *", "mm/percpu.c, since 5.9", "pcpu_chunk_lists"),
    ("struct list_head *", "mm/percpu.c, up to 5.8", "pcpu_slot"),
    ("unsigned long []", "mm/percpu.c and arch/*/kernel/setup_percpu.c", "__per_cpu_offset"),
    ("struct pglist_data *[]", "mm/numa.c and arch/*/mm/numa.c", "node_data"),
    ("struct pglist_data", "mm/memblock.c, without CONFIG_NUMA", "contig_page_data"),
    ("nodemask_t []", "mm/page_alloc.c", "node_states"),
    ("unsigned int", "mm/page_alloc.c", "nr_node_ids"),
    ("atomic_long_t", "mm/page_alloc.c", "_totalram_pages"),
    ("atomic_long_t", "mm/swapfile.c", "nr_swap_pages"),
    ("unsigned int", "mm/swapfile.c", "nr_swapfiles"),
    ("long", "mm/swapfile.c", "total_swap_pages"),
    ("struct swap_info_struct *[]", "mm/swapfile.c", "swap_info"),
    ("struct address_space *[]", "mm/swap_state.c", "swapper_spaces"),
    ("unsigned long", "mm/memblock.c", "max_low_pfn max_pfn min_low_pfn"),
    ("struct memblock", "mm/memblock.c", "memblock"),
    ("unsigned long", "mm/util.c", "sysctl_overcommit_kbytes"),
    ("int", "mm/util.c", "sysctl_overcommit_ratio"),
    ("struct percpu_counter", "mm/util.c", "vm_committed_as"),
    ("struct list_head", "lib/percpu_counter.c", "percpu_counters"),
    ("atomic_long_t []", "mm/vmstat.c", "vm_node_stat vm_zone_stat vm_numa_event"),
    ("const struct vm_operations_struct", "mm/mmap.c, now mm/vma.c", "special_mapping_vmops"),
    ("struct hstate []", "mm/hugetlb.c", "hstates"),
    ("int", "mm/hugetlb.c", "hugetlb_max_hstate"),
    # kernel
    ("struct task_struct", "init/init_task.c", "init_task"),
    ("enum system_states", "init/main.c", "system_state"),
    ("char *", "init/main.c", "saved_command_line"),
    ("struct uts_namespace", "init/version.c", "init_uts_ns"),
    ("const char []", "init/version.c", "linux_banner linux_proc_banner"),
    ("struct kmem_cache *", "kernel/fork.c", "task_struct_cachep"),
    ("struct pid_namespace", "kernel/pid.c", "init_pid_ns"),
    ("struct list_head", "kernel/module/main.c", "modules"),
    ("struct mod_tree_root", "kernel/module/main.c", "mod_tree"),
    ("struct list_head", "kernel/module/tracking.c", "unloaded_tainted_modules"),
    ("const struct taint_flag []", "kernel/panic.c", "taint_flags"),
    ("unsigned long", "kernel/panic.c", "tainted_mask"),
    ("atomic_t", "kernel/panic.c", "panic_cpu"),
    ("struct cpumask", "kernel/cpu.c", "__cpu_online_mask __cpu_possible_mask __cpu_present_mask __cpu_active_mask"),
    ("unsigned int", "kernel/smp.c", "nr_cpu_ids"),
    ("struct hlist_head [64]", "kernel/kprobes.c (KPROBE_HASH_BITS is 6)", "kprobe_table"),
    ("struct kprobe_insn_cache", "kernel/kprobes.c", "kprobe_insn_slots kprobe_optinsn_slots"),
    ("struct list_head", "kernel/bpf/core.c", "bpf_kallsyms"),
    ("struct idr", "kernel/bpf/syscall.c, btf.c", "prog_idr map_idr link_idr btf_idr"),
    ("struct list_head", "kernel/trace/ftrace.c", "ftrace_ops_trampoline_list"),
    ("struct printk_ringbuffer *", "kernel/printk/printk.c, since 5.10", "prb"),
    ("char *", "kernel/printk/printk.c", "log_buf"),
    ("u32", "kernel/printk/printk.c", "log_buf_len"),
    ("unsigned char *", "kernel/crash_core.c, now vmcore_info.c", "vmcoreinfo_data"),
    ("size_t", "kernel/crash_core.c, now vmcore_info.c", "vmcoreinfo_size"),
    ("u32 *", "kernel/crash_core.c, now vmcore_info.c", "vmcoreinfo_note"),
    ("note_buf_t *", "kernel/kexec_core.c, now crash_core.c", "crash_notes"),
    ("struct task_group", "kernel/sched/core.c", "root_task_group"),
    ("struct list_head", "kernel/sched/core.c", "task_groups"),
    ("unsigned long [3]", "kernel/sched/loadavg.c", "avenrun"),
    ("struct rq", "kernel/sched/core.c, per CPU", "runqueues"),
    ("struct vm_struct *[2]", "kernel/fork.c (NR_CACHED_STACKS), per CPU", "cached_stacks"),
    ("struct hlist_head []", "kernel/user.c", "uidhash_table"),
    ("struct cgroup_root", "kernel/cgroup/cgroup.c", "cgrp_dfl_root"),
    ("unsigned long", "kernel/time/jiffies.c", "jiffies"),
    ("u64", "kernel/time/timer.c", "jiffies_64"),
    ("struct softirq_action []", "kernel/softirq.c", "softirq_vec"),
    ("struct maple_tree", "kernel/irq/irqdesc.c, since 6.5", "sparse_irqs"),
    ("struct xarray", "kernel/irq/irqdesc.c, up to 6.4 (a radix tree by its name)", "irq_desc_tree"),
    ("struct resource", "kernel/resource.c", "iomem_resource ioport_resource"),
    ("struct workqueue_struct *", "kernel/workqueue.c", "system_wq system_highpri_wq system_unbound_wq"),
    ("struct list_head", "kernel/workqueue.c", "workqueues"),
    # elsewhere
    ("struct list_head", "fs/super.c", "super_blocks"),
    ("struct super_block *", "block/bdev.c", "blockdev_superblock"),
    ("struct kernfs_node *", "fs/sysfs/mount.c", "sysfs_root_kn"),
    ("struct char_device_struct *[255]", "fs/char_dev.c", "chrdevs"),
    ("struct ipc_namespace", "ipc/msgutil.c", "init_ipc_ns"),
    ("struct net", "net/core/net_namespace.c", "init_net"),
    ("struct list_head", "net/core/net_namespace.c", "net_namespace_list"),
    ("struct neigh_table", "net/ipv4/arp.c", "arp_tbl"),
    ("struct list_head", "drivers/pci/probe.c", "pci_root_buses"),
)


def variable_types(machine: str) -> dict[str, str]:
    """The declared type of each known variable, by its name, for that architecture."""
    own = ((each.type, each.names) for each in named(machine).typed_variables)
    declared = (*((kind, names) for kind, _, names in _DECLARED), *own)
    return {name: kind for kind, names in declared for name in names.split()}
