"""What a machine has for answers about its running kernel, what is missing, and how to get that."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence

from kplug.errors import InputError
from kplug.live.distribution import Remedies, remedies
from kplug.live.kernel import LiveKernel, open_live, shown_listing
from kplug.live.machine import Machine
from kplug.named_tuples import NamedTuple

THERE, MISSING, UNREADABLE, OTHER_KERNEL, ZEROS, UNUSABLE = (
    *("there", "missing", "not readable", "of another kernel", "zeros", "not usable"),
)
# include/uapi/linux/capability.h
_CAP_SYSLOG = 34


class SurveyRow(NamedTuple):
    """One thing that was looked for. `group` is kernel, privilege, source or tool; `state` one of the words above;
    `found` a path or its content; `gives` what it is used for; `remedy` how to get it, if it is missing."""

    group: str
    what: str
    state: str
    found: str | None
    gives: str
    remedy: str | None


class Survey(NamedTuple):
    """All findings, and the kernel that answers are made from."""

    findings: Sequence[SurveyRow]
    live: LiveKernel

    @property
    def answers(self) -> bool:
        """Whether kwhere can give symbols for the running kernel."""
        try:
            return self.live.main is not None and bool(self.live.main.image.symbols)
        except InputError:
            return False


def survey(machine: Machine) -> Survey:
    """Look for everything. Raises nothing for what is missing or broken."""
    how = remedies(machine)
    live = open_live(machine)
    findings = [
        *_kernel(machine, how),
        *_privileges(machine),
        *_files(machine, how, live),
        *_kallsyms(machine),
        *_proc_and_sys(machine),
        *_modules(machine, how),
        *_tools(),
    ]
    return Survey(findings, live)


def _kernel(machine: Machine, how: Remedies) -> Iterator[SurveyRow]:
    release = machine.release
    yield SurveyRow("kernel", "release", THERE if release else MISSING, release, "names of files and packages", None)
    own = how.distribution if how.is_its_kernel else f"{how.distribution}, but this is not its kernel"
    yield SurveyRow("kernel", "distribution", THERE, own, "the packages that are named below", None)
    notes, state = "/sys/kernel/notes", _access(machine, "/sys/kernel/notes")
    found = f"{notes}: {machine.build_id}" if machine.build_id else None
    if state == THERE and found is None:
        state = UNUSABLE
    remedy = None if found else "mount sysfs; a kernel linked without a build ID has none"
    yield SurveyRow("kernel", "build ID", state, found, "which files are this kernel's", remedy)


def _privileges(machine: Machine) -> Iterator[SurveyRow]:
    is_root = os.geteuid() == 0
    remedy = None if is_root else "sudo kplug doctor"
    yield SurveyRow(
        "privilege",
        "root",
        THERE if is_root else MISSING,
        f"user {os.geteuid()}",
        "memory, modules' sections, iomem",
        remedy,
    )
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", machine.text("/proc/self/status") or "", re.MULTILINE)
    syslog = bool(match and int(match.group(1), 16) >> _CAP_SYSLOG & 1)
    remedy = None if syslog else "as root, or with setcap cap_syslog+ep"
    held = "effective" if syslog else None
    yield SurveyRow(
        "privilege", "CAP_SYSLOG", THERE if syslog else MISSING, held, "addresses in /proc/kallsyms", remedy
    )
    restrict = (machine.text("/proc/sys/kernel/kptr_restrict") or "").strip()
    if restrict:
        # kallsyms_show_value() in kernel/kallsyms.c: at 0, everybody who may profile the kernel sees addresses.
        paranoid = _number(machine.text("/proc/sys/kernel/perf_event_paranoid"))
        profiles = paranoid is not None and paranoid <= 1
        what, remedy = f"kernel.kptr_restrict={restrict}", "sysctl kernel.kptr_restrict=0, or 1 for root"
        hides = restrict == "2" or (restrict == "1" and not syslog)
        if restrict == "0" and not syslog and not profiles:
            hides, remedy = True, f"as root, or sysctl kernel.perf_event_paranoid=1 (it is {paranoid})"
            if paranoid is None:
                remedy = "as root"
        state = ZEROS if hides else THERE
        yield SurveyRow("privilege", "kptr_restrict", state, what, "addresses are shown", remedy if hides else None)
    lockdown = re.search(r"\[(\w+)\]", machine.text("/sys/kernel/security/lockdown") or "")
    mode = lockdown.group(1) if lockdown else "none"
    locked = mode == "confidentiality"
    remedy = "lockdown=integrity or none on the kernel's command line" if locked else None
    yield SurveyRow("privilege", "lockdown", UNREADABLE if locked else THERE, mode, "memory can be read", remedy)


def _number(text: str | None) -> int | None:
    match = re.fullmatch(r"\s*(-?[0-9]{1,9})\s*", text or "")
    return int(match.group(1)) if match else None


# -- files -------------------------------------------------------------------------------------------------------------


def _files(machine: Machine, how: Remedies, live: LiveKernel) -> Iterator[SurveyRow]:
    gives = "symbols with sizes, sections, segments, regions; with DWARF source lines and types"
    yield _file("vmlinux", machine.vmlinux_files, gives, how.debug_command, live)
    gives = "symbols, sections, segments, regions"
    yield _file("boot image", machine.boot_images, gives, how.image_command, live)
    yield _system_map(machine, how)
    gives = "how the kernel was configured"
    config = next(iter(machine.configs), None) or _if_file(machine, "/proc/config.gz")
    remedy = None if config else how.image_command
    yield SurveyRow("source", "config", THERE if config else MISSING, config, gives, remedy)
    gives = "types without DWARF"
    yield _plain(machine, "BTF", "/sys/kernel/btf/vmlinux", gives, "a kernel with CONFIG_DEBUG_INFO_BTF")
    gives = "memory: what pages, slabs and stacks hold"
    remedy = "a kernel with CONFIG_PROC_KCORE"
    yield _plain(machine, "kcore", "/proc/kcore", gives, remedy)


def _file(what: str, paths: Sequence[str], gives: str, command: str, live: LiveKernel) -> SurveyRow:
    """A file of the kernel, at the first of its paths that exists; or why that one is not used."""
    if not paths:
        return SurveyRow("source", what, MISSING, None, gives, command)
    path = next((path for path in paths if not any(path in why for why in live.unused)), None)
    if path is not None:
        state = THERE if os.access(path, os.R_OK) else UNREADABLE
        return SurveyRow("source", what, state, path, gives, None if state == THERE else "as root: sudo kplug")
    path = paths[0]
    if not os.access(path, os.R_OK):
        return SurveyRow("source", what, UNREADABLE, path, gives, "as root: sudo kplug")
    why = next(why for why in live.unused if path in why)
    state = OTHER_KERNEL if "another kernel" in why or "different kernels" in why else UNUSABLE
    return SurveyRow("source", what, state, why, gives, command)


def _system_map(machine: Machine, how: Remedies) -> SurveyRow:
    from kplug.image.symbols.listings import stub_package

    gives, stub = "all symbols, by link address", None
    for path in machine.system_maps:
        try:
            with open(path, "rb") as file:
                package = stub_package(file.read(1 << 10))
        except OSError:
            return SurveyRow("source", "System.map", UNREADABLE, path, gives, "as root: sudo kplug")
        if package is None:
            return SurveyRow("source", "System.map", THERE, path, gives, None)
        stub = SurveyRow("source", "System.map", UNUSABLE, f"{path} is a stub", gives, f"apt install {package[1]}")
    return stub or SurveyRow("source", "System.map", MISSING, None, gives, how.debug_command)


def _plain(machine: Machine, what: str, path: str, gives: str, remedy: str) -> SurveyRow:
    state = _access(machine, path)
    path = machine.path(path)
    if state == UNREADABLE:
        remedy = "as root: sudo kplug"
    return SurveyRow(
        "source", what, state, None if state == MISSING else path, gives, None if state == THERE else remedy
    )


def _if_file(machine: Machine, path: str) -> str | None:
    return machine.path(path) if os.path.isfile(machine.path(path)) else None


def _access(machine: Machine, path: str) -> str:
    if not os.path.exists(machine.path(path)):
        return MISSING
    return THERE if os.access(machine.path(path), os.R_OK) else UNREADABLE


# -- what the kernel shows ---------------------------------------------------------------------------------------------


def _kallsyms(machine: Machine) -> Iterator[SurveyRow]:
    gives, path = "symbols of the kernel and its modules where they run", machine.path("/proc/kallsyms")
    if machine.kallsyms is None:
        state = _access(machine, "/proc/kallsyms")
        remedy = "a kernel with CONFIG_KALLSYMS" if state == MISSING else "as root: sudo kplug"
        if state == THERE:  # not text with symbols
            state, remedy = UNUSABLE, "mount procfs at /proc"
        yield SurveyRow("source", "kallsyms", state, None, gives, remedy)
        return
    listing = shown_listing(machine)
    if listing is None:
        remedy = "as root, with sysctl kernel.kptr_restrict below 2"
        yield SurveyRow("source", "kallsyms", ZEROS, path, gives, remedy)
        return
    try:
        symbols = listing.kernel
        modules = len(listing.modules)
    except InputError as error:
        yield SurveyRow("source", "kallsyms", UNUSABLE, str(error), gives, None)
        return
    data = any(letter in symbols.letters for letter in b"drb")
    kind = "code and data" if data else "code only (no CONFIG_KALLSYMS_ALL)"
    found = f"{path}: {len(symbols):,} symbols, {kind}; {_of_others(modules)}"
    yield SurveyRow("source", "kallsyms", THERE, found, gives, None)


def _of_others(count: int) -> str:
    """How many modules there are symbols of; generated code counts as one."""
    if not count:
        return "no modules"
    return f"{count} module{'s' if count > 1 else ''} or other code"


def _proc_and_sys(machine: Machine) -> Iterator[SurveyRow]:
    gives = "bounds of rodata, data and bss that kallsyms may lack"
    state = _access(machine, "/proc/iomem")
    if state == THERE and not machine.resources:
        state = ZEROS
    remedy = None if state == THERE else "as root: sudo kplug"
    yield SurveyRow("source", "iomem", state, machine.path("/proc/iomem"), gives, remedy)


def _modules(machine: Machine, how: Remedies) -> Iterator[SurveyRow]:
    path = machine.path("/proc/modules")
    gives = "which modules are loaded"
    state = _access(machine, "/proc/modules")
    if state == MISSING:
        yield SurveyRow("source", "modules", state, None, gives, "nothing: this kernel has no loadable modules")
        return
    loaded = machine.modules
    yield SurveyRow("source", "modules", state, f"{path}: {len(loaded)} loaded", gives, None)
    if not loaded:
        return
    sections = machine.module_sections(loaded[0].name)
    state, remedy = (THERE, None) if sections else (UNREADABLE, "as root: sudo kplug")
    found = machine.path("/sys/module/*/sections")
    yield SurveyRow("source", "modules' sections", state, found, "where each section of a module is", remedy)
    folder = machine.path(f"/lib/modules/{machine.release}")
    state = THERE if os.path.isdir(folder) else MISSING
    gives, remedy = "modules' symbols with sizes", None if state == THERE else how.image_command
    yield SurveyRow("source", "modules' files", state, folder if state == THERE else None, gives, remedy)


# -- tools -------------------------------------------------------------------------------------------------------------


def _tools() -> Iterator[SurveyRow]:
    yield _python_module("drgn", "drgn", "vmcores, guests, running memory, source lines")
    yield _python_module("prompt_toolkit", "prompt_toolkit", "the prompt with completion")
    yield _program("gdb", "kwhere in gdb: `kplug gdb-script` names what to source", "install the package gdb")
    yield _program("debuginfod-find", "debug information over the network", "install the package debuginfod")
    urls = os.environ.get("DEBUGINFOD_URLS", "").strip()
    remedy = None if urls else "export DEBUGINFOD_URLS=... with your distribution's debuginfod server"
    yield SurveyRow(
        "tool", "DEBUGINFOD_URLS", THERE if urls else MISSING, urls or None, "debug information by ID", remedy
    )
    yield from _decompressors()


def _python_module(what: str, module: str, gives: str) -> SurveyRow:
    from importlib import metadata, util

    try:
        version: str | None = metadata.version(what)
    except metadata.PackageNotFoundError:
        version = None
    there = version is not None or util.find_spec(module) is not None
    found = f"{version or 'of unknown version'}, Python {sys.version_info[0]}.{sys.version_info[1]}" if there else None
    return SurveyRow("tool", what, THERE if there else MISSING, found, gives, None if there else f"pip install {what}")


def _program(name: str, gives: str, remedy: str) -> SurveyRow:
    path = shutil.which(name)
    return SurveyRow("tool", name, THERE if path else MISSING, path, gives, None if path else remedy)


def _decompressors() -> Iterator[SurveyRow]:
    """Decoders for the formats that are not Python's own: tried with data that is truncated after the magic."""
    from kplug.files.bounded_output import UnpackError
    from kplug.files.compression import FORMATS, decompress

    for name, form in FORMATS.items():
        if not form.remedy:
            continue
        try:
            decompress(name, form.magic, 1 << 10)
            absent = False
        except UnpackError as error:
            absent = form.remedy in str(error)
        remedy = form.remedy if absent else None
        found = None if absent else "installed"
        yield SurveyRow("tool", name, MISSING if absent else THERE, found, f"boot images packed with {name}", remedy)
