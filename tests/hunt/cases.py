"""The cases of `make hunt`, one a row.

To add one, append a `Case` to its part of the table:

    Case(
        "sym: a name without its compiler suffix",      # what it is; `run.py WORD` picks by it
        "kplug sym -s $VMLINUX finish_task_switch",     # bash; standard error is part of the answer
        right="$ nm $VMLINUX | awk '/ finish_task_switch/ { print $1 }'",
        source="nm of the same file",                   # where the right value is from; never kplug
    )

`right`: each line must be in the answer as it stands; of a line that begins with "$ ", each line that this command
prints must be. `wrong`: no line of it may be. `given`: standard input. `prepare`: bash, run before. `status`: the exit
status, if it matters. All are run in one new folder.

At hand: kplug; kgdb COMMAND... (gdb with kplug sourced, on $VMLINUX; VMLINUX= for none); kdrgn. `kernel` is one of
vm-images' manifest; $K is the folder of its files (vmlinux, vmlinuz, System.map, modules/, debug-modules/), $VMLINUX
its vmlinux. `guest=True`: a guest of it, with KASLR, is stopped, kgdb is connected to it, and $KALLSYMS is a copy of
its /proc/kallsyms.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One row; the module's docstring says what each field means."""

    name: str
    command: str
    right: str = ""
    source: str = ""
    wrong: str = ""
    given: str = ""
    prepare: str = ""
    status: int | None = None
    kernel: str = "amd64-6.1"
    guest: bool = False


# 16 bytes into finish_task_switch.isra.0.
_INTO = "awk '/ finish_task_switch/ { print $1 }' | (read start; printf '0x%x' $((0x$start + 16)))"
_SIZE = "$(readelf -sW $VMLINUX | awk '/ finish_task_switch/ { printf \"0x%x\", $3 }')"

_NAMES = (
    Case(
        "names: symbol+offset/size in gdb, files alone",
        f'kgdb "kwhere finish_task_switch+0x10/{_SIZE}"',
        right=f"$ nm $VMLINUX | {_INTO}",
        source="nm",
    ),
    Case(
        "names: symbol+offset/size in gdb, before kaslr --apply",
        f'kgdb "kwhere finish_task_switch+0x10/{_SIZE}"',
        right=f"$ cat $KALLSYMS | {_INTO}",
        source="the guest's /proc/kallsyms",
        guest=True,
    ),
    Case(
        "names: gdb's own symbols are not asked before kaslr --apply, in any form",
        "kgdb 'kwhere -b (long)finish_task_switch' 'kwhere -b *finish_task_switch' 'kwhere -b &finish_task_switch'",
        right="(long)finish_task_switch: gdb would read it where the kernel was linked\n"
        "*finish_task_switch: gdb would read it where the kernel was linked\n"
        "$ awk '/ finish_task_switch/ { print \"0x\" $1 }' $KALLSYMS",
        wrong="0xffffffff810cf1a0",
        source="docs/gdb.md, the guest's /proc/kallsyms",
        guest=True,
    ),
    Case(
        "names: an unknown symbol+offset/size is not computed",
        "kgdb 'kwhere no_such_name+0x10/0x20'",
        right="no_such_name+0x10/0x20: no such symbol or section",
        source="nm has none",
    ),
    Case(
        "names: all that nm has of a name in the source",
        "kplug sym -s $VMLINUX finish_task_switch",
        right="$ nm $VMLINUX | awk '$3 ~ /finish_task_switch[.]/ { print $3 }'",
        source="nm",
        kernel="amd64-6.12",
    ),
    Case(
        "names: by the name in the source, System.map alone",
        "kplug where -b -s $K/System.map finish_task_switch",
        right="$ awk '/ finish_task_switch/ { print \"0x\" $1 }' $K/System.map",
        source="System.map",
    ),
    Case(
        "names: by the name in the source, vmlinuz alone",
        "kplug where -b -s $K/vmlinuz finish_task_switch",
        right="$ awk '/ finish_task_switch/ { print \"0x\" $1 }' $K/System.map",
        source="System.map",
    ),
)

_NAMES += (
    Case(
        "names: no file of a symbol that objtool adds after the last file's",
        "kplug sym -s $VMLINUX __pfx_finish_task_switch.isra.0 clean_cache_range | sed 's/ \\+/ /g'",
        right="clean_cache_range .text usercopy_64.c\n__pfx_finish_task_switch.isra.0 .text finish_task_switch.isra.0",
        wrong=".text usercopy_64.c finish_task_switch",
        source="arch/x86/lib/usercopy_64.c; tools/objtool",
        kernel="amd64-6.12",
    ),
    Case(
        "names: a Rust function by its path",
        "kplug where -b -s $VMLINUX kernel::module_param::set_param; kplug where -b -s $K/System.map 'set_param::<u8>'",
        right="$ nm $VMLINUX | c++filt | awk '/ kernel.*::module_param::set_param::<.*>$/ { print \"0x\" $1 }'",
        source="nm and c++filt",
        kernel="amd64-sid",
    ),
    Case(
        "names: a global function by its source file, from the debug information",
        "kplug where -bl -s $VMLINUX core.c:schedule fork.c:schedule",
        right="$ nm $VMLINUX | awk '/ schedule$/ { print \"0x\" $1 }'\nfork.c:schedule: no such symbol",
        source="nm; kernel/sched/core.c",
    ),
)

# Lines as people paste them.
_LINES: tuple[Case, ...] = ()

# Files and containers.
_FILES: tuple[Case, ...] = ()

# gdb: other machines, other plugins, files without symbols.
_GDB: tuple[Case, ...] = ()

CASES = (*_NAMES, *_LINES, *_FILES, *_GDB)
