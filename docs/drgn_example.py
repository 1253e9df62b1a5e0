#!/usr/bin/env python3
"""kplug's resolver in a drgn script: the stacks of kernel threads in a crash dump, each return address told.

drgn_example.py VMLINUX VMCORE [THREADS]
"""

from __future__ import annotations

import re
import sys
from itertools import islice

import drgn
from drgn.helpers.linux.pid import for_each_task

from kplug.image.opening import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.placement import slid
from kplug.render.text import TextRenderer
from kplug.resolver import Resolver


def kernel_offset(program: drgn.Program) -> int:
    """The KASLR slide, from the dump's VMCOREINFO."""
    note = program["vmcoreinfo_data"].string_().decode()
    match = re.search(r"^KERNELOFFSET=([0-9a-f]+)$", note, re.MULTILINE)
    return int(match.group(1), 16) if match else 0


def main(vmlinux: str, vmcore: str, threads: str = "2") -> None:
    program = drgn.Program()
    program.set_core_dump(vmcore)
    program.load_debug_info([vmlinux])
    image = open_vmlinux(vmlinux)
    resolver = Resolver([PlacedImage(image, slid(image.sections, kernel_offset(program), "VMCOREINFO"))])
    text = TextRenderer()
    sleeping = (task for task in for_each_task(program) if not task.mm and task.pid)
    for task in islice(sleeping, int(threads)):
        print(f"{task.comm.string_().decode()} (pid {task.pid.value_()})")
        # Inlined frames share their address with the function that holds them.
        for address in dict.fromkeys(frame.pc for frame in program.stack_trace(task)):
            print("  " + text.brief(resolver.where(address)))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
