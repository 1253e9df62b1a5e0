// SPDX-License-Identifier: MIT
/* Plants specimens of every kind of kernel address and prints each with the truth:  PLANT|key|address|truth  */
#include <linux/module.h>
#include <linux/kernel.h>
#include <linux/init.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/percpu.h>
#include <linux/kprobes.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/sched/mm.h>
#include <linux/mm.h>
#include <linux/kthread.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/list.h>
#include <linux/err.h>
#include <linux/version.h>
#include <linux/highmem.h>
#include <linux/nmi.h>
#include <linux/page-flags.h>
#include <linux/io.h>
#include <linux/kernel_stat.h>
#include <linux/pgtable.h>
#include <asm/processor.h>
#ifdef CONFIG_X86
#include <asm/cpu_entry_area.h>
#endif
#if IS_ENABLED(CONFIG_KFENCE)
#include <linux/kfence.h>
#endif

MODULE_LICENSE("GPL");

#define P(key, addr, fmt, ...) printk(KERN_INFO "PLANT|%s|0x%lx|" fmt "\n", key, (unsigned long)(addr), ##__VA_ARGS__)

/* What each architecture calls its own: a per-CPU variable of vmlinux, a device's registers, the sp of a task that sleeps. */
#ifdef CONFIG_X86
#define PLANTED_STATIC cpu_info
#define PLANTED_DEVICE 0xfee00000	/* the local APIC */
#define PLANTED_SP(task) ((task)->thread.sp)
#else
#define PLANTED_STATIC kernel_cpustat
#define PLANTED_DEVICE 0x09010000	/* the clock of QEMU's virt machine */
#define PLANTED_SP(task) ((task)->thread.cpu_context.sp)
#endif

static unsigned long (*planted_lookup)(const char *name);

struct planted_obj { u64 magic; struct list_head link; u64 tail[22]; };	/* 200 bytes */
struct planted_dyn { u64 a, b, c[6]; };

const u64 planted_rodata_var[4] = { 1, 2, 3, 4 };
u64 planted_data_var = 0x1122334455667788ULL;
u64 planted_bss_var[16];
u64 planted_ro_after_init_var __ro_after_init = 77;
u64 planted_read_mostly_var __read_mostly = 78;
static u64 __initdata planted_initdata_var = 79;
DEFINE_PER_CPU(struct planted_dyn, planted_pcpu_var);
static struct planted_dyn __percpu *planted_dyn_pcpu;
static void __percpu *planted_big_pcpu[8];
static struct kmem_cache *planted_plain, *planted_user, *planted_full;
static struct planted_obj *planted_objs[64];
static void *planted_stack_local;
static struct task_struct *planted_thread;
struct list_head planted_deleted;
struct page *planted_page_order2;

/* Two callers, so that an allocation and a release have stacks that can be told. */
noinline struct planted_obj *planted_make_object(struct kmem_cache *cache) { struct planted_obj *p = kmem_cache_alloc(cache, GFP_KERNEL); barrier(); return p; }
noinline void planted_drop_object(struct kmem_cache *cache, struct planted_obj *p) { kmem_cache_free(cache, p); barrier(); }
/* One that KFENCE did not take as a sample. */
static struct planted_obj *planted_ordinary_object(struct kmem_cache *cache)
{
	struct planted_obj *p;
#if IS_ENABLED(CONFIG_KFENCE)
	do p = planted_make_object(cache); while (is_kfence_address(p));
#else
	p = planted_make_object(cache);
#endif
	return p;
}
static void planted_ctor(void *p) { memset(p, 0x11, sizeof(struct planted_obj)); }

noinline int planted_text_function(int x) { return x * 3 + (int)planted_data_var; }

static unsigned long planted_find(const char *name)
{
	unsigned long a = planted_lookup ? planted_lookup(name) : 0;
	if (!a) P("lookup_failed", 0, "%s", name);
	return a;
}

static int __init planted_find_lookup(void)
{
	struct kprobe kp = { .symbol_name = "kallsyms_lookup_name" };
	int r = register_kprobe(&kp);
	if (r < 0) return r;
	planted_lookup = (void *)kp.addr;
	unregister_kprobe(&kp);
	return 0;
}

