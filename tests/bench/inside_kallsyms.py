"""Runs in a Python of its own, everything imported: from nothing known of the running kernel to the first answer.

It is as `kplug where schedule` comes to it, and kallsyms' time where the machine has no vmlinux and no vmlinuz.
"""

from __future__ import annotations

import gc
import time

import kplug.image.opening.sources
import kplug.image.opening.symbol_list_kernel
import kplug.image.symbols.sorted_list
import kplug.live.modules
import kplug.shell.cli  # noqa: F401
from kplug.live.kernel import open_live
from kplug.live.machine import Machine
from kplug.resolver import Resolver

gc.disable()
begin = time.perf_counter()
live = open_live(Machine())
address = live.main.symbol_address(live.main.image.symbols.exact("schedule")[0])
answer = Resolver(live.images).where(address)
seconds = time.perf_counter() - begin
assert answer.last("symbol").name == "schedule"
print(seconds)
