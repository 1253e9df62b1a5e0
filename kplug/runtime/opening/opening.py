"""Opening what a user names, with drgn: a vmcore, the running kernel, a QEMU guest."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import drgn

from kplug.errors import InputError, MismatchError, TargetError
from kplug.files.opening import open_file
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.comparison import checked, compare, symbols_of
from kplug.image.opening.files import open_vmlinux
from kplug.image.opening.kernel_files import open_kernel as open_image
from kplug.image.opening.sources import Joined
from kplug.memory import dump_header
from kplug.memory.dump_header import DumpHeader, read_header
from kplug.memory.kallsyms_image import image_from_memory, symbols_in_memory
from kplug.memory.kaslr_offset import Checker
from kplug.memory.kernel_note import slide_of
from kplug.memory.reading import UnmappedError
from kplug.memory.vmcoreinfo import MAX_BYTES, VmcoreInfo
from kplug.progress import waiting
from kplug.runtime.kernel.platform import machine_of, platform_of
from kplug.runtime.opening import vmcoreinfo_search as note_search
from kplug.runtime.opening.qmp import Guest, ask, connection_for_drgn
from kplug.runtime.threads.cpu_registers import CpuRegisters, MonitorRegisters, NoteRegisters

# drgn imports its plug-ins when the first target is set. Its own add commands to its prompt, and take longer to
# import than a dump to open. Those of others, which may find debug information, are loaded.
_UNNEEDED_PLUGINS = "builtin_commands,crash_commands"
PLUGIN_SWITCH = "DRGN_DISABLE_PLUGINS"
# Makes drgn look through the page tables itself, where libkdumpfile would.
_PAGE_TABLE_SWITCH = "DRGN_PREFER_PGTABLE_READER"
_PAGE_BYTES = 4096
# A list of symbols is believed to be of a kernel if so many that VMCOREINFO tells are where it says: kernels tell 15.
_LEAST_SYMBOLS = 6
# drgn says it of every flattened file; reading one is as fast as reading another once it is open.
_NOISE = ("makedumpfile flattened format",)


@dataclass(frozen=True)
class Request:
    """What to open, as the user gave it.

    `core` is a vmcore (or /proc/kcore), `qemu` a QMP socket; with neither it is the running kernel. `symbols` are files
    with debug information (vmlinux first, if one is given), `module_directories` folders that hold modules', and
    `vmcoreinfo` a file with the text of VMCOREINFO. `joined` is what the user has in place of a vmlinux, or besides it:
    the kernel out of a vmlinuz, or one whose symbols are those of a System.map.
    """

    core: str | None = None
    qemu: str | None = None
    symbols: tuple[str, ...] = ()
    module_directories: tuple[str, ...] = ()
    vmcoreinfo: str | None = None
    joined: Joined | None = None


@dataclass(frozen=True)
class Opened:
    """A Program that stands on a kernel. `vmlinux` is the file with its symbols, `image` what is in it, or what was
    made of the kallsyms in memory; None if there is none.

    `has_dwarf` says whether drgn has its debug information, `disputed` what another source says of single symbols.
    `description` names the target for the user, `vmcoreinfo` is its note, `how` says what the dump did not state
    and where it was found; `warnings` go with every answer. `header` is that of a vmcore, `cpus` has registers of the
    CPUs that drgn does not give.
    """

    prog: drgn.Program
    description: str
    live: bool
    vmlinux: str | None
    vmcoreinfo: VmcoreInfo
    how: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    module_directories: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    image: KernelImage | None = None
    header: DumpHeader | None = None
    cpus: CpuRegisters | None = None
    has_dwarf: bool = True
    disputed: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Target:
    """A kernel that drgn has open, before its debug information is sought."""

    name: str
    prog: drgn.Program
    description: str
    how: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    header: DumpHeader | None = None
    cpus: CpuRegisters | None = None


def open_kernel(request: Request) -> Opened:
    """Open it, with its debug information. InputError, worded for the user, if that cannot be."""
    given = _given_vmcoreinfo(request.vmcoreinfo)
    image = open_image(request.symbols[0]) if request.symbols else None
    if request.joined is not None:
        image = request.joined.image
    with heard() as messages, switched(PLUGIN_SWITCH, _UNNEEDED_PLUGINS):
        if request.core is not None:
            target = _open_core(request.core, given, image)
        elif request.qemu is not None:
            target = _open_guest(request.qemu, given, image)
        else:
            target = _open_running(given)
        prog = target.prog
        info = VmcoreInfo(prog["VMCOREINFO"].string_().decode("utf-8", "replace"))
        _set_directories(prog, request.module_directories)
        if request.joined is not None:
            target.how.extend(request.joined.used)
        image, has_dwarf = _load_vmlinux(target, info, image)
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
        cpus=target.cpus
        or (NoteRegisters(target.header.path, target.header.machine) if target.header is not None else None),
        has_dwarf=has_dwarf,
        disputed=request.joined.disputed if request.joined is not None else {},
    )


# -- vmcores -----------------------------------------------------------------------------------------------------------


def _open_core(path: str, given: str | None, image: KernelImage | None) -> _Target:
    header = read_header(path)
    if header.machine == dump_header.NO_MACHINE:
        raise InputError(
            f"{path}: a compressed dump of QEMU's that does not say its machine, as of arm64: drgn's library cannot "
            "read these; dump as ELF (dump-guest-memory without -z)"
        )
    machine = header.machine or (image.machine if image is not None else None)
    if image is not None and image.machine and header.machine is not None and image.machine != header.machine:
        raise MismatchError(f"{image.path} is for {image.machine}, but {path} is a dump of {header.machine}")

    def opened(vmcoreinfo: str | None) -> drgn.Program:
        # An ELF file says all that drgn wants to know; of the other formats drgn asks a library that may not know.
        platform = platform_of(machine or "") if header.format != dump_header.ELF else None
        prog = drgn.Program(platform, vmcoreinfo=vmcoreinfo)
        if not header.cut:
            prog.set_core_dump(path)
            return prog
        with switched(_PAGE_TABLE_SWITCH, "1"):
            prog.set_core_dump(path)
        _leave_out_cut_pages(prog, header)
        return prog

    if header.cut:
        _check_in_a_child(path, lambda: opened(given))

    how: list[str] = []
    prog = None
    if given is not None or header.has_vmcoreinfo is not False:
        try:
            prog = opened(given)
        except Exception as error:  # drgn raises bare Exception for what its libraries reject
            if given is not None or not _is_about_vmcoreinfo(error):
                raise InputError(f"{path}: {_cannot_open(error)}") from None
    if prog is None or not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        prog = _with_found_note(path, opened, header, image)
        how.append("VMCOREINFO: not in the dump's notes; found in its memory")
    elif given is not None:
        how.append("VMCOREINFO: as given (--vmcoreinfo)")
    _leave_out_user_half(prog, header)
    target = _Target(path, prog, f"vmcore {path}", how, header=header)
    if any(segment.file_size < segment.size for segment in header.segments):
        how.append("memory: pages that makedumpfile left out read as zeros; its ELF files do not say which those are")
    if header.missing:
        target.warnings.append(f"{path} is truncated: bytes missing at its end: {header.missing}")
    elif header.incomplete:
        target.warnings.append(f"{path} is incomplete: its disk was full when it was written")
    return target


def _leave_out_cut_pages(prog: drgn.Program, header: DumpHeader) -> None:
    """Keep libkdumpfile from the pages that are half in the file: it dies of them. For that drgn must look through the
    page tables itself, and it is told that these pages cannot be read.
    """

    def cut(address: int, size: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("the dump is truncated in this page", address)

    for address in header.cut:
        prog.add_memory_segment(address, _PAGE_BYTES, cut, True)


def _check_in_a_child(path: str, opened: Callable[[], drgn.Program]) -> None:
    """Open a broken dump in another process first. What libkdumpfile reads for itself cannot be kept from it."""
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
        raise InputError(f"{path}: truncated or broken: what is needed to read any of it is not all there")


def _leave_out_user_half(prog: drgn.Program, header: DumpHeader) -> None:
    """QEMU and makedumpfile write 0, or the physical address, for a segment's virtual one where they know none; drgn
    takes that for memory at NULL and above. The lower half of these machines is user space: the kernel has nothing
    there.
    """
    if header.machine not in ("x86_64", "aarch64", "riscv64") or all(s.virtual >> 63 for s in header.segments):
        return

    def unmapped(address: int, size: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("address is not mapped", address)

    prog.add_memory_segment(0, 1 << 63, unmapped, False)


def _cannot_open(error: Exception) -> str:
    """Why drgn or its libraries do not take a dump, as a person who has the file would say it."""
    text = _words(error)
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
        searched = opened(note_search.bootstrap(header.release))
    except Exception as error:
        raise InputError(f"{path}: {_cannot_open(error)}") from None
    ranges = dump_header.saved_ranges(header) or [(0, header.pages_end or 1 << 46)]
    if header.segments:
        # What a segment claims beyond the bytes that the file can have of it is not there to be searched.
        whole = os.path.getsize(path) or 1 << 56  # a block device says 0
        ranges = [
            (s.physical, s.physical + min(s.size, s.file_size, whole))
            for s in header.segments
            if s.file_size and s.physical < 1 << 56
        ]
    # The dump level says what was left out; the lowest bit are pages of zeros.
    scattered = header.format != dump_header.ELF and (header.level is None or header.level > 1)
    rejected: list[VmcoreInfo] = []
    for info in _candidates(searched, ranges, scattered, image, header.release):
        try:
            prog = opened(info.text)
        except Exception:
            rejected.append(info)
            continue
        if note_search.stands_in_memory(prog, info):
            return prog
        rejected.append(info)
    raise InputError(f"{path}: {_not_found(rejected)}")


def _candidates(
    prog: drgn.Program,
    ranges: Sequence[tuple[int, int]],
    scattered: bool,
    image: KernelImage | None,
    release: str | None,
) -> Iterator[VmcoreInfo]:
    """What may be the kernel's VMCOREINFO, in the order to try. Without a vmlinux to compare, the first found is it."""
    build_id = image.build_id if image is not None else None
    later: list[VmcoreInfo] = []
    for info in note_search.find_notes(prog, ranges, scattered=scattered):
        if build_id is None or info.build_id == build_id:
            yield info
        else:
            later.append(info)
    yield from note_search.best_first(later, build_id, release)