/* A kernel thread that sleeps at a known depth. */
static noinline void planted_sleep_inner(void)
{
	volatile u64 marker[8] = { 0x4835, 1, 2, 3, 4, 5, 6, 7 };
	WRITE_ONCE(planted_stack_local, (void *)marker);
	while (!kthread_should_stop()) {
		set_current_state(TASK_INTERRUPTIBLE);
		schedule();
	}
	marker[1]++;
}
static noinline int planted_sleep_outer(void *arg) { planted_sleep_inner(); return 0; }

static const char *planted_page_kind(struct page *page)
{
	if (PageSlab(page)) return "slab";
	if (PageTable(page)) return "pagetable";
	if (PageBuddy(page)) return "buddy";
	if (PageReserved(page)) return "reserved";
	if (PageAnon(page)) return "anon";
	if (!page_count(page)) return "count0(tail,pcp-free or buddy tail)";
	return "other";
}

static void planted_slabs(void)
{
	int i;
	struct planted_obj *p;
	planted_plain = kmem_cache_create("planted_plain", sizeof(struct planted_obj), 0, 0, planted_ctor);
	planted_user = kmem_cache_create("planted_user", sizeof(struct planted_obj), 0, SLAB_STORE_USER, NULL);
	planted_full = kmem_cache_create("planted_full", sizeof(struct planted_obj), 0, SLAB_STORE_USER | SLAB_RED_ZONE | SLAB_POISON | SLAB_CONSISTENCY_CHECKS, NULL);
	if (!planted_plain || !planted_user || !planted_full) { P("slab_failed", 0, "%px %px %px", planted_plain, planted_user, planted_full); return; }
	P("kmem_cache", planted_plain, "struct kmem_cache of planted_plain");
	for (i = 0; i < 60; i++) planted_objs[i] = planted_ordinary_object(planted_plain);
	P("plain_alloc", (char *)planted_objs[2] + 0x18, "planted_plain object 0x%px +0x18 allocated size 200", planted_objs[2]);
	/* The first ones are in a full slab by now: a freed one of these is free in the slab itself; of the last, in the CPU's. */
	p = planted_objs[1]; planted_objs[1] = NULL; planted_drop_object(planted_plain, p);
	P("plain_freed_full_slab", (char *)p + 0x20, "planted_plain object 0x%px +0x20 free (of an earlier slab)", p);
	p = planted_objs[59]; planted_objs[59] = NULL; planted_drop_object(planted_plain, p);
	P("plain_freed_cpu", (char *)p + 0x8, "planted_plain object 0x%px +0x8 free on the CPU freelist of CPU %d (if active slab)", p, raw_smp_processor_id());
	for (i = 0; i < 4; i++) planted_objs[60 + i] = planted_ordinary_object(i & 1 ? planted_full : planted_user);
	P("user_alloc", (char *)planted_objs[60] + 0x10, "planted_user object 0x%px +0x10 allocated by planted_make_object pid %d cpu %d", planted_objs[60], current->pid, raw_smp_processor_id());
	P("full_alloc", (char *)planted_objs[61] + 0x10, "planted_full object 0x%px +0x10 allocated by planted_make_object", planted_objs[61]);
	P("full_redzone_right", (char *)planted_objs[61] + 200 + 3, "right red zone (size 200, zone at 200..) of planted_full object 0x%px", planted_objs[61]);
	P("full_redzone_left", (char *)planted_objs[61] - 4, "left red zone of planted_full object 0x%px", planted_objs[61]);
	p = planted_objs[62]; planted_objs[62] = NULL; planted_drop_object(planted_user, p);
	P("user_freed", (char *)p + 0x10, "planted_user object 0x%px +0x10 freed by planted_drop_object", p);
	p = planted_objs[63]; planted_objs[63] = NULL; planted_drop_object(planted_full, p);
	P("full_freed", (char *)p + 0x28, "planted_full object 0x%px +0x28 freed by planted_drop_object, POISON_FREE inside", p);
	{
		void *k = kmalloc(50, GFP_KERNEL), *big = kmalloc(40000, GFP_KERNEL);
		P("kmalloc64", (char *)k + 7, "kmalloc-64 object 0x%px +7 (50 asked)", k);
		P("kmalloc_large", (char *)big + 0x2345, "large kmalloc 0x%px of 40000 bytes (order 4 pages, no slab) +0x2345", big);
	}
#if IS_ENABLED(CONFIG_KFENCE)
	{
		void *live = NULL, *dead = NULL, *q;
		unsigned long end = jiffies + 20 * HZ;
		int tries = 0;
		while (time_before(jiffies, end) && !(live && dead)) {
			q = planted_make_object(planted_plain); tries++;
			if (q && is_kfence_address(q)) {
				if (!live) { live = q; continue; }
				dead = q; planted_drop_object(planted_plain, q); continue;
			}
			planted_drop_object(planted_plain, q);
			if (!(tries & 255)) msleep(5);
		}
		P("kfence_pool", __kfence_pool, "KFENCE pool, tries %d", tries);
		if (live) {
			P("kfence_live", (char *)live + 0x10, "KFENCE object 0x%px +0x10 of planted_plain, allocated", live);
			P("kfence_guard", ((unsigned long)live & PAGE_MASK) + PAGE_SIZE + 0x40, "KFENCE guard page right of the live object");
			P("kfence_struct_page", virt_to_page(live), "struct page of the KFENCE page, pfn 0x%lx", page_to_pfn(virt_to_page(live)));
		}
		if (dead) P("kfence_freed", (char *)dead + 0x20, "KFENCE object 0x%px +0x20 of planted_plain, freed by planted_drop_object", dead);
	}
#endif
}

