"""`kplug info` and `kplug notes`: notes by their owners' names, facts of a banner, and files that lie.

Names and layouts of notes: Xen's public elfnote.h, include/uapi/linux/elf.h, include/linux/elfcore.h, the gABI and the
linux-abi specification. Real kernels are compared with readelf in tests/exhaustive/test_info.py.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import struct
import subprocess
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.bounded_kplug import Answer, BoundedKplug
from support.elf_builder import (
    BANNER,
    BASE_64,
    BUILD_ID,
    EM_386,
    EM_AARCH64,
    EM_PPC64,
    EM_X86_64,
    ET_CORE,
    ET_REL,
    PT_LOAD,
    PT_NOTE,
    SHT_NOTE,
    A,
    Elf,
    Sec,
    Seg,
    build_id_note,
    small_vmlinux,
)

from kplug.commands import COMMANDS
from kplug.errors import TargetError
from kplug.image.banner import banners_in, parse_banner
from kplug.image.elf.header_only import bare_elf
from kplug.image.elf.notes import BrokenNotes, DecodedNote, NoteFormat, decoded_notes
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import slid
from kplug.image.symbols.symbol_list import SymbolList
from kplug.live.machine import Machine
from kplug.outputs import Problem, Table
from kplug.session import Session
from kplug.shell import cli
from kplug.shell.arguments import command_parser
from kplug.target import Target

X86_64 = NoteFormat("x86_64", little_endian=True)
SECONDS = 2.0


def note(owner: bytes, number: int, data: bytes, little: bool = True, alignment: int = 4) -> bytes:
    """A note's bytes, as the gABI has them."""

    def padded(what: bytes, after: int = 0) -> bytes:
        return what + bytes(-(len(what) + after) % alignment)

    name = owner + b"\0"
    return struct.pack("<III" if little else ">III", len(name), len(data), number) + padded(name, 12) + padded(data)


def decoded(data: bytes, form: NoteFormat = X86_64) -> list[DecodedNote]:
    found = list(decoded_notes(data, form))
    notes = [each for each in found if isinstance(each, DecodedNote)]
    assert len(notes) == len(found)
    return notes


def quad(number: int) -> bytes:
    return struct.pack("<Q", number)


# -- notes by their owners ---------------------------------------------------------------------------------------------

OF_KERNELS = [
    (b"Xen", 0, b"KEY=value\0", "INFO", "KEY=value"),
    (b"Xen", 1, quad(0xFFFFFFFF82C241C0), "ENTRY", "0xffffffff82c241c0"),
    (b"Xen", 2, quad(0xFFFFFFFF81002000), "HYPERCALL_PAGE", "0xffffffff81002000"),
    (b"Xen", 3, b"\0\0\0\xc0", "VIRT_BASE", "0xc0000000"),
    (b"Xen", 4, quad(0), "PADDR_OFFSET", "0x0"),
    (b"Xen", 5, b"xen-3.0\0", "XEN_VERSION", "xen-3.0"),
    (b"Xen", 6, b"linux\0", "GUEST_OS", "linux"),
    (b"Xen", 7, b"2.6\0", "GUEST_VERSION", "2.6"),
    (b"Xen", 8, b"generic\0", "LOADER", "generic"),
    (b"Xen", 9, b"yes\0", "PAE_MODE", "yes"),
    (b"Xen", 10, b"!writable_page_tables|pae_pgdir_above_4gb", "FEATURES", "!writable_page_tables|pae_pgdir_above_4gb"),
    (b"Xen", 11, b"yes\0", "BSD_SYMTAB", "yes"),
    (b"Xen", 12, quad(0xFFFF800000000000), "HV_START_LOW", "0xffff800000000000"),
    (b"Xen", 13, quad(1) + quad(1), "L1_MFN_VALID", "mask 0x1 value 0x1"),
    (b"Xen", 14, b"\1\0\0\0", "SUSPEND_CANCEL", "1"),
    (b"Xen", 15, quad(0x8000000000), "INIT_P2M", "0x8000000000"),
    (b"Xen", 16, b"\1\0\0\0", "MOD_START_PFN", "1"),
    (
        b"Xen",
        17,
        b"\x01\x88\4\0",
        "SUPPORTED_FEATURES",
        "0x48801|writable_page_tables|dom0|linux_rsdp_unrestricted|bit 18",
    ),
    (b"Xen", 18, quad(0x1000A30), "PHYS32_ENTRY", "0x1000a30"),
    (
        *(b"Xen", 19, struct.pack("<III", 0x200000, 0x1000000, 0x3FFFFFFF), "PHYS32_RELOC"),
        "alignment 0x200000, minimum 0x1000000, maximum 0x3fffffff",
    ),
    (b"GNU", 1, struct.pack("<IIII", 0, 3, 2, 0), "ABI_TAG", "Linux 3.2.0"),
    (b"GNU", 3, bytes(range(20)), "BUILD_ID", bytes(range(20)).hex()),
    (b"GNU", 5, struct.pack("<IIIxxxx", 0xC0000002, 4, 3), "PROPERTY_TYPE_0", "x86 feature: IBT SHSTK"),
    (b"Linux", 0, struct.pack("<I", 6 << 16 | 1 << 8 | 102), "VERSION_CODE", "6.1.102"),
    (b"Linux", 0x100, b"6.1.0-56-cloud-amd64\0", "BUILD_SALT", "6.1.0-56-cloud-amd64"),
    (b"Linux", 0x101, bytes(4), "LTO_INFO", "0"),
    (b"VMCOREINFO", 0, b"OSRELEASE=6.1.0\nPAGESIZE=4096\n", "VMCOREINFO", "OSRELEASE=6.1.0 (2 lines)"),
]


