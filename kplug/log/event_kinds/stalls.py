"""What does not go on: RCU stalls, lockups of CPUs, hung tasks, stalled workqueues."""

from __future__ import annotations

from kplug.log.forms import NAME, SYMBOL
from kplug.log.kinds import EventKind, Heading, Wording

_RCU = "kernel/rcu/tree_stall.h"
_WATCHDOG = "kernel/watchdog.c"
_POWERPC = "arch/powerpc/kernel/watchdog.c"
_HUNG = "kernel/hung_task.c, check_hung_task()"
_WORKQUEUE = "kernel/workqueue.c"
_SHOW_TASK = "kernel/sched/core.c, sched_show_task()"

# The functions in which a task waits; kernel/sched, kernel/locking, mm/filemap.c, fs/buffer.c.
WAITING = (
    r"(?:__)?schedule(?:_.*)?|io_schedule(?:_.*)?|preempt_schedule.*|__cond_resched|__switch_to(?:_.*)?|context_switch|"
    r"(?:do_|__){0,3}wait_for_common(?:_.*)?|wait_for_completion.*|(?:__|out_of_line_)?wait_on_.*|bit_wait.*|"
    r"(?:__)?(?:mutex|rt_mutex|rwbase|ww_mutex|rwsem)_.*|__mutex_lock.*|(?:__)?down(?:_.*)?|percpu_down_.*|"
    r"__percpu_.*|folio_wait_.*|prepare_to_wait.*|(?:__)?wait_rcu_gp|wait_rcu_exp_gp|msleep.*|usleep_range.*|"
    r"fsleep|ssleep|_raw_.*|call_rwsem_.*|__down_.*|kthread_parkme|dequeue_task.*|do_nanosleep|__sched_text_start|"
    r"rcu_barrier|cancel_(?:delayed_)?work_sync|__cancel_work.*|(?:__)?flush_(?:work|workqueue|delayed_work).*|"
    r"drain_workqueue|kthread_stop.*|(?:__)?lock_page.*|__?folio_lock.*|io_wait_event.*|complete_all",
)
# Lines about a task, above its trace.
TASK = (
    Wording(
        r"task:(?P<comm>\S[^\n]{0,63}?)\s{1,30}state:(?P<state>\S)[^\n]{0,30}?"
        r" stack:\s{0,30}\d{1,10}\s{1,30}pid:\s{0,30}(?P<pid>\d{1,10})",
        "task:kworker/0:1     state:D stack:0     pid:77    tgid:77    ppid:2      flags:0x00004000",
        f"{_SHOW_TASK}, 5.11 and later",
    ),
    Wording(
        r"(?P<comm>\S[^\n]{0,30}?)\s{1,30}(?P<state>[RSDTtXZPI])\s{1,30}(?:running task|[0-9a-f]{8,16}"
        r"|\d{1,6})\s{1,30}\d{1,10}\s{1,30}"
        r"(?P<pid>\d{1,10})\s{1,30}\d{1,10}(?: \(\w{1,20}\))?\s{1,30}0x[0-9a-f]{8}",
        "kworker/0:1     D ffff88007fc93540     0   411      2 0x00000000",
        f"{_SHOW_TASK}, before 5.11",
    ),
)
_NMI = (
    Wording(r"(?:Sending|sending) NMI (?:from CPU|to)", "Sending NMI from CPU 0 to CPUs 3:", "lib/nmi_backtrace.c"),
    Wording(
        r"NMI backtrace for cpu \d{1,5} skipped", "NMI backtrace for cpu 1 skipped: idling at 0", "lib/nmi_backtrace.c"
    ),
)
OTHER_CPU = Wording(
    r"NMI backtrace for cpu \d", "NMI backtrace for cpu 3", "lib/nmi_backtrace.c: in the lines of that CPU"
)
# An interrupt's own functions, and RCU's, above what it interrupted.
_INTERRUPTS = (
    r".*apic_timer_interrupt.*|interrupt_entry|__irqentry_.*|(?:__)?irq_exit(?:_rcu)?|handle_softirqs|__do_softirq|"
    r"rcu_.*|perf_event_nmi_handler|(?:__)?perf_event_overflow|intel_pmu_.*|x86_pmu_.*|amd_pmu_.*|watchdog_.*|"
    r"nmi_handle.*|do_nmi|default_do_nmi|nmi|end_repeat_nmi|timer_interrupt|decrementer_.*|performance_monitor_.*|"
    r"soft_nmi_.*",
)

