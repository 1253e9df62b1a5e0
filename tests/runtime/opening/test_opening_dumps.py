"""Opening what is right: every format, what a dump does not state, which vmlinux.

Truth: the guest's own /proc/kallsyms, gathered before the dump.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
from support.changed_dumps import SNAPPY, ZSTD, compressor, first_bytes, moved_note, note_of, recompressed, without_note
from support.kept_dumps import dump, dumped, vmlinux

from kplug.errors import InputError, MismatchError
from kplug.memory.reading import FaultError
from kplug.runtime.finders import types_source
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Opened, Request
from kplug.runtime.session import kernel_of, open_session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

KERNELS = ("amd64-6.1", "amd64-6.12")
FORMATS = (
    "elf",
    "elf-paging",
    "kdump-zlib",
    "makedumpfile-elf",
    "makedumpfile-zlib",
    "makedumpfile-lzo",
    "makedumpfile-zlib-d31",
    "makedumpfile-flat-d31",
)
LEFT_OUT = ("memory: pages that makedumpfile left out read as zeros; its ELF files do not say which those are",)


@lru_cache
def truth(name: str, symbol: str) -> int:
    """The guest's own word for a symbol of its image."""
    lines = (dumped(name).root / "truth" / "kallsyms").read_text().splitlines()
    return next(int(words[0], 16) for words in map(str.split, lines) if len(words) == 3 and words[2] == symbol)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6.1's vmlinux without DWARF."""
    path = tmp_path_factory.mktemp("bare") / "vmlinux"
    subprocess.run(["objcopy", "--strip-debug", vmlinux("amd64-6.1"), str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ELF dump of 6.1 whose notes have no VMCOREINFO."""
    return without_note(dump("amd64-6.1", "makedumpfile-elf"), tmp_path_factory.mktemp("silent") / "elf")


def answers(opened: Opened, name: str) -> None:
    """What is open is that kernel, in its place, with memory, and quietly."""
    kernel = kernel_of(opened)
    assert opened.vmcoreinfo.symbols["_stext"] == truth(name, "_stext")
    assert kernel.symbol("schedule") == truth(name, "schedule")
    banner = kernel.image.image.banner if kernel.image is not None else None
    assert banner is not None
    assert kernel.read(truth(name, "linux_banner"), len(banner)) == banner
    assert kernel.machine == "x86_64"
    assert opened.warnings == ()


class TestFormats:
    """Every format that there is opens and answers, and says nothing that needs not be said."""

    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("name", KERNELS)
    def test_a_dump_answers(self, name: str, format: str, capfd: pytest.CaptureFixture[str]) -> None:
        opened = open_kernel(Request(str(dump(name, format)), symbols=(vmlinux(name),)))
        answers(opened, name)
        assert opened.how == (LEFT_OUT if format == "makedumpfile-elf" else ())
        assert not opened.live
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("name", KERNELS)
    def test_schedule_is_where_the_guest_said(self, name: str) -> None:
        session = open_session(Request(str(dump(name, "kdump-zlib")), symbols=(vmlinux(name),)))
        (answer,) = session.where("schedule")
        assert answer.address == truth(name, "schedule")

    @pytest.mark.parametrize("flag", [SNAPPY, ZSTD], ids=["snappy", "zstd"])
    def test_other_compressions(self, flag: int, tmp_path: Path) -> None:
        compress = compressor(flag)
        if compress is None:
            pytest.skip("no such library here")
        made = recompressed(dump("amd64-6.1", "makedumpfile-zlib-d31"), tmp_path / "dump", flag, compress)
        answers(open_kernel(Request(str(made), symbols=(vmlinux("amd64-6.1"),))), "amd64-6.1")

    def test_types_are_there(self) -> None:
        opened = open_kernel(Request(str(dump("amd64-6.1", "elf")), symbols=(vmlinux("amd64-6.1"),)))
        assert kernel_of(opened).has_types
        assert opened.prog["init_task"].comm.string_() == b"swapper/0"

    def test_module_types_on_demand(self) -> None:
        files = dumped("amd64-6.1").files
        request = Request(
            str(dump("amd64-6.1", "elf")),
            symbols=(vmlinux("amd64-6.1"),),
            module_directories=(str(files.debug_modules),),
        )
        prog = open_kernel(request).prog
        with pytest.raises(LookupError):
            prog.type("struct virtio_pci_device")
        prog.load_debug_info(default=True)
        assert prog.type("struct virtio_pci_device").size


class TestMemory:
    """What cannot be read is said in words; what is not memory of the kernel is not taken for it."""

    @pytest.mark.parametrize("format", ["elf", "elf-paging", "kdump-zlib", "makedumpfile-elf", "makedumpfile-zlib-d31"])
    def test_what_is_not_mapped(self, format: str) -> None:
        kernel = kernel_of(open_kernel(Request(str(dump("amd64-6.1", format)))))
        for address in (0x1000, 0x7FFF_0000_0000, 0xFFFF_FFFF_7000_0000):
            with pytest.raises(FaultError, match=f"^address is not mapped: {address:#x}$"):
                kernel.read(address, 8)

    def test_a_page_that_makedumpfile_left_out(self) -> None:
        kernel = kernel_of(open_kernel(Request(str(dump("amd64-6.1", "makedumpfile-zlib-d31")))))
        said = set()
        for address in range(0x100000, 0x1000000, 0x1000):
            try:
                kernel.read_physical(address, 8)
            except FaultError as error:
                said.add(str(error).partition(": 0x")[0])
        assert said == {"the page is not in the dump: excluded when it was written, or no memory"}

    def test_what_an_elf_dump_left_out_is_known_to_be(self) -> None:
        """drgn reads zeros there; the whole dump of the same moment has what was in memory."""
        part, whole = (open_kernel(Request(str(dump("amd64-6.1", f)))) for f in ("makedumpfile-elf", "elf"))
        assert part.header is not None
        for address in range(0x100000, 0x8000000, 0x10000):
            data, truth = (kernel_of(opened).read_physical(address, 4096) for opened in (part, whole))
            assert data == (bytes(4096) if part.header.is_zero_filled(address) else truth)

    @pytest.mark.parametrize("format", ["elf", "kdump-zlib"])
    def test_no_such_physical_address(self, format: str) -> None:
        kernel = kernel_of(open_kernel(Request(str(dump("amd64-6.1", format)))))
        with pytest.raises(FaultError, match=r"^no memory at this physical address: 0x4000000000000$"):
            kernel.read_physical(1 << 50, 8)


class TestVmcoreinfo:
    """A dump without the note: it is found in memory, or given by hand."""

    @pytest.mark.parametrize("given", [True, False], ids=["vmlinux", "no vmlinux"])
    def test_found_in_an_elf_dump(self, silent: Path, given: bool) -> None:
        symbols = (vmlinux("amd64-6.1"),) if given else ()
        opened = open_kernel(Request(str(silent), symbols=symbols))
        assert opened.vmcoreinfo.text == note_of(dump("amd64-6.1", "elf"))
        how = opened.how if given else opened.how[:-1]  # the last says where the symbols are from
        assert how == ("VMCOREINFO: not in the dump's notes; found in its memory", *LEFT_OUT)
        answers(opened, "amd64-6.1")

    def test_found_in_a_compressed_dump_with_excluded_pages(self, tmp_path: Path) -> None:
        made = without_note(dump("amd64-6.12", "makedumpfile-zlib-d31"), tmp_path / "dump")
        opened = open_kernel(Request(str(made), symbols=(vmlinux("amd64-6.12"),)))
        answers(opened, "amd64-6.12")
        assert opened.how == ("VMCOREINFO: not in the dump's notes; found in its memory",)

    @pytest.mark.parametrize("given", [True, False], ids=["vmlinux", "no vmlinux"])
    def test_one_of_a_kernel_that_ran_before_is_not_taken(self, silent: Path, tmp_path: Path, given: bool) -> None:
        text = note_of(dump("amd64-6.1", "elf"))
        stale = moved_note(text, 0x200000)
        assert stale != text
        made = Path(shutil.copy(silent, tmp_path / "dump"))
        header = open_kernel(Request(str(made))).header
        assert header is not None
        low = header.segments[0]
        with made.open("r+b") as file:  # at a lower physical address than the true one: it is met first
            file.seek(low.offset + 0x50000)
            file.write(stale.encode() + b"\0")
        opened = open_kernel(Request(str(made), symbols=(vmlinux("amd64-6.1"),) if given else ()))
        assert opened.vmcoreinfo.text == text

    def test_given_by_hand(self, silent: Path, tmp_path: Path) -> None:
        note = tmp_path / "note"
        note.write_text(note_of(dump("amd64-6.1", "elf")))
        opened = open_kernel(Request(str(silent), symbols=(vmlinux("amd64-6.1"),), vmcoreinfo=str(note)))
        answers(opened, "amd64-6.1")
        assert opened.how == ("VMCOREINFO: as given (--vmcoreinfo)", *LEFT_OUT)


class TestVmlinux:
    """The right one is used, a wrong one is refused, and without any the rest is answered."""

    def test_symbols_without_dwarf(self, bare: Path) -> None:
        opened = open_kernel(Request(str(dump("amd64-6.1", "elf")), symbols=(str(bare),)))
        answers(opened, "amd64-6.1")
        assert types_source(kernel_of(opened)) == "BTF in memory"

    @pytest.mark.parametrize("format", FORMATS)
    def test_another_kernels(self, format: str) -> None:
        wrong = vmlinux("amd64-6.12")
        with pytest.raises(MismatchError) as raised:
            open_kernel(Request(str(dump("amd64-6.1", format)), symbols=(wrong,)))
        ours, theirs = dumped("amd64-6.12").files, dumped("amd64-6.1").files
        assert str(raised.value) == (
            f"{wrong} is {ours.release} (build ID {ours.build_id}), "
            f"but the target runs {theirs.release} (build ID {theirs.build_id}): give the vmlinux of that kernel"
        )

    @pytest.mark.parametrize("format", ["elf", "kdump-zlib"])
    def test_another_architectures(self, format: str) -> None:
        from vmimages import fetch

        wrong = str(fetch("arm64-6.12", quiet=True).vmlinux)
        with pytest.raises(MismatchError, match=r"is for aarch64, but .* is a dump of x86_64"):
            open_kernel(Request(str(dump("amd64-6.1", format)), symbols=(wrong,)))

    def test_without_a_build_id_memory_tells(self, silent: Path, tmp_path: Path) -> None:
        """As before 5.9, and where VMCOREINFO has a wrong one: the vmlinux is neither ignored nor trusted."""
        note = tmp_path / "note"
        lines = note_of(dump("amd64-6.1", "elf")).splitlines(keepends=True)
        note.write_text("".join(line for line in lines if not line.startswith("BUILD-ID=")))
        right = open_kernel(Request(str(silent), symbols=(vmlinux("amd64-6.1"),), vmcoreinfo=str(note)))
        answers(right, "amd64-6.1")
        assert right.prog["init_task"].comm.string_() == b"swapper/0"
        with pytest.raises(MismatchError, match=r"6\.12.*but the target runs 6\.1\."):
            open_kernel(Request(str(silent), symbols=(vmlinux("amd64-6.12"),), vmcoreinfo=str(note)))

    @pytest.mark.parametrize("format", FORMATS)
    def test_none(self, format: str) -> None:
        """What there is in memory stands for it: `test_without_vmlinux.py`."""
        opened = open_kernel(Request(str(dump("amd64-6.12", format))))
        answers(opened, "amd64-6.12")
        assert opened.vmlinux is None
        assert opened.how[-1].startswith("no vmlinux: symbols from kallsyms in memory: ")

    def test_none_and_no_kallsyms(self, tmp_path: Path) -> None:
        """Without the table of tokens there are no symbols; areas and memory are still answered."""
        broken = Path(shutil.copy(dump("amd64-6.12", "elf"), tmp_path / "dump"))
        os.chmod(broken, 0o600)
        data = broken.read_bytes()
        digits = b"".join(b"%d\0" % digit for digit in range(10))
        with broken.open("r+b") as file:
            for match in re.finditer(re.escape(digits), data):
                file.seek(match.start())
                file.write(bytes(len(digits)))
        session = open_session(Request(str(broken)))
        (answer,) = session.where(hex(truth("amd64-6.12", "schedule")))
        assert [(layer.kind, layer.name) for layer in answer.layers][:1] == [("area", "kernel image mapping")]
        build_id = dumped("amd64-6.12").files.build_id
        assert any("no vmlinux found" in warning and build_id in warning for warning in answer.warnings)


class TestTruncated:
    """The part of a dump that is there answers, and says that it is not all."""

    @pytest.mark.parametrize("format", ["makedumpfile-elf", "makedumpfile-zlib-d31"])
    def test_half_of_it(self, format: str, tmp_path: Path) -> None:
        whole = dump("amd64-6.1", format)
        missing = whole.stat().st_size // 2
        opened = open_kernel(
            Request(str(first_bytes(whole, tmp_path / "half", -missing)), symbols=(vmlinux("amd64-6.1"),))
        )
        assert opened.warnings == (f"{tmp_path}/half is truncated: bytes missing at its end: {missing}",)
        kernel = kernel_of(opened)
        schedule = truth("amd64-6.1", "schedule")
        assert kernel.symbol("schedule") == schedule
        with pytest.raises(FaultError, match=r"^the dump is truncated (before this memory|or broken)"):
            kernel.read(schedule, 8)
        if format == "makedumpfile-elf":  # of others libkdumpfile reads nothing without the page tables
            assert kernel.read_physical(0x1000, 8)

    def test_a_flattened_one_cannot_be_put_together(self, tmp_path: Path) -> None:
        half = first_bytes(dump("amd64-6.1", "makedumpfile-flat-d31"), tmp_path / "half", 1 << 20)
        with pytest.raises(InputError, match=r"^[^\n]*truncated or broken: the flattened stream ends within a record"):
            open_kernel(Request(str(half)))
