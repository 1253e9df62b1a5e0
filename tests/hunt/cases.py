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

At hand: kplug; boot-image ARCH (its path); kallsyms-finder FILE (vmlinux-to-elf's); kgdb COMMAND... (gdb with kplug
sourced, on $VMLINUX; VMLINUX= for none); kdrgn. `kernel` is one of vm-images' manifest; $K is the folder of its files
(vmlinux, vmlinuz, System.map, modules/, debug-modules/), $VMLINUX its vmlinux. `guest=True`: a guest of it, with KASLR,
is stopped, kgdb is connected to it, and $KALLSYMS is a copy of its /proc/kallsyms.
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

# Lines as people paste them. `schedule+0x4/0xc7` and `vfs_write+0x235/0x3e3` are of amd64-6.1.
_AT = "$ nm $VMLINUX | awk '/ {name}$/ {{ print \"0x\" $1 }}' | (read a; printf '0x%x\\n' $((a + {offset})))"
_SCHEDULE, _WRITE = _AT.format(name="schedule", offset=4), _AT.format(name="vfs_write", offset=0x235)
_PREFIXED = r"""[   12.345678] schedule+0x4/0xc7
[   12.345678][  T123]  ? schedule+0x4/0xc7
<4>[   12.345678] [C0] schedule+0x4/0xc7
kern  :warn  : [Mon Nov 30 12:00:00 2026] schedule+0x4/0xc7
2026-11-30T12:00:00,123456+00:00 schedule+0x4/0xc7
Nov 30 12:00:00 host kernel: [   12.345678] RIP: 0010:schedule+0x4/0xc7
Nov 30 12:00:00 host kernel: schedule+0x4/0xc7
6,416,1799682,-;schedule+0x4/0xc7
[2026-11-30 12:00:00.123] [   12.345678] schedule+0x4/0xc7
[ 6020.023137@0] schedule+0x4/0xc7
> > [   12.345678]  schedule+0x4/0xc7
"""
_FRAMES = r"""IP: [<ffffffff81a114f4>] schedule+0x4/0xc7
RIP: 0010:[<ffffffff81a114f4>]  [<ffffffff81a114f4>] schedule+0x4/0xc7
[<0>] schedule+0x4/0xc7
pc : schedule+0x4/0xc7
lr : schedule+0x4/0xc7 (P)
schedule+0x4/0xc7 (unreliable)
 unwind_backtrace from schedule+0x4/0xc7
 #3 [ffffc90000013e08] schedule at ffffffff81a114f4
    [exception RIP: schedule+4]
#0  0xffffffff81a114f4 in schedule () at kernel/sched/core.c:6654
#2  schedule+0x4/0xc7
\tffffffff81a114f4 schedule+0x4 ([kernel.kallsyms])
 => schedule+0x4
 #0: ffff888012345678 (&rq->__lock){-.-.}-{2:2}, at: schedule+0x4/0xc7
 schedule+0x4/0xc7 kernel/sched/core.c:6654
WARNING: CPU: 0 PID: 1 at kernel/sched/core.c:6654 schedule+0x4/0xc7
"""


def _in_gdb(lines: str) -> str:
    """A command that asks gdb about each of the lines."""
    words = " ".join("'kwhere -b " + line.strip() + "'" for line in lines.splitlines())
    return f"kgdb {words} | sort | uniq -c"


def _each(lines: str) -> str:
    """The number of lines, as uniq counts answers that are the same."""
    return f"     {len(lines.splitlines()):2} 0x"