def _not_found(rejected: Sequence[VmcoreInfo], likely: str = "not a Linux kernel's dump") -> str:
    if not rejected:
        return f"no VMCOREINFO in it, nor in its memory: {likely}, or give it with --vmcoreinfo FILE"
    releases = ", ".join(dict.fromkeys(str(info.release) for info in rejected))
    return (
        f"no VMCOREINFO in it; that of {releases} is in its memory, but no such kernel stands where it says: "
        "give it with --vmcoreinfo FILE"
    )


# -- the running kernel, and guests ------------------------------------------------------------------------------------


def _open_running(given: str | None) -> _Target:
    prog = drgn.Program(vmcoreinfo=given)
    try:
        prog.set_kernel()
    except PermissionError:
        raise InputError("/proc/kcore: only root may read the running kernel's memory (sudo kplug)") from None
    except Exception as error:
        raise InputError(f"the running kernel: {_words(error)}") from None
    return _Target("/proc/kcore", prog, "the running kernel")


def _open_guest(address: str, given: str | None, image: KernelImage | None) -> _Target:
    guest = ask(address)
    if image is not None and image.machine and guest.machine is not None and image.machine != guest.machine:
        raise MismatchError(f"{image.path} is for {image.machine}, but the guest at {address} is {guest.machine}")
    target = _Target(address, drgn.Program(vmcoreinfo=given), f"QEMU guest {address}")
    try:
        connection = connection_for_drgn(address)
        target.cpus = MonitorRegisters(connection)
        target.prog.set_qemu_qmp(connection)
        if given is not None:
            # drgn 0.3 takes the text, but sets up page tables only for one that it got from QEMU.
            target.prog.set_linux_kernel_custom(given, is_live=True)
            target.how.append("VMCOREINFO: as given (--vmcoreinfo)")
        elif not target.prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
            target.prog = _guest_with_found_note(target, guest, image)
            target.how.append("VMCOREINFO: the guest did not give it to QEMU (-device vmcoreinfo); found in its memory")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{address}: {_words(error)}") from None
    return target