static void planted_vmallocs(void)
{
	char *v = vmalloc(3 * PAGE_SIZE);
	struct page *pages[2] = { alloc_page(GFP_KERNEL), alloc_page(GFP_KERNEL) };
	char *m = vmap(pages, 2, VM_MAP, PAGE_KERNEL);
	struct vm_struct *vm = NULL;
	P("vmalloc", v + 0x1234, "vmalloc of 3 pages 0x%px +0x1234 page 1, caller planted_init-ish", v);
	P("vmalloc_guard", v + 3 * PAGE_SIZE + 0x10, "guard page of vmalloc 0x%px, 0x10 past its end", v);
	P("vmalloc_past", v + 5 * PAGE_SIZE + 0x10, "past the guard of 0x%px (maybe another area or hole)", v);
	P("vmap", m + 0x1008, "vmap of 2 pages 0x%px +0x1008", m);
	P("vmalloc_hole", VMALLOC_START + (1UL << 43), "far hole in vmalloc space");
	{
		void __iomem *io = ioremap(PLANTED_DEVICE, 0x1000);
		P("ioremap", (unsigned long)io + 0x20, "ioremap of 0x%x +0x20", PLANTED_DEVICE);
	}
	(void)vm;
}

static void planted_percpus(void)
{
	int i;
	P("pcpu_mod_instance", (char *)per_cpu_ptr(&planted_pcpu_var, 1) + 8, "planted_pcpu_var+8 of CPU 1 (module static)");
	P("pcpu_mod_instance0", per_cpu_ptr(&planted_pcpu_var, 0), "planted_pcpu_var of CPU 0 (module static)");
	P("pcpu_mod_cookie", (unsigned long)&planted_pcpu_var + 8, "__percpu pointer &planted_pcpu_var+8 (module static)");
	P("pcpu_static", per_cpu_ptr(&PLANTED_STATIC, 1), __stringify(PLANTED_STATIC) " of CPU 1 (vmlinux static)");
	P("pcpu_static_offset", (unsigned long)&PLANTED_STATIC + 4, "__percpu offset of " __stringify(PLANTED_STATIC) "+4");
	planted_dyn_pcpu = alloc_percpu(struct planted_dyn);
	P("pcpu_dyn", (char *)per_cpu_ptr(planted_dyn_pcpu, 1) + 0x10, "dynamic 64-byte alloc_percpu +0x10 on CPU 1; __percpu 0x%lx", (unsigned long)planted_dyn_pcpu);
	P("pcpu_dyn_cookie", (unsigned long)planted_dyn_pcpu + 0x10, "__percpu pointer of the dynamic 64-byte alloc +0x10");
	for (i = 0; i < 8; i++) planted_big_pcpu[i] = __alloc_percpu(24000, 8);
	P("pcpu_big", (char *)per_cpu_ptr(planted_big_pcpu[7], 1) + 0x100, "dynamic 24000-byte alloc_percpu (vmalloc chunk) +0x100 on CPU 1; __percpu 0x%lx", (unsigned long)planted_big_pcpu[7]);
	P("pcpu_big_cookie", (unsigned long)planted_big_pcpu[7] + 0x100, "__percpu pointer of it +0x100");
}

