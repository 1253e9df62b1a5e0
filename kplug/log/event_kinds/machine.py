"""The machine: its own errors, devices that do not answer, and what its keyboard asks for."""

from __future__ import annotations

from kplug.log.common_lines import END_OF_TRACE
from kplug.log.event_kinds.corruption import warning_at
from kplug.log.event_kinds.memory import MEM_INFO
from kplug.log.event_kinds.stalls import OTHER_CPU, TASK
from kplug.log.kinds import EventKind, Heading, Wording

_MCE = "arch/x86/kernel/cpu/mce/core.c, print_mce()"
_GHES = "drivers/acpi/apei/ghes.c, __ghes_print_estatus()"
_TIMEOUT = "net/sched/sch_generic.c, dev_watchdog()"
_SYSRQ = "drivers/tty/sysrq.c"
_ERROR = r"(?:mce: )?\[Hardware Error\]: "


def _machine_check(title: str, sentence: str, *begins: Wording, general: bool = False) -> EventKind:
    details = (
        Wording(
            rf"(?:{_ERROR}(?!CPU \d)|\{{\d{{1,10}}\}}\[Hardware Error\]: (?!Hardware error from)|MCE:"
            rf" CPU\d{{1,5}}: (?!machine)"
            rf"|EDAC |mce: (?!\[Hardware))",
            "mce: [Hardware Error]: TSC 4a3b2c1d0e ADDR fec00040",
            f"{_MCE}; {_GHES}",
        ),
    )
    return EventKind("machine-check", title, sentence, begins, details, general=general, blames=())


