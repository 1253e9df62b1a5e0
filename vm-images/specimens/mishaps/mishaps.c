// SPDX-License-Identifier: MIT
/*
 * What a kernel reports in its log, one mishap for each word written to /proc/mishaps, which no lock of another's is
 * held for. Before it happens the module says of it what is known by construction:
 *
 *	mishaps: WAY function=F access=A address=X cpu=N pid=N comm=C
 *
 * A way that this kernel does not have is EINVAL.
 */
#include <linux/delay.h>
#include <linux/etherdevice.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/proc_fs.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#ifdef CONFIG_KFENCE
#include <linux/kfence.h>
#endif

MODULE_LICENSE("GPL");

/* What an address is where the way has none. */
#define NONE ((void *)1)

static void mishaps_say(const char *way, const char *function, const char *access, const void *address)
{
	char number[24] = "none";

	if (address != NONE)
		snprintf(number, sizeof(number), "0x%lx", (unsigned long)address);
	pr_warn("mishaps: %s function=%s access=%s address=%s cpu=%d pid=%d comm=%s\n", way, function, access, number,
		raw_smp_processor_id(), current->pid, current->comm);
}

static u64 mishaps_got;
static volatile int mishaps_many = 1000;
static const u64 mishaps_constant[64] = { 1 };

/* Each function goes on after what it calls, so that none of the calls is a jump. */
static noinline void mishaps_read(volatile u64 *p)
{
	mishaps_got = *p;
	barrier();
}

static noinline void mishaps_write(volatile u64 *p)
{
	*p = 1;
	barrier();
}

static noinline void mishaps_call(void (*to)(void))
{
	to();
	barrier();
}

static noinline void mishaps_warn(void)
{
	WARN(1, "mishaps: asked to warn, %d\n", 42);
}

static noinline void mishaps_warn_on(void)
{
	WARN_ON(mishaps_many);
}

static noinline void mishaps_bug(void)
{
	BUG_ON(mishaps_many);
}

static noinline void mishaps_panic(void)
{
	panic("mishaps: asked to panic");
}

#ifdef CONFIG_X86
static noinline void mishaps_divide(volatile int *by)
{
	mishaps_got = mishaps_many / *by;
	barrier();
}

static noinline void mishaps_undefined(void)
{
	asm volatile(".byte 0x0f, 0xff, 0xc0");	/* ud0, which is no BUG() */
}
#endif

static noinline void mishaps_list_del(struct list_head *entry)
{
	list_del(entry);
	barrier();
	list_del(entry);
	barrier();
}

static noinline void mishaps_list_add(struct list_head *head, struct list_head *entry)
{
	head->next->prev = entry;
	list_add(entry + 1, head);
	barrier();
}

static noinline void mishaps_refcount_add(refcount_t *count)
{
	refcount_set(count, 0);
	refcount_inc(count);
	barrier();
}

static noinline void mishaps_refcount_underflow(refcount_t *count)
{
	refcount_set(count, 0);
	mishaps_got = refcount_dec_and_test(count);
	barrier();
}

static noinline void mishaps_refcount_saturate(refcount_t *count)
{
	refcount_set(count, INT_MAX);
	refcount_inc(count);
	barrier();
}

static noinline void mishaps_usercopy(char *object)
{
	mishaps_got = copy_to_user((void __user *)current->mm->start_stack, object, mishaps_many);
	barrier();
}

static noinline void mishaps_sleep_in_atomic(void)
{
	local_bh_disable();
	msleep(10);
	/* Softirqs are on again: the scheduler has set the count back. */
	barrier();
}

static noinline void mishaps_alloc_pages(void)
{
	static struct page *found[4096];
	unsigned int n = 0;

	while (n < ARRAY_SIZE(found) && (found[n] = alloc_pages(GFP_ATOMIC | __GFP_COMP, 9)))
		n++;
	while (n--)
		__free_pages(found[n], 9);
}

static noinline void mishaps_vmalloc(void)
{
	mishaps_got = (unsigned long)vmalloc(1UL << 40);
	barrier();
}

static noinline void mishaps_smash(volatile int many)
{
	char room[32];
	volatile char *p = room;
	int n;

	for (n = 0; n < many; n++)
		p[n] = n;
}

#ifdef CONFIG_UBSAN
static int mishaps_table[8];

static noinline int mishaps_index(volatile int *at)
{
	return mishaps_table[*at];
}

static noinline int mishaps_shift(volatile int *by)
{
	return 1 << *by;
}
#endif

#ifdef CONFIG_KFENCE
static char *mishaps_fenced(void)
{
	int tries;

	for (tries = 0; tries < 20000; tries++) {
		char *p = kmalloc(32, GFP_KERNEL);

		if (is_kfence_address(p))
			return p;
		kfree(p);
		if (tries % 16 == 15)
			msleep(2);
	}
	return NULL;
}

static noinline void mishaps_free_twice(char *p)
{
	kfree(p);
	barrier();
	kfree(p);
	barrier();
}