@pytest.mark.parametrize(("owner", "number", "data", "name", "value"), OF_KERNELS, ids=lambda each: None)
def test_a_note_of_a_kernel_has_its_owners_name_and_says_what_it_holds(
    owner: bytes, number: int, data: bytes, name: str, value: str
) -> None:
    [found] = decoded(note(owner, number, data))
    assert (found.owner, found.type, found.name, found.value) == (owner.decode(), number, name, value)
    assert found.description == data


@pytest.mark.parametrize(
    ("owner", "number", "name"),
    [
        (b"CORE", 1, "PRSTATUS"),
        (b"CORE", 3, "PRPSINFO"),
        (b"CORE", 4, "TASKSTRUCT"),
        (b"CORE", 6, "AUXV"),
        (b"LINUX", 0x108, "PPC_TM_CGPR"),
        (b"LINUX", 0x10E, "PPC_TM_CPPR"),
        (b"LINUX", 0x110, "PPC_PKEY"),
        (b"LINUX", 0x202, "X86_XSTATE"),
        (b"LINUX", 0x309, "S390_VXRS_LOW"),
        (b"LINUX", 0x30E, "S390_PV_CPU_DATA"),
        (b"LINUX", 0x405, "ARM_SVE"),
        (b"LINUX", 0x40A, "ARM_PAC_ENABLED_KEYS"),
        (b"LINUX", 0x40F, "ARM_POE"),
        (b"LINUX", 0x700, "VMCOREDD"),
        (b"LINUX", 0xA06, "LOONGARCH_HW_WATCH"),
        (b"QEMU", 0, "QEMUCPUState"),
        # readelf's words for these are those of other owners.
        (b"Linux", 1, None),
        (b"LINUX", 0x100 - 1, None),
        (b"Xen", 20, None),
        (b"GNU", 0x100, None),
        (b"xen", 1, None),
        (b"", 1, None),
        (b"Debian", 3, None),
    ],
)
def test_the_name_of_a_type_is_the_owners_or_none(owner: bytes, number: int, name: str | None) -> None:
    [found] = decoded(note(owner, number, bytes(range(40))))
    assert found.name == name
    if name is None:
        assert found.value is None
        assert found.shown == bytes(range(32)).hex(" ") + " ..."


@pytest.mark.parametrize(
    ("owner", "number", "data"),
    [
        (b"Xen", 1, b"abc"),  # neither 4 nor 8 bytes
        (b"Xen", 6, b"linux\0windows"),  # more after the end of the text
        (b"Xen", 13, bytes(12)),
        (b"Xen", 19, bytes(16)),
        (b"GNU", 1, bytes(8)),
        (b"GNU", 1, struct.pack("<IIII", 77, 1, 1, 1)),  # no such system
        (b"GNU", 3, b""),
        (b"GNU", 5, struct.pack("<II", 0xC0000002, 400)),
        (b"GNU", 5, b"abc"),
        (b"CORE", 1, bytes(100)),
        (b"CORE", 3, bytes(100)),
        (b"QEMU", 0, bytes(440)),  # another version of it
        (b"VMCOREINFO", 0, b""),
    ],
)
def test_a_note_that_does_not_hold_what_its_type_says_has_no_value(owner: bytes, number: int, data: bytes) -> None:
    [found] = decoded(note(owner, number, data))
    assert found.name is not None
    assert found.value is None
    assert not found.registers


