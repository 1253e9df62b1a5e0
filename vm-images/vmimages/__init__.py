"""Real Debian kernels for tests and the demo: fetched, booted under QEMU, and dumped."""

from __future__ import annotations

from .boot_images import BOOT_IMAGES, boot_image
from .built_trees import kasan_dump, kasan_specimens, page_owner_dump
from .deaths import death, ways
from .dumping import FORMATS, DumpSet, dump, dumps
from .errors import VMError
from .fetching import KernelFiles, cached, fetch
from .kexec import kexec_dumps
from .machine import VM, boot
from .manifest import KERNELS, Kernel, find, names
from .options import Options
from .planted import Planted, Specimen, planted_dump, planted_guest, specimens, user_pid, user_specimens
from .qmp import QMPClient, QMPError
from .truth import GroundTruth, Symbol

__all__ = [
    "BOOT_IMAGES",
    "FORMATS",
    "KERNELS",
    "VM",
    "DumpSet",
    "GroundTruth",
    "Kernel",
    "KernelFiles",
    "Options",
    "Planted",
    "QMPClient",
    "QMPError",
    "Specimen",
    "Symbol",
    "VMError",
    "boot",
    "boot_image",
    "cached",
    "death",
    "dump",
    "dumps",
    "fetch",
    "find",
    "kasan_dump",
    "kasan_specimens",
    "kexec_dumps",
    "names",
    "page_owner_dump",
    "planted_dump",
    "planted_guest",
    "specimens",
    "user_pid",
    "user_specimens",
    "ways",
]