def _guest_with_found_note(target: _Target, guest: Guest, image: KernelImage | None) -> drgn.Program:
    """The guest's Program with the VMCOREINFO that was found in the guest's memory."""
    rejected: list[VmcoreInfo] = []
    for info in _candidates(target.prog, guest.ranges, False, image, None):
        # A kernel that does not stand where it should leaves the Program as it is: it can be set only once.
        if _stands_in(target.prog, info):
            target.prog.set_linux_kernel_custom(info.text, is_live=True)
            return target.prog
        rejected.append(info)
    raise InputError(f"{target.name}: {_not_found(rejected, 'no Linux kernel has booted there')}")


def _stands_in(guest: drgn.Program, info: VmcoreInfo) -> bool:
    """`note_search.stands_in_memory`, asked of a Program of its own that reads the guest's memory through `guest`."""
    prog = drgn.Program(guest.platform)

    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        return bytes(guest.read(address, size, True))

    prog.add_memory_segment(0, (1 << 64) - 1, read, True)
    try:
        prog.set_linux_kernel_custom(info.text, is_live=True)
    except Exception:
        return False
    return note_search.stands_in_memory(prog, info)


# -- debug information -------------------------------------------------------------------------------------------------


def _load_vmlinux(target: _Target, info: VmcoreInfo, image: KernelImage | None) -> tuple[KernelImage | None, bool]:
    """Give drgn the vmlinux: the one that was given, if it is right, or the one that drgn finds. Without any, the image
    is made of the kallsyms in memory. Returns it, and whether drgn has the kernel's DWARF.
    """
    prog = target.prog
    # The first of a kernel's modules is the kernel; the others are not read before somebody wants them.
    main = next(iter(prog.loaded_modules()))[0]
    if image is not None:
        _check(target, info, image, main.build_id.hex() if main.build_id else None)
        if not main.build_id and image.build_id:
            main.build_id = bytes.fromhex(image.build_id)
        # A System.map is no file of drgn's, nor is a boot image: there is no DWARF in either.
        paths = (image.path, image.symbols_path) if image.on_disk and image.elf.sections else ()
        for path in dict.fromkeys(paths):
            if path == image.path or main.wants_debug_file():
                try_file(main, path)
    if main.wants_debug_file():
        # By build ID, beside the installed kernels, and from debuginfod, which may take its time.
        try:
            waiting("looking for the kernel's debug information", lambda: prog.load_module_debug_info(main))
        except drgn.MissingDebugInfoError:
            pass
        except Exception as error:
            target.warnings.append(f"looking for the kernel's debug information: {_words(error)}")
    has_dwarf = not main.wants_debug_file()
    if image is not None:
        return image, has_dwarf
    found = main.debug_file_path or main.loaded_file_path
    if found is not None:
        return open_vmlinux(found), has_dwarf
    return _image_from_memory(target, info), has_dwarf


