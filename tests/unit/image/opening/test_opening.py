"""Opening what a user names: separate debug files, modules' text layout, the running kernel's files.

Debug files: GDB manual, "Debugging Information in Separate Files" (build ID, debug link, beside the file). Layout:
kernel/module/main.c, layout_sections(). The running kernel: a root folder made here.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.bounded_kplug import BoundedKplug
from support.elf_builder import (
    BASE_64,
    BUILD_ID,
    ET_REL,
    FUNC,
    SHT_NOTE,
    A,
    Elf,
    Sec,
    Sym,
    X,
    build_id_note,
    small_vmlinux,
)

from kplug import live
from kplug.errors import InputError, UsageError
from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import Section
from kplug.image.kernel_image import KernelImage
from kplug.image.opening import files as opening
from kplug.image.opening.files import find_debug_file, open_module, open_vmlinux, text_layout

HEX = BUILD_ID.hex()


def stripped(**changes: object) -> Elf:
    return small_vmlinux(64, True, None, **{"symbols": None, **changes})


def other_build() -> Elf:
    elf = small_vmlinux()
    elf.sections[2] = Sec(".notes", SHT_NOTE, A, BASE_64 + 0x1080, build_id_note(b"\xee" * 20), align=4)
    return elf


def with_link(name: bytes) -> Elf:
    """A stripped file with a .gnu_debuglink: name, NUL, padding to four bytes, CRC-32."""
    elf = stripped()
    data = name + b"\0" + bytes(-(len(name) + 1) % 4) + zlib.crc32(bytes(small_vmlinux())).to_bytes(4, "little")
    elf.sections.append(Sec(".gnu_debuglink", data=data))
    return elf


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /usr/lib/debug."""
    folder = tmp_path / "usr-lib-debug"
    folder.mkdir()
    monkeypatch.setattr(opening, "DEBUG_DIRECTORIES", (str(folder),))
    return folder


def put(path: Path, elf: Elf) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(elf))
    return str(path)


def found(path: str) -> str | None:
    file = find_debug_file(ElfFile(path))
    return file.path if file else None


# -- separate debug files ----------------------------------------------------------------------------------------------


def test_a_debug_file_is_found_by_build_id(tmp_path: Path, system: Path) -> None:
    debug = put(system / ".build-id" / HEX[:2] / f"{HEX[2:]}.debug", small_vmlinux())
    path = put(tmp_path / "vmlinux", stripped())
    assert found(path) == debug
    assert [symbol.name for symbol in open_vmlinux(path).symbols.exact("start_kernel")] == ["start_kernel"]


@pytest.mark.parametrize("place", ["my.debug", ".debug/my.debug"])
def test_a_debug_file_is_found_by_its_debug_link(tmp_path: Path, system: Path, place: str) -> None:
    debug = put(tmp_path / "d" / place, small_vmlinux())
    assert found(put(tmp_path / "d" / "vmlinux", with_link(b"my.debug"))) == debug


def test_a_debug_file_is_found_below_the_debug_directory_at_the_files_own_place(tmp_path: Path, system: Path) -> None:
    path = put(tmp_path / "d" / "vmlinux", with_link(b"my.debug"))
    debug = put(Path(f"{system}{tmp_path}/d/my.debug"), small_vmlinux())
    assert found(path) == debug


@pytest.mark.parametrize("place", ["vmlinux.debug", ".debug/vmlinux", ".debug/vmlinux.debug"])
def test_a_debug_file_is_found_beside_the_file(tmp_path: Path, system: Path, place: str) -> None:
    debug = put(tmp_path / "d" / place, small_vmlinux())
    assert found(put(tmp_path / "d" / "vmlinux", stripped())) == debug


@pytest.mark.parametrize("other", [None, other_build()])
def test_a_debug_file_that_is_missing_is_named(kplug: BoundedKplug, tmp_path: Path, other: Elf | None) -> None:
    path = put(tmp_path / "vmlinux", with_link(b"my.debug"))
    if other is not None:
        put(tmp_path / "my.debug", other)
    why = f"{path}: no symbol table, and its debug file my.debug (.gnu_debuglink) is not there, or is of another build"
    assert (
        f"  warning  {why}, so symbols and regions are not known\n" in kplug.run("where", "-s", path, hex(BASE_64)).out
    )
    for command in ("where", "sym"):
        answer = kplug.run(command, "-s", path, "start_kernel")
        assert (answer.status, answer.err) == (1, f"kplug: start_kernel: no such symbol or section ({why})\n")


