"""`kplug extract --symbols` on real kernels: readelf, nm, gdb and drgn read the file, and say what the dbg package's
System.map and vmlinux say.

What kallsyms itself does not have cannot be put back; each difference is named here.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import drgn
import pytest
import vmimages
from support import real_images
from support.boot_image_builder import without_sections
from support.bounded_kplug import BoundedKplug

from kplug.image.boot.boot_image import open_boot_image
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_vmlinux
from kplug.image.opening.vmlinuz import kernel_in

pytestmark = pytest.mark.kernel

_ASKED = ("schedule", "linux_banner", "init_task", "do_exit", "vfs_read", "jiffies_64", "saved_command_line")


@pytest.fixture(scope="module", params=real_images.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp(name) / "vmlinux"
    command = [sys.executable, "-m", "kplug", "extract", "--symbols", str(real_images.vmlinuz(name)), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return output


def system_map(name: str) -> list[str]:
    path = vmimages.fetch(name).system_map
    assert path is not None
    return path.read_text().splitlines()


def test_headers_with_flipped_bytes_give_a_file_or_a_line(tmp_path: Path) -> None:
    """Seeded, in a child with 1 GiB of address space: the headers of a real kernel, with its real kallsyms."""
    payload = open_boot_image(str(real_images.vmlinuz("amd64-6.1"))).payload
    sections = int.from_bytes(payload[0x28:0x30], "little")
    path, output = tmp_path / "vmlinuz", tmp_path / "vmlinux"
    kplug = BoundedKplug()
    for seed in range(12):
        chance = random.Random(seed)
        changed = bytearray(payload)
        for _ in range(chance.choice((1, 3))):
            place = chance.choice((range(4, 64), range(64, 64 + 5 * 56), range(sections, sections + 39 * 64)))
            changed[chance.choice(place)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        path.write_bytes(changed)
        answer = kplug.run("extract", "--symbols", str(path), "-o", str(output))
        assert answer.crash is None
        assert (answer.status, answer.err.count("\n")) in ((0, 0), (2, 1))
        assert answer.err == "" or answer.err.startswith(f"kplug: {path}: ")
    kplug.close()


def addresses(name: str) -> dict[str, int]:
    return {line.split(" ", 2)[2]: int(line[:16], 16) for line in system_map(name)}


def nm(path: Path) -> list[str]:
    done = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_readelf_reads_all_of_it_without_a_warning(made: Path) -> None:
    done = subprocess.run(["readelf", "-aW", str(made)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Warning" not in done.stdout
    assert " .symtab " in done.stdout


def test_nm_lists_what_system_map_does(name: str, made: Path) -> None:
    listed, real = Counter(nm(made)), Counter(system_map(name))
    explained = Counter[str]()
    for line, count in (listed - real).items():
        explained[_why(name, line, real)] += count
    assert explained.pop("", 0) == 0
    assert sum(explained.values()) < 0.02 * sum(real.values())
    # None is missing but what scripts/kallsyms.c leaves out: labels that the linker made, and absolute numbers.
    missing = Counter(line.split(" ", 2)[2] for line in real) - Counter(line.split(" ", 2)[2] for line in listed)
    assert sum(missing.values()) < 40, missing


def _why(name: str, line: str, real: Counter[str]) -> str:
    """Why a line of nm's is not in System.map as it is; nothing if nobody knows."""
    address, letter, symbol = line.split(" ", 2)
    if symbol.startswith(".L"):
        return "a label of the compiler's, which mksysmap leaves out"
    if letter == "D" and f"{address} d {symbol}" in real:
        return "kallsyms calls all per-CPU variables A, so that it is not known which are local (up to 6.14)"
    if name.startswith("arm64") and any(f"{address} {other} {symbol}" in real for other in "TtDdRrBb"):
        return "a symbol between two sections, whose bounds a flat Image does not tell"
    return ""


def test_functions_have_their_size_and_the_padding_after_it(name: str, made: Path) -> None:
    """The real sizes are in the vmlinux's own symbol table. How large data is kallsyms does not tell: a symbol reaches
    to the next one."""
    mine, real = symbols(made), symbols(vmimages.fetch(name).vmlinux)
    for symbol in _ASKED:
        one, other = mine[symbol], real[symbol]
        assert (one.value, one.bind) == (other.value, other.bind)
        assert one.type in (other.type, "NOTYPE")
        assert one.size >= other.size
        assert one.type != "FUNC" or one.size < other.size + 64


@pytest.mark.parametrize(
    ("region", "start", "end"),
    [
        ("text", "_stext", "_etext"),
        ("sched.text", "__sched_text_start", "__sched_text_end"),
        ("data", "_sdata", "_edata"),
        ("init", "__init_begin", "__init_end"),
    ],
)
def test_the_linker_scripts_symbols_bound_regions(name: str, made: Path, region: str, start: str, end: str) -> None:
    real = addresses(name)
    found = [each for each in open_vmlinux(str(made)).regions.chain(real[end] - 1) if each.name == region]
    assert [(each.start, each.end) for each in found] == [(real[start], real[end])]


class SymbolLine(NamedTuple):
    """A line of readelf's."""

    value: str
    size: int
    type: str
    bind: str