def _image_from_memory(target: _Target, info: VmcoreInfo) -> KernelImage | None:
    """What stands for the vmlinux that was not found; None, and a warning, where memory does not tell its symbols."""
    machine, image = machine_of(target.prog), None
    if machine:
        image = image_from_memory(_reader(target.prog), info, machine, target.name)
    if image is not None:
        target.how.append(f"no vmlinux: symbols from {image.symbols.source}")
        return image
    wanted = f" (build ID {info.build_id})" if info.build_id else ""
    target.warnings.append(f"no vmlinux found for {info.release}{wanted}: give one with -s FILE")
    return None


def try_file(main: drgn.Module, path: str) -> None:
    """Let drgn use a file that was found to be right."""
    try:
        # drgn asks of the file no more than its DWARF; one without it still has symbols.
        main.loaded_file_status = drgn.ModuleFileStatus.WANT
        main.try_file(path, force=True)
        if main.loaded_file_status == drgn.ModuleFileStatus.WANT:
            main.loaded_file_status = drgn.ModuleFileStatus.DONT_NEED
    except Exception as error:
        raise InputError(f"{path}: drgn cannot use it: {_words(error)}") from None


def _check(target: _Target, info: VmcoreInfo, image: KernelImage, build_id: str | None) -> None:
    """MismatchError unless the image is the target's kernel. `build_id` is that which the target states, if it does."""
    if build_id is not None and image.build_id == build_id:
        return
    # VMCOREINFO has no build ID before 5.9, and a wrong one in some releases: then memory has the last word.
    try:
        if Checker(image).matches(_reader(target.prog), slide_of(info, image)):
            return
    except MismatchError:
        if build_id is None:
            raise  # it has what memory says
    except InputError:
        if image.listed is not None and _symbols_agree(target, info, image):
            return
        if build_id is None and image.release in (None, info.release):
            target.warnings.append(
                f"{image.path}: has neither linux_banner nor a build ID: not checked to be the right one"
            )
            return
    if build_id is None and image.release == info.release and not _banner_is_there(target.prog, info, image):
        target.warnings.append(f"{image.path}: not checked to be the right build: the kernel's banner cannot be read")
        return
    ours = _kernel_words(image.release, image.build_id)
    theirs = _kernel_words(info.release, build_id)
    raise MismatchError(f"{image.path} is {ours}, but the target runs {theirs}: give the vmlinux of that kernel")