def test_a_module_given_as_the_vmlinux_is_not_said_to_have_no_symbols(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = put(
        tmp_path / "m.ko", small_vmlinux(type=ET_REL, segments=[], symbols=[Sym("mod_open", 8, 4, ".text", FUNC)])
    )
    answer = kplug.run("where", "-s", path, "absent")
    said = f"kplug: absent: no such symbol or section ({path}: a module whose address is not given)\n"
    assert (answer.status, answer.err) == (1, said)


def test_a_debug_file_of_another_build_is_not_taken(tmp_path: Path, system: Path) -> None:
    put(tmp_path / "vmlinux.debug", other_build())
    put(system / ".build-id" / HEX[:2] / f"{HEX[2:]}.debug", other_build())
    path = put(tmp_path / "vmlinux", stripped())
    assert found(path) is None
    assert len(open_vmlinux(path).symbols) == 0


def test_the_right_one_is_taken_although_a_wrong_one_comes_first(tmp_path: Path, system: Path) -> None:
    put(system / ".build-id" / HEX[:2] / f"{HEX[2:]}.debug", other_build())
    debug = put(tmp_path / "vmlinux.debug", small_vmlinux())
    assert found(put(tmp_path / "vmlinux", stripped())) == debug


def test_a_file_is_not_its_own_debug_file(tmp_path: Path, system: Path) -> None:
    path = put(tmp_path / "vmlinux", with_link(b"vmlinux"))
    os.link(path, tmp_path / "vmlinux.debug")
    assert found(path) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"\x7fELF", b"not an ELF file", bytes(small_vmlinux())[:500], bytes(small_vmlinux())[:-100]],
)
def test_a_broken_debug_file_is_passed_over(tmp_path: Path, system: Path, data: bytes) -> None:
    (tmp_path / "vmlinux.debug").write_bytes(data)
    (tmp_path / ".debug").mkdir()
    debug = put(tmp_path / ".debug" / "vmlinux.debug", small_vmlinux())
    assert found(put(tmp_path / "vmlinux", stripped())) == debug


def test_a_debug_file_whose_notes_are_broken_is_passed_over(tmp_path: Path, system: Path) -> None:
    broken = small_vmlinux()
    broken.sections[2].fields = {"sh_offset": 1 << 40}
    put(tmp_path / "vmlinux.debug", broken)
    assert found(put(tmp_path / "vmlinux", stripped())) is None


def test_a_debug_directory_is_no_debug_file(tmp_path: Path, system: Path) -> None:
    (tmp_path / "vmlinux.debug").mkdir()
    assert found(put(tmp_path / "vmlinux", stripped())) is None


@pytest.mark.parametrize("name", [b"", b"/etc/passwd", b"../../etc/passwd", b"\xff\xfe", b"a" * 3000, b"a\nb"])
def test_a_debug_link_leads_nowhere_else(tmp_path: Path, system: Path, name: bytes) -> None:
    assert found(put(tmp_path / "d" / "vmlinux", with_link(name))) is None


