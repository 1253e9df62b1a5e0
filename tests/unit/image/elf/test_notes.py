"""Notes by their owners' names, and notes that lie.

Names and layouts of notes: Xen's public elfnote.h, include/uapi/linux/elf.h, include/linux/elfcore.h, the gABI and the
linux-abi specification. Real kernels are compared with readelf in tests/exhaustive/test_info.py.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from support.bounded_kplug import BoundedKplug
from support.elf_builder import BUILD_ID
from support.elf_notes import note, prstatus, vmlinux_with_notes

from kplug.image.elf.notes import BrokenNotes, DecodedNote, NoteFormat, decoded_notes

X86_64 = NoteFormat("x86_64", little_endian=True)


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