#ifdef CONFIG_X86
static void planted_cpu_stacks(void)
{
	int cpu;
	struct cea_exception_stacks *__percpu *cea = (void *)planted_find("cea_exception_stacks");
	for_each_online_cpu(cpu) {
		char key[40];
		struct cea_exception_stacks *e = *per_cpu_ptr((struct cea_exception_stacks **)cea, cpu);
		struct cpu_entry_area *area = container_of(e, struct cpu_entry_area, estacks);
		void *top;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
		top = per_cpu(pcpu_hot.hardirq_stack_ptr, cpu);
#else
		top = *per_cpu_ptr((void **)planted_find("hardirq_stack_ptr"), cpu);
#endif
		snprintf(key, sizeof(key), "irq_stack_cpu%d", cpu);
		P(key, (unsigned long)top - 0x100, "hardirq stack of CPU %d, 0x100 below hardirq_stack_ptr 0x%px", cpu, top);
		snprintf(key, sizeof(key), "irq_stack_guard_cpu%d", cpu);
		P(key, (unsigned long)top + 8 - 0x4000 - 0x20, "0x20 below the hardirq stack of CPU %d (guard)", cpu);
#define EST(n) do { snprintf(key, sizeof(key), "estack_" #n "_cpu%d", cpu); P(key, e->n##_stack + 0x800, #n " stack of CPU %d +0x800", cpu); } while (0)
		EST(DF); EST(NMI); EST(DB); EST(MCE);
		snprintf(key, sizeof(key), "estack_guard_NMI_cpu%d", cpu);
		P(key, e->NMI_stack_guard + 0xf80, "guard below the NMI stack of CPU %d: 0x80 below its bottom", cpu);
		snprintf(key, sizeof(key), "estack_guard_DB_cpu%d", cpu);
		P(key, e->DB_stack_guard + 0xff8, "guard below the DB stack of CPU %d: 8 below its bottom", cpu);
		snprintf(key, sizeof(key), "entry_stack_cpu%d", cpu);
		P(key, (unsigned long)&area->entry_stack_page.stack + 0x50, "entry trampoline stack of CPU %d +0x50", cpu);
		snprintf(key, sizeof(key), "cea_tss_cpu%d", cpu);
		P(key, &area->tss.x86_tss.sp0, "cpu_entry_area TSS.sp0 of CPU %d", cpu);
		snprintf(key, sizeof(key), "cea_gdt_cpu%d", cpu);
		P(key, area->gdt + 0x10, "cpu_entry_area GDT of CPU %d", cpu);
	}
}
#else
static void planted_cpu_stacks(void)
{
	char *__percpu *irq_stacks = (void *)planted_find("irq_stack_ptr");
	char __percpu *overflow_stacks = (void *)planted_find("overflow_stack");
	int cpu;
	for_each_online_cpu(cpu) {
		char key[40], *bottom = *per_cpu_ptr(irq_stacks, cpu);
		snprintf(key, sizeof(key), "irq_stack_cpu%d", cpu);
		P(key, bottom + THREAD_SIZE - 0x108, "IRQ stack of CPU %d, 0x108 below its end, irq_stack_ptr 0x%px", cpu, bottom);
		snprintf(key, sizeof(key), "irq_stack_guard_cpu%d", cpu);
		P(key, bottom - 0x20, "0x20 below the IRQ stack of CPU %d (guard)", cpu);
		snprintf(key, sizeof(key), "overflow_stack_cpu%d", cpu);
		P(key, per_cpu_ptr(overflow_stacks, cpu) + 0x800, "overflow stack of CPU %d +0x800", cpu);
	}
}
#endif