def test_a_file_with_symbols_needs_no_debug_file(tmp_path: Path, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(elf: ElfFile) -> None:
        raise AssertionError(elf.path)

    monkeypatch.setattr(opening, "find_debug_file", fail)
    assert len(open_vmlinux(put(tmp_path / "vmlinux", small_vmlinux())).symbols) > 0


def test_a_modules_symbols_may_be_in_its_debug_file(tmp_path: Path, system: Path) -> None:
    whole = small_vmlinux(type=ET_REL, segments=[])
    for section in whole.sections:
        section.address = 0
    whole.symbols = [Sym("mod_open", 8, 4, ".text", FUNC)]
    put(system / ".build-id" / HEX[:2] / f"{HEX[2:]}.debug", whole)
    path = put(tmp_path / "m.ko", replace(whole, symbols=None))
    module = open_module(f"{path}@0xffffffffc0000000")
    assert [symbol.address for symbol in module.symbols.exact("mod_open")] == [0xFFFFFFFFC0000008]


# -- packed files and names --------------------------------------------------------------------------------------------


def test_without_any_zstd_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kplug.files import compression

    absent = compression.FORMATS["zstd"]._replace(unpackers=())
    monkeypatch.setitem(compression.FORMATS, "zstd", absent)
    path = tmp_path / "m.ko.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(InputError, match=rf"^{path}: .*install libzstd"):
        open_module(f"{path}@0x1000")


@pytest.mark.parametrize(
    ("file", "name"),
    [("ext4.ko", "ext4"), ("nf-tables.ko.xz", "nf_tables"), ("a-b_c.ko.gz", "a_b_c"), ("x.ko.debug", "x")],
)
def test_a_module_has_the_name_that_the_kernel_gives_it(tmp_path: Path, file: str, name: str) -> None:
    """As /proc/modules shows it: without ending, with underscores (KBUILD_MODNAME)."""
    import gzip
    import lzma

    data = bytes(small_vmlinux(type=ET_REL, segments=[]))
    packed = {".xz": lzma.compress(data), ".gz": gzip.compress(data)}
    path = tmp_path / file
    path.write_bytes(packed.get(os.path.splitext(file)[1], data))
    assert open_module(f"{path}@0x1000").name == name


@pytest.mark.parametrize("specification", ["", "@", "m.ko", "m.ko@", "@0x1000"])
def test_a_module_without_file_or_address_is_refused(specification: str) -> None:
    with pytest.raises(UsageError, match="--module"):
        open_module(specification)


def test_a_path_with_an_at_sign_is_taken_whole(tmp_path: Path) -> None:
    path = put(tmp_path / "a@b" / "m.ko", small_vmlinux(type=ET_REL, segments=[]))
    assert open_module(f"{path}@0x1000").path == path


# -- the loader's layout -----------------------------------------------------------------------------------------------


def part(index: int, name: str, size: int, alignment: int, flags: int = A | X) -> Section:
    return Section(index, name, "PROGBITS", 0, 0, size, 0, flags, "", 0, 0, alignment)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ([part(1, ".text", 0x100, 16)], {1: 0x1000}),
        ([part(1, ".text", 0x101, 16), part(2, ".exit.text", 8, 16)], {1: 0x1000, 2: 0x1110}),
        ([part(1, ".text", 0x101, 16), part(2, ".text.unlikely", 8, 1)], {1: 0x1000, 2: 0x1101}),
        ([part(1, ".text", 1, 0), part(2, ".fixup", 1, 0)], {1: 0x1000, 2: 0x1001}),  # alignment 0 is 1
        ([part(1, ".text", 1, 1), part(2, ".noinstr.text", 1, 4096)], {1: 0x1000, 2: 0x2000}),
        ([part(1, ".init.text", 0x10, 16), part(2, ".text", 0x10, 16)], {2: 0x1000}),  # init goes elsewhere
        (
            [part(1, ".text", 0x10, 16), part(2, ".rodata", 8, 8, A), part(3, ".exit.text", 8, 8)],
            {1: 0x1000, 3: 0x1010},
        ),
        ([part(1, ".text", 0x10, 16), part(2, ".debug_x", 8, 8, X), part(3, ".altinstr", 8, 8, A)], {1: 0x1000}),
        ([part(1, ".text", 0, 16), part(2, ".text.hot", 8, 16)], {1: 0x1000, 2: 0x1000}),
        # arm64: the loader sizes .plt, so what follows has no known place; what comes before has
        ([part(1, ".text", 0x10, 8), part(2, ".plt", 1, 1), part(3, ".text.late", 8, 1)], {1: 0x1000}),
        ([], {}),
    ],
)
def test_text_sections_are_laid_out_as_the_loader_does(sections: Sequence[Section], expected: dict[int, int]) -> None:
    assert text_layout(sections, 0x1000) == expected


def test_a_section_that_would_reach_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "m.ko", small_vmlinux(type=ET_REL, segments=[]))
    assert open_module(f"{path}@0xfffffffffffffe00").bases == {1: (1 << 64) - 0x200}
    with pytest.raises(UsageError, match=r"\.text would reach beyond 64 bits"):
        open_module(f"{path}@0xfffffffffffffe01")


