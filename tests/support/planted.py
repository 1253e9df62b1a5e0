"""What kwhere has to say of each address that a guest planted, as patterns over its text answer.

The values in them are those that the guest printed; none is taken from kplug. {n0}, {n1}, ... are the numbers of the
specimen's own words as kplug writes addresses, {pid} and {comm} the task's that they name, {cpu} the CPU of its key,
{in_page} {n0} without its last three digits.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vmimages import Specimen


class Expected(NamedTuple):
    """Of specimens whose key matches: the questions of docs/questions.md, and patterns that all are in the answer."""

    key: str
    questions: tuple[int, ...]
    patterns: tuple[str, ...]
    arch: str | None = None  # the only one that has it


_OBJECT = r"slab +{cache} .*{n0}-.*\+{offset}$"

EXPECTED: tuple[Expected, ...] = (
    # -- slab; where KFENCE samples, it may have others than the planted ones ------------------------------------------
    Expected("kmem_cache", (9,), (r"(slab|KFENCE) object kmem_cache\+0x0", r"(slab|kfence) +kmem_cache +allocated")),
    Expected("plain_alloc", (9,), (_OBJECT, r"slab +planted_plain +allocated +object size 0xc8")),
    # Since 6.18 a CPU may have it in a sheaf.
    Expected(
        "plain_freed_full_slab", (9,), (_OBJECT, r" (cpu-free \(CPU \d\)|free) slab object planted_plain\+0x20\b")
    ),
    # A cache that is debugged has no lists of a CPU.
    Expected(
        "plain_freed_cpu",
        (9,),
        (
            _OBJECT,
            r" cpu-free \(CPU {cpu}\) slab object planted_plain\+0x8\b|"
            r" free slab object planted_plain\+0x8\b(.|\n)*freed in planted_drop_object\+",
        ),
    ),
    Expected(
        "user_alloc",
        (9, 10),
        (_OBJECT, r"allocated", r"planted_make_object", r"task {pid}\b", r"CPU {cpu}\b", r"\[planted\] \.init\.text\+"),
    ),
    Expected("full_alloc", (9, 10), (_OBJECT, r"allocated", r"planted_make_object")),
    Expected("user_freed", (9, 10), (_OBJECT, r"free slab object", r"planted_drop_object")),
    Expected("full_freed", (9, 10), (_OBJECT, r"free slab object", r"planted_drop_object")),
    Expected("full_redzone_right", (9,), (r"right red zone of .*planted_full", r"{n0}")),
    Expected("full_redzone_left", (9,), (r"left red zone of .*planted_full", r"{n0}")),
    Expected("kmalloc64", (9,), (r"(slab|KFENCE) object kmalloc-64\+0x7", r"(slab|kfence) +kmalloc-64 .*{n0}-")),
    Expected("kmalloc_large", (9,), (r"{n0}", r"order 4", r"\+0x2345")),
    # -- vmalloc -------------------------------------------------------------------------------------------------------
    Expected(
        "vmalloc",
        (15,),
        (r"vmap .*3 pages +VM_ALLOC.*{n0}-.*\+0x1234", r"caller 0x\w+ in freed \.init\.text of planted", r"mapped rw-"),
    ),
    Expected("vmalloc_guard", (14, 15), (r"guard page", r"0x10 bytes past its end", r"vmap .*{n0}-", r"not mapped")),
    Expected("vmalloc_hole", (15,), (r"between \S.* and \S.*", r"not mapped")),
    Expected("vmap", (15,), (r"vmap .*VM_MAP.*\+0x1008",)),
    Expected("ioremap", (15,), (r"ioremap", r"physical {physical}\b", r"\+0x20")),
    # -- per-CPU -------------------------------------------------------------------------------------------------------
    Expected("pcpu_mod_instance", (11,), (r"planted_pcpu_var\+0x8 +\[planted\] +\.data\.\.percpu +\(CPU 1\)",)),
    Expected("pcpu_mod_instance0", (11,), (r"planted_pcpu_var\+0x0 +\[planted\] +\.data\.\.percpu +\(CPU 0\)",)),
    # Since 6.15 these are in the image's freed memory.
    Expected(
        "pcpu_mod_cookie",
        (11,),
        (
            r"^0x00000000\w+ +per-CPU offset of planted_pcpu_var\+0x8 +\[planted\]|"
            r"^0xffff\w+ (.|\n)*__percpu pointer to planted_pcpu_var\+0x8 of module planted",
        ),
    ),
    Expected("pcpu_static", (11,), (r"{variable}\+0x0 .*\(CPU 1\)",)),
    Expected(
        "pcpu_static_offset",
        (11,),
        (
            r"^0x00000000\w+ +per-CPU offset of {variable}\+0x4\b|"
            r"^0xffff\w+ +per-CPU template of {variable}\+0x4\b",
        ),
    ),
    Expected("pcpu_dyn", (11,), (r"per-CPU allocation\+0x10 +\(CPU 1\)", r"percpu +allocation +dynamic")),
    Expected("pcpu_dyn_cookie", (11,), (r"per-CPU pointer", r"allocation of 0x40 bytes")),
    Expected("pcpu_big", (11,), (r"per-CPU allocation\+0x100 +\(CPU 1\)",)),
    Expected("pcpu_big_cookie", (11,), (r"per-CPU pointer", r"allocation of 0x5dc0 bytes")),
    # -- stacks --------------------------------------------------------------------------------------------------------
    Expected(r"irq_stack_cpu\d", (13,), (r"IRQ stack of CPU {cpu}\+", r"depth 0x108")),
    Expected(
        r"irq_stack_guard_cpu\d", (14,), (r"guard .*IRQ stack of CPU {cpu}, 0x20 bytes past its end", "not mapped")
    ),
    Expected(r"estack_DF_cpu\d", (13,), (r"double fault stack of CPU {cpu}\+0x800",), "amd64"),
    Expected(r"estack_NMI_cpu\d", (13,), (r"NMI stack of CPU {cpu}\+0x800",), "amd64"),
    Expected(r"estack_DB_cpu\d", (13,), (r"debug exception stack of CPU {cpu}\+0x800",), "amd64"),
    Expected(r"estack_MCE_cpu\d", (13,), (r"machine check stack of CPU {cpu}\+0x800",), "amd64"),
    Expected(
        r"estack_guard_NMI_cpu\d",
        (14,),
        (r"guard page of the NMI stack of CPU {cpu}, 0x80 bytes past its end",),
        "amd64",
    ),
    Expected(
        r"estack_guard_DB_cpu\d",
        (14,),
        (r"guard page of the debug .* stack of CPU {cpu}, 0x8 bytes past its end",),
        "amd64",
    ),
    Expected(r"overflow_stack_cpu\d", (13,), (r"stack +overflow stack of CPU {cpu} .*\+0x800$",), "arm64"),
    Expected(r"entry_stack_cpu\d", (13,), (r"entry stack of CPU {cpu}\+0x50",), "amd64"),
    Expected(r"cea_tss_cpu\d", (13,), (r"tss of CPU {cpu}\+0x4",), "amd64"),
    Expected(r"cea_gdt_cpu\d", (13,), (r"gdt of CPU {cpu}\+0x10",), "amd64"),
    Expected("kthread_stack", (12,), (r"stack of {pid} \(plantedthread\)\+", r"{n0}-", r"live")),
    Expected("kthread_stack_dead", (12,), (r"stack of {pid} \(plantedthread\)\+0x1000", r"dead")),
    Expected("kthread_guard_below", (14,), (r"guard page of the stack of \d+ \(plantedthread\), 0x18 bytes past",)),
    Expected("kthread_guard_above", (14,), (r"guard page above the stack of \d+ \(plantedthread\), 0x28 bytes past",)),
    Expected("kthread_end_magic", (12,), (r"stack of \d+ \(plantedthread\)\+0x0", r"STACK_END_MAGIC")),
    Expected("task_struct", (9,), (r"task {pid} \(plantedthread\)\+{offset}", r"slab +task_struct +allocated")),
    Expected("init_task_stack", (12,), (r"stack +stack of 0 \(swapper/0\)",)),
    # -- page tables ---------------------------------------------------------------------------------------------------
    Expected("pt_swapper", (18,), (r"pgd table of the kernel", r"\+0x800")),
    Expected("user_task", (9,), (r"task {pid} \(planted_user\)\+0x0",)),
    Expected("user_mm", (9,), (r"(slab|KFENCE) object mm_struct\+0x", r"(slab|kfence) +mm_struct .*{n0}-")),
    Expected("pt_pgd_user", (18,), (r"pgd table of \d+ \(planted_user\)\+", r"mm 0x")),
    Expected("pt_p4d_user", (18,), (r"p4d table of \d+ \(planted_user\)\+",)),
    Expected("pt_pud_user", (18,), (r"pud table of \d+ \(planted_user\)\+",)),
    Expected("pt_pmd_user", (18,), (r"pmd table of \d+ \(planted_user\)\+",)),
    Expected("pt_pte_user", (18,), (r"pte table of \d+ \(planted_user\)\+",)),
    Expected("pt_kernel_pte", (18,), (r"pte table of the kernel",)),
    Expected("pt_kernel_pmd", (18,), (r"pmd table of the kernel",)),
    Expected("userpage_direct_user", (17,), (r"anonymous page\+0x30", r"pfn {pfn}\b", r"zone \w+")),
    Expected("struct_page_user_user", (16,), (r"struct page of pfn {pfn}\+0x0 \(anonymous page\)",)),
    # -- the image and the module --------------------------------------------------------------------------------------
    Expected("text_alias", (17,), (r"alias of schedule\+0x4", r"physical")),
    Expected("rodata_alias", (17,), (r"alias of linux_banner\+0x0",)),
    Expected("vm_text", (1, 4, 20), (r"schedule\+0x4 ", r"mapped r-x")),
    Expected("vm_rodata", (4, 20), (r"linux_banner\+0x6 ", r"\[rodata\]", r"mapped r--")),
    Expected("vm_data", (4, 20), (r"init_task\+0x0 ", r"\[data\]", r"mapped rw-")),
    Expected("vm_roai", (4, 20), (r"\[rodata > ro_after_init\]", r"mapped r--")),
    Expected("vm_bss", (4, 20), (r"\[bss\]", r"mapped rw-")),
    Expected("vm_brk", (20,), (r"\[brk\]",), "amd64"),
    Expected("vm_start_kernel", (3,), (r"start_kernel\+0x0 ", r"\[init > init.text\b", r"freed; now \S")),
    Expected("init_now_4", (3,), (r"freed; now a free page",)),
    Expected("reuse_slab", (3,), (r"freed; now .*slab object planted_reuse\+0x8", r"slab +planted_reuse +allocated")),
    Expected("reuse_stack", (3,), (r"freed; now .*stack of {pid} \({comm}\)",)),
    Expected("reuse_vmalloc", (3,), (r"freed; now .*vmalloc of planted_reuse\+{page}$",)),
    # A program that has ended since gave it back.
    Expected("reuse_pagetable", (3,), (r"freed; now \S",)),
    Expected("mod_init_text", (2, 3), (r"\.init\.text\+0x\w+ +\[planted\] .*freed", r"section +\.init\.text")),
    Expected("mod_init_data", (2, 3), (r"\.init\.data\+0x\w+ +\[planted\] .*freed", r"section +\.init\.data")),
    Expected("mod_text", (1, 2), (r"planted_text_function\+0x3 +\[planted\] +\.text", r"mapped r-x")),
    Expected("mod_text_alias", (17,), (r"alias of planted_text_function\+0x0",)),
    Expected("mod_rodata", (2, 20), (r"planted_rodata_var\+0x8 +\[planted\] +\.rodata", r"mapped r--")),
    Expected("mod_data", (2, 20), (r"planted_data_var\+0x0 +\[planted\] +\.data", r"mapped rw-")),
    Expected("mod_bss", (2, 20), (r"planted_bss_var\+0x10 +\[planted\] +\.bss", r"mapped rw-")),
    Expected(
        "mod_roai", (2, 20), (r"planted_ro_after_init_var\+0x0 +\[planted\] +\.data\.\.ro_after_init", "mapped r--")
    ),
    Expected("mod_readmostly", (2, 20), (r"planted_read_mostly_var\+0x0 +\[planted\] +\.data\.\.read_mostly",)),
    Expected("mod_this_module", (2,), (r"__this_module\+0x0 +\[planted\] +\.gnu\.linkonce\.this_module",)),
    # -- struct pages --------------------------------------------------------------------------------------------------
    Expected("struct_page_slab", (16,), (r"struct page of pfn {pfn}\+0x0 \(slab page\)",)),
    Expected("struct_page_mid", (16,), (r"struct page of pfn {pfn}\+0x18 \(slab page[,)]",)),
    Expected("struct_page_misaligned", (16,), (r"struct page of pfn {pfn}\+0x13 \(slab page,.* misaligned\)",)),
    Expected("compound_tail_page", (16,), (r"struct page of pfn", r"tail 3 of .*pfn {pfn}\b")),
    Expected("compound_tail_data", (17,), (r"tail 3 of .*pfn 0x",)),
    Expected("plain_page", (17,), (r"kernel page\+0x44", r"pfn {pfn}\b", r"refcount 1\b", r"zone \w+")),
    # Somebody may have it again.
    Expected("freed_pages", (17,), (r"pfn 0x\w+", r"zone \w+")),
    Expected("vmemmap_beyond", (16,), (r"pfn 0x40000000\b", r"beyond .*RAM", r"not mapped")),
    Expected("direct_beyond", (17,), (r"physical 0x40000000000\b", r"beyond .*RAM", r"not mapped")),
    # -- values that are no addresses ----------------------------------------------------------------------------------
    Expected("list_poison1", (7,), (r"LIST_POISON1 *$",)),
    Expected("list_poison2_off", (7,), (r"LIST_POISON2\+0x8",)),
    Expected("timer_poison", (7,), (r"LIST_POISON2 *$",)),
    Expected("err_enomem", (8,), (r"ERR_PTR\(-ENOMEM\)", r"\(12\)")),
    Expected("err_512", (8,), (r"ERR_PTR\(-ERESTARTSYS\)",)),
    Expected("null_off", (5,), (r"NULL\+0x18",)),
    Expected("zero_size", (5, 7), (r"ZERO_SIZE_PTR",)),
    # With five levels these bits can be part of an address.
    Expected("flipped", (6,), (r"bit 50 flipped: .*\(a guess\)|hole between|beyond RAM",)),
    Expected("flipped_direct", (6,), (r"bit 55 flipped: .*\(a guess\)|hole between",)),
    Expected("ascii", (6,), (r'text "HelloWor"', r"\(a guess\)")),
    Expected("swapped", (6,), (r"swapped halves", r"\(a guess\)")),
    Expected("poison_in_use_word", (7,), (r"POISON_INUSE",)),
    Expected("poison_free_word", (7,), (r"POISON_FREE\+0x20",)),
    Expected("redzone_word", (7,), (r"SLUB_RED_ACTIVE", r"POISON_FREE_INITMEM")),
    Expected("redzone_inactive", (7,), (r"SLUB_RED_INACTIVE",)),
    Expected("page_poison", (7,), (r"PAGE_POISON",)),
    Expected("stack_end_magic", (7,), (r"STACK_END_MAGIC",)),
    Expected("mutex_poison", (7,), (r"MUTEX_DEBUG_INIT",)),
    # -- a program's own addresses -------------------------------------------------------------------------------------
    Expected("user_anon", (19,), (r"anonymous memory of \d+ \(planted_user\)\+0x10 ", r"vma .* rw-p ", r"mapped rw-")),
    Expected("user_anon_untouched", (19,), (r"anonymous memory of \d+ \(planted_user\)\+0xc000 ", r"not mapped")),
    Expected("user_file", (19,), (r"/planted/data of \d+ .*\+0x20 ", r"vma .* r--p +file offset 0x1000 ")),
    Expected("user_shared", (19,), (r"shared anonymous memory of \d+ \(planted_user\)\+0x0 ", r"vma .* rw-s ")),
    Expected("user_heap", (19,), (r"\[heap\] of \d+ \(planted_user\)\+", r"vma .* rw-p ")),
    Expected("user_stack", (19,), (r"\[stack\] of \d+ \(planted_user\)\+", r"vma .* rw-p ")),
    Expected("user_vdso", (19,), (r"\[vdso\] of \d+ \(planted_user\)\+0x40 ", r"vma .* r-xp ")),
    Expected("user_text", (19,), (r"/planted/planted_user of \d+ .*\+", r"vma .* r-xp +file offset 0x1000 ")),
    Expected("user_data", (19,), (r"/planted/planted_user of \d+ .*\+", r"vma .* rw-p +file offset 0x")),
    Expected("user_bss", (19,), (r"/planted/planted_user of \d+ .*\+", r"vma .* rw-p ")),
    Expected("user_hole", (19,), (r"between the first address and /planted/planted_user at 0x400000", r"not mapped")),
    # -- KFENCE, where it samples --------------------------------------------------------------------------------------
    Expected("kfence_live", (9, 10), (r"KFENCE", r"planted_plain\+0x10", r"allocated", r"planted_make_object")),
    # Another object may have its page again: there are 255, and one is taken each millisecond.
    Expected(
        "kfence_freed",
        (9, 10),
        (
            r"KFENCE",
            r"planted_plain\+0x20\b(.|\n)*freed(.|\n)*planted_drop_object|"
            r"^  kfence +(?!.*planted_plain).*(allocated|freed).* {in_page}\w{3}-",
        ),
    ),
    Expected("kfence_guard", (9, 14), (r"KFENCE", r"guard page")),
    Expected("kfence_struct_page", (16,), (r"struct page of pfn {pfn}\+0x0",)),
)

# Reports of the module that plant nothing, or nothing certain.
NOT_ASKED = ("done", "reuse_done", "scan_done", "kfence_pool", "vmalloc_past", r"init_now_\d+")


def expected_of(specimen: Specimen) -> Expected | None:
    """What is expected of a specimen; None if nothing is."""
    if any(re.fullmatch(key, specimen.key) for key in NOT_ASKED):
        return None
    return next(each for each in EXPECTED if re.fullmatch(each.key, specimen.key))


def missing(specimen: Specimen, answer: str) -> list[str]:
    """The patterns that the text answer lacks, filled with the specimen's values."""
    expected = expected_of(specimen)
    if expected is None:
        return []
    values = _values(specimen)
    fields = r"\{(n\d|pid|comm|cpu|cache|offset|pfn|physical|variable|page|in_page)\}"
    wanted = [re.sub(fields, lambda found: values[found[1]], pattern) for pattern in expected.patterns]
    return [pattern for pattern in wanted if not re.search(pattern, answer, re.MULTILINE)]