static void planted_stacks(void)
{
	planted_cpu_stacks();
	P("kthread_stack", planted_stack_local, "local of kthread plantedthread pid %d, live part, stack 0x%px", planted_thread->pid, task_stack_page(planted_thread));
	P("kthread_stack_dead", (unsigned long)task_stack_page(planted_thread) + 0x1000, "dead part (below sp) of stack of plantedthread pid %d sp 0x%lx", planted_thread->pid, PLANTED_SP(planted_thread));
	P("kthread_guard_below", (unsigned long)task_stack_page(planted_thread) - 0x18, "0x18 below the stack of plantedthread (area's gap/guard of the area below)");
	P("kthread_guard_above", (unsigned long)task_stack_page(planted_thread) + THREAD_SIZE + 0x28, "guard page above stack of plantedthread, 0x28 past end");
	P("kthread_end_magic", end_of_stack(planted_thread), "STACK_END_MAGIC word of plantedthread's stack, value 0x%lx", *end_of_stack(planted_thread));
	P("task_struct", &planted_thread->comm, "task_struct of plantedthread pid %d, member comm (offset 0x%zx) base 0x%px", planted_thread->pid, offsetof(struct task_struct, comm), planted_thread);
	P("init_task_stack", (unsigned long)task_stack_page(&init_task) + 0x3000, "init_task's stack (init_stack)");
}

static void planted_one_pte(struct mm_struct *mm, const char *who, unsigned long va)
{
	pgd_t *pgd; p4d_t *p4d; pud_t *pud; pmd_t *pmd;
	char key[40];
	pgd = mm->pgd + pgd_index(va);
	snprintf(key, sizeof(key), "pt_pgd_%s", who);
	P(key, pgd, "PGD entry of %s for user va 0x%lx (pgd page 0x%px)", who, va, mm->pgd);
	if (pgd_none(*pgd)) return;
	p4d = p4d_offset(pgd, va); if (p4d_none(*p4d)) return;
	if (pgtable_l5_enabled()) { snprintf(key, sizeof(key), "pt_p4d_%s", who); P(key, p4d, "P4D entry of %s for va 0x%lx", who, va); }
	pud = pud_offset(p4d, va); if (pud_none(*pud)) return;
	snprintf(key, sizeof(key), "pt_pud_%s", who);
	P(key, pud, "PUD entry of %s for va 0x%lx", who, va);
	pmd = pmd_offset(pud, va); if (pmd_none(*pmd)) return;
	snprintf(key, sizeof(key), "pt_pmd_%s", who);
	P(key, pmd, "PMD entry of %s for va 0x%lx", who, va);
	if (!pmd_leaf(*pmd)) {
		unsigned long pte = (unsigned long)pmd_page_vaddr(*pmd) + ((va >> 12) & 511) * 8;
		snprintf(key, sizeof(key), "pt_pte_%s", who);
		P(key, pte, "PTE entry of %s for va 0x%lx", who, va);
		snprintf(key, sizeof(key), "userpage_direct_%s", who);
		if (pte_present(*(pte_t *)pte)) {
			unsigned long pfn = pte_pfn(*(pte_t *)pte);
			P(key, (unsigned long)__va(pfn << 12) + 0x30, "direct map of user page va 0x%lx pfn 0x%lx", va, pfn);
			snprintf(key, sizeof(key), "struct_page_user_%s", who);
			P(key, pfn_to_page(pfn), "struct page of user page pfn 0x%lx", pfn);
		}
	}
}

static unsigned long uva;
module_param(uva, ulong, 0444);	/* a touched address of the process uname */
static char *uname = "planted_user";
module_param(uname, charp, 0444);

