"""What the guest itself says about its addresses: the ground truth that answers are checked against."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import elf
from .errors import VMError
from .fetching import KernelFiles

# Name of the file, and the guest's command for it. A module's sections have names that start with a dot: a plain `*`
# would not match them.
_COMMANDS: tuple[tuple[str, str], ...] = (
    ("cmdline", "cat /proc/cmdline"),
    ("version", "cat /proc/version"),
    ("kallsyms", "cat /proc/kallsyms"),
    ("modules", "cat /proc/modules"),
    ("sections", "cd /sys/module && grep -r . */sections/"),
    (
        "module-build-ids",
        "cd /sys/module && for f in */notes/.note.gnu.build-id; do"
        " echo ${f%%/*} $(hexdump -v -s 16 -e '1/1 \"%02x\"' $f); done",
    ),
    ("notes", "cat /sys/kernel/notes"),
    ("vmcoreinfo", "cat /sys/kernel/vmcoreinfo"),
    ("iomem", "cat /proc/iomem"),
    ("vmallocinfo", "cat /proc/vmallocinfo"),
    ("slabinfo", "cat /proc/slabinfo"),
    ("meminfo", "cat /proc/meminfo"),
    ("cpuinfo", "cat /proc/cpuinfo"),
    ("interrupts", "cat /proc/interrupts"),
    ("tasks", "ps -o pid,ppid,comm"),
    ("init-maps", "cat /proc/1/maps"),
    # Where KFENCE was switched on: no object is taken any more then, and the list is as near to the dump as can be.
    (
        "kfence",
        "cd /sys/module/kfence/parameters && ! grep -qx 0 sample_interval && echo 0 >sample_interval"
        " && mount -t debugfs debugfs /sys/kernel/debug && cat /sys/kernel/debug/kfence/objects /proc/uptime",
    ),
    # Who allocated the objects of some caches, and who freed what was there before, where SLUB was told to record it.
    (
        "slab-traces",
        "grep -q slub_debug= /proc/cmdline && { mount -t debugfs debugfs /sys/kernel/debug || true; }"
        " && cd /sys/kernel/debug/slab && for cache in kmalloc-64 kmalloc-1k; do for what in alloc free; do"
        " echo == $cache $what; cat $cache/${what}_traces; done; done",
    ),
    # Who allocated pages: each read gives one record, from the first page frame on.
    (
        "page-owner",
        "grep -q page_owner= /proc/cmdline && { mount -t debugfs debugfs /sys/kernel/debug || true; }"
        " && dd if=/sys/kernel/debug/page_owner bs=4096 count=8000",
    ),
)


@dataclass(frozen=True)
class Symbol:
    """A line of /proc/kallsyms."""

    address: int
    kind: str  # the letter, as nm gives it
    name: str
    module: str | None


@dataclass(frozen=True)
class GroundTruth:
    """A folder with one file for each thing that the guest was asked; the methods read the ones used most."""

    root: Path

    def text(self, name: str) -> str:
        """One of the files."""
        try:
            return (self.root / name).read_text(errors="replace")
        except OSError:
            raise VMError(f"the ground truth in {self.root} has no {name}") from None

    @functools.cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """/proc/kallsyms, in its order."""
        found = []
        for line in self.text("kallsyms").splitlines():
            fields = line.split()
            if len(fields) >= 3:
                module = fields[3].strip("[]") if len(fields) > 3 else None
                found.append(Symbol(int(fields[0], 16), fields[1], fields[2], module))
        return tuple(found)

    @functools.cached_property
    def _by_name(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for symbol in self.symbols:
            if symbol.module is None:
                found.setdefault(symbol.name, symbol.address)
        return found

    def address(self, name: str) -> int:
        """The runtime address of the image's (first) symbol of that name."""
        try:
            return self._by_name[name]
        except KeyError:
            raise VMError(f"the guest's kallsyms has no {name}") from None

    @property
    def first(self) -> str:
        """The symbol at the image's start; arm's kallsyms begins with its text."""
        return "_text" if "_text" in self._by_name else "_stext"

    def kaslr_offset(self, files: KernelFiles) -> int:
        """By how much KASLR moved the image."""
        if files.system_map is None:
            raise VMError(f"{files.name} has no System.map")
        with files.system_map.open() as lines:
            for line in lines:
                fields = line.split()
                if len(fields) == 3 and fields[2] == self.first:
                    return self.address(self.first) - int(fields[0], 16)
        raise VMError(f"{files.system_map}: no {self.first}")

    @property
    def build_id(self) -> str:
        """The running image's build ID, in hex."""
        found = elf.build_id_in_notes((self.root / "notes").read_bytes())
        if found is None:
            raise VMError("the guest's /sys/kernel/notes has no build ID")
        return found

    @functools.cached_property
    def modules(self) -> dict[str, tuple[int, int]]:
        """Each loaded module's base and size, from /proc/modules."""
        rows = (line.split() for line in self.text("modules").splitlines())
        return {row[0]: (int(row[5], 16), int(row[1])) for row in rows if len(row) >= 6}

    @functools.cached_property
    def module_sections(self) -> dict[str, dict[str, int]]:
        """Where each section of each module was loaded; those of init code are gone by now, and still listed."""
        found: dict[str, dict[str, int]] = {}
        for line in self.text("sections").splitlines():
            path, _, value = line.partition(":0x")
            parts = path.split("/")
            if len(parts) == 3 and value:
                found.setdefault(parts[0], {})[parts[2]] = int(value, 16)
        return found

    @functools.cached_property
    def module_build_ids(self) -> dict[str, str]:
        """Each loaded module's build ID, in hex."""
        rows = (line.split() for line in self.text("module-build-ids").splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2}


def collect(run: Callable[[str], tuple[int, bytes]], into: Path) -> GroundTruth:
    """Ask the guest; `run` gives a command's status and output. What one kernel doesn't have gives an empty file."""
    into.mkdir(parents=True, exist_ok=True)
    for name, command in _COMMANDS:
        status, output = run(command)
        (into / name).write_bytes(output if status == 0 else b"")
    return GroundTruth(into)