def test_properties_of_aarch64_and_of_no_processor_that_is_known() -> None:
    data = struct.pack("<IIIxxxx", 0xC0000000, 4, 7)
    [found] = decoded(note(b"GNU", 5, data), NoteFormat("aarch64", little_endian=True))
    assert found.value == "AArch64 feature: BTI PAC GCS"
    [found] = decoded(note(b"GNU", 5, data), NoteFormat("s390x", little_endian=True))
    assert found.value == "property 0xc0000000: 07 00 00 00"


@pytest.mark.parametrize("little", [True, False])
def test_both_byte_orders(little: bool) -> None:
    form = NoteFormat("ppc64", little)
    data = struct.pack("<Q" if little else ">Q", 0xC0000000)
    [found] = decoded(note(b"Xen", 3, data, little), form)
    assert found.value == "0xc0000000"


def prstatus(pid: int, registers: Sequence[int]) -> bytes:
    """struct elf_prstatus of 64-bit machines: pr_pid at 32, pr_reg at 112, pr_fpvalid."""
    return bytes(32) + struct.pack("<i", pid) + bytes(76) + struct.pack(f"<{len(registers)}Qii", *registers, 0, 0)


def test_prstatus_has_pid_and_registers_of_each_cpu() -> None:
    # struct user_regs_struct of x86_64, in its order; struct user_pt_regs of arm64.
    x86 = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss"
    x86_names = [*x86.split(), "fs_base", "gs_base", "ds", "es", "fs", "gs"]
    first, second = decoded(note(b"CORE", 1, prstatus(77, range(100, 127))) + note(b"CORE", 1, prstatus(0, range(27))))
    expected = dict(zip(x86_names, range(100, 127)))
    del expected["orig_rax"]
    assert (first.cpu, first.pid, first.registers) == (0, 77, expected)
    assert first.value == "CPU 0: pr_pid 77, rip 0x74, rsp 0x77"
    assert (second.cpu, second.pid) == (1, 0)
    [arm] = decoded(note(b"CORE", 1, prstatus(5, range(34))), NoteFormat("aarch64", little_endian=True))
    assert arm.registers == {**{f"x{number}": number for number in range(31)}, "sp": 31, "pc": 32, "pstate": 33}
    [other] = decoded(note(b"CORE", 1, prstatus(5, range(34)), little=False), NoteFormat("s390x", little_endian=False))
    assert (other.name, other.value, other.registers) == ("PRSTATUS", None, {})


def test_prpsinfo_names_the_program_and_its_arguments() -> None:
    data = (
        bytes(24)
        + struct.pack("<i", 42)
        + bytes(12)
        + b"vmlinux".ljust(16, b"\0")
        + b"root=/dev/vda ro".ljust(80, b"\0")
    )
    [found] = decoded(note(b"CORE", 3, data))
    assert (found.pid, found.value) == (42, "pr_pid 42, vmlinux: root=/dev/vda ro")


# -- notes that lie ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (struct.pack("<III", 4, 0xFFFFFFF0, 3) + b"GNU\0", "a note claims 0x4 and 0xfffffff0 bytes, and 0x4 are left"),
        (struct.pack("<III", 0xFFFFFFFF, 0, 3) + b"GNU\0", "a note claims 0xffffffff and 0x0 bytes, and 0x4 are left"),
        (b"\1\2\3\4\5", "5 bytes are left, too few for a note"),
    ],
)
def test_a_note_that_lies_ends_them_and_that_is_said(tail: bytes, why: str) -> None:
    good = note(b"GNU", 3, BUILD_ID)
    first, broken = decoded_notes(good + tail, X86_64, ".notes", 0x1000)
    assert isinstance(first, DecodedNote)
    assert broken == BrokenNotes(".notes", 0x1000 + len(good), why)


def test_zeros_after_the_last_note_are_padding() -> None:
    assert len(decoded(note(b"GNU", 3, BUILD_ID) + bytes(8))) == 1


def vmlinux_with_notes(folder: Path, notes: bytes, align: int = 4, **changes: object) -> str:
    elf = small_vmlinux(**changes)  # type: ignore[arg-type]
    [section] = [section for section in elf.sections if section.name == ".notes"]
    section.data, section.align = notes, align
    path = folder / "vmlinux"
    path.write_bytes(bytes(elf))
    return str(path)


