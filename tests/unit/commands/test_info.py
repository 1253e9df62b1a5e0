"""`kplug info` and `kplug notes`: what they show of files and of memory, and files that lie.

The files are made by elf_builder. Real kernels are compared with readelf in tests/exhaustive/test_info.py.
"""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from support.answers import outputs
from support.bounded_kplug import Answer, BoundedKplug
from support.elf_builder import (
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
from support.elf_notes import note, prstatus, vmlinux_with_notes
from support.info import facts_of
from support.kernel_memory import Memory, kernel_without_a_file

from kplug.commands import COMMANDS
from kplug.commands.inspection import BOOT_IMAGE, Inspected
from kplug.commands.notes import note_outputs
from kplug.image.elf.notes import DecodedNote
from kplug.outputs import Problem, Table
from kplug.render.text import TextRenderer
from kplug.shell.arguments import command_parser

SECONDS = 2.0

# -- what is shown -----------------------------------------------------------------------------------------------------


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


def test_a_kernel_of_which_no_file_has_notes_is_asked_for_those_in_its_memory() -> None:
    data = note(b"GNU", 3, BUILD_ID) + note(b"Linux", 0x100, b"salt\0")
    start = BASE_64 + 0x1000
    memory = Memory(start + 0x1000000, data)
    [table] = outputs(kernel_without_a_file([start, start + len(data)], memory), "notes")
    assert isinstance(table, Table)
    assert [(row["name"], row["value"], row["path"]) for row in table.rows] == [
        ("BUILD_ID", BUILD_ID.hex(), "memory"),
        ("BUILD_SALT", "salt", "memory"),
    ]


@pytest.mark.parametrize("size", [0, -8, 1 << 20, 64])
def test_memory_without_notes_has_none(size: int) -> None:
    start = BASE_64 + 0x1000
    [problem] = outputs(kernel_without_a_file([start, start + size], Memory(0, b"")), "notes")
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
    assert (answer.status, answer.err) == (2, "kplug info: a FILE is inspected on its own, without --vmlinux\n")
    of_session, of_file = kplug.run("info", "-s", path, "--json"), kplug.run("info", "--json", path)
    assert of_session.out == of_file.out


def test_notes_alone(tmp_path: Path, kplug: BoundedKplug) -> None:
    """/sys/kernel/notes is that."""
    path = tmp_path / "notes"
    path.write_bytes(note(b"GNU", 3, BUILD_ID) + note(b"Xen", 6, b"linux\0"))
    rows = [json.loads(line) for line in kplug.run("notes", "--json", str(path)).out.splitlines()]
    assert [row["name"] for row in rows] == ["BUILD_ID", "GUEST_OS"]


# -- files that are none, or broken ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"\x7fELF", "truncated or broken ELF header"),
        (b"hello world\n" * 100, "not a kernel file"),
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


@pytest.mark.parametrize("little", [True, False])
def test_the_notes_of_bare_machine_code_are_found_in_both_byte_orders(little: bool) -> None:
    """Nothing in an s390x's vmlinuz says which machine's it is."""
    payload = b"code" * 25 + build_id_note(BUILD_ID, little)
    assert Inspected("vmlinuz", BOOT_IMAGE, payload=payload).note_value("GNU", "BUILD_ID") == BUILD_ID.hex()


def test_a_system_map_is_a_list_of_symbols(tmp_path: Path, kplug: BoundedKplug) -> None:
    path = tmp_path / "System.map"
    path.write_text("c1000000 T _text\nc1000020 T entry_INT80_32\nc1002000 B _end\n")
    answer = kplug.run("info", str(path), "--json")
    assert json.loads(answer.out) == {
        "schema": "kplug.info/1",
        "path": str(path),
        "kind": "list of symbols",
        "machine": "i386",
        "symbols": 3,
        "image_start": "0xc1000000",
        "image_end": "0xc1002000",
    }
    assert kplug.run("notes", str(path)).err == f"kplug: {path}: a list of symbols, and nothing else\n"


def test_registers_in_notes_have_the_digits_of_the_machine() -> None:
    note = DecodedNote("CORE", 1, "PRSTATUS", b"", pid=1, registers={"eip": 0xC1000010}, bits=32)
    tables = [output for output in note_outputs([note], "core", verbose=True) if isinstance(output, Table)]
    assert "0xc1000010" in "\n".join(TextRenderer().table(tables[-1])).split()
