"""`kplug info` and `kplug notes` of boot images, modules and dumps, against readelf, file(1) and the guests."""

from __future__ import annotations

import functools
import gzip
import lzma
import re
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.oracle import binutils, kernels
from support.told_facts import info, put_together, same_header, same_notes, same_tables, told

from kplug.image.boot.boot_image import open_boot_image
from kplug.runtime.threads.monitor_registers import parse_registers

pytestmark = pytest.mark.kernel

KERNELS = ("amd64-5.10", "amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")
MODULES = 6  # of each kernel, and as many debug files
DUMPS = ("amd64-6.1", "amd64-6.12", "arm64-6.12")
PAIRS = [(name, format) for name in ("amd64-6.1", "amd64-6.12") for format in ("elf", "elf-paging", "makedumpfile-elf")]
PAIRS += [(name, format) for name in ("amd64-6.1", "amd64-6.12") for format in ("kdump-zlib", "makedumpfile-zlib-d31")]
PAIRS += [(name, "makedumpfile-flat-d31") for name in ("amd64-6.1", "amd64-6.12")]
PAIRS += [("arm64-6.12", "elf"), ("arm64-6.12", "kdump-zlib")]


class Dump(NamedTuple):
    path: str
    truth: Any


@functools.cache
def dumps_of(name: str) -> Any:
    kernels.root(name)  # makes vmimages importable
    from vmimages.dumping import dumps

    # By a format that any set has: without one, a set that lacks some is made again, in the place of what others read.
    return dumps(name, ("elf",), quiet=True)


def dump(name: str, format: str) -> Dump:
    made = dumps_of(name)
    if format not in made.paths:
        pytest.skip(f"this host cannot write {format}")
    return Dump(str(made.paths[format]), made.truth)


@pytest.mark.parametrize("name", DUMPS)
def test_the_notes_of_a_kernel_that_runs(name: str, tmp_path: Path) -> None:
    """/sys/kernel/notes of a guest: those of its image, addresses as linked."""
    running = (dumps_of(name).root / "truth" / "notes").read_bytes()
    copy = tmp_path / "notes"
    copy.write_bytes(running)
    rows = told("notes", "--json", str(copy)).rows("notes")
    assert put_together(rows) == running
    on_disk = info(kernels.vmlinux(name)).rows("notes")
    assert [(row["owner"], row["name"], row["value"]) for row in rows] == [
        (row["owner"], row["name"], row["value"]) for row in on_disk
    ]


@pytest.mark.parametrize("name", DUMPS)
def test_the_notes_in_the_memory_of_a_kernel_without_a_file(name: str) -> None:
    pytest.importorskip("drgn")
    made = dump(name, "elf")
    answer = told("notes", "--json", "-c", made.path)
    assert answer.status == 0
    in_memory = [row for row in answer.rows("notes") if row["path"] == "memory"]
    assert put_together(in_memory) == (dumps_of(name).root / "truth" / "notes").read_bytes()
    of_dump = [row for row in answer.rows("notes") if row["path"] == made.path]
    assert of_dump == told("notes", "--json", made.path).rows("notes")


# -- the kernel's facts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DUMPS)
def test_the_banner_is_what_the_guest_says(name: str) -> None:
    expected = dumps_of(name).truth.text("version").rstrip("\n")
    for path in (kernels.vmlinux(name), str(kernels.root(name) / "vmlinuz")):
        facts = info(path).facts
        assert facts["banner"] == expected
        assert facts["release"] == expected.split()[2]
        assert expected.endswith(facts["version"])
        for key in ("built_by", "compiler", "compiler_version", "linker", "linker_version", "built"):
            assert facts[key] in expected
            assert facts[key]


@pytest.mark.parametrize("name", [name for name in KERNELS if name.startswith("amd64")])
def test_the_setup_header_of_a_bzimage_and_its_kernel(name: str, tmp_path: Path) -> None:
    path = str(kernels.root(name) / "vmlinuz")
    of_info = info(path)
    described = binutils.run("file", "-b", path)
    assert f"version {of_info.facts['setup_version']}, " in described
    # The protocol's number is a word at 0x206 (Documentation/arch/x86/boot.rst).
    version = struct.unpack("<H", Path(path).read_bytes()[0x206:0x208])[0]
    assert of_info.facts["setup_protocol"] == f"{version >> 8}.{version & 255:02}"
    inner = tmp_path / "vmlinux"
    inner.write_bytes(open_boot_image(path).payload)
    same_header(str(inner), of_info.facts)
    same_tables(str(inner), of_info)


# -- modules -----------------------------------------------------------------------------------------------------------