static void planted_tables(void)
{
	struct task_struct *p;
	struct mm_struct *init_mm_p = (void *)planted_find("init_mm");
	P("pt_swapper", (unsigned long)init_mm_p->pgd + 0x800, "init_mm's pgd (swapper_pg_dir)");
	rcu_read_lock();
	for_each_process(p) {
		if (!strcmp(p->comm, uname) && p->mm) {
			P("user_task", p, "task_struct of %s pid %d mm 0x%px", p->comm, p->pid, p->mm);
			P("user_mm", &p->mm->pgd, "mm_struct 0x%px of %s, member pgd", p->mm, p->comm);
			if (uva) planted_one_pte(p->mm, "user", uva);
			break;
		}
	}
	rcu_read_unlock();
	{	/* a PTE page of the kernel: of a vmalloc address */
		unsigned long va = (unsigned long)planted_thread->stack;
		pgd_t *pgd = init_mm_p->pgd + pgd_index(va);
		pmd_t *pmd = pmd_offset(pud_offset(p4d_offset(pgd, va), va), va);
		P("pt_kernel_pte", (unsigned long)pmd_page_vaddr(*pmd) + ((va >> 12) & 511) * 8, "kernel PTE entry for va 0x%lx (init_mm)", va);
		P("pt_kernel_pmd", pmd, "kernel PMD entry for va 0x%lx (init_mm)", va);
	}
}

static void planted_images(void)
{
	unsigned long schedule_at = (unsigned long)&schedule, banner = planted_find("linux_banner");
	unsigned long ib = planted_find("__init_begin"), ie = planted_find("__init_end"), a, seen = 0;
	unsigned long st = planted_find("start_kernel");
	P("text_alias", (unsigned long)__va(__pa_symbol(schedule_at)) + 4, "direct map of schedule+4, phys 0x%lx", __pa_symbol(schedule_at) + 4);
	P("rodata_alias", __va(__pa_symbol(banner)), "direct map of linux_banner");
	P("vm_text", schedule_at + 4, "schedule+4");
	P("vm_rodata", banner + 6, "linux_banner+6 (.rodata)");
	P("vm_data", &init_task, "init_task (.data)");
	P("vm_roai", planted_find("__start_ro_after_init") + 0x10, "ro_after_init section +0x10");
	P("vm_bss", planted_find("__bss_start") + 0x5000, "bss +0x5000");
#ifdef CONFIG_X86
	P("vm_brk", planted_find("__brk_base") + 0x40, "brk +0x40");
#endif
	P("vm_start_kernel", st, "start_kernel (.init.text, freed); page now %s", planted_page_kind(pfn_to_page(__pa_symbol(st) >> 12)));
	for (a = ib & PAGE_MASK; a < ie && seen != 31; a += PAGE_SIZE) {
		struct page *page = pfn_to_page(__pa_symbol(a) >> 12);
		const char *kind = planted_page_kind(page);
		int bit = PageSlab(page) ? 1 : PageTable(page) ? 2 : PageBuddy(page) ? 4 : PageAnon(page) ? 8 : page_count(page) && !PageReserved(page) ? 16 : 0;
		if (bit && !(seen & bit)) { char key[30]; seen |= bit; snprintf(key, sizeof(key), "init_now_%d", bit);
			P(key, a + 0x123, "vmlinux init page, now %s count %d pfn 0x%lx", kind, page_count(page), page_to_pfn(page)); }
	}
	P("mod_text", (unsigned long)&planted_text_function + 3, "planted_text_function+3");
	P("mod_text_alias", (unsigned long)page_address(vmalloc_to_page(planted_text_function)) + offset_in_page(planted_text_function), "direct map of planted_text_function");
	P("mod_rodata", (unsigned long)&planted_rodata_var + 8, "planted_rodata_var+8 (.rodata)");
	P("mod_data", &planted_data_var, "planted_data_var (.data)");
	P("mod_bss", &planted_bss_var[2], "planted_bss_var+0x10 (.bss)");
	P("mod_roai", &planted_ro_after_init_var, "planted_ro_after_init_var (.data..ro_after_init)");
	P("mod_readmostly", &planted_read_mostly_var, "planted_read_mostly_var (.data..read_mostly)");
	P("mod_init_data", &planted_initdata_var, "planted_initdata_var (.init.data, freed after load)");
	P("mod_this_module", THIS_MODULE, "__this_module (.gnu.linkonce.this_module)");
}

