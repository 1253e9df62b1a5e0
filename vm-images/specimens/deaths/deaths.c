// SPDX-License-Identifier: MIT
/*
 * Ways for a kernel to die, so that its stack can be looked at. Each is a word written to
 * /sys/module/deaths/parameters/die; `panic_in_init` is for insmod.
 */
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/timer.h>
#ifdef CONFIG_X86
#include <asm/nmi.h>
#endif

MODULE_LICENSE("GPL");

static u64 deaths_read;
static u64 deaths_data = 1;
static struct hrtimer deaths_hrtimer;
static struct timer_list deaths_timer;

/* Each returns after what it calls, so that none of the calls is a jump. */
static noinline void deaths_read_null(volatile u64 *p)
{
	deaths_read = p[3];
	barrier();
}

static noinline void deaths_call(void (*to)(void))
{
	to();
	barrier();
}

static noinline int deaths_recurse(int depth)
{
	volatile char room[200];

	room[0] = depth;
	return depth > 1000000 ? 0 : deaths_recurse(depth + 1) + room[0];
}

static enum hrtimer_restart deaths_in_irq(struct hrtimer *timer)
{
	deaths_read_null(NULL);
	return HRTIMER_NORESTART;
}

static void deaths_in_softirq(struct timer_list *timer)
{
	deaths_read_null(NULL);
	barrier();
}

static noinline int deaths_spin_inner(void)
{
	while (!kthread_should_stop())
		cpu_relax();
	return 0;
}

static int deaths_spin(void *unused)
{
	int status = deaths_spin_inner();

	barrier();
	return status;
}

static void deaths_arm(void *softirq)
{
	if (softirq) {
		timer_setup(&deaths_timer, deaths_in_softirq, TIMER_PINNED);
		mod_timer(&deaths_timer, jiffies + HZ / 10);
	} else {
		hrtimer_init(&deaths_hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
		deaths_hrtimer.function = deaths_in_irq;
		hrtimer_start(&deaths_hrtimer, ms_to_ktime(100), HRTIMER_MODE_REL_PINNED_HARD);
	}
}

/* On CPU 1, over a thread of ours that never sleeps. */
static int deaths_interrupt(bool softirq)
{
	struct task_struct *spinner = kthread_create(deaths_spin, NULL, "deaths");

	if (IS_ERR(spinner))
		return PTR_ERR(spinner);
	kthread_bind(spinner, 1);
	wake_up_process(spinner);
	msleep(50);
	return smp_call_function_single(1, deaths_arm, (void *)(unsigned long)softirq, 1);
}

#ifdef CONFIG_X86
static int deaths_in_nmi(unsigned int type, struct pt_regs *regs)
{
	deaths_read_null(NULL);
	return NMI_HANDLED;
}
#endif

static int deaths_die(const char *word, const struct kernel_param *parameter)
{
	if (sysfs_streq(word, "null"))
		deaths_read_null(NULL);
	else if (sysfs_streq(word, "call-null"))
		deaths_call(NULL);
	else if (sysfs_streq(word, "call-slab"))
		deaths_call(kzalloc(192, GFP_KERNEL));
	else if (sysfs_streq(word, "call-data"))
		deaths_call((void *)&deaths_data);
	else if (sysfs_streq(word, "overflow"))
		return deaths_recurse(0);
	else if (sysfs_streq(word, "irq"))
		return deaths_interrupt(false);
	else if (sysfs_streq(word, "softirq"))
		return deaths_interrupt(true);
#ifdef CONFIG_X86
	else if (sysfs_streq(word, "nmi"))
		return register_nmi_handler(NMI_LOCAL, deaths_in_nmi, 0, "deaths");
#endif
	else
		return -EINVAL;
	return 0;
}

static const struct kernel_param_ops deaths_ops = { .set = deaths_die };
module_param_cb(die, &deaths_ops, NULL, 0200);

static bool panic_in_init;
module_param(panic_in_init, bool, 0);

static int __init deaths_init(void)
{
	if (panic_in_init)
		panic("deaths: asked to");
	return 0;
}
module_init(deaths_init);