def _values(specimen: Specimen) -> dict[str, str]:
    key, _, truth = specimen
    values = {f"n{place}": f"0x{int(each, 16):016x}" for place, each in enumerate(re.findall(r"0x(\w+)", truth))}
    for name, pattern in (
        ("pid", r"pid (\d+)"),
        ("comm", r"of (\S+) pid"),
        ("cpu", r"(?:CPU|cpu) (\d+)"),
        ("cache", r"^(\S+) object"),
        ("pfn", r"pfn (0x\w+)"),
        ("variable", r"(\w+)(?: of CPU \d \(vmlinux|\+4$)"),
        ("physical", r"ioremap of (0x\w+)"),
    ):
        found = re.search(pattern, truth)
        if found:
            values[name] = re.escape(found[1])
    if "n0" in values:
        values["in_page"] = values["n0"][:-3]
    page = re.search(r"page (\d+) of vmalloc", truth)
    if page:
        values["page"] = f"{0x1000 * int(page[1]) + 0x40:#x}"
    offset = re.search(r"\+(\w+)|offset (0x\w+)", truth)
    if offset:
        values["offset"] = f"{int(offset[1] or offset[2], 0):#x}"
    of_cpu = re.search(r"cpu(\d+)$", key)
    if of_cpu:
        values["cpu"] = of_cpu[1]
    return values