static void planted_pages(void)
{
	struct page *sp = virt_to_page(planted_objs[2]);
	P("struct_page_slab", compound_head(sp), "struct page (head) of planted_plain slab, pfn 0x%lx", page_to_pfn(compound_head(sp)));
	P("struct_page_mid", (unsigned long)sp + 0x18, "member at +0x18 of struct page pfn 0x%lx", page_to_pfn(sp));
	P("struct_page_misaligned", (unsigned long)sp + 0x13, "misaligned pointer, struct page pfn 0x%lx + 0x13", page_to_pfn(sp));
	planted_page_order2 = alloc_pages(GFP_KERNEL | __GFP_COMP, 2);
	P("compound_tail_page", planted_page_order2 + 3, "tail struct page 3 of an order-2 compound page, head pfn 0x%lx", page_to_pfn(planted_page_order2));
	P("compound_tail_data", (unsigned long)page_address(planted_page_order2) + 0x3010, "data in tail page 3 of an order-2 compound alloc_pages");
	{ struct page *one = alloc_page(GFP_KERNEL); P("plain_page", (unsigned long)page_address(one) + 0x44, "one alloc_page(GFP_KERNEL) pfn 0x%lx refcount 1", page_to_pfn(one)); }
	{ struct page *f = alloc_pages(GFP_KERNEL, 3); unsigned long v = (unsigned long)page_address(f); unsigned long pfn = page_to_pfn(f); __free_pages(f, 3);
	  P("freed_pages", v + 0x2040, "order-3 pages just freed, pfn 0x%lx+2", pfn); }
	P("vmemmap_beyond", (unsigned long)pfn_to_page(0x40000000UL), "struct page of a pfn beyond RAM (0x40000000): not mapped");
	P("direct_beyond", (unsigned long)__va(0x40000000000UL), "direct map beyond RAM");
}

static void planted_values(void)
{
	struct list_head *l = &((struct planted_obj *)planted_objs[3])->link;
	LIST_HEAD(head);
	list_add(l, &head); list_del(l);
	P("list_poison1", l->next, "value of list.next after list_del");
	P("list_poison2_off", (unsigned long)l->prev + 8, "value of list.prev after list_del, +8");
	P("err_enomem", ERR_PTR(-ENOMEM), "ERR_PTR(-ENOMEM)");
	P("err_512", ERR_PTR(-512), "ERR_PTR(-ERESTARTSYS)");
	P("null_off", 0x18, "NULL+0x18");
	P("zero_size", ZERO_SIZE_PTR, "ZERO_SIZE_PTR");
	P("flipped", (unsigned long)&planted_text_function ^ (1UL << 50), "planted_text_function with bit 50 flipped");
	P("flipped_direct", (unsigned long)planted_objs[2] ^ (1UL << 55), "planted_plain object with bit 55 flipped");
	P("ascii", 0x726f576f6c6c6548UL, "ASCII HelloWor");
	P("swapped", ((unsigned long)&schedule << 32) | ((unsigned long)&schedule >> 32), "schedule with its halves swapped");
	if (planted_objs[61]) P("poison_in_use_word", 0x5a5a5a5a5a5a5a5aUL, "POISON_INUSE pattern");
	P("poison_free_word", 0x6b6b6b6b6b6b6b8bUL, "POISON_FREE + 0x20");
	P("redzone_word", 0xccccccccccccccccUL, "SLUB_RED_ACTIVE / init poison 0xcc");
	P("redzone_inactive", 0xbbbbbbbbbbbbbbbbUL, "SLUB_RED_INACTIVE");
	P("page_poison", 0xaaaaaaaaaaaaaaaaUL, "PAGE_POISON");
	P("stack_end_magic", 0x57AC6E9DUL, "STACK_END_MAGIC");
	P("timer_poison", 0xdead000000000122UL, "LIST_POISON2");
	P("mutex_poison", 0x1111111111111111UL, "MUTEX_DEBUG_FREE pattern");
}

