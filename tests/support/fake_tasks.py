"""Tasks of a fake kernel, and their stacks and the CPUs' own: include/linux/sched.h, kernel/pid.c, lib/xarray.c (6.12).

Without what no test asks of. CPU 0's idle task is init_task, in the image, and its stack is init_stack; CPU 1's has
both in the direct map.
"""

from __future__ import annotations

from support.fake_kernel import DATA, INIT_TASK, FakeKernel
from support.fake_vmap import FakeVmap

TASK_SIZE = 0x200


class FakeTasks:
    """The idle tasks; tests add others. `vmap` has the areas of stacks (CONFIG_VMAP_STACK)."""

    def __init__(self, fake: FakeKernel, vmap: FakeVmap | None = None) -> None:
        self.fake = fake
        self.vmap = vmap or FakeVmap(fake)
        fake.enum("pid_type", PIDTYPE_PID=0, PIDTYPE_TGID=1)
        fake.struct("hlist_node", 16, next=("struct hlist_node *", 0), pprev=("void *", 8))
        fake.struct("hlist_head", 8, first=("struct hlist_node *", 0))
        fake.struct("thread_info", 24, flags=("unsigned long", 0), cpu=("unsigned int", 16))
        fake.struct("cpu_context", 8, sp=("unsigned long", 0))
        is_x86 = fake.machine.name == "x86_64"
        own = {"sp": ("unsigned long", 0)} if is_x86 else {"cpu_context": ("struct cpu_context", 0)}
        fake.struct("thread_struct", 8, **own)
        self.saved_pointer = "thread.sp" if is_x86 else "thread.cpu_context.sp"
        fake.struct(
            "task_struct", TASK_SIZE, thread_info=("struct thread_info", 0), stack=("void *", 32),
            mm=("struct mm_struct *", 40), pid=("int", 48), on_cpu=("int", 52), comm=("char [16]", 56),
            pid_links=("struct hlist_node [2]", 72), thread=("struct thread_struct", 104),
        )  # fmt: skip
        if not fake.has("mm_struct"):
            fake.struct("mm_struct", 64, pgd=("unsigned long *", 0))
        fake.struct("rq", 16, curr=("struct task_struct *", 0), idle=("struct task_struct *", 8))
        fake.struct("pid", 32, tasks=("struct hlist_head [2]", 8))
        fake.struct("xa_node", 544, shift=("unsigned char", 0), slots=("void *[64]", 32))
        fake.struct("xarray", 16, xa_flags=("unsigned int", 4), xa_head=("void *", 8))
        fake.struct("idr", 24, idr_rt=("struct xarray", 0), idr_base=("unsigned int", 16))
        fake.struct("pid_namespace", 24, idr=("struct idr", 0))
        self.slots = fake.make("xa_node")
        namespace = fake.variable("init_pid_ns", "struct pid_namespace")
        fake.words(namespace + 8, self.slots + 2)  # xa_mk_node()
        image = fake.machine.image
        fake.known("init_task", "struct task_struct", image + INIT_TASK, TASK_SIZE)
        self.idle = [image + INIT_TASK, fake.make("task_struct")]
        queues = fake.percpu("runqueues", "struct rq")
        for cpu, place in enumerate(self.idle):
            stack = image + DATA if cpu == 0 else fake.take(0x5000, 0x4000)
            self._fill(place, 0, f"swapper/{cpu}", cpu, stack, 0)
            fake.words(fake.cpu_area(cpu) + queues, place, place)

    def task(self, pid: int, comm: str, *, cpu: int = 0, stack: int = 0, mm: int = 0, at: int | None = None) -> int:
        """A task with that ID, and where its task_struct is: in memory that nobody has yet, or told by `at`."""
        fake = self.fake
        place = fake.take(2 * TASK_SIZE) if at is None else at
        self._fill(place, pid, comm, cpu, stack, mm)
        structure = fake.make("pid", {"tasks[0].first": place + 72})
        fake.words(self.slots + 32 + 8 * pid, structure)
        return place

    def on_vmap_stack(self, pid: int, comm: str, start: int) -> int:
        """A task whose stack is a vmap area at `start`."""
        self.vmap.area(start, 4)
        return self.task(pid, comm, stack=start)

    def _fill(self, place: int, pid: int, comm: str, cpu: int, stack: int, mm: int) -> None:
        values = {"thread_info.cpu": cpu, "stack": stack, "mm": mm, "pid": pid, "comm": comm.encode()}
        self.fake.put("task_struct", place, values)