_LINES = (
    Case(
        "lines: prefixes of dmesg, syslog, consoles, mail",
        "kplug where -b -s $VMLINUX - | sort | uniq -c",
        given=_PREFIXED,
        right=f"{_SCHEDULE}\n{_each(_PREFIXED)}",
        source="nm; all lines are the same place",
        status=0,
    ),
    Case(
        "lines: frames of the kernel's architectures and of tools",
        "kplug where -b -s $VMLINUX - | sort | uniq -c",
        given=_FRAMES.replace("\\t", "\t"),
        right=f"{_SCHEDULE}\n{_each(_FRAMES)}",
        source="nm; all lines are the same place",
        status=0,
    ),
    Case(
        "lines: the same in gdb, which computes none of them",
        _in_gdb(_FRAMES.replace("\\t", "")),
        right=f"{_SCHEDULE}\n{_each(_FRAMES)}",
        wrong="rror",
        source="nm",
    ),
    Case(
        "lines: a size of another build, no address, several addresses",
        "kplug where -b -s $VMLINUX -",
        given="[   17.1]  vfs_write+0x235/0x400\n[   17.1] Call Trace:\n[   17.1] RAX: 0000000000000000 RBX: ffff8880\n"
        " context_switch kernel/sched/core.c:5282 [inline]\n7f3c2b114f4 main+0x10 (/usr/bin/cat)\n",
        right=f"{_WRITE}\nthe symbol's size here is 0x3e3, not 0x400\nCall Trace: no address or symbol in it\n"
        "it names RAX, RBX: ask about one\ncontext_switch is inlined there\na frame of /usr/bin/cat",
        source="nm, readelf -s",
        status=1,
    ),
    Case(
        "lines: a module without its load address",
        "kplug where -bl -s $VMLINUX --module-dir $K/debug-modules 'RIP: 0010:lo_ioctl+0x9/0x81f [loop]'",
        right="$ nm $K/debug-modules/kernel/drivers/block/loop.ko | awk '/ lo_ioctl$/ { print \"0x\" $1 }' |"
        " (read a; printf '.text+0x%x\\n' $((a + 9)))\ndrivers/block/loop.c:1548",
        source="nm; addr2line -e loop.ko",
        status=0,
    ),
    Case(
        "lines: a module without its load address, in gdb",
        "VMLINUX=tree/vmlinux kgdb 'kwhere -b lo_ioctl+0x9/0x81f [loop]'",
        right="$ nm tree/kernel/drivers/block/loop.ko | awk '/ lo_ioctl$/ { print \"0x\" $1 }' |"
        " (read a; printf '.text+0x%x\\n' $((a + 9)))",
        source="nm",
        prepare="mkdir -p tree/kernel/drivers/block; strip -g -o tree/vmlinux $VMLINUX;"
        " cp $K/debug-modules/kernel/drivers/block/loop.ko tree/kernel/drivers/block",
    ),
    Case(
        "lines: a BPF program in a saved kallsyms",
        "kplug where -b --kallsyms list '[   12.3]  bpf_prog_6deef7357e7b4530_f+0x10/0x7c'",
        prepare="awk '$3 !~ /^__per_cpu/ { print }' $K/System.map | sed 's/ A / a /' | grep -v ' a ' > list;"
        " printf 'ffffffffc0700010 t bpf_prog_6deef7357e7b4530_f\\t[bpf]\\n' >> list",
        right="0xffffffffc0700020  bpf_prog_6deef7357e7b4530_f+0x10  [bpf]",
        source="the list, 16 bytes further",
        status=0,
    ),
)

# Files and containers.
_MKIMAGE = "mkimage -O linux -T kernel -a 0x8000 -e 0x8000 -n linux"
_ARM = "ln -s $(boot-image armhf) zImage; "
_FOUND = "$ kallsyms-finder FILE | awk '/ schedule$/ { print $1 }' | xargs printf '0x%s'"
_LISTED = "$ awk '/ schedule$/ { print \"0x\" $1 }' $K/System.map"
_KERNEL = "kplug extract $K/vmlinuz -o kernel; "

