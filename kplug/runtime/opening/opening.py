"""Opening a vmcore, the running kernel or a QEMU guest with drgn."""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import drgn

from kplug.arch.note_registers import qemu_note_size
from kplug.arch.registry import named
from kplug.entry_points import declared_names
from kplug.errors import InputError, KplugError, MismatchError
from kplug.files.opening import open_file
from kplug.image.elf.file import notes_in
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.kernel_files import open_kernel as open_image
from kplug.memory import dump_header
from kplug.memory.dump_header import DumpHeader, read_header
from kplug.memory.dump_notes import note_bytes
from kplug.memory.kernel_note import kaslr_offset_of, with_offset
from kplug.memory.raw_image import Extent, raw_extents
from kplug.memory.split_dump import Part, missing, missing_words, parts_of
from kplug.memory.vmcoreinfo import MAX_BYTES, VmcoreInfo
from kplug.runtime.kernel.kernel import TRUNCATED_PAGE
from kplug.runtime.kernel.platform import platform_of, word_of
from kplug.runtime.opening import made_ready, vmcoreinfo_search
from kplug.runtime.opening.drgn_calls import error_words, heard, switched
from kplug.runtime.opening.guests import open_guest, open_running
from kplug.runtime.opening.raw import add_physical, open_raw
from kplug.runtime.opening.request import Opened, OpenTarget, Request
from kplug.runtime.opening.split import join
from kplug.runtime.opening.types_read import types_read_while
from kplug.runtime.opening.vmlinux import load_vmlinux, set_debug_directories
from kplug.runtime.opening.walked import has_other_order, walk_for_drgn

# drgn imports its plug-ins when the first target is set. Its own and kplug's add commands to its prompt, and take
# longer to import than a dump to open. Those of others, which may find debug information, are loaded.
_UNNEEDED_PLUGINS = ("builtin_commands", "crash_commands", "kplug")
PLUGIN_SWITCH = "DRGN_DISABLE_PLUGINS"
# Makes drgn walk the page tables itself, instead of libkdumpfile.
_PAGE_TABLE_SWITCH = "DRGN_PREFER_PGTABLE_READER"
_PAGE_BYTES = 4096
_NT_TASKSTRUCT = 4


def open_kernel(request: Request, meanwhile: Callable[[], None] | None = None, asked: Sequence[str] = ()) -> Opened:
    """Open it, with its debug information. InputError, worded for the user, if it cannot be opened.

    With `meanwhile` drgn reads the types at once; in that time this is done, and what the texts in `asked` need is made
    ready. Without, drgn reads them at the first question that needs one.
    """
    given = _given_vmcoreinfo(request.vmcoreinfo)
    image = open_image(request.symbols[0]) if request.symbols else None
    if request.joined is not None:
        image = request.joined.image
    with heard() as messages, switched(PLUGIN_SWITCH, _unneeded_plugins()):
        target, info, image, has_dwarf = _with_vmlinux(request, given, image)
        known = info if image is None else with_offset(info, kaslr_offset_of(info, image))
        if known is not info:
            how = [*target.how, "KASLR offset: not in VMCOREINFO; from its _stext and that of the vmlinux"]
            del target  # a guest's monitor serves one client at a time
            target, _, image, has_dwarf = _with_vmlinux(request, known.text, image)
            target.how[:] = how
        prog = target.prog
    if meanwhile is not None and has_dwarf:

        def work() -> None:
            meanwhile()
            with suppress(KplugError):  # the question that needs the symbols has the error again, and says so
                made_ready.make_ready(image, info, asked)

        types_read_while(prog, work)
    warnings = (*target.warnings, *(f"drgn: {message}" for message in messages))
    return Opened(
        prog,
        target.description,
        bool(prog.flags & drgn.ProgramFlags.IS_LIVE),
        image.path if image is not None and image.on_disk else None,
        info,
        tuple(target.how),
        warnings,
        request.module_directories,
        image=image,
        header=target.header,
        cpus=target.cpus,
        has_dwarf=has_dwarf,
        disputed=request.joined.disputed if request.joined is not None else {},
        missing=target.missing,
    )


def _with_vmlinux(
    request: Request, given: str | None, image: KernelImage | None
) -> tuple[OpenTarget, VmcoreInfo, KernelImage | None, bool]:
    """The target with its vmlinux, and whether drgn has the DWARF."""
    if request.core is not None:
        extents = raw_extents(request.core, request.raw)
        if extents:
            target = open_raw(request.core, extents, given, image)
        else:
            target = _open_core(request.core, given, image, parts_of(request.core, request.core_parts))
    elif request.qemu is not None:
        target = open_guest(request.qemu, given, image)
    else:
        target = open_running(given)
    info = VmcoreInfo(target.prog["VMCOREINFO"].string_().decode("utf-8", "replace"))
    set_debug_directories(target.prog, request.module_directories)
    if request.joined is not None:
        target.how.extend(request.joined.used)
    return target, info, *load_vmlinux(target, info, image)