KINDS = (
    EventKind(
        "rcu-stall",
        "INFO: rcu detected stall[ in {function}]",
        "An RCU grace period was held up[ in {function}][, {by}].",
        (
            Wording(
                r"(?:rcu: )?INFO: (?P<flavour>\w{3,40}) self-detected stall on CPU(?:\s?\{ ?(?P<cpu>\d{1,5}))?",
                "rcu: INFO: rcu_preempt self-detected stall on CPU",
                f"{_RCU}, print_cpu_stall(); with the CPU on this line before 4.1",
            ),
            Wording(
                r"(?:rcu: )?INFO: (?P<flavour>\w{3,40}) detected (?:expedited )?stalls? on (?:CPUs?/)?tasks?:?"
                r"(?:\s?\{ ?(?P<cpu>\d{1,5}))?",
                "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 5282 jiffies s: 2513",
                f"{_RCU}, print_other_cpu_stall(); tree_exp.h; tasks.h",
            ),
            Wording(
                r"INFO: (?P<flavour>\w{3,40}) detected stall on CPU (?P<cpu>\d{1,5})",
                "INFO: rcu_sched_state detected stall on CPU 1 (t=15000 jiffies)",
                "kernel/rcutree.c, print_cpu_stall() before 3.1",
            ),
            Wording(
                r"(?:rcu: )?INFO: (?P<flavour>\w{3,40}) detected stalls\? \(Late IPI",
                "INFO: rcu_tasks_trace detected stalls? (Late IPI?)",
                "kernel/rcu/tasks.h, check_all_holdout_tasks_trace()",
            ),
        ),
        (
            Wording(
                r"(?:rcu:\s{1,4})?(?P<cpu>\d{1,5})-[^\s:]{3,6}: \(",
                "rcu: \t2-....: (20999 ticks this GP) idle=3c94/1/0x4000000000000000 softirq=18841/18841 fqs=5120",
                f"{_RCU}, print_cpu_stall_info()",
            ),
            Wording(
                r"(?:rcu:\s{1,4})?(?:\((?:detected by|t=)|Tasks blocked on|blocking rcu_node|hardirqs|number:|cputime:"
                r"|Unless |Possible timer handling|Offline CPU|All QSes seen|INFO: Stall ended|\w{3,40} kthread"
                r"|l=\d|Switching|P\d{1,10}: )",
                "rcu: \t(detected by 0, t=5252 jiffies, g=40277, q=1023 ncpus=4)",
                _RCU,
            ),
            Wording(
                r"[0-9a-f]{8,16}: [.I][.N] nvcsw: ",
                "00000000f2ad9de8: .. nvcsw: 1/1 holdout: 1 idle_cpu: -1/2",
                "tasks.h",
            ),
            *_NMI,
            *TASK,
        ),
        (
            Heading(r"Task dump for CPU (?P<cpu>\d{1,5}):", "task", "Task dump for CPU 1:", "kernel/sched/core.c"),
            Heading(
                r"(?:rcu:\s{1,4})?(?:RCU grace-period kthread stack dump:|Stack dump where RCU GP kthread last ran:)",
                "grace-period kthread",
                "rcu: RCU grace-period kthread stack dump:",
                f"{_RCU}, rcu_check_gp_kthread_starvation()",
                main=False,
            ),
        ),
        passed_over=(*_INTERRUPTS, *WAITING),
        joined_by=(OTHER_CPU,),
    ),
    EventKind(
        "soft-lockup",
        "BUG: soft lockup[ in {function}]",
        "[CPU {cpu}|A CPU] was stuck[ for {seconds} s][ in {function}][, in task {task}].",
        (
            Wording(
                r"(?:NMI watchdog: |watchdog: )?BUG: soft lockup - CPU#(?P<cpu>\d{1,5}) stuck for "
                r"(?P<seconds>\d{1,10})s! \[(?P<comm>[^\n]{1,64}):(?P<pid>\d{1,10})\]",
                "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [sh:1422]",
                f"{_WATCHDOG}, watchdog_timer_fn()",
            ),
            Wording(
                r"(?:NMI watchdog: |watchdog: )?BUG: soft lockup(?: - | detected on )CPU#(?P<cpu>\d{1,5})",
                "BUG: soft lockup detected on CPU#0!",
                "kernel/softlockup.c of 2.6; cut off",
            ),
        ),
        (
            Wording(
                r"CPU#\d{1,5} (?:Utilization every|Detect HardIRQ)|#\d{1,3}: ",
                "CPU#1 Utilization every 4000ms during lockup:",
                f"{_WATCHDOG}, print_cpustat(): 6.9 and later",
            ),
            *_NMI,
        ),
        passed_over=_INTERRUPTS,
        joined_by=(OTHER_CPU,),
        resumes=True,
    ),
    EventKind(
        "hard-lockup",
        "BUG: hard lockup[ in {function}]",
        "[CPU {cpu}|CPUs {other}|A CPU] took no interrupts for too long[ in {function}][, in task {task}].",
        (
            Wording(
                r"(?:NMI watchdog: |watchdog: )?Watchdog detected hard LOCKUP on cpu ?(?P<cpu>\d{1,5})",
                "watchdog: Watchdog detected hard LOCKUP on cpu 2",
                f"{_WATCHDOG}, watchdog_hardlockup_check(); kernel/watchdog_hld.c before 6.5",
            ),
            Wording(
                r"Kernel panic - not syncing: (?P<panic>(?:Watchdog detected )?hard LOCKUP on cpu (?P<cpu>\d{1,5}))",
                "Kernel panic - not syncing: Watchdog detected hard LOCKUP on cpu 1",
                f"{_WATCHDOG}, watchdog_overflow_callback(): before 4.5",
            ),
            Wording(
                r"Kernel panic - not syncing: (?P<panic>Hard LOCKUP)",
                "Kernel panic - not syncing: Hard LOCKUP",
                f"{_WATCHDOG}, its first line lost",
            ),
            Wording(
                rf"watchdog: CPU (?P<cpu>\d{{1,5}}) self-detected hard LOCKUP @ {SYMBOL}",
                "watchdog: CPU 9 self-detected hard LOCKUP @ schedule+0x34/0x90",
                f"{_POWERPC}, soft_nmi_interrupt()",
            ),
            Wording(
                r"watchdog: CPU \d{1,5} detected hard LOCKUP on other CPUs (?P<other>\d[\d,-]{0,200})",
                "watchdog: CPU 4 detected hard LOCKUP on other CPUs 6",
                f"{_POWERPC}, watchdog_smp_panic()",
            ),
            Wording(
                r"NMI Watchdog detected LOCKUP on CPU(?:\s?)(?P<cpu>\d{1,5})",
                "NMI Watchdog detected LOCKUP on CPU 0",
                "arch/x86/kernel/nmi.c of 2.6",
            ),
        ),
        (
            Wording(
                r"watchdog: CPU (?P<cpu>\d{1,5}) Hard LOCKUP",
                "watchdog: CPU 6 Hard LOCKUP",
                f"{_POWERPC}, wd_lockup_ipi()",
            ),
            Wording(
                r"watchdog: CPU \d{1,5} (?:TB:|became unstuck)",
                "watchdog: CPU 6 TB:38462031352004, last heartbeat TB:38452280135801 (19045ms ago)",
                _POWERPC,
            ),
            *_NMI,
        ),
        blames=("ip", "trace"),
        passed_over=_INTERRUPTS,
        joined_by=(OTHER_CPU,),
    ),
    EventKind(
        "hung-task",
        "INFO: task hung[ in {function}]",
        "[Task {task}|A task] has waited[ for more than {seconds} s][ in {function}][, which called {callee}].",
        (
            Wording(
                r"INFO: task (?P<comm>[^\n]{1,64}):(?P<pid>\d{1,10}) blocked (?:in I/O wait )?for more than "
                r"(?P<seconds>\d{1,10})",
                "INFO: task sh:215 blocked for more than 120 seconds.",
                _HUNG,
            ),
            Wording(
                r"INFO: task (?P<comm>[^\n]{1,64}):(?P<pid>\d{1,10}) can't die for more than (?P<seconds>\d{1,10})",
                "INFO: task sh:215 can't die for more than 143 seconds.",
                "kernel/hung_task.c of linux-next",
                title="INFO: task can't die[ in {function}]",
                sentence="Task {task} was killed and has not died[ for more than {seconds} s][, in {function}].",
            ),
        ),
        (
            Wording(
                r"(?:Not tainted|Tainted:"
                r" [A-Z](?:[A-Z ]{0,40}[A-Z])?)\s{1,30}(?P<release>\d[\w.+~-]{1,128})\s{1,30}(?P<build>#[^\n]{1,200})",
                "Not tainted 6.12.9-amd64 #1 Debian 6.12.9-1",
                _HUNG,
            ),
            Wording(
                r"\"echo 0 > /proc/sys/kernel/hung_task_|Blocked by coredump|Future hung task|Showing"
                r" all locks held|={40,50}$",
                '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
                _HUNG,
            ),
            *_NMI,
            *TASK,
        ),
        (
            Heading(
                r"INFO: task [^\n]{1,64}:\d{1,10} (?:<\w{1,20}> )?(?:is )?blocked on an? [\w -]{1,40}",
                "owner",
                "INFO: task sh:501 is blocked on a mutex likely owned by task owner:499.",
                "kernel/hung_task.c, debug_show_blocker(): 6.16 and later",
                main=False,
            ),
        ),
        blames=("trace",),
        passed_over=WAITING,
        joined_by=(OTHER_CPU,),
    ),
    EventKind(
        "workqueue-stall",
        "BUG: workqueue lockup",
        "A pool of workqueue workers was stuck[ for {seconds} s][ in {function}].",
        (
            Wording(
                r"BUG: workqueue lockup - pool(?:[^\n]{0,100}? stuck for (?P<seconds>\d{1,10})s)?",
                "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!",
                f"{_WORKQUEUE}, wq_watchdog_timer_fn()",
            ),
        ),
        (
            Wording(
                r"Showing (?:busy workqueues|backtraces of|freezable)|workqueue \S{1,64}: flags=|pwq \d{1,10}:"
                r"|(?:in-flight|pending|inactive|delayed|active):|pool \d{1,10}:",
                "workqueue events: flags=0x0",
                f"{_WORKQUEUE}, show_all_workqueues()",
            ),
            *TASK,
        ),
        blames=("trace",),
        passed_over=WAITING,
    ),
    EventKind(
        "bug",
        "BUG: workqueue leaked {what}[ in {function}]",
        'The work function[ {function}] leaked "{what}"[, {by}].',
        (
            Wording(
                r"BUG: workqueue leaked (?P<what>lock or atomic):"
                r" (?P<comm>[^\n]{1,64})/0x[0-9a-f]{1,8}/(?P<pid>\d{1,10})",
                "BUG: workqueue leaked lock or atomic: kworker/1:2/0x00000001/133",
                f"{_WORKQUEUE}, process_one_work(): before 6.9",
            ),
            Wording(
                r"BUG: workqueue leaked (?P<what>atomic, lock or RCU): (?P<comm>[^\n]{1,64})\[(?P<pid>\d{1,10})\]",
                "BUG: workqueue leaked atomic, lock or RCU: kworker/0:3[88]",
                f"{_WORKQUEUE}, process_one_work()",
            ),
        ),
        (
            Wording(
                rf"(?:last function: |preempt=0x[0-9a-f]{{8}} lock=\S{{1,30}} RCU=\S{{1,30}}"
                rf" workfn=)(?P<symbol>{NAME})",
                "last function: flush_to_ldisc",
                f"{_WORKQUEUE}, process_one_work()",
            ),
        ),
        blames=("stated",),
    ),
)
