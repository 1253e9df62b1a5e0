"""Files that are none, cut, packed or flipped here and there: one clear line, or an honest answer; no hang.

Every case runs in a child with 1 GiB of address space (bounded_kplug). What the ELF fields mean is the gABI's; the
files are made by elf_builder.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bad_files import COMMANDS, FORMS, TWO_FORMS, acceptable, ask_all, refused
from support.bounded_kplug import BoundedKplug
from support.elf_builder import (
    BASE_32,
    BASE_64,
    EM_PPC64,
    EM_X86_64,
    ET_REL,
    FUNC,
    SHT_NOTE,
    A,
    Elf,
    Sec,
    Seg,
    Sym,
    X,
    build_id_note,
    small_vmlinux,
)
from support.ordinary_user import ORDINARY_USER

from kplug.errors import InputError
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked

# -- what is no ELF file at all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"\x7f", "not an ELF"),
        (b"\x7fELF", "truncated|broken"),
        (b"Linux version 6.1\n", "not an ELF"),
        (b"\0" * 4096, "not an ELF"),
        (b"MZ" + b"\0" * 4096, "no kernel found in it"),
        (b"\x1f\x8b" + b"\0" * 64, "gzip"),
        (b"\xfd7zXZ\0" + b"\0" * 64, "xz"),
        (b"KDUMP   " + b"\0" * 64, "kdump"),
        (b"makedumpfile\0\0\0\0" + b"\0" * 64, "flattened dump"),
        (b"\x7fELF\x03\x01\x01" + b"\0" * 64, "broken ELF header"),
        (b"\x7fELF\x02\x03\x01" + b"\0" * 64, "broken ELF header"),
    ],
)
def test_what_is_no_elf_file_is_refused_with_a_hint_at_what_it_is(
    kplug: BoundedKplug, file: Callable[[bytes], str], data: bytes, what: str
) -> None:
    ask_all(kplug, file(data), lambda answer, path: refused(answer, path, what))


def test_a_missing_file_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = str(tmp_path / "nothing")
    ask_all(kplug, path, lambda answer, path: refused(answer, path, "No such file"))


def test_a_directory_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    ask_all(kplug, str(tmp_path), lambda answer, path: refused(answer, path, "directory"))


@pytest.mark.parametrize("name", ["pipe", "pipe.xz", "pipe.gz"])
def test_a_pipe_is_refused_and_not_waited_for(kplug: BoundedKplug, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    refused(kplug.run("where", "-s", str(tmp_path / name), "0"), str(tmp_path / name), "pipe")


def test_a_socket_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        refused(kplug.run("where", "-s", str(tmp_path / "s"), "0"), str(tmp_path / "s"), "not a file")


def test_a_device_is_refused(kplug: BoundedKplug) -> None:
    refused(kplug.run("where", "-s", "/dev/zero", "0"), "/dev/zero", "not a file")


def test_an_unreadable_file_is_refused(file: Callable[[bytes], str]) -> None:
    path = file(bytes(small_vmlinux()))
    os.chmod(path, 0)
    kplug = BoundedKplug(run_by=ORDINARY_USER)
    try:
        refused(kplug.run("where", "-s", path, "0"), path, "Permission denied")
    finally:
        kplug.close()


def test_a_name_with_control_characters_is_shown_safely(kplug: BoundedKplug, tmp_path: Path) -> None:
    answer = kplug.run("where", "-s", str(tmp_path / "a\x1b[31m\nb"), "0")
    assert answer.status == 2
    assert "\x1b" not in answer.err
    assert answer.err.count("\n") == 1


# -- truncation --------------------------------------------------------------------------------------------------------


def least(form: str, headers_first: bool = False) -> bytes:
    """A file with little in it, for what is tried at every byte."""
    whole = FORMS[form]
    elf = Elf(whole.bits, whole.little, machine=whole.machine, headers_first=headers_first)
    elf.sections = [
        Sec(".text", flags=A | X, address=0x1000, data=b"\x90" * 8),
        Sec(".notes", SHT_NOTE, A, 0x2000, build_id_note(b"\1\2\3\4", whole.little)),
    ]
    elf.segments = [Seg(flags=5, covers=(".text",))]
    elf.symbols = [Sym("f", 0x1000, 4, ".text", FUNC)]
    return bytes(elf)


def read_everything(path: str) -> None:
    image = open_vmlinux(path)
    placed = PlacedImage(image, as_linked(image.sections))
    for address in (0x1000, 0x1002, 0x1006, 0x2000):
        piece = placed.piece(address)
        if piece is not None:
            placed.layers(address, piece)
    assert image.symbols.prefix("") in ([], ["f"])


@pytest.mark.parametrize("form", FORMS)
def test_cut_at_every_byte_a_file_is_refused(file: Callable[[bytes], str], form: str) -> None:
    """The section headers are at the end, where linkers put them, so no cut leaves a whole file."""
    data = least(form)
    read_everything(file(data))
    for length in range(len(data)):
        path = file(data[:length])
        with pytest.raises(InputError) as refusal:
            read_everything(path)
        assert path in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("form", TWO_FORMS)
def test_cut_at_every_byte_behind_its_headers_a_file_is_refused(file: Callable[[bytes], str], form: str) -> None:
    data = least(form, headers_first=True)
    read_everything(file(data))
    for length in range(len(data)):
        path = file(data[:length])
        with pytest.raises(InputError) as refusal:
            read_everything(path)  # the last bytes of the file are the section names, which every question needs
        assert path in str(refusal.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("headers_first", [False, True])
def test_cut_here_and_there_the_command_line_refuses_it(
    kplug: BoundedKplug, file: Callable[[bytes], str], form: str, headers_first: bool
) -> None:
    data = least(form, headers_first)
    commands = list(COMMANDS.items())
    for number, length in enumerate(range(0, len(data), 41)):
        command, words = commands[number % len(commands)]
        path = file(data[:length])
        refused(kplug.run(command, "-s", path, *words), path)


def test_without_its_symbols_bytes_a_file_still_lists_sections_and_segments(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    path = file(bytes(small_vmlinux(symtab_fields={"sh_offset": 1 << 40})))
    for command in ("sections", "segments"):
        answer = kplug.run(command, "-s", path)
        assert (answer.status, answer.err) == (0, "")
        assert ".init.text" in answer.out
    for command in ("where", "sym", "regions"):
        refused(kplug.run(command, "-s", path, *COMMANDS[command]), path, r"\.symtab lies outside the file")


@pytest.mark.kernel
def test_a_real_module_cut_anywhere_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    from support.oracle import kernels

    module = min((kernels.root("amd64-6.1") / "modules").rglob("*.ko"), key=lambda path: path.stat().st_size)
    data = module.read_bytes()
    (section_headers,), (count,) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<H", data, 60)
    data = data[: section_headers + 64 * count]  # without the signature behind them
    path = tmp_path / "cut.ko"
    for length in [*range(0, 200, 7), *range(200, len(data), max(1, len(data) // 150)), len(data) - 1]:
        path.write_bytes(data[:length])
        refused(kplug.run("sections", "-s", str(path)), str(path))
        refused(kplug.run("where", "--module", f"{path}@ffffffffc0000000", "ffffffffc0000000"), str(path))


# -- packed files ------------------------------------------------------------------------------------------------------

PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_is_answered_as_the_file_in_it(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"vmlinux{ending}"
    path.write_bytes(PACKERS[ending](bytes(small_vmlinux())))
    answer = kplug.run("where", "-b", "-s", str(path), "start_kernel+4")
    assert (answer.status, answer.out) == (0, "0xffffffff81000014  start_kernel+0x4  .text  [text]\n")


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_of_several_streams_is_whole(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    """gzip, xz and bzip2 all unpack files laid end to end as one."""
    path = tmp_path / f"vmlinux{ending}"
    data = bytes(small_vmlinux())
    path.write_bytes(PACKERS[ending](data[:1000]) + PACKERS[ending](data[1000:]))
    assert kplug.run("where", "-b", "-s", str(path), "start_kernel").status == 0


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_cut_anywhere_is_refused(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"vmlinux{ending}"
    packed = PACKERS[ending](bytes(small_vmlinux()))
    for length in [*range(1, 40), *range(40, len(packed), 23), len(packed) - 1]:
        path.write_bytes(packed[:length])
        refused(kplug.run("where", "-s", str(path), "0"), str(path), "cannot be unpacked")


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_with_a_flipped_byte_is_refused(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    """Each has a checksum; what is behind it in a .gz header (time, name) does not matter."""
    path = tmp_path / f"vmlinux{ending}"
    packed = PACKERS[ending](bytes(small_vmlinux()))
    for position in range(20, len(packed) - 24, 17):
        flipped = bytearray(packed)
        flipped[position] ^= 0x55
        path.write_bytes(flipped)
        refused(kplug.run("where", "-s", str(path), "0"), str(path), "cannot be unpacked|not an ELF")


@functools.cache
def _zeros(ending: str) -> bytes:
    return PACKERS[ending](bytes(1 << 24))


@pytest.mark.parametrize("head", [b"", bytes(small_vmlinux())])
@pytest.mark.parametrize("ending", PACKERS)
def test_what_unpacks_to_far_too_much_is_refused(kplug: BoundedKplug, tmp_path: Path, ending: str, head: bytes) -> None:
    """Repeats of a packed 16 MiB of zeros: a gigabyte in a file of a megabyte or less."""
    path = tmp_path / f"bomb.ko{ending}"
    zeros = _zeros(ending)
    path.write_bytes(PACKERS[ending](head) + zeros * 64)
    words = ("-s", str(path)) if head else ("--module", f"{path}@0")
    refused(kplug.run("where", *words, "0"), str(path), "unpacks to more than")


def test_an_xz_file_that_wants_a_gigabyte_of_dictionary_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux.xz"
    packed = bytearray(lzma.compress(bytes(small_vmlinux()), check=lzma.CHECK_NONE))
    # The block header: its size, flags, filter 0x21 (LZMA2), one byte of properties, the dictionary's size; then CRC32.
    header = packed.index(b"\x21\x01") - 2
    size = (packed[header] + 1) * 4
    packed[header + 4] = 39  # 3 GiB (xz file format 1.1.0, 5.3.1)
    crc = zlib.crc32(bytes(packed[header : header + size - 4]))
    struct.pack_into("<I", packed, header + size - 4, crc)
    path.write_bytes(packed)
    refused(kplug.run("where", "-s", str(path), "0"), str(path), "[Mm]emory")


# -- chance ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bytes_with_fixed_seeds(kplug: BoundedKplug, file: Callable[[bytes], str], form: str) -> None:
    data = bytes(FORMS[form])
    commands = list(COMMANDS.items())
    for seed in range(40):
        chance = random.Random(seed)
        changed = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            changed[chance.randrange(4, len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        path = file(bytes(changed))
        command, words = commands[seed % len(commands)]
        acceptable(kplug.run(command, "-s", path, *words), path)


@settings(max_examples=80)
@given(
    form=st.sampled_from(sorted(FORMS)),
    flips=st.lists(st.tuples(st.integers(5, 4000), st.integers(0, 255)), min_size=1, max_size=12),
    command=st.sampled_from(sorted(COMMANDS)),
    headers_first=st.booleans(),
)
def test_flipped_bytes(
    kplug: BoundedKplug,
    file: Callable[[bytes], str],
    form: str,
    flips: list[tuple[int, int]],
    command: str,
    headers_first: bool,
) -> None:
    whole = FORMS[form]
    elf = small_vmlinux(whole.bits, whole.little, whole.machine, headers_first=headers_first)
    data = bytearray(bytes(elf))
    for position, value in flips:
        data[position % len(data)] = value
    data[:4] = b"\x7fELF"
    path = file(bytes(data))
    acceptable(kplug.run(command, "-s", path, *COMMANDS[command]), path)


@pytest.mark.parametrize("little", [True, False])
def test_flipped_bytes_in_a_module(kplug: BoundedKplug, file: Callable[[bytes], str], little: bool) -> None:
    elf = small_vmlinux(64, little, EM_X86_64 if little else EM_PPC64, type=ET_REL, segments=[])
    for section in elf.sections:
        section.address = 0
    assert elf.symbols is not None
    for symbol in elf.symbols:
        symbol.value &= 0xFFF
    data = bytes(elf)
    for seed in range(40):
        chance = random.Random(seed)
        changed = bytearray(data)
        changed[chance.randrange(18, len(data))] = chance.choice((0, 1, 0x80, 0xFF))
        path = file(bytes(changed))
        answer = kplug.run("where", "--module", f"{path}@ffffffffc0000000", "ffffffffc0000014", "start_kernel")
        acceptable(answer, path)


def test_the_bases_are_those_of_the_tests() -> None:
    """COMMANDS asks for addresses in both small kernels."""
    assert (BASE_64, BASE_32) == (0xFFFFFFFF81000000, 0xC1000000)
