"""The request to open a kernel, and the opened kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import drgn

from kplug.frozen import Frozen, field
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.sources import Joined
from kplug.memory.dump_header import DumpHeader
from kplug.memory.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    from kplug.runtime.threads.cpu_registers import CpuRegisters


class Request(Frozen):
    """What to open, as the user gave it.

    `core` is a vmcore (or /proc/kcore), `core_parts` the other files of a split one, `raw` the ranges of a raw image,
    `qemu` a QMP socket; with neither it is the running kernel. `symbols` are files with debug information (vmlinux
    first, if one is given), `module_directories` folders with the modules' files, and `vmcoreinfo` a file with the text
    of VMCOREINFO. `joined` is what the user has instead of a vmlinux, or in addition: the kernel in a vmlinuz, or one
    with the symbols of a System.map.
    """

    core: str | None = None
    core_parts: tuple[str, ...] = ()
    raw: str | None = None
    qemu: str | None = None
    symbols: tuple[str, ...] = ()
    module_directories: tuple[str, ...] = ()
    vmcoreinfo: str | None = None
    joined: Joined | None = None


class Opened(Frozen):
    """A Program with a kernel open. `vmlinux` is the file with its symbols, `image` the image in it, or the one made
    from the kallsyms in memory; None if there is none.

    `has_dwarf` says whether drgn has its debug information, `disputed` what another source says about single symbols.
    `missing` is the physical memory in parts of a split dump that are not there.
    `description` names the target for the user, `vmcoreinfo` is its note, `how` says what the dump did not state and
    where it was found; `warnings` go with every answer. `header` is a vmcore's, `cpus` has registers of the CPUs that
    drgn does not give.
    """

    prog: drgn.Program
    description: str
    live: bool
    vmlinux: str | None
    vmcoreinfo: VmcoreInfo
    how: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    module_directories: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    image: KernelImage | None = None
    header: DumpHeader | None = None
    cpus: CpuRegisters | None = None
    has_dwarf: bool = True
    disputed: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[range, ...] = ()


class OpenTarget(Frozen):
    """A kernel that drgn has open, before its debug information is sought."""

    name: str
    prog: drgn.Program
    description: str
    how: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    header: DumpHeader | None = None
    cpus: CpuRegisters | None = None
    missing: tuple[range, ...] = ()