def modules_of(name: str) -> list[Path]:
    found = []
    for folder in ("modules", "debug-modules"):
        paths = sorted(path for path in (kernels.root(name) / folder).rglob("*.ko*") if path.suffix in (".ko", ".xz"))
        found += paths[:: max(1, len(paths) // MODULES)][:MODULES]
    return found


def fields_of(path: Path) -> Counter[tuple[str, str]]:
    """modinfo(8)'s lines, or what readelf -p says of .modinfo, in its form."""
    if shutil.which("modinfo"):
        lines = binutils.run("modinfo", str(path)).splitlines()
        pairs = [tuple(line.split(":", 1)) for line in lines if ":" in line]
        return Counter((key, value.strip()) for key, value in pairs if key != "filename")
    listed = binutils.run("readelf", "-p", ".modinfo", str(path))
    strings = re.findall(r"^  \[ *[0-9a-f]+\]  (.*)$", listed, re.MULTILINE)
    return Counter((key, value.strip()) for key, _, value in (each.partition("=") for each in strings))


def as_readelf_has_it(rows: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """The fields with those of a parameter apart again, as they are in the section."""
    fields: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["key"] != "parm":
            fields[row["key"], row["value"].strip()] += 1
            continue
        name, _, words = row["value"].partition(":")
        kind = row["type"]
        if kind is not None:
            fields["parmtype", f"{name}:{kind}"] += 1
            words = words.removesuffix(f" ({kind})") if words != kind else ""
        if words:
            fields["parm", f"{name}:{words}".strip()] += 1
    return fields


@pytest.mark.parametrize("name", KERNELS)
def test_modules(name: str, tmp_path: Path) -> None:
    parameters = 0
    for path in modules_of(name):
        unpacked = path
        if path.suffix == ".xz":
            unpacked = tmp_path / path.stem
            unpacked.write_bytes(lzma.decompress(path.read_bytes()))
        of_info = info(str(path))
        rows = of_info.rows("modinfo")
        parameters += sum(row["key"] == "parm" for row in rows)
        expected = fields_of(unpacked)
        if not shutil.which("modinfo"):
            assert as_readelf_has_it(rows) == expected
        else:
            assert Counter((row["key"], row["value"].strip()) for row in rows) == expected
        same_header(str(unpacked), of_info.facts)
        same_tables(str(unpacked), of_info)
        same_notes(str(unpacked), of_info.rows("notes"))
        assert of_info.facts["kind"] == "module"
    assert parameters


# -- dumps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "format"), PAIRS)
def test_a_dump_tells_its_kernel_and_its_notes(name: str, format: str) -> None:
    made = dump(name, format)
    of_info = info(made.path)
    assert of_info.facts["kind"] == "vmcore"
    assert of_info.facts["release"] == made.truth.text("version").split()[2]
    assert of_info.facts["build_id"] == info(kernels.vmlinux(name)).facts["build_id"]
    assert of_info.facts["cpus"] == len(re.findall(r"^CPU#\d+", made.truth.text("registers"), re.MULTILINE))
    notes = told("notes", "--json", made.path)
    assert notes.status == 0
    assert notes.rows("notes") == of_info.rows("notes")
    if "elf" in format:
        same_header(made.path, of_info.facts)
        same_notes(made.path, of_info.rows("notes"))


@pytest.mark.parametrize(("name", "format"), PAIRS)
def test_vmcoreinfo_is_the_text_in_the_dump(name: str, format: str) -> None:
    """As the bytes of the ELF dump have it, found by no more than its first line."""
    with open(dump(name, "elf").path, "rb") as file:
        head = file.read(1 << 20)
    match = re.search(rb"OSRELEASE=[\n -~]+\n", head)
    assert match is not None
    [row] = [
        row for row in told("notes", "--json", dump(name, format).path).rows("notes") if row["name"] == "VMCOREINFO"
    ]
    assert row["text"] == match[0].decode()


@pytest.mark.parametrize(("name", "format"), PAIRS)
def test_prstatus_has_the_registers_that_the_monitor_told(name: str, format: str) -> None:
    made = dump(name, format)
    rows = told("notes", "--json", made.path).rows("notes")
    monitor = parse_registers(made.truth.text("registers").replace("\r", ""))
    machine = "aarch64" if name.startswith("arm64") else "x86_64"
    assert monitor
    for cpu, expected in monitor.items():
        parts = [row["registers"] for row in rows if row["cpu"] == cpu and row["name"] in ("PRSTATUS", "QEMUCPUState")]
        registers = {key: int(value, 16) for part in parts for key, value in part.items()}
        assert len(registers) >= (34 if machine == "aarch64" else 26 + 5)
        both = registers.keys() & expected.keys()
        assert len(both) >= (33 if machine == "aarch64" else 26)
        # The monitor has no pstate in the form of the note where it tells the flags by name.
        assert {key: registers[key] for key in both} == {key: expected[key] for key in both}


# -- the configuration in an image -------------------------------------------------------------------------------------


def test_the_configuration_put_into_a_real_kernel_is_read_from_it(tmp_path: Path) -> None:
    """Debian sets no CONFIG_IKCONFIG: its configuration goes into .rodata in the form of kernel/configs.c."""
    root = kernels.root("amd64-6.1")
    text = (root / "config").read_text()
    image = bytearray(open_boot_image(str(root / "vmlinuz")).payload)
    path = tmp_path / "vmlinux"
    path.write_bytes(image)
    [rodata] = [section for section in binutils.sections(str(path)) if section.name == ".rodata"]
    assert told("info", str(path), "--config").status == 2
    packed = b"IKCFG_ST" + gzip.compress(text.encode()) + b"IKCFG_ED"
    place = rodata.offset + rodata.size // 2 | 3  # where no page begins
    image[place : place + len(packed)] = packed
    path = tmp_path / "configured"
    path.write_bytes(image)
    answer = told("info", str(path), "--config")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out == text
    assert info(str(path)).facts["config"] == "in the image (IKCONFIG)"
    [wanted] = re.findall(r"^CONFIG_NR_CPUS=.*$", text, re.MULTILINE)
    assert told("info", str(path), "--config=nr_cpus").out == wanted + "\n"


# -- broken copies of real ones ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["amd64-6.1", "arm64-6.12"])
def test_a_real_boot_image_that_is_cut_off_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    whole = (kernels.root(name) / "vmlinuz").read_bytes()
    for part in (0.01, 0.3, 0.97):
        path = tmp_path / f"cut-{part}"
        path.write_bytes(whole[: int(len(whole) * part)])
        answer = told("info", str(path))
        assert (answer.status, answer.out) == (2, "")
        assert answer.err.startswith(f"kplug: {path}: ")
        assert answer.err.count("\n") == 1


def test_readelf_is_one_whose_words_are_known() -> None:
    assert subprocess.run(["readelf", "--version"], capture_output=True, check=True).stdout.startswith(b"GNU readelf")