def symbols(path: Path) -> dict[str, SymbolLine]:
    done = subprocess.run(["readelf", "-sW", str(path)], capture_output=True, text=True, check=True)
    lines = (line.split() for line in done.stdout.splitlines())
    found = (words for words in lines if words and words[-1] in _ASKED)
    return {words[7]: SymbolLine(words[1], int(words[2], 0), words[3], words[4]) for words in found}


def test_gdb_knows_the_symbols(name: str, made: Path) -> None:
    real = addresses(name)
    commands = [word for symbol in _ASKED for word in ("-ex", f"info symbol {real[symbol]:#x}")]
    commands += ["-ex", "info address schedule", "-ex", "x/s (char *)&linux_banner"]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", *commands, str(made)], capture_output=True, text=True, check=True, timeout=600
    )
    lines = done.stdout.splitlines()
    for symbol, line in zip(_ASKED, lines):
        assert line.startswith(f"{symbol} in section ")
    assert lines[len(_ASKED)].startswith('Symbol "schedule" is ')
    if name.startswith("amd64"):  # Debian's gdb knows the host's architecture alone
        assert "Linux version " in lines[len(_ASKED) + 1]


def test_drgn_knows_the_symbols(name: str, made: Path) -> None:
    real = addresses(name)
    architecture = drgn.Architecture.AARCH64 if name.startswith("arm64") else drgn.Architecture.X86_64
    program = drgn.Program(drgn.Platform(architecture))
    module = program.extra_module("vmlinux", create=True)
    module = module[0] if isinstance(module, tuple) else module
    module.try_file(str(made), force=True)
    for symbol in _ASKED:
        found = program.symbol(symbol)
        assert (found.name, found.address) == (symbol, real[symbol])
        assert found.size > 0
    assert module.build_id is not None
    assert module.build_id.hex() == vmimages.fetch(name).build_id


def test_drgn_takes_the_file_for_a_dump_as_the_help_says(tmp_path: Path) -> None:
    """drgn's -s passes it over: of the kernel of a dump it wants DWARF alone."""
    dumped = vmimages.dumps("amd64-6.1", ("elf",), quiet=True)
    command = [sys.executable, "-m", "kplug", "extract"]
    image = str(real_images.vmlinuz("amd64-6.1"))
    subprocess.run([*command, "--symbols", image, "-o", str(tmp_path / "vmlinux")], check=True)
    help_text = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(">>> ")[1] for line in help_text.splitlines() if ">>> " in line]
    asked = "; ".join([*lines, "print(hex(prog.symbol('schedule').address))"])
    opened = [str(Path(sys.executable).with_name("drgn")), "-q", "-c", str(dumped.paths["elf"]), "-e", asked]
    done = subprocess.run(opened, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.returncode) == (f"{dumped.truth.address('schedule'):#x}\n", 0), done.stderr


def system_map_of(name: str) -> dict[str, list[int]]:
    real = addresses(name)
    return {asked: [real[asked]] for asked in _ASKED}


def asked_of(image: KernelImage) -> dict[str, list[int]]:
    return {asked: [symbol.address for symbol in image.symbols.exact(asked)] for asked in _ASKED}


@pytest.mark.parametrize("name", [name for name in real_images.NAMES if name.startswith("amd64")])  # arm64's is flat
def test_a_stripped_vmlinux_has_the_symbols_of_its_kallsyms(name: str, tmp_path: Path) -> None:
    """What extract-vmlinux leaves on disk, given as the vmlinux."""
    boot = open_boot_image(str(real_images.vmlinuz(name)))
    assert boot.kind == "ELF"
    path = tmp_path / "vmlinux"
    path.write_bytes(boot.payload)
    assert asked_of(open_vmlinux(str(path))) == system_map_of(name)


def test_segments_alone_do_for_symbols_and_become_sections(tmp_path: Path) -> None:
    path, output = tmp_path / "vmlinux", tmp_path / "with-symbols"
    path.write_bytes(without_sections(open_boot_image(str(real_images.vmlinuz("amd64-6.1"))).payload))
    assert asked_of(open_vmlinux(str(path))) == system_map_of("amd64-6.1")
    command = [sys.executable, "-m", "kplug", "extract", "--symbols", str(path), "-o", str(output)]
    subprocess.run(command, check=True)
    listed = {line.split(" ", 2)[2]: [int(line[:16], 16)] for line in nm(output)}
    assert {asked: listed[asked] for asked in _ASKED} == system_map_of("amd64-6.1")


def test_machine_code_alone_behind_any_header_has_its_symbols(tmp_path: Path) -> None:
    """objcopy -O binary leaves no header, and 7.x's kallsyms have no address: the pointers tell where it is linked."""
    stripped, path = tmp_path / "vmlinux", tmp_path / "image"
    stripped.write_bytes(open_boot_image(str(real_images.vmlinuz("amd64-sid"))).payload)
    subprocess.run(["objcopy", "-O", "binary", str(stripped), str(path)], check=True)
    code = path.read_bytes()
    path.write_bytes(b"\xa5" * 777 + code)
    opened = open_boot_image(str(path))
    assert (opened.offset, opened.payload == code) == (777, True)
    assert asked_of(kernel_in(opened)) == system_map_of("amd64-sid")
