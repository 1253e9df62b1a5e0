"""Source lines from DWARF in all its forms and files: made by gcc, objcopy and dwz from a little kernel.

addr2line tells the truth, from the same kernel as gcc makes it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gdbhelp import run

from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_module, open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.shell import cli

lines = pytest.importorskip("kplug.runtime.types.lines")

HEADER = """
static inline int __attribute__((always_inline)) twice(int x)
{
	return x + x;
}
struct shared { int a; long b[4]; struct shared *next; char name[16]; };
int other(int);
"""
SOURCES = {
    "a.c": """
#include "b.h"
struct shared mine;
int start_kernel(int x)
{
	mine.a = twice(x);
	mine.a += other(mine.a);
	return twice(mine.a);
}
int this_cpu __attribute__((section(".data..percpu"))) = 1;
const char linux_banner[] = "Linux version 6.99.0-test (a@b) (gcc) #1\\n";
""",
    "c.c": """
#include "b.h"
struct shared yours;
int other(int x)
{
	yours.a += x;
	return twice(x) * 3 + yours.a;
}
""",
}
SCRIPT = """SECTIONS {
	. = 0xffffffff81000000;
	_text = .; _stext = .; .text : { *(.text*) } _etext = .;
	.rodata : { *(.rodata*) } .notes : { *(.note.gnu.build-id) }
	.data : { *(.data .data.rel*) }
	.bss : { *(.bss*) } .init.text : { QUAD(0) } _end = .;
	.data..percpu 0 : { *(.data..percpu) }
}"""
COMPILER = ("gcc", "-O2", "-ffreestanding", "-fno-pic", "-fno-asynchronous-unwind-tables", "-mcmodel=kernel")


def _run(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def _built(folder: Path, name: str, *options: str, script: str = "script") -> Path:
    for source in SOURCES:
        _run(folder, *COMPILER, *options, "-c", source, "-o", f"{name}-{source}.o")
    _run(folder, "ld", "-T", script, "--build-id", "-o", name, *(f"{name}-{source}.o" for source in SOURCES))
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("forms")
    for name, text in {**SOURCES, "b.h": HEADER, "script": SCRIPT}.items():
        (made / name).write_text(text)
    for version in "45":
        plain = _built(made, f"dwarf-{version}", f"-gdwarf-{version}")
        _built(made, f"split-{version}", f"-gdwarf-{version}", "-gsplit-dwarf")
        for form in ("zlib", "zstd", "zlib-gnu"):
            _run(made, "objcopy", f"--compress-debug-sections={form}", plain.name, f"{form}-{version}")
        if shutil.which("dwz"):
            for number in "ab":
                shutil.copy(plain, made / f"dwz-{version}-{number}")
            _run(made, "dwz", "-m", f"common-{version}", f"dwz-{version}-a", f"dwz-{version}-b")
    if shutil.which("dwz"):
        for number in "ab":
            shutil.copy(plain, made / f"sup-5-{number}")
        _run(made, "dwz", "--dwarf-5", "-m", "common-sup", "sup-5-a", "sup-5-b")
    _run(made, "objcopy", "--only-keep-debug", "dwarf-5", "linked.debug")
    _run(made, "objcopy", "--strip-debug", "--add-gnu-debuglink=linked.debug", "dwarf-5", "link-5")
    # A section in the middle that strip removes, so that it numbers the others anew.
    (made / "gap-script").write_text(SCRIPT.replace("\t.bss", "\t.debug_gap 0 (INFO) : { QUAD(0) }\n\t.bss"))
    _built(made, "gap-5", "-gdwarf-5", script="gap-script")
    _run(made, "objcopy", "--only-keep-debug", "gap-5", "stripped-5.debug")
    _run(made, "strip", "-s", "gap-5", "-o", "stripped-5")
    return made


def _placed(image: KernelImage) -> PlacedImage:
    return PlacedImage(image, as_linked(image.sections))


def _addresses(image: KernelImage) -> Iterator[int]:
    for name in ("start_kernel", "other"):
        [symbol] = image.symbols.exact(name)
        yield from range(symbol.address, symbol.address + symbol.size, 3)


def _lines_of(path: Path) -> tuple[list[str | None], list[str]]:
    """The file and line of each address, and the warnings."""
    placed = _placed(open_vmlinux(str(path)))
    source, found = lines.DrgnLines([placed]), []
    for address in _addresses(placed.image):
        layers = source.line_layers(address, address, placed)
        found.append(next((Path(layer.name).name for layer in layers), None))
    return found, source.warnings


FORMS = ("dwarf", "split", "zlib", "zstd", "zlib-gnu", "dwz")


@pytest.mark.parametrize(
    "name",
    [*(f"{form}-{version}" for form in FORMS for version in "45"), "sup-5", "link-5", "stripped-5", "stripped-5.debug"],
)
def test_lines(folder: Path, name: str) -> None:
    form, _, version = name.removesuffix(".debug").rpartition("-")
    if form in ("dwz", "sup"):
        if not shutil.which("dwz"):
            pytest.skip("no dwz")
        name += "-a"
    found, warnings = _lines_of(folder / name)
    addresses = map(hex, _addresses(open_vmlinux(str(folder / name))))
    plain = f"{'split' if form == 'split' else 'dwarf'}-{version}"
    told = _run(folder, "addr2line", "-e", plain, *addresses)
    assert found == [re.sub(r" \(discriminator.*", "", Path(line).name) for line in told.splitlines()]
    assert warnings == []


@pytest.mark.parametrize("name", ["zlib-5", "zstd-5", "zlib-gnu-5", "dwz-5-a", "link-5", "stripped-5"])
def test_whole_answers_are_those_of_the_plain_file(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "dwz" in name and not shutil.which("dwz"):
        pytest.skip("no dwz")
    monkeypatch.chdir(folder)
    plain = open_vmlinux("dwarf-5")
    places = [*_addresses(plain), *range(8), *(part.address + 8 for part in plain.sections if part.address)]

    def told(file: str) -> list[str]:
        assert cli.main(["where", "-l", "--json", "-s", file, *map(hex, places)]) == 0
        # objcopy --strip-debug removes the symbols that name source files, too.
        return capsys.readouterr().out.replace(f'"{file}"', '"FILE"').replace(', "file": "c.c"}', "}").splitlines()

    assert told(name) == told("gap-5" if "stripped" in name else "dwarf-5")


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    build_id = bytes(range(20))
    (link := tmp_path / "link").write_bytes(b"common\0" + build_id)
    _run(folder, "objcopy", "--add-section", f".gnu_debugaltlink={link}", "dwarf-4", str(tmp_path / "alt-4"))
    for name in ("link-5", "split-5"):
        shutil.copy(folder / name, tmp_path)
    found, [warning] = _lines_of(tmp_path / "link-5")
    assert not any(found)
    assert "is in linked.debug (.gnu_debuglink), which is not there" in warning
    session = run(["kplug", "kwhere other"], tmp_path, vmlinux=tmp_path / "link-5")
    for command in ("kplug", "kwhere other"):
        assert "linked.debug (.gnu_debuglink), which is not there" in session[command].text
    for is_another in (False, True):
        if is_another:
            shutil.copy(folder / "dwarf-5", tmp_path / "common")
        _, [warning] = _lines_of(tmp_path / "alt-4")
        assert "refers to common (.gnu_debugaltlink), which is not there, or does not have the build ID" in warning
        assert build_id.hex() in warning
    found, warnings = _lines_of(tmp_path / "split-5")  # its .dwo files have inlined callers and types only
    assert all(found)
    assert warnings == []


def test_gdb_has_not_read_a_file_that_kplug_found(folder: Path, tmp_path: Path) -> None:
    vmlinux, file = folder / "stripped-5", folder / "stripped-5.debug"
    words = f"no source lines: they are in {file}, which gdb has not read (`symbol-file {file}`"
    answers = run(["kwhere other", f"add-symbol-file {file}", "kwhere other+0"], tmp_path, vmlinux=vmlinux)
    assert words in answers["kwhere other"].text
    assert "c.c:6" in answers["kwhere other+0"].text
    assert "warning" not in answers["kwhere other+0"].text


def test_a_module_of_which_libdw_reads_nothing(folder: Path) -> None:
    """It does not relocate the older form of compressed sections; the newer one it does."""
    for form in ("zlib", "zstd", "zlib-gnu"):
        _run(folder, "objcopy", f"--compress-debug-sections={form}", "dwarf-5-c.c.o", f"{form}.ko")
        image = open_module(f"{folder / f'{form}.ko'}@0xffffffffc0000000")
        placed = _placed(image)
        source = lines.DrgnLines([placed])
        address = 0xFFFFFFFFC0000000 + image.symbols.exact("other")[0].address % 0x1000
        found = [layer.name for layer in source.line_layers(address, address, placed)]
        assert [Path(name).name.partition(":")[0] for name in found] == ["c.c"] * (form != "zlib-gnu")
        assert [*("objcopy --decompress" in each for each in source.warnings)] == [True] * (form == "zlib-gnu")
