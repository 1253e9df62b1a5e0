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
_OTHER = """cat > other.py <<END
import gdb
class Other(gdb.Command):
    def invoke(self, argument, from_tty):
        print("the other's", argument)
for name in ("kmod", "kregs"):
    Other(name, gdb.COMMAND_DATA)
END"""
_FORM = """cp $K/debug-modules/kernel/net/netfilter/x_tables.ko plain.ko
objcopy --compress-debug-sections={form} plain.ko x_tables.ko"""
_IN_MODULE = "kplug where -bl -s $VMLINUX --module x_tables.ko@0xffffffffc0400000 0xffffffffc0401010"
_LINE = "$ addr2line -j .text -e plain.ko 0x1010 | sed 's/ (.*//; s,.*/net/,net/,'"

_GDB: tuple[Case, ...] = (
    Case(
        "gdb: another plugin's kmod and kregs are taken over, and given back",
        'VMLINUX= kgdb "source other.py" "source $(kplug gdb-script)" "set kplug prefix kp_" "kmod 1" "kregs 2" kwhere',
        right="the other's 1\nthe other's 2\nkwhere: kplug calls this kp_where now (`show kplug prefix`)",
        source="the other plugin",
        prepare=_OTHER,
    ),
    *(
        Case(
            f"gdb and shell: lines from sections that {form} compressed",
            f"{_IN_MODULE}; kgdb 'add-symbol-file x_tables.ko 0xffffffffc0400000' 'kwhere -bl 0xffffffffc0401010'",
            right=_LINE,
            source="addr2line on the module as it was",
            prepare=_FORM.format(form=form),
        )
        for form in ("zlib", "zstd")
    ),
    Case(
        "shell: the debug file that is missing is named",
        "kplug where -bl -s stripped schedule",
        right="stripped is in other.debug (.gnu_debuglink), which is not there",
        source="objcopy --add-gnu-debuglink",
        prepare="echo > other.debug; objcopy --strip-debug --add-gnu-debuglink=other.debug $VMLINUX stripped; "
        "rm other.debug",
    ),
)

CASES = (*_NAMES, *_LINES, *_FILES, *_GDB)