def _unneeded_plugins() -> str:
    """The plug-ins that drgn is not to load; with all of them, it does not even import what finds them."""
    others = declared_names("drgn.plugins", sys.path).difference(_UNNEEDED_PLUGINS)
    has_archives = any(map(os.path.isfile, sys.path))  # which may have some too
    return ",".join(_UNNEEDED_PLUGINS) if others or has_archives else "*"


# -- vmcores -----------------------------------------------------------------------------------------------------------


def _open_core(
    path: str, given: str | None, image: KernelImage | None, parts: Sequence[Part], swapped: bool = False
) -> OpenTarget:
    """Open a vmcore. `swapped`: the kernel has its words in the other byte order than an ELF file says."""
    header = read_header(path)
    if header.machine == dump_header.NO_MACHINE:
        raise InputError(
            f"{path}: a compressed dump of QEMU's that does not say its machine (those of x86 and s390x do): drgn's "
            "library cannot read these; dump as ELF (dump-guest-memory without -z)"
        )
    machine = header.machine or (image.machine if image is not None else None)
    if image is not None and image.machine and header.machine is not None and image.machine != header.machine:
        raise MismatchError(f"{image.path} is for {image.machine}, but {path} is a dump of {header.machine}")

    little_endian = header.little_endian
    if swapped or (little_endian is not None and image is not None and image.elf.word.little_endian != little_endian):
        little_endian = not little_endian

    def opened(vmcoreinfo: str | None) -> drgn.Program:
        # An ELF file states all that drgn needs, unless it is wider; for the other formats drgn asks a library that may
        # not know.
        platform = None
        if header.format != dump_header.ELF or header.wider or little_endian != header.little_endian:
            platform = platform_of(machine or "", little_endian)
        prog = drgn.Program(platform, vmcoreinfo=vmcoreinfo)
        if not header.cut and not parts:
            prog.set_core_dump(path)
        else:
            with switched(_PAGE_TABLE_SWITCH, "1"):
                prog.set_core_dump(path)
            _hide_truncated_pages(prog, header)
            join(prog, path, parts, lambda part: _open_core(part, given, image, ()).prog)
        _add_first_memory(prog, path, header)
        walk_for_drgn(prog, (segment.physical for segment in header.segments), still=True)
        return prog

    _check_notes(path, header)
    if header.cut:
        _check_in_a_child(path, lambda: opened(given))

    how: list[str] = []
    prog = None
    if given is not None or header.has_vmcoreinfo is not False:
        try:
            prog = opened(given)
        except Exception as error:  # drgn raises a bare Exception for what its libraries reject
            if given is not None or not _is_about_vmcoreinfo(error):
                raise InputError(f"{path}: {_cannot_open(error)}") from None
    if prog is None or not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        prog = _with_found_note(path, opened, header, image)
        how.append("VMCOREINFO: not in the dump's notes; found in its memory")
    elif given is not None:
        how.append("VMCOREINFO: as given (--vmcoreinfo)")
    if image is None and not swapped and header.little_endian is not None and has_other_order(prog):
        return _open_core(path, given, image, parts, swapped=True)
    _hide_user_half(prog, header)
    target = OpenTarget(path, prog, f"vmcore {path}", how, header=header, missing=tuple(missing(parts)))
    if any(segment.file_size < segment.size for segment in header.segments):
        how.append("memory: pages that makedumpfile left out read as zeros; its ELF files do not say which those are")
    if little_endian != header.little_endian:
        right, wrong = ("little-endian", "big-endian") if little_endian else ("big-endian", "little-endian")
        how.append(f"byte order: {right}, as the kernel has it; the file says {wrong}, and its registers are not used")
    lost = missing_words(parts)
    if lost is not None:
        target.warnings.append(f"{path}: {lost}")
    elif parts:
        how.append(f"memory: split in {len(parts)} files, which are read as one dump")
    if header.missing:
        target.warnings.append(f"{path} is truncated: bytes missing at its end: {header.missing}")
    elif header.incomplete:
        target.warnings.append(f"{path} is incomplete: its disk was full when it was written")
    return target


def _add_first_memory(prog: drgn.Program, path: str, header: DumpHeader) -> None:
    """Give the Program the physical memory of an ELF dump that has all of it from 0 on: drgn takes that for a lack of
    physical addresses, unless the file has VMCOREINFO.
    """
    held = [segment for segment in header.segments if segment.file_size]
    if header.format != dump_header.ELF or header.has_vmcoreinfo or len(held) != 1:
        return
    (only,) = held
    if not only.physical and not only.virtual:
        add_physical(prog, path, [Extent(0, only.file_size, only.offset)])


