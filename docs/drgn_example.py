#!/usr/bin/env drgn
"""kplug in a drgn script: what the words on kernel threads' stacks are, return addresses and pointers alike.

drgn -c VMCORE -s VMLINUX drgn_example.py [THREADS]
"""

from __future__ import annotations

import sys
from itertools import islice

from drgn import get_default_prog
from drgn.helpers.linux.pid import for_each_task

from kplug.drgn import where


def main(threads: str = "2") -> None:
    prog = get_default_prog()
    sleeping = (task for task in for_each_task(prog) if not task.mm and task.pid)
    for task in islice(sleeping, int(threads)):
        print(f"{task.comm.string_().decode()} (pid {task.pid.value_()})")
        print("  task   " + where(task).brief)
        print("  stack  " + where(task.stack).brief)
        # Inlined frames share their address with the function that holds them.
        for pc in dict.fromkeys(frame.pc for frame in prog.stack_trace(task)):
            print("  frame  " + where(pc).brief)
        word = where(prog, task.thread.sp)
        print("  what its stack pointer points to:")
        print("\n".join("  " + line for line in str(word).splitlines()))


if __name__ == "__main__":
    main(*sys.argv[1:])
