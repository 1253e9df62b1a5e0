#!/bin/sh
# Makes data/*.map and data/*.nm: a few objects of our own, linked by GNU ld and by lld, with what nm says of the result.
# Needs gcc, binutils and lld (any version; LLD names another binary). Run it in this directory.
set -eu
here=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p drivers/one kernel lib
cat > drivers/one/first.c <<'C'
int first_data = 1; int first_bss; const char *first_string = "shared words"; const char *first_own = "of the first file";
__attribute__((section(".data..percpu"))) int first_percpu = 2;
__attribute__((section(".a_section_with_a_long_name"))) int first_long = 3;
__attribute__((section(".discard.me"))) int first_discarded = 4;
int first_function(int x) { return x + first_data; }
C
cat > kernel/second.c <<'C'
extern int member_function(int); int second_data[3] = {1, 2, 3}; int second_bss[5];
const char *second_string = "shared words";
__attribute__((section(".data..percpu"))) int second_percpu = 2;
__attribute__((aligned(64))) int second_function(int x) { return member_function(x); }
void _start(void) { second_function(1); }
C
cat > lib/member.c <<'C'
int member_data = 7; int member_function(int x) { return x * member_data; }
C
cat > script.lds <<'L'
PHDRS { text PT_LOAD FLAGS(5); data PT_LOAD FLAGS(6); percpu PT_LOAD FLAGS(6); }
SECTIONS
{
 . = 0xffffffff81000000;
 .text : AT(ADDR(.text) - 0xffffffff80000000) { _text = .; *(.text) _etext = .; } :text = 0xcccccccc
 .rodata : AT(ADDR(.rodata) - 0xffffffff80000000) { *(.rodata .rodata.*) }
 .data : AT(ADDR(.data) - 0xffffffff80000000) { *(.data) } :data
 .a_section_with_a_long_name : AT(ADDR(.a_section_with_a_long_name) - 0xffffffff80000000) { *(.a_section_with_a_long_name) }
 __per_cpu_load = .;
 .data..percpu 0 : AT(__per_cpu_load - 0xffffffff80000000) { *(.data..percpu) } :percpu
 . = __per_cpu_load + SIZEOF(.data..percpu);
 .bss : AT(ADDR(.bss) - 0xffffffff80000000) { *(.bss) _end = .; } :data
 /DISCARD/ : { *(.discard.*) *(.note.*) *(.eh_frame) }
}
L
for source in drivers/one/first.c kernel/second.c lib/member.c; do
    gcc -c -O1 -g -fno-pie -mcmodel=kernel -fno-asynchronous-unwind-tables "$source" -o "${source%.c}.o"
done
ar rcs lib/lib.a lib/member.o
ar rcsT vmlinux.a drivers/one/first.o kernel/second.o
for linker in "${GNU_LD:-ld} gnu" "${LLD:-ld.lld-14} lld"; do
    set -- $linker
    "$1" -T script.lds -o "$2" -Map="$here/data/$2.map" --whole-archive vmlinux.a --no-whole-archive lib/lib.a
    nm -n "$2" > "$here/data/$2.nm"
done
# As kernels with LTO or IBT are linked: everything into vmlinux.o first, then that alone.
mkdir -p "$here/data/whole"
ld -r -o vmlinux.o -Map="$here/data/whole/vmlinux.o.map" --whole-archive vmlinux.a --no-whole-archive lib/lib.a
ld -T script.lds -o whole -Map="$here/data/whole/vmlinux.map" vmlinux.o
nm -n whole > "$here/data/whole/vmlinux.nm"
