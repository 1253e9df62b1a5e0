// SPDX-License-Identifier: MIT
/* Objects for KASAN, each reported by it:  PLANT|key|address|truth, and then the report. Written to, so that no frame of
 * the stacks is in init memory. */
#include <linux/module.h>
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/rcupdate.h>
#include <linux/workqueue.h>

MODULE_LICENSE("GPL");

struct planted_thing { struct rcu_head rcu; char tail[184]; };

static struct kmem_cache *planted_plain, *planted_constructed, *planted_typesafe;
static char planted_global[13];

static void planted_construct(void *object) { memset(object, 0, 64); }

/* Callers that can be told by name. */
static noinline void *planted_make(size_t size) { void *p = kmalloc(size, GFP_KERNEL); barrier(); return p; }
static noinline void planted_drop(void *p) { kfree(p); barrier(); }
static noinline void *planted_make_of(struct kmem_cache *cache) { void *p = kmem_cache_alloc(cache, GFP_KERNEL); barrier(); return p; }
static noinline void planted_drop_of(struct kmem_cache *cache, void *p) { kmem_cache_free(cache, p); barrier(); }
static noinline void planted_touch(const char *key, volatile char *p, const char *what)
{
	printk(KERN_INFO "PLANT|%s|0x%lx|%s\n", key, (unsigned long)p, what);
	if (what[0] != '-') (void)*p;
}
static noinline void planted_later(struct rcu_head *head) { planted_drop(container_of(head, struct planted_thing, rcu)); }

static int planted_plant(const char *value, const struct kernel_param *param)
{
	static const int sizes[] = { 8, 16, 32, 50, 200, 1000, 5000 };
	struct planted_thing *thing;
	char key[32], local[13];
	char *p;
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		p = planted_make(sizes[i]);
		snprintf(key, sizeof(key), "freed_%d", sizes[i]);
		planted_drop(p);
		planted_touch(key, p + 3, "freed");
		p = planted_make(sizes[i]);
		snprintf(key, sizeof(key), "past_%d", sizes[i]);
		planted_touch(key, p + sizes[i], "past the end of an allocated one");
	}
	p = planted_make_of(planted_plain);
	planted_drop_of(planted_plain, p);
	planted_touch("freed_of_cache", p + 5, "freed");
	p = planted_make_of(planted_constructed);
	planted_drop_of(planted_constructed, p);
	planted_touch("freed_constructed", p + 5, "freed");
	p = planted_make_of(planted_plain);
	planted_touch("live", p + 5, "- allocated, and nothing to report");
	p = planted_make_of(planted_typesafe);
	planted_touch("live_typesafe", p + 5, "- allocated");
	p = planted_make_of(planted_typesafe);
	planted_drop_of(planted_typesafe, p);
	planted_touch("freed_typesafe", p + 5, "- freed, but may be read");
	thing = planted_make(sizeof(*thing));
	call_rcu(&thing->rcu, planted_later);
	rcu_barrier();
	planted_touch("freed_by_rcu", (char *)thing + 24, "freed");
	p = planted_global;
	OPTIMIZER_HIDE_VAR(p);
	planted_touch("global", p + 14, "past the end of a global variable");
	p = local;
	OPTIMIZER_HIDE_VAR(p);
	memset(p, 0, sizeof(local));
	planted_touch("stack", p + 14, "past the end of a local variable");
	return 0;
}

static const struct kernel_param_ops planted_plant_ops = { .set = planted_plant };
module_param_cb(plant, &planted_plant_ops, NULL, 0200);

static int __init planted_init(void)
{
	planted_plain = kmem_cache_create("planted_plain", 200, 0, 0, NULL);
	planted_constructed = kmem_cache_create("planted_constructed", 64, 0, 0, planted_construct);
	planted_typesafe = kmem_cache_create("planted_typesafe", 72, 0, SLAB_TYPESAFE_BY_RCU, NULL);
	return planted_plain && planted_constructed && planted_typesafe ? 0 : -ENOMEM;
}
module_init(planted_init);
