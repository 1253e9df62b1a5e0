"""The parts of a loaded module: its memory by type, its sections, its per-CPU area."""

from __future__ import annotations

from kplug.named_tuples import NamedTuple

TEXT, DATA, RODATA, RO_AFTER_INIT = "text", "data", "rodata", "ro_after_init"
INIT, INIT_TEXT, INIT_DATA, INIT_RODATA = "init", "init_text", "init_data", "init_rodata"

# enum mod_mem_type (include/linux/module.h): the types of a module's memory, with our names. Before 6.4 init memory was
# one range of text, read-only and other data: "init" where its parts cannot be distinguished.
MEMORY_TYPES = {
    "MOD_TEXT": TEXT,
    "MOD_DATA": DATA,
    "MOD_RODATA": RODATA,
    "MOD_RO_AFTER_INIT": RO_AFTER_INIT,
    "MOD_INIT_TEXT": INIT_TEXT,
    "MOD_INIT_DATA": INIT_DATA,
    "MOD_INIT_RODATA": INIT_RODATA,
}


class MemoryRange(NamedTuple):
    """A part of a module's current memory: its type ("text", "rodata", ...), and `[start, end)`."""

    type: str
    start: int
    end: int


class ModuleSection(NamedTuple):
    """A section of a loaded module: its name and start. The kernel does not keep its size.

    The name is empty if it could not be read: it is a separate string, and its page may not be in the dump.
    """

    name: str
    start: int


class PerCpu(NamedTuple):
    """A module's per-CPU memory: `base` is what a CPU's offset is added to, `size` the bytes of one CPU's copy."""

    base: int
    size: int
