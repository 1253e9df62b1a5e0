"""The lines of a report that say where it was: CPU, task, kernel, taints, machine, modules."""

from __future__ import annotations

import re

from kplug.log.event import Module, Taint
from kplug.log.kinds import Wording

_PRINT_INFO = "lib/dump_stack.c, dump_stack_print_info()"
_TAINTS = r"(?:Kdump: loaded )?(?:(?P<untainted>Not tainted)|Tainted: (?P<taints>[A-Z][A-Z -]{0,60}?))"
_KERNEL = r"\s+\(?(?P<release>\w[\w.+~-]{0,127})\s+(?P<build>#[^\n()]{1,200}(?:\([^\n()]{0,80}\)[^\n()]{0,100}){0,4})"

HEADERS = (
    Wording(
        rf"CPU: (?P<cpu>\d{{1,5}})\s+(?:UID: \d{{1,10}} )?PID: (?P<pid>\d{{1,10}}) Comm: (?P<comm>[^\n]{{0,64}}?)"
        rf" {_TAINTS}{_KERNEL}",
        "CPU: 1 UID: 0 PID: 215 Comm: sh Tainted: G           OE      6.12.117-cloud-amd64 #1  Debian 6.12.117-1",
        f"{_PRINT_INFO}; UID since 6.12",
    ),
    Wording(
        r"CPU: (?P<cpu>\d{1,5})\s+(?:UID: \d{1,10} )?PID: (?P<pid>\d{1,10})(?: Comm: (?P<comm>\S{1,64}))?",
        "CPU: 1 PID: 215 Comm: sh",
        f"{_PRINT_INFO}, cut off",
    ),
    Wording(
        rf"Pid: (?P<pid>\d{{1,10}}), comm: \s*(?P<comm>[^\n]{{0,64}}?) {_TAINTS}{_KERNEL}",
        "Pid: 1, comm: swapper/0 Not tainted 3.2.0-4-amd64 #1 Debian 3.2.60-1",
        "arch/x86/kernel/process.c, show_regs_common() before 3.10",
    ),
    Wording(r"Pid: (?P<pid>\d{1,10}), comm: \s*(?P<comm>\S{1,64})", "Pid: 1, comm: swapper", "the same, cut off"),
    Wording(
        rf"CPU: (?P<cpu>\d{{1,5}})\s+{_TAINTS}{_KERNEL}",
        "CPU: 0    Not tainted  (3.2.0 #1)",
        "arch/arm/kernel/process.c, __show_regs() before 3.10; arch/s390",
    ),
    Wording(r"CPU:? (?P<cpu>\d{1,5})\s*$", "CPU 1 ", "arch/x86/kernel/process_64.c before 3.10"),
    Wording(
        r"Process (?P<comm>[^\n]{1,64}?) \(pid: (?P<pid>\d{1,10})[,)]",
        "Process swapper/0 (pid: 1, threadinfo ffff88003e0a0000, task ffff88003e098000)",
        "show_regs() and die() of most architectures",
    ),
    Wording(
        r"TASK(?: = |: )[0-9a-f]{8,16}\[(?P<pid>\d{1,10})\] '(?P<comm>[^\n']{1,64})'(?: THREAD: [0-9a-f]{8,16})?"
        r"(?:\s+CPU: (?P<cpu>\d{1,5}))?",
        "TASK = c00000003e0a0000[1] 'swapper/0' THREAD: c00000003e098000 CPU: 0",
        "arch/powerpc/kernel/process.c, __show_regs()",
    ),
    Wording(r"Hardware name: (?P<hardware>[^\n]{1,300})", "Hardware name: linux,dummy-virt (DT)", _PRINT_INFO),
    Wording(r"Workqueue: (?P<workqueue>\S{1,200}(?: \S{1,200})?)", "Workqueue: events foo_work", "kernel/workqueue.c"),
    Wording(
        r"Tainted: \[[A-Z]\]=[^\n]{1,400}",
        "Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE",
        "kernel/panic.c, print_tainted_verbose(): 6.12 and later",
    ),
    Wording(
        r"(?:task|ti|task\.ti|thread): [0-9a-f]{8,16} ",
        "task: ffff88003e0a0000 ti: ffff88003e098000 task.ti: ffff88003e098000",
        "show_regs_print_info() before 4.17",
    ),
    Wording(
        r"Stopper: (?P<stopper>\S{1,200})",
        "Stopper: multi_cpu_stop+0x0/0xf0 <- 0x0",
        "kernel/stop_machine.c, 5.17 and later",
    ),
)
MODULES = re.compile(r"(?:Modules linked in|Unloaded tainted modules):\s?(?P<modules>[^\n]{0,12000})")
_UNLOADED = re.compile(r"\[last unloaded: (?P<name>[\w.-]{1,64})(?:\((?P<flags>[A-Z+-]{1,12})\))?[^\]]{0,40}\]")
_CUT_UNLOADED = re.compile(r"\[last(?: unloaded:?)?\s*$")
_MODULE = re.compile(r"(?P<name>[A-Za-z0-9_][\w.-]{0,63})(?:\((?P<flags>[A-Z+-]{0,12})\))?(?::\d{1,10})?$")

# taint_flags in kernel/panic.c, and the words of Documentation/admin-guide/tainted-kernels.rst in short.
_TAINT_WORDS = {
    "G": "no proprietary module",
    "P": "a proprietary module was loaded",
    "F": "a module was force-loaded",
    "S": "the kernel runs on a system outside its specification",
    "R": "a module was force-unloaded",
    "M": "a machine check occurred",
    "B": "a bad page, or a page flag that it should not have",
    "U": "user space asked for the taint",
    "D": "the kernel died before: an oops or BUG",
    "A": "an ACPI table was overridden",
    "W": "a warning before",
    "C": "a driver from staging was loaded",
    "I": "works around a bug in the firmware",
    "O": "an out-of-tree module was loaded",
    "E": "an unsigned module was loaded",
    "L": "a soft lockup before",
    "K": "live-patched",
    "X": "of the distribution's own meaning",
    "T": "built with the struct randomization plugin",
    "N": "an in-kernel test ran",
    "J": "user space used a fwctl command that may change the device",
}


def read_taints(letters: str) -> tuple[Taint, ...]:
    return tuple(
        Taint(letter, _TAINT_WORDS.get(letter, "not a letter that is known")) for letter in letters if letter.isalpha()
    )


def read_modules(text: str) -> tuple[list[Module], list[Module]] | None:
    """The modules in a list of them and those unloaded last; None if the text is no such list."""
    # A mail program may have wrapped the line before the name.
    text = _CUT_UNLOADED.sub("", text)
    if text.endswith("]") and "[" not in text:
        text = f"[last unloaded: {text.removeprefix('unloaded:').strip()}"
    unloaded = [Module(match.group("name"), match.group("flags") or "") for match in _UNLOADED.finditer(text)]
    found = []
    for word in _UNLOADED.sub("", text).split():
        match = _MODULE.match(word)
        if match is None:
            return None
        found.append(Module(match.group("name"), match.group("flags") or ""))
    return found, unloaded