_FILES = (
    Case(
        "files: uImage of a zImage",
        "kplug where -b --vmlinuz uImage schedule",
        right=_FOUND.replace("FILE", "zImage"),
        source="kallsyms-finder, from the zImage",
        prepare=f"{_ARM} {_MKIMAGE} -A arm -C none -d zImage uImage > /dev/null",
    ),
    Case(
        "files: FIT of a zImage",
        "kplug where -b --vmlinuz fit schedule; kplug info fit",
        right=_FOUND.replace("FILE", "zImage") + "\nFIT > zImage",
        source="kallsyms-finder, from the zImage",
        prepare=f"{_ARM} {_MKIMAGE} -f auto -A arm -C none -d zImage fit > /dev/null",
    ),
    Case(
        "files: what extract wrote of a zImage is a kernel",
        "kplug extract zImage -o kernel; kplug where -b -s kernel schedule",
        right=_FOUND.replace("FILE", "zImage"),
        source="kallsyms-finder, from the zImage",
        prepare=_ARM,
    ),
    Case(
        "files: extract --symbols of a zImage",
        "kplug extract --symbols zImage -o kernel; nm kernel | awk '/ schedule$/ { print $1 }'; readelf -lW kernel",
        right="$ kallsyms-finder zImage | awk '/ schedule$/ { print $1 }'\n0xc0208000",
        source="kallsyms-finder; PAGE_OFFSET and TEXT_OFFSET of ARCH_MULTIPLATFORM with QCOM in arch/arm/Makefile",
        prepare=_ARM,
    ),
    Case(
        "files: a self-extracting ELF file (mips64el) is unpacked",
        "kplug extract vmlinuz -o kernel; kplug where -b -s vmlinuz schedule; head -c4 kernel | grep -c ELF",
        right=_FOUND.replace("FILE", "vmlinuz") + "\n0",
        source="kallsyms-finder; the kernel inside has no ELF header",
        prepare="ln -s $(boot-image mips64el) vmlinuz",
    ),
    Case(
        "files: Qualcomm's UNCOMPRESSED_IMG, 20 bytes before an Image",
        "kplug extract image -o kernel && cmp kernel $K/vmlinuz && echo the same; kplug where -b -s image schedule",
        right=f"the same\n{_LISTED}",
        source="System.map; the Image that was put in",
        prepare="(printf UNCOMPRESSED_IMG; python3 -c 'import os, struct, sys; sys.stdout.buffer.write(struct.pack("
        '"<I", os.path.getsize(sys.argv[1])))\' $K/vmlinuz; cat $K/vmlinuz) > image',
        kernel="arm64-6.12",
    ),
    Case(
        "files: two kernels in a file are two",
        "kplug where -s flash schedule; kplug extract --offset 0x20 flash -o one; strings one | grep -m1 '^Linux ver'",
        right="2 kernels in it: bzImage at 0x20 (6.1.\nbzImage at 0x\n--offset\nLinux version 6.1.",
        source="what was put in",
        prepare="(head -c 32 /dev/zero; cat $K/vmlinuz $K/vmlinuz) > flash",
    ),
    Case(
        "files: machine code alone, behind a header that nobody knows",
        "kplug where -b -s image schedule",
        right=_LISTED,
        source="System.map",
        prepare=f"{_KERNEL} objcopy -O binary kernel code; (head -c 777 /dev/urandom; cat code) > image",
    ),
    Case(
        "files: machine code alone, with kallsyms that have no address",
        "kplug where -b -s code schedule",
        right=_LISTED,
        source="System.map",
        prepare=f"{_KERNEL} objcopy -O binary kernel code",
        kernel="amd64-sid",
    ),
    Case(
        "files: FIT of an lz4 frame",
        "lz4 -t Image.lz4 && kplug where -b --vmlinuz fit schedule",
        right=_LISTED,
        source="System.map; lz4 -t says that it is lz4",
        prepare=f"lz4 -q -1 $K/vmlinuz Image.lz4; {_MKIMAGE} -f auto -A arm64 -C lz4 -d Image.lz4 fit > /dev/null",
        wrong="not lz4",
        kernel="arm64-6.12",
    ),
    Case(
        "files: FIT of a legacy lz4 frame",
        "kplug where -b --vmlinuz fit schedule",
        right=_LISTED,
        source="System.map",
        prepare=f"lz4 -q -l -1 $K/vmlinuz Image.lz4; {_MKIMAGE} -f auto -A arm64 -C lz4 -d Image.lz4 fit > /dev/null",
        kernel="arm64-6.12",
    ),
    Case(
        "files: a vmlinux with segments alone, at the shell and in gdb",
        "kplug where -b -s segments schedule; VMLINUX=segments; kgdb 'kwhere --brief schedule'",
        right=_LISTED,
        source="System.map",
        prepare=f"{_KERNEL} (head -c 40 kernel; head -c 8 /dev/zero; head -c 60 kernel | tail -c +49;"
        " head -c 4 /dev/zero; tail -c +65 kernel) > segments",
    ),
    Case(
        "files: no attempt is told as the cause",
        "kplug extract no-kernel -o kernel",
        right="no kernel found in it: neither a kernel's header nor a banner; tried what looks like xz at 0x1000",
        source="there is nothing but xz's magic in it",
        prepare="(head -c 4096 /dev/zero; printf '\\xfd7zXZ\\0'; head -c 4096 /dev/zero) > no-kernel",
        wrong="no-kernel: the xz data is broken",
        status=2,
    ),
)

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