/* Make pages of the kernel's freed init memory be used: as a slab, a stack, vmalloc memory, (by whoever forks next) page tables. */
static struct planted_obj *planted_more[200]; static struct task_struct *planted_threads[12];
static noinline void planted_reuse(void)
{
	unsigned long ib = __pa_symbol(planted_find("__init_begin")) >> 12, ie = __pa_symbol(planted_find("__init_end")) >> 12;
	struct page *page, *next; LIST_HEAD(others); LIST_HEAD(inits); int n = 0, i, k; char *v; struct kmem_cache *c;
	while (n < 96 && (page = alloc_page(GFP_NOWAIT | __GFP_NOWARN | __GFP_NORETRY))) {
		unsigned long pfn = page_to_pfn(page);
		if (pfn >= ib && pfn < ie) { list_add(&page->lru, &inits); n++; } else list_add(&page->lru, &others);
	}
	list_for_each_entry_safe(page, next, &others, lru) { list_del(&page->lru); __free_page(page); }
	list_for_each_entry_safe(page, next, &inits, lru) { list_del(&page->lru); __free_page(page); }
	c = kmem_cache_create("planted_reuse", sizeof(struct planted_obj), 0, 0, planted_ctor);
	for (i = 0; i < 100; i++) planted_more[i] = kmem_cache_alloc(c, GFP_KERNEL);
	for (i = 0; i < 12; i++) planted_threads[i] = kthread_run(planted_sleep_outer, NULL, "reuse%d", i);
	v = vmalloc(8 * PAGE_SIZE); memset(v, 1, 8 * PAGE_SIZE);
	for (i = 0, k = 0; i < 100 && k < 2; i++) { unsigned long pfn = virt_to_phys(planted_more[i]) >> 12; if (pfn >= ib && pfn < ie) { k++;
		P("reuse_slab", (unsigned long)planted_find("__init_begin") + ((pfn - ib) << 12) + offset_in_page(planted_more[i]) + 8, "init page now slab planted_reuse, object 0x%px +8", planted_more[i]); } }
	for (i = 0, k = 0; i < 12 && k < 2; i++) { unsigned long a = (unsigned long)planted_threads[i]->stack; int j; for (j = 0; j < 4; j++) { unsigned long pfn = page_to_pfn(vmalloc_to_page((void *)(a + j * 4096))); if (pfn >= ib && pfn < ie && k < 2) { k++;
		P("reuse_stack", (unsigned long)planted_find("__init_begin") + ((pfn - ib) << 12) + 0x40, "init page now page %d of the stack 0x%lx of %s pid %d", j, a, planted_threads[i]->comm, planted_threads[i]->pid); } } }
	for (i = 0, k = 0; i < 8 && k < 1; i++) { unsigned long pfn = page_to_pfn(vmalloc_to_page(v + i * 4096)); if (pfn >= ib && pfn < ie) { k++;
		P("reuse_vmalloc", (unsigned long)planted_find("__init_begin") + ((pfn - ib) << 12) + 0x40, "init page now page %d of vmalloc 0x%px", i, v); } }
	P("reuse_done", n, "init pages had");
}
static int planted_scan(void)
{
	unsigned long ib = __pa_symbol(planted_find("__init_begin")) >> 12, ie = __pa_symbol(planted_find("__init_end")) >> 12, p; int k = 0;
	for (p = ib; p < ie; p++) { struct page *page = pfn_to_page(p); if (PageTable(page) && k++ < 3) P("reuse_pagetable", (unsigned long)planted_find("__init_begin") + ((p - ib) << 12) + 0x58, "init page now a page table, pfn 0x%lx", p); }
	P("scan_done", k, "page tables in init memory");
	return 0;
}
/* Written to: 1 has init pages used by a slab, stacks and vmalloc memory; 2 reports those that are page tables by now. */
static int planted_reuse_set(const char *val, const struct kernel_param *kp)
{
	int how = simple_strtol(val, NULL, 0);
	if (how == 1) planted_reuse();
	else if (how == 2) return planted_scan();
	return 0;
}
static const struct kernel_param_ops planted_reuse_ops = { .set = planted_reuse_set };
module_param_cb(reuse, &planted_reuse_ops, NULL, 0200);

static int __init planted_init(void)
{
	int r = planted_find_lookup();
	if (r) return r;
	P("mod_init_text", (unsigned long)&planted_init + 5, "planted_init+5 (.init.text of the module, freed after load)");
	planted_thread = kthread_run(planted_sleep_outer, NULL, "plantedthread");
	while (!READ_ONCE(planted_stack_local)) msleep(5);
	msleep(20);
	planted_slabs(); planted_vmallocs(); planted_percpus(); planted_stacks(); planted_tables(); planted_images(); planted_pages(); planted_values();
	P("done", 0, "planted");
	return 0;
}
module_init(planted_init);