@pytest.mark.parametrize("field", ["sh_addralign", "sh_size"])
def test_a_module_that_lies_about_its_layout_is_refused(tmp_path: Path, field: str) -> None:
    elf = small_vmlinux(type=ET_REL, segments=[])
    elf.sections.insert(1, Sec(".text.late", flags=A | X, data=bytes(8), fields={field: (1 << 64) - 1}))
    with pytest.raises(UsageError, match="beyond 64 bits"):
        open_module(f"{put(tmp_path / 'm.ko', elf)}@0xffffffffc0000000")


# -- the running kernel ------------------------------------------------------------------------------------------------


def root_of(folder: Path, kallsyms: bytes | None, build_id: bytes | None = BUILD_ID) -> str:
    (folder / "proc").mkdir()
    (folder / "sys/kernel").mkdir(parents=True)
    if kallsyms is not None:
        (folder / "proc/kallsyms").write_bytes(kallsyms)
    if build_id is not None:
        little = int.from_bytes(b"\1\0", "little") == 1
        (folder / "sys/kernel/notes").write_bytes(build_id_note(build_id, little))
    return str(folder)


@pytest.fixture
def image(tmp_path: Path) -> KernelImage:
    return open_vmlinux(put(tmp_path / "vmlinux", small_vmlinux()))


@pytest.mark.parametrize(
    ("kallsyms", "kaslr_offset"),
    [
        (b"ffffffff8a000000 T _text\nffffffff8a000000 T _stext\n", 0x9000000),
        (b"ffffffff81000000 T startup_64\nffffffff81000000 T _stext\n", 0),
        (b"0000000000000000 A fixed_percpu_data\nffffffff80e00000 T _stext\n", -0x200000),
        (b"0000000000000000 T _text\n0000000000000000 T _stext\n", None),  # kptr_restrict
        (b"", None),
        (b"\n", None),
        (b"garbage\n", None),
        (b"zzzz T _stext\n", None),
        (b"ffffffff8a000000 T other\n", None),
        (b"\xff\xfe\x00\n", None),
    ],
)
def test_the_running_kernels_kaslr_offset_is_the_distance_of_its_text(
    tmp_path: Path, image: KernelImage, kallsyms: bytes, kaslr_offset: int | None
) -> None:
    assert live.running_kaslr_offset(image, root_of(tmp_path, kallsyms)) == kaslr_offset


def test_a_kaslr_offset_is_told_only_by_the_kernel_that_the_image_is(tmp_path: Path, image: KernelImage) -> None:
    root = root_of(tmp_path, b"ffffffff8a000000 T _stext\n", b"\xee" * 20)
    assert live.running_build_id(root) == "ee" * 20
    assert live.running_kaslr_offset(image, root) is None


def test_nothing_is_told_without_proc_and_sys(tmp_path: Path, image: KernelImage) -> None:
    root = root_of(tmp_path, None, None)
    assert live.running_build_id(root) is None
    assert live.running_kaslr_offset(image, root) is None


def test_an_image_without_a_build_id_is_never_the_running_one(tmp_path: Path) -> None:
    elf = small_vmlinux()
    del elf.sections[2]
    for segment in elf.segments:
        segment.covers = [name for name in segment.covers if name != ".notes"]
    elf.segments.pop()
    image = open_vmlinux(put(tmp_path / "v" / "vmlinux", elf))
    assert image.build_id is None
    assert live.running_kaslr_offset(image, root_of(tmp_path, b"ffffffff8a000000 T _stext\n", None)) is None


def test_the_running_kernels_vmlinux_is_where_distributions_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = os.uname().release
    places = (str(tmp_path / "first-{release}"), str(tmp_path / "second-{release}"))
    monkeypatch.setattr(live, "_VMLINUX_PLACES", places)
    assert live.running_vmlinux() is None
    (tmp_path / f"first-{release}").mkdir()  # no file
    (tmp_path / f"second-{release}").touch()
    assert live.running_vmlinux() == str(tmp_path / f"second-{release}")