def _hide_truncated_pages(prog: drgn.Program, header: DumpHeader) -> None:
    """Keep libkdumpfile from reading truncated pages, which crash it. For that drgn must walk the page tables itself,
    and gets an error for these pages.
    """

    def cut(address: int, size: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError(TRUNCATED_PAGE, address)

    for address in header.cut:
        prog.add_memory_segment(address, _PAGE_BYTES, cut, True)


def _check_notes(path: str, header: DumpHeader) -> None:
    """InputError if a QEMU note claims more than it has: libkdumpfile 0.5 refuses it, and may crash then."""
    if not named(header.machine or "").qemu_note:
        return
    try:
        with open_file(path) as file:
            notes = list(notes_in(*note_bytes(path, file)))
    except (InputError, OSError, struct.error):
        return  # the library refuses whatever else is broken there
    for note in notes:
        claimed = qemu_note_size(note.description)
        if note.owner == "QEMU" and claimed > len(note.description):
            raise InputError(f"{path}: broken: a note of QEMU's claims {claimed} bytes and has {len(note.description)}")


def _check_in_a_child(path: str, opened: Callable[[], drgn.Program]) -> None:
    """Open a broken dump in another process first, since libkdumpfile's own reads cannot be prevented."""
    child = os.fork()
    if child == 0:
        try:
            opened().read(0, 1, True)
        except BaseException:
            pass
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise InputError(f"{path}: truncated or broken: data that is needed to read any of it is missing")


def _hide_user_half(prog: drgn.Program, header: DumpHeader) -> None:
    """Hide the lower half from drgn. QEMU and makedumpfile write 0, or the physical address, for a segment's unknown
    virtual address, which drgn takes for memory at NULL and above. On these machines the lower half is user space.
    """
    start = word_of(prog).kernel_start
    if not start or all(segment.virtual >= start for segment in header.segments):
        return

    def unmapped(address: int, size: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("address is not mapped", address)

    prog.add_memory_segment(0, start, unmapped, False)


def _cannot_open(error: Exception) -> str:
    """Why drgn or its libraries cannot open a dump, in terms of the file."""
    text = error_words(error)
    if "flattened segment" in text:
        return "truncated or broken: the flattened stream ends within a record (no part of it can be read)"
    if text == "libelf error: invalid operation":
        return "truncated or broken: its ELF notes cannot be read"
    return re.sub(r"^kdump_\w+\([\w.]*\): |\bfile #0: ", "", text)


def _is_about_vmcoreinfo(error: Exception) -> bool:
    words = str(error)
    return "vmcoreinfo" in words.lower() or "swapper_pg_dir" in words


def _with_found_note(
    path: str, opened: Callable[[str | None], drgn.Program], header: DumpHeader, image: KernelImage | None
) -> drgn.Program:
    """The dump, opened with the VMCOREINFO that was found in its memory."""
    try:
        searched = opened(vmcoreinfo_search.bootstrap(header.release))
    except Exception as error:
        raise InputError(f"{path}: {_cannot_open(error)}") from None
    ranges = dump_header.saved_ranges(header) or [(0, header.pages_end or 1 << 46)]
    if header.segments:
        # A segment's bytes beyond the end of the file cannot be searched.
        whole = os.path.getsize(path) or 1 << 56  # a block device says 0
        ranges = [
            (s.physical, s.physical + min(s.size, s.file_size, whole))
            for s in header.segments
            if s.file_size and s.physical < 1 << 56
        ]
    # The dump level says what was left out; the lowest bit are pages of zeros.
    scattered = header.format != dump_header.ELF and (header.level is None or header.level > 1)
    rejected: list[VmcoreInfo] = []
    for info in vmcoreinfo_search.candidates(searched, ranges, scattered, image, header.release):
        try:
            prog = opened(info.text)
        except Exception:
            rejected.append(info)
            continue
        if vmcoreinfo_search.stands_in_memory(prog, info):
            return prog
        rejected.append(info)
    likely = "not a Linux kernel's dump"
    if _is_netdump(path):
        likely = "netdump's, of a kernel that had none yet (crash reads it)"
    raise InputError(f"{path}: {vmcoreinfo_search.not_found(rejected, likely)}")


def _is_netdump(path: str) -> bool:
    """Whether a dump has the notes that netdump writes (its server's elf_core_dump): also the crashed task's."""
    try:
        with open_file(path) as file:
            return any(
                (note.owner, note.type) == ("CORE", _NT_TASKSTRUCT) for note in notes_in(*note_bytes(path, file))
            )
    except (InputError, OSError, struct.error):
        return False


# -- the surroundings --------------------------------------------------------------------------------------------------


def _given_vmcoreinfo(path: str | None) -> str | None:
    """The text of a VMCOREINFO file; InputError if it cannot be that."""
    if path is None:
        return None
    with open_file(path) as file:
        data = file.read(MAX_BYTES + 1)
    text = data.split(b"\0", 1)[0].decode("utf-8", "replace")
    info = VmcoreInfo(text)
    missing = [
        what
        for what, there in (
            ("OSRELEASE", info.release),
            ("PAGESIZE", info.page_size),
            ("SYMBOL(swapper_pg_dir)", info.symbols.get("swapper_pg_dir")),
        )
        if not there
    ]
    if missing or len(data) > MAX_BYTES:
        what = f"no {missing[0]} in it" if missing else "it is too long"
        raise InputError(f"{path}: not the text of VMCOREINFO: {what}")
    return text if text.endswith("\n") else text + "\n"  # drgn reads whole lines
