"""drgn's helpers for Linux, imported at their first use.

Their package imports all of them, and drgn's command line with its prompt, which takes longer than to open a dump; what
most answers need has no helper. They are used by this module's name: `helpers.per_cpu(variable, cpu)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drgn.helpers.linux.fs import inode_path as inode_path
    from drgn.helpers.linux.mm import compound_head as compound_head
    from drgn.helpers.linux.mm import for_each_vma as for_each_vma
    from drgn.helpers.linux.mm import vma_find as vma_find
    from drgn.helpers.linux.mm import vma_name as vma_name
    from drgn.helpers.linux.mmzone import nr_to_section as nr_to_section
    from drgn.helpers.linux.percpu import per_cpu as per_cpu
    from drgn.helpers.linux.percpu import per_cpu_ptr as per_cpu_ptr
    from drgn.helpers.linux.pid import find_task as find_task
    from drgn.helpers.linux.pid import for_each_task as for_each_task
    from drgn.helpers.linux.printk import get_printk_records as get_printk_records
    from drgn.helpers.linux.sched import cpu_curr as cpu_curr
    from drgn.helpers.linux.sched import idle_task as idle_task
    from drgn.helpers.linux.sched import task_cpu as task_cpu
    from drgn.helpers.linux.sched import task_on_cpu as task_on_cpu
    from drgn.helpers.linux.slab import get_slab_cache_aliases as get_slab_cache_aliases
    from drgn.helpers.linux.slab import slab_object_info as slab_object_info
else:

    def __getattr__(name: str) -> object:
        import drgn.helpers.linux

        globals()[name] = value = getattr(drgn.helpers.linux, name)
        return value


def load() -> None:
    """Import them now, where there is time."""
    import drgn.helpers.linux  # noqa: F401