static noinline void mishaps_free_damaged(char *p)
{
	/* The rest of its page is no object's. */
	p[offset_in_page(p) ? -1 : 32] ^= 1;
	kfree(p);
	barrier();
}

static int mishaps_kfence(const char *word)
{
	char *p = mishaps_fenced(), *beyond;

	if (!p)
		return -ENOMEM;
	beyond = offset_in_page(p) ? p + 32 : p - 8;
	if (sysfs_streq(word, "kfence-uaf-read")) {
		kfree(p);
		mishaps_say("kfence-uaf-read", "mishaps_read", "read", p);
		mishaps_read((u64 *)p);
	} else if (sysfs_streq(word, "kfence-oob-write")) {
		mishaps_say("kfence-oob-write", "mishaps_write", "write", beyond);
		mishaps_write((u64 *)beyond);
	} else if (sysfs_streq(word, "kfence-double-free")) {
		mishaps_say("kfence-double-free", "mishaps_free_twice", "none", p);
		mishaps_free_twice(p);
	} else if (sysfs_streq(word, "kfence-corruption")) {
		mishaps_say("kfence-corruption", "mishaps_free_damaged", "none", offset_in_page(p) ? p - 1 : p + 32);
		mishaps_free_damaged(p);
	} else {
		return -EINVAL;
	}
	return 0;
}
#endif

/* Threads, on CPU 1. */
static DEFINE_MUTEX(mishaps_mutex);

static noinline int mishaps_hold(void *unused)
{
	mutex_lock(&mishaps_mutex);
	mishaps_say("hung-task", "mishaps_hold", "none", NONE);
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	mutex_unlock(&mishaps_mutex);
	return 0;
}

static noinline int mishaps_wait(void *unused)
{
	mishaps_say("hung-task", "mishaps_wait", "none", NONE);
	mutex_lock(&mishaps_mutex);
	mutex_unlock(&mishaps_mutex);
	return 0;
}

static noinline void mishaps_loop(unsigned int seconds)
{
	unsigned int n;

	/* jiffies stand still where the only other CPU waits for this one. */
	for (n = 0; n < seconds * 1000; n++)
		mdelay(1);
}

static int mishaps_spin(void *seconds)
{
	mishaps_say("spin", "mishaps_loop", "none", NONE);
	preempt_disable();
	mishaps_loop((unsigned long)seconds);
	preempt_enable();
	return 0;
}

static int mishaps_spin_irqs_off(void *seconds)
{
	unsigned int n;

	/* Without NMIs it is seen where interrupts are on again, so nothing is called. */
	mishaps_say("spin-irqs-off", "mishaps_spin_irqs_off", "none", NONE);
	local_irq_disable();
	for (n = 0; n < (unsigned long)seconds * 1000; n++)
		mdelay(1);
	local_irq_enable();
	return 0;
}

static int mishaps_thread(int (*function)(void *), void *data, const char *name)
{
	struct task_struct *thread = kthread_create(function, data, "%s", name);

	if (IS_ERR(thread))
		return PTR_ERR(thread);
	kthread_bind(thread, 1);
	wake_up_process(thread);
	msleep(100);
	return 0;
}