def _banner_is_there(prog: drgn.Program, info: VmcoreInfo, image: KernelImage) -> bool:
    """Whether there is memory where the image's banner should be."""
    for symbol in image.symbols.exact("linux_banner"):
        try:
            prog.read(symbol.address + slide_of(info, image) & (1 << 64) - 1, 16)
        except (drgn.FaultError, ValueError, OverflowError):
            return False
        return True
    return False


def _symbols_agree(target: _Target, info: VmcoreInfo, image: KernelImage) -> bool:
    """Whether a list of symbols, which has neither build ID nor banner, is of the target's kernel: by the kallsyms in
    its memory, or else by the addresses that VMCOREINFO tells.
    """
    memory = symbols_in_memory(_reader(target.prog), info, image.machine or machine_of(target.prog))
    if memory is not None:
        found = checked(compare(symbols_of(image), memory), image.path, target.name)
        return found.slide == slide_of(info, image) & (1 << 64) - 1
    slide, told = slide_of(info, image), 0
    for name, address in info.symbols.items():
        symbols = image.symbols.exact(name)
        if len(symbols) == 1:
            if symbols[0].address + slide & (1 << 64) - 1 != address:
                return False
            told += 1
    return told >= _LEAST_SYMBOLS


def _kernel_words(release: str | None, build_id: str | None) -> str:
    return (release or "a kernel without a banner") + (f" (build ID {build_id})" if build_id else "")


def _reader(prog: drgn.Program) -> Callable[[int, int], bytes]:
    def read(address: int, size: int) -> bytes:
        try:
            return bytes(prog.read(address, size))
        except (drgn.FaultError, ValueError, OverflowError) as error:
            raise UnmappedError(_words(error)) from None
        except Exception as error:
            raise TargetError(_words(error)) from None

    return read


def _set_directories(prog: drgn.Program, directories: Sequence[str]) -> None:
    """Let drgn look for modules, and for files by build ID, in the user's folders before its own."""
    for directory in directories:
        if not os.path.isdir(directory):
            raise InputError(f"--module-dir {directory}: no such directory")
    if directories:
        options = prog.debug_info_options
        absolute = tuple(os.path.abspath(directory) for directory in directories)
        options.directories = (*absolute, *options.directories)
        options.kernel_directories = (*absolute, *options.kernel_directories)


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


def _words(error: BaseException) -> str:
    """What a library said, on one line; the file's name is said elsewhere."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class _Listener(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if not any(noise in text for noise in _NOISE) and text not in self._messages:
            self._messages.append(text)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What drgn logs inside is put into the list, without what says nothing, instead of on standard error."""
    messages: list[str] = []
    logger, listener = logging.getLogger("drgn"), _Listener(messages)
    propagate = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate


@contextmanager
def switched(name: str, value: str) -> Iterator[None]:
    """One of drgn's switches, set inside, unless the user has set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