def test_the_good_notes_are_listed_and_the_broken_one_named(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = vmlinux_with_notes(tmp_path, note(b"GNU", 3, BUILD_ID) + struct.pack("<III", 1 << 31, 1 << 31, 3))
    answer = kplug.run("notes", path)
    assert answer.status == 1
    assert "BUILD_ID" in answer.out
    assert answer.err.startswith(f"kplug: {path}: the notes in .notes end at 0x")
    assert answer.err.count("\n") == 1


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
@pytest.mark.parametrize("align", [4, 8])
def test_a_section_at_multiples_of_8_has_notes_at_multiples_of_8(
    tmp_path: Path, kplug: BoundedKplug, align: int
) -> None:
    notes = note(b"Linux", 0x100, b"salt\0", alignment=align) + note(b"GNU", 3, BUILD_ID, alignment=align)
    path = vmlinux_with_notes(tmp_path, notes, align)
    rows = [json.loads(line) for line in kplug.run("notes", "--json", path).out.splitlines()]
    listed = subprocess.run(["readelf", "-nW", path], capture_output=True, text=True, check=True).stdout
    assert f"Build ID: {BUILD_ID.hex()}" in listed
    assert [(row["owner"], row["value"]) for row in rows] == [("Linux", "salt"), ("GNU", BUILD_ID.hex())]


# -- what is shown -----------------------------------------------------------------------------------------------------


def facts_of(answer: Answer) -> dict[str, Any]:
    facts = [json.loads(line) for line in answer.out.splitlines()]
    [info] = [each for each in facts if each["schema"] == "kplug.info/1"]
    return dict(info)


@pytest.mark.parametrize(
    ("bits", "little", "machine", "name"),
    [
        (64, True, EM_X86_64, "x86_64"),
        (64, False, EM_PPC64, "ppc64"),
        (32, True, EM_386, "i386"),
        (32, False, 20, "ppc"),
    ],
)
def test_text_and_json_name_the_same_facts(
    tmp_path: Path, kplug: BoundedKplug, bits: int, little: bool, machine: int, name: str
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux(bits, little, machine)))
    text, facts = kplug.run("info", str(path)), facts_of(kplug.run("info", "--json", str(path)))
    assert text.status == 0
    assert (facts["kind"], facts["class"], facts["machine"]) == ("vmlinux", f"ELF{bits}", name)
    assert facts["byte_order"] == ("little endian" if little else "big endian")
    assert facts["build_id"] == BUILD_ID.hex()
    lines = dict(line.split("  ", 1) for line in text.out.split("\n\n")[0].splitlines())
    shown = {label.strip(): words.strip() for label, words in lines.items()}
    for key, value in facts.items():
        if key != "schema" and not isinstance(value, list):
            words = shown[key.replace("_", " ")]
            expected = "not known" if value is None else str(value)
            assert words == expected or int(words, 0) == value