/* A network device that takes one packet and never sends it. */
static netdev_tx_t mishaps_xmit(struct sk_buff *skb, struct net_device *dev)
{
	netif_stop_queue(dev);
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static void mishaps_tx_timeout(struct net_device *dev, unsigned int queue)
{
	netif_carrier_off(dev);
}

static const struct net_device_ops mishaps_netdev = {
	.ndo_start_xmit = mishaps_xmit,
	.ndo_tx_timeout = mishaps_tx_timeout,
};

static int mishaps_register_netdev(void)
{
	struct net_device *dev = alloc_etherdev(0);

	if (!dev)
		return -ENOMEM;
	dev->netdev_ops = &mishaps_netdev;
	dev->watchdog_timeo = HZ;
	eth_hw_addr_random(dev);
	strscpy(dev->name, "mishap0", sizeof(dev->name));
	return register_netdev(dev);
}

#define IS(way) sysfs_streq(word, way)

static int mishaps_make(const char *word)
{
	static struct list_head heads[4];
	static refcount_t count;
	static int zero, many = 33;

	if (IS("null-read")) {
		mishaps_say("null-read", "mishaps_read", "read", (void *)0x18);
		mishaps_read((u64 *)0x18);
	} else if (IS("null-write")) {
		mishaps_say("null-write", "mishaps_write", "write", (void *)0x28);
		mishaps_write((u64 *)0x28);
	} else if (IS("null-exec")) {
		mishaps_say("null-exec", "mishaps_call", "execute", NULL);
		mishaps_call(NULL);
	} else if (IS("data-exec")) {
		mishaps_say("data-exec", "mishaps_call", "execute", &mishaps_got);
		mishaps_call((void *)&mishaps_got);
	} else if (IS("non-canonical")) {
		mishaps_say("non-canonical", "mishaps_read", "read", (void *)0xdead000000000108);
		mishaps_read((u64 *)0xdead000000000108);
	} else if (IS("unmapped-write")) {
		u64 *p = vmalloc(PAGE_SIZE);

		mishaps_say("unmapped-write", "mishaps_write", "write", p + PAGE_SIZE / 8);
		mishaps_write(p + PAGE_SIZE / 8);
	} else if (IS("constant-write")) {
		mishaps_say("constant-write", "mishaps_write", "write", &mishaps_constant[8]);
		mishaps_write((u64 *)&mishaps_constant[8]);
	} else if (IS("warn")) {
		mishaps_say("warn", "mishaps_warn", "none", NONE);
		mishaps_warn();
	} else if (IS("warn-on")) {
		mishaps_say("warn-on", "mishaps_warn_on", "none", NONE);
		mishaps_warn_on();
	} else if (IS("bug")) {
		mishaps_say("bug", "mishaps_bug", "none", NONE);
		mishaps_bug();
	} else if (IS("panic")) {
		mishaps_say("panic", "mishaps_panic", "none", NONE);
		mishaps_panic();
#ifdef CONFIG_X86
	} else if (IS("divide")) {
		mishaps_say("divide", "mishaps_divide", "none", NONE);
		mishaps_divide(&zero);
	} else if (IS("undefined")) {
		mishaps_say("undefined", "mishaps_undefined", "none", NONE);
		mishaps_undefined();
#endif
	} else if (IS("list-del")) {
		INIT_LIST_HEAD(&heads[0]);
		list_add(&heads[1], &heads[0]);
		mishaps_say("list-del", "mishaps_list_del", "none", NONE);
		mishaps_list_del(&heads[1]);
	} else if (IS("list-add")) {
		INIT_LIST_HEAD(&heads[0]);
		mishaps_say("list-add", "mishaps_list_add", "none", NONE);
		mishaps_list_add(&heads[0], &heads[1]);
	} else if (IS("refcount-add")) {
		mishaps_say("refcount-add", "mishaps_refcount_add", "none", NONE);
		mishaps_refcount_add(&count);
	} else if (IS("refcount-underflow")) {
		mishaps_say("refcount-underflow", "mishaps_refcount_underflow", "none", NONE);
		mishaps_refcount_underflow(&count);
	} else if (IS("refcount-saturate")) {
		mishaps_say("refcount-saturate", "mishaps_refcount_saturate", "none", NONE);
		mishaps_refcount_saturate(&count);
	} else if (IS("usercopy")) {
		char *object = kzalloc(64, GFP_KERNEL);

		mishaps_say("usercopy", "mishaps_usercopy", "read", NONE);
		mishaps_usercopy(object);
	} else if (IS("atomic")) {
		mishaps_say("atomic", "mishaps_sleep_in_atomic", "none", NONE);
		mishaps_sleep_in_atomic();
	} else if (IS("alloc-pages")) {
		mishaps_say("alloc-pages", "mishaps_alloc_pages", "none", NONE);
		mishaps_alloc_pages();
	} else if (IS("vmalloc")) {
		mishaps_say("vmalloc", "mishaps_vmalloc", "none", NONE);
		mishaps_vmalloc();
	} else if (IS("smash")) {
		mishaps_say("smash", "mishaps_smash", "none", NONE);
		mishaps_smash(64);
#ifdef CONFIG_UBSAN
	} else if (IS("ubsan-index")) {
		mishaps_say("ubsan-index", "mishaps_index", "none", NONE);
		mishaps_got = mishaps_index(&many);
	} else if (IS("ubsan-shift")) {
		mishaps_say("ubsan-shift", "mishaps_shift", "none", NONE);
		mishaps_got = mishaps_shift(&many);
#endif
#ifdef CONFIG_KFENCE
	} else if (strstarts(word, "kfence-")) {
		return mishaps_kfence(word);
#endif
	} else if (IS("hung-task")) {
		return mishaps_thread(mishaps_hold, NULL, "mishaps_holder") ?:
		       mishaps_thread(mishaps_wait, NULL, "mishaps_waiter");
	} else if (IS("spin")) {
		return mishaps_thread(mishaps_spin, (void *)4, "mishaps_spinner");
	} else if (IS("spin-irqs-off")) {
		return mishaps_thread(mishaps_spin_irqs_off, (void *)10, "mishaps_spinner");
	} else if (IS("netdev")) {
		pr_warn("mishaps: netdev function=none access=none address=none cpu=none pid=none comm=none\n");
		return mishaps_register_netdev();
	} else {
		return -EINVAL;
	}
	return 0;
}

static ssize_t mishaps_proc_write(struct file *file, const char __user *text, size_t size, loff_t *position)
{
	char word[32] = "";
	int status;

	if (size >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, text, size))
		return -EFAULT;
	status = mishaps_make(word);
	return status ?: size;
}

static const struct proc_ops mishaps_proc = { .proc_write = mishaps_proc_write };

static int __init mishaps_init(void)
{
	return proc_create("mishaps", 0200, NULL, &mishaps_proc) ? 0 : -ENOMEM;
}
module_init(mishaps_init);