KINDS = (
    _machine_check(
        "Machine check[: {what}]",
        "The machine reported an error[ on CPU {cpu}][: {what}][, bank {bank}].",
        Wording(
            rf"{_ERROR}CPU (?P<cpu>\d{{1,5}}): (?P<what>Machine Check(?: Exception)?):"
            rf" [0-9a-fx]{{1,18}} Bank (?P<bank>\d{{1,3}})",
            "mce: [Hardware Error]: CPU 3: Machine Check Exception: 5 Bank 4: b200000000070f0f",
            _MCE,
            title="{what}: bank {bank}",
        ),
        Wording(
            r"(?:\{\d{1,10}\})?\[Hardware Error\]: Hardware error from (?P<what>[^\n:]{1,80})",
            "{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 4",
            _GHES,
            title="Hardware error from {what}",
            sentence="The firmware reported a hardware error from {what}.",
            has=("[Hardware Error]: Hardware error from ",),
        ),
        Wording(
            r"MCE: CPU(?P<cpu>\d{1,5}): (?P<what>machine check \([^)\n]{1,40}\))",
            "MCE: CPU4: machine check (Severe)  Host UE Load/Store DAR: deadbeef00000000 [Not recovered]",
            "arch/powerpc/kernel/mce.c, machine_check_print_event_info()",
        ),
        Wording(
            r"(?P<what>Machine check in kernel mode|(?:Severe|Fatal|Harmless) [Mm]achine [Cc]heck)",
            "Machine check in kernel mode.",
            "arch/powerpc/kernel/traps.c, machine_check_exception()",
        ),
        Wording(
            r"(?:mce: )?(?P<what>Uncorrected hardware memory error) in user-access at (?P<address>[0-9a-f]{1,16})",
            "mce: Uncorrected hardware memory error in user-access at 1f3a4c8c0",
            "arch/x86/kernel/cpu/mce/core.c, kill_me_maybe()",
        ),
        Wording(
            r"CPU#(?P<cpu>\d{1,5}): Unexpected int18 \((?P<what>Machine Check)\)",
            "CPU#0: Unexpected int18 (Machine Check)",
            "arch/x86/kernel/cpu/mce/core.c, unexpected_machine_check()",
        ),
        Wording(
            r"CPU (?P<cpu>\d{1,5}): (?P<what>Machine Check Exception): [0-9a-f]{1,16}",
            "CPU 0: Machine Check Exception: 0000000000000004",
            "arch/x86/kernel/cpu/mcheck of 2.6",
        ),
        Wording(
            r"Kernel panic - not syncing: (?P<panic>(?P<what>[^\n]{0,40}(?:[Mm]achine [Cc]heck"
            r"|hardware error)[^\n]{0,60}))",
            "Kernel panic - not syncing: Fatal machine check on current CPU",
            "arch/x86/kernel/cpu/mce/core.c, mce_panic(), its first line lost",
            title="kernel panic: {what}",
        ),
        Wording(
            r"EDAC (?P<what>\w{1,20}: \d{1,10} [CU]E) ",
            "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0",
            "drivers/edac/edac_mc.c, edac_ce_error()",
            title="EDAC {what}",
        ),
    ),
    _machine_check(
        "Machine check",
        "The machine reported an error, which was logged.",
        Wording(rf"{_ERROR}Machine check events logged", "mce: [Hardware Error]: Machine check events logged", _MCE),
        general=True,
    ),
    EventKind(
        "netdev-watchdog",
        "NETDEV WATCHDOG[: {device}][ ({driver})]: transmit queue timed out",
        "A transmit queue[ of network device {device}][ ({driver})] timed out.",
        (
            Wording(
                r"(?:(?P<driver>\S{1,64}) \S{1,64} )?(?P<device>\S{1,64}): NETDEV WATCHDOG: CPU:"
                r" (?P<cpu>\d{1,5}): transmit",
                "e1000e 0000:05:00.0 eth0: NETDEV WATCHDOG: CPU: 3: transmit queue 0 timed out 5376 ms",
                _TIMEOUT,
                has=(": NETDEV WATCHDOG: ",),
            ),
        ),
        blames=(),
        alone=True,
    ),
    EventKind(
        "netdev-watchdog",
        "NETDEV WATCHDOG[: {device}][ ({driver})]: transmit queue timed out",
        "A transmit queue[ of network device {device}][ ({driver})] timed out.",
        (
            Wording(
                r"NETDEV WATCHDOG: (?P<device>[^\s:]{1,64})(?: \((?P<driver>[^)\n]{0,64})\))?: transmit",
                "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 2 timed out",
                f"{_TIMEOUT}, before 6.7",
            ),
            warning_at(r"net/sched/sch_generic\.c", "dev_watchdog"),
        ),
        (
            Wording(
                r"NETDEV WATCHDOG: (?P<device>\S{1,64}) \((?P<driver>[^)\n]{0,64})\): transmit queue",
                "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 2 timed out",
                f"{_TIMEOUT}, after the warning's own line",
            ),
            warning_at(r"net/sched/sch_generic\.c", "dev_watchdog"),
        ),
        ends=(END_OF_TRACE,),
        blames=(),
        resumes=True,
    ),
    EventKind(
        "sysrq",
        "sysrq: {what}",
        'Somebody asked for "{what}" by sysrq[, {by}].',
        (
            Wording(
                r"(?:sysrq: )?(?:SysRq : |sysrq: )(?P<what>Emergency (?:Sync|Remount R/O|Thaw of all"
                r" frozen filesystems)|Resetting"
                r"|Power Off|Terminate All Tasks|Kill All Tasks|Manual OOM execution|Nice All RT Tasks"
                r"|Dump ftrace buffer"
                r"|Keyboard mode set to system default|SAK|HELP)",
                "sysrq: Emergency Sync",
                f"{_SYSRQ}, __handle_sysrq()",
            ),
        ),
        alone=True,
    ),
    EventKind(
        "sysrq",
        "sysrq: {what}",
        'Somebody asked for "{what}" by sysrq[, {by}].',
        (
            Wording(
                r"(?:sysrq: )?(?:SysRq : |sysrq: )?(?P<what>Show (?:State|Blocked State|backtrace of"
                r" all active CPUs|Regs|Memory"
                r"|Locks Held|clockevent devices[^\n]{0,60}|CPUs))\s*$",
                "sysrq: Show Blocked State",
                f"{_SYSRQ}, __handle_sysrq()",
            ),
        ),
        (
            Wording(r"task {5,40}PC stack", "task                        PC stack   pid father", "kernel/sched/core.c"),
            Wording(
                r"(?:Sending|sending) NMI|NMI backtrace for cpu \d{1,5} skipped|Showing all locks"
                r"|Sched Debug|cpu#\d|cfs_rq"
                r"|\.\w{1,40} {1,60}: |(?:rt|dl)_rq|runnable tasks|Showing busy workqueues",
                "Sending NMI from CPU 0 to CPUs 1:",
                "lib/nmi_backtrace.c; kernel/sched/debug.c",
            ),
            MEM_INFO,
        ),
        tuple(Heading(wording.pattern, "task", wording.example, wording.source, main=False) for wording in TASK),
        blames=(),
        joined_by=(OTHER_CPU,),
    ),
    EventKind(
        "reboot",
        "reboot: {what}",
        'The kernel printed "{what}".',
        (
            Wording(
                r"(?:reboot: )?(?P<what>Restarting system|System halted|Power down|Starting new kernel)",
                "reboot: Restarting system",
                "kernel/reboot.c, kernel_restart()",
            ),
        ),
        alone=True,
    ),
    EventKind(
        "reboot",
        "unexpected kernel reboot",
        "A kernel booted again, and the log does not say why.",
        (
            Wording(r"Booting the kernel", "Booting the kernel.", "arch/x86/boot/compressed/misc.c: the next boot"),
            Wording(
                r"Booting Linux on physical CPU ", "Booting Linux on physical CPU 0x0", "arch/arm64/kernel/setup.c"
            ),
            Wording(r"Linux version \d", "Linux version 6.12.9-amd64 (build@host) #1 SMP", "init/version.c"),
        ),
        alone=True,
        again=True,
    ),
)