def test_text_from_a_file_is_made_safe(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = vmlinux_with_notes(tmp_path, note(b"Linux", 0x100, b"\x1b[31mred\0") + note(b"\x1b]0;", 7, b"x"))
    text = kplug.run("notes", path)
    assert "\x1b" not in text.out
    assert r"\x1b[31mred" in text.out
    assert json.loads(kplug.run("notes", "--json", path).out.splitlines()[0])["value"] == "\x1b[31mred"


def test_a_note_with_lines_and_registers_shows_them_when_asked(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = tmp_path / "vmcore"
    notes = note(b"CORE", 1, prstatus(1, range(27))) + note(b"VMCOREINFO", 0, b"OSRELEASE=6.1\nPAGESIZE=4096\n")
    elf = Elf(
        type=ET_CORE,
        machine=EM_X86_64,
        sections=[Sec(".n", data=notes, align=4), Sec(".m", data=bytes(64))],
        segments=[Seg(PT_NOTE, covers=(".n",)), Seg(PT_LOAD, covers=(".m",))],
    )
    path.write_bytes(bytes(elf))
    answer = kplug.run("notes", "-v", str(path))
    assert (answer.status, answer.err) == (0, "")
    assert "\nrip  " in answer.out.replace("       ", "  ")
    assert "\nPAGESIZE=4096\n" in answer.out
    facts = facts_of(kplug.run("info", "--json", str(path)))
    assert (facts["kind"], facts["release"], facts["page_size"], facts["cpus"]) == ("vmcore", "6.1", 4096, 1)


class Memory(Target):
    """A target that has some bytes at an address, and nothing else."""

    def __init__(self, address: int, data: bytes) -> None:
        self.address, self.data = address, data

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        if not self.address <= address <= address + size <= self.address + len(self.data):
            raise TargetError("nothing there")
        return self.data[address - self.address :][:size]


def kernel_without_a_file(bounds: Sequence[int], memory: Memory) -> Session:
    names = [b"__start_notes", b"__stop_notes"]
    symbols = SymbolList(b"\0".join(names) + b"\0", array("I", [0, 14]), bounds, b"RR", "test")
    image = KernelImage(bare_elf("memory", "x86_64"), listed=symbols)
    return Session([PlacedImage(image, slid((), 0x1000000, "test"))], target=memory)  # type: ignore[arg-type]


def asked(session: Session, name: str, *words: str) -> list[Any]:
    command = COMMANDS[name]
    return list(command.run(session, command.parser(name).parse_args(list(words))))


def test_a_kernel_of_which_no_file_has_notes_is_asked_for_those_in_its_memory() -> None:
    data = note(b"GNU", 3, BUILD_ID) + note(b"Linux", 0x100, b"salt\0")
    start = BASE_64 + 0x1000
    memory = Memory(start + 0x1000000, data)
    [table] = asked(kernel_without_a_file([start, start + len(data)], memory), "notes")
    assert isinstance(table, Table)
    assert [(row["name"], row["value"], row["path"]) for row in table.rows] == [
        ("BUILD_ID", BUILD_ID.hex(), "memory"),
        ("BUILD_SALT", "salt", "memory"),
    ]


@pytest.mark.parametrize("size", [0, -8, 1 << 20, 64])
def test_memory_without_notes_has_none(size: int) -> None:
    start = BASE_64 + 0x1000
    [problem] = asked(kernel_without_a_file([start, start + size], Memory(0, b"")), "notes")
    assert isinstance(problem, Problem)


@pytest.mark.parametrize(("option", "modules"), [("--system-map", None), ("--kallsyms", 2)])
def test_a_list_of_symbols_says_what_it_lists(
    tmp_path: Path, kplug: BoundedKplug, option: str, modules: int | None
) -> None:
    path = tmp_path / "list"
    names = ("_text", "_stext", "startup_64", "_etext", "_end")
    lines = [f"{BASE_64 + 0x1000 * number:016x} T {name}" for number, name in enumerate(names)]
    if modules:
        lines += [f"ffffffffc040{number}000 t init_{number}\t[module_{number}]" for number in range(modules)]
    path.write_text("\n".join(lines) + "\n")
    answer = kplug.run("info", option, str(path))
    assert (answer.status, answer.err) == (0, "")
    told = {line[:13].strip(): line[13:].strip() for line in answer.out.splitlines()}
    assert told == {
        "path": str(path),
        "kind": "list of symbols",
        "machine": "x86_64",
        "symbols": "5",
        "image start": f"{BASE_64:#x}",
        "image end": f"{BASE_64 + 0x4000:#x}",
        **({"modules": str(modules)} if modules else {}),
    }
    problem = kplug.run("info", option, str(path), "--config")
    assert (problem.status, problem.err.count("\n")) == (1, 1)


def test_a_file_is_asked_without_a_kernel(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = vmlinux_with_notes(tmp_path, build_id_note(BUILD_ID))
    answer = kplug.run("info", "-s", path, path)
    assert (answer.status, answer.err) == (2, "kplug info: a FILE is looked at by itself, without --vmlinux\n")
    of_session, of_file = kplug.run("info", "-s", path, "--json"), kplug.run("info", "--json", path)
    assert of_session.out == of_file.out


def test_notes_alone(tmp_path: Path, kplug: BoundedKplug) -> None:
    """/sys/kernel/notes is that."""
    path = tmp_path / "notes"
    path.write_bytes(note(b"GNU", 3, BUILD_ID) + note(b"Xen", 6, b"linux\0"))
    rows = [json.loads(line) for line in kplug.run("notes", "--json", str(path)).out.splitlines()]
    assert [row["name"] for row in rows] == ["BUILD_ID", "GUEST_OS"]


# -- banners -----------------------------------------------------------------------------------------------------------

# As kernels of distributions say it (/proc/version): who built it, compiler, its version, linker, its version, uname -v
# and when it was built, each a part of the whole.
BANNERS = [
    (
        "Linux version 4.19.0-27-amd64 (debian-kernel@lists.debian.org) (gcc version 8.3.0 (Debian 8.3.0-6)) "
        "#1 SMP Debian 4.19.316-1 (2024-06-25)",
        *("debian-kernel@lists.debian.org", "gcc version 8.3.0 (Debian 8.3.0-6)", "8.3.0", None, None),
        *("#1 SMP Debian 4.19.316-1 (2024-06-25)", "2024-06-25"),
    ),
    (
        "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, "
        "GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.187-1 (2026-08-01)",
        *("debian-kernel@lists.debian.org", "gcc-12 (Debian 12.2.0-14) 12.2.0", "12.2.0"),
        *("GNU ld (GNU Binutils for Debian) 2.40", "2.40"),
        *("#1 SMP PREEMPT_DYNAMIC Debian 6.1.187-1 (2026-08-01)", "2026-08-01"),
    ),
    (
        "Linux version 6.5.6-300.fc39.x86_64 (mockbuild@host) (gcc (GCC) 13.2.1 20230918 (Red Hat 13.2.1-3), "
        "GNU ld version 2.40-13.fc39) #1 SMP PREEMPT_DYNAMIC Fri Oct  6 19:57:21 UTC 2023",
        *("mockbuild@host", "gcc (GCC) 13.2.1 20230918 (Red Hat 13.2.1-3)", "13.2.1"),
        *("GNU ld version 2.40-13.fc39", "2.40"),
        *("#1 SMP PREEMPT_DYNAMIC Fri Oct  6 19:57:21 UTC 2023", "Fri Oct  6 19:57:21 UTC 2023"),
    ),
    (
        "Linux version 6.6.30-android15 (a@b) (Android (11368308, +pgo, +bolt) clang version 18.0.0 "
        "(https://llvm.org/project 4776), LLD 18.0.0) #1 SMP PREEMPT Mon Jan  1 00:00:00 UTC 2024",
        *("a@b", "Android (11368308, +pgo, +bolt) clang version 18.0.0 (https://llvm.org/project 4776)", "18.0.0"),
        *("LLD 18.0.0", "18.0.0"),
        *("#1 SMP PREEMPT Mon Jan  1 00:00:00 UTC 2024", "Mon Jan  1 00:00:00 UTC 2024"),
    ),
    ("Linux version 6.1", None, None, None, None, None, None, None),
    ("Linux version 6.1 (unclosed", None, None, None, None, None, None, None),
]


@pytest.mark.parametrize(("text", "parts"), [(text, parts) for text, *parts in BANNERS])
def test_what_a_banner_says(text: str, parts: list[str | None]) -> None:
    banner = parse_banner(text.encode() + b"\n\0rest")
    assert banner is not None
    assert (banner.text, banner.release) == (text, text.split()[2])
    assert [*banner[2:]] == parts


def test_no_banner_is_none() -> None:
    assert parse_banner(b"Linux versions") is None
    assert parse_banner(b"") is None


def test_of_the_strings_that_begin_like_it_only_one_is_the_banner() -> None:
    """The format of /proc/version, and the banner without a build number that 6.2 and later have besides."""
    real = b"Linux version 6.12.1 (a@b) (gcc-12 12.2.0, GNU ld 2.40) #7 SMP Thu Jan  1 00:00:00 UTC 1970"
    weak = real.replace(b"#7 ", b"# ")
    formatted = b"Linux version %s (a@b) (gcc-12 12.2.0) #7 %s\n\0"
    assert banners_in(b"\0" + weak + b"\n\0" + real + b"\n\0" + formatted + real) == [real]


# -- the configuration in an image -------------------------------------------------------------------------------------

CONFIG = "# Linux/x86 6.1 Kernel Configuration\nCONFIG_64BIT=y\n# CONFIG_IKCONFIG_PROC is not set\nCONFIG_IKCONFIG=y\n"


def with_config(folder: Path, packed: bytes) -> str:
    elf = small_vmlinux()
    [rodata] = [section for section in elf.sections if section.name == ".rodata"]
    rodata.data = BANNER.ljust(0x80, b"\0") + b"IKCFG_ST" + packed + b"IKCFG_ED"
    path = folder / "vmlinux"
    path.write_bytes(bytes(elf))
    return str(path)


def test_the_configuration_is_printed(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = with_config(tmp_path, gzip.compress(CONFIG.encode()))
    assert facts_of(kplug.run("info", "--json", path))["config"] == "in the image (IKCONFIG)"
    answer = kplug.run("info", path, "--config")
    assert (answer.status, answer.out, answer.err) == (0, CONFIG, "")
    assert kplug.run("info", path, "--config", "64bit").out == "CONFIG_64BIT=y\n"
    assert kplug.run("info", path, "--config=CONFIG_IKCONFIG*").out == "\n".join([*CONFIG.splitlines()[2:], ""])
    missing = kplug.run("info", path, "--config=NUMA")
    assert (missing.status, missing.err) == (1, f"kplug: {path}: no option NUMA in its configuration\n")


def test_the_running_kernels_is_where_it_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.gz"
    path.write_bytes(gzip.compress(CONFIG.encode()))
    monkeypatch.setattr("kplug.commands.info._RUNNING_CONFIG", str(path))
    session = kernel_without_a_file([BASE_64, BASE_64 + 8], Memory(0, b""))
    [problem] = asked(session, "info", "--config")
    assert isinstance(problem, Problem)  # another kernel's
    monkeypatch.setattr("kplug.commands.info._runs_here", lambda image: True)
    [table] = asked(session, "info", "--config=64BIT")
    assert isinstance(table, Table)
    assert list(table.rows) == [{"line": "CONFIG_64BIT=y", "path": str(path)}]
    path.unlink()
    [problem] = asked(session, "info", "--config")
    assert isinstance(problem, Problem)


def test_a_running_kernel_that_hides_its_addresses_still_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who may not read /proc/kallsyms may read /proc/version and /sys/kernel/notes."""
    version, notes = tmp_path / "version", tmp_path / "notes"
    version.write_bytes(BANNER)
    notes.write_bytes(note(b"GNU", 3, BUILD_ID))
    monkeypatch.setattr("kplug.commands.info._RUNNING_BANNER", str(version))
    monkeypatch.setattr("kplug.commands.info._RUNNING_NOTES", str(notes))
    monkeypatch.setattr("kplug.live.machine.Machine", lambda: Machine(str(tmp_path)))
    assert cli.main(["info", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    release = BANNER.split()[2].decode()
    assert (rows[0]["kind"], rows[0]["release"], rows[1]["value"]) == ("running kernel", release, BUILD_ID.hex())
    assert cli.main(["notes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(notes)
    assert cli.main(["where", "0"]) == 2
    assert "the running kernel tells nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (gzip.compress(bytes(1 << 26)), "unpacks to over 8 MiB"),
        (gzip.compress(CONFIG.encode())[:-9], "is cut off"),
        (b"\x1f\x8b\x08" + b"nonsense" * 9, "cannot be unpacked: "),
        (gzip.compress(b"#!/bin/sh\n"), "what is marked as its configuration (IKCONFIG) is none"),
    ],
    ids=["bomb", "cut off", "no gzip", "no configuration"],
)
def test_what_is_marked_as_a_configuration_and_is_none(
    tmp_path: Path, kplug: BoundedKplug, packed: bytes, why: str
) -> None:
    path = with_config(tmp_path, packed)
    answer = kplug.run("info", path, "--config")
    assert (answer.status, answer.out, answer.crash) == (2, "", None)
    assert path in answer.err
    assert why in answer.err
    assert answer.err.count("\n") == 1
    assert answer.seconds < SECONDS


def test_an_image_without_one(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = vmlinux_with_notes(tmp_path, build_id_note(BUILD_ID))
    answer = kplug.run("info", "--config", "--json", path)
    assert answer.status == 2 or answer.err
    answer = kplug.run("info", path, "--config")
    assert answer.status == 2
    assert "no configuration in it (CONFIG_IKCONFIG was not set)" in answer.err


# -- files that are none, or broken ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"\x7fELF", "truncated or broken ELF header"),
        (b"hello world\n" * 100, "no file of a kernel"),
        (b"KDUMP   " + bytes(100), "truncated"),
        (b"makedumpfile\0" + bytes(5000), "flattened"),
        (
            (b"makedumpfile\0".ljust(4096, b"\0") + struct.pack(">qq", 0, 20) + b"\x7fELF\2\1".ljust(20, b"\0"))
            + struct.pack(">qq", -1, -1),
            "notes cannot be read",
        ),
        (b"MZ" + bytes(600), "kernel"),
    ],
    ids=["empty", "half a magic", "text", "kdump", "flattened", "half an ELF header, flattened", "MZ"],
)
@pytest.mark.parametrize("command", ["info", "notes"])
def test_a_file_that_is_none_is_refused_in_a_line(
    tmp_path: Path, kplug: BoundedKplug, content: bytes, why: str, command: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    answer = kplug.run(command, str(path))
    assert (answer.status, answer.out, answer.crash) == (2, "", None)
    assert answer.err.count("\n") == 1
    assert str(path) in answer.err
    assert why in answer.err


def acceptable(answer: Answer, path: str) -> None:
    """An answer, or one clear line for what cannot be answered; never a traceback, a hang or all of the memory."""
    assert answer.crash is None, answer.crash
    assert answer.seconds < SECONDS
    assert answer.status in (0, 1, 2)
    assert "internal error" not in answer.err
    if answer.status:
        assert path in answer.err.splitlines()[-1]


def module_in_little() -> Elf:
    info = b"license=GPL\0name=little\0vermagic=6.1.0 SMP\0parm=debug:how much\0parmtype=debug:int\0nonsense\0=\0"
    sections = [
        Sec(".text", data=bytes(64), align=16),
        Sec(".modinfo", flags=A, data=info),
        Sec(".note.Linux", SHT_NOTE, flags=A, data=note(b"Linux", 0x101, bytes(4)), align=4),
    ]
    return Elf(type=ET_REL, machine=EM_X86_64, sections=sections)


def test_a_module_says_its_modinfo(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = tmp_path / "little.ko"
    path.write_bytes(bytes(module_in_little()))
    lines = [json.loads(line) for line in kplug.run("info", "--json", str(path)).out.splitlines()]
    told = [(row["key"], row["value"]) for row in lines if row["schema"] == "kplug.modinfo/1"]
    assert told == [
        ("license", "GPL"),
        ("name", "little"),
        ("vermagic", "6.1.0 SMP"),
        ("", ""),
        ("parm", "debug:how much (int)"),
    ]
    assert (lines[0]["kind"], lines[0]["release"]) == ("module", "6.1.0")


BROKEN = {
    "vmlinux": bytes(small_vmlinux()),
    "32-bit vmlinux": bytes(small_vmlinux(32, False, 20)),
    "module": bytes(module_in_little()),
    "vmcore": bytes(
        Elf(
            type=ET_CORE,
            machine=EM_AARCH64,
            sections=[Sec(".n", data=note(b"CORE", 1, prstatus(1, range(34))) * 2), Sec(".m", data=bytes(64))],
            segments=[Seg(PT_NOTE, covers=(".n",)), Seg(PT_LOAD, covers=(".m",))],
        )
    ),
    "notes": note(b"GNU", 3, BUILD_ID) + note(b"Xen", 6, b"linux\0"),
}


@pytest.mark.parametrize("form", BROKEN)
def test_truncated_files(tmp_path: Path, kplug: BoundedKplug, form: str) -> None:
    path, whole = tmp_path / "file", BROKEN[form]
    for size in range(0, len(whole), max(1, len(whole) // 30)):
        path.write_bytes(whole[:size])
        acceptable(kplug.run("info", str(path)), str(path))
        acceptable(kplug.run("notes", "-v", "--json", str(path)), str(path))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", BROKEN)
def test_files_with_broken_bytes(tmp_path: Path, kplug: BoundedKplug, form: str, seed: int) -> None:
    path, chosen = tmp_path / "file", random.Random(seed)
    for _ in range(12):
        data = bytearray(BROKEN[form])
        for _ in range(chosen.choice((1, 3, 20))):
            place = chosen.randrange(len(data))
            data[place : place + 1] = bytes((chosen.choice((0, 1, 0x7F, 0x80, 0xFF, chosen.randrange(256))),))
        path.write_bytes(data)
        acceptable(kplug.run("info", str(path)), str(path))
        acceptable(kplug.run("notes", "-v", str(path)), str(path))


def test_claims_of_huge_sections_are_refused(tmp_path: Path, kplug: BoundedKplug) -> None:
    for name, claim in ((".rodata", "lies outside the file"), (".notes", "of notes; no kernel has")):
        elf = small_vmlinux()
        [section] = [section for section in elf.sections if section.name == name]
        section.fields = {"sh_size": 1 << 27}
        path = tmp_path / "vmlinux"
        path.write_bytes(bytes(elf))
        answer = kplug.run("info", str(path))
        assert (answer.status, answer.crash) == (2, None)
        assert claim in answer.err
        assert str(path) in answer.err


def test_the_commands_are_at_every_prompt() -> None:
    assert COMMANDS["info"].host_name == "kinfo"
    assert COMMANDS["notes"].host_name == "knotes"
    assert command_parser(COMMANDS["info"]).parse_args(["x"]).file == "x"
