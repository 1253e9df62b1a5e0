"""Opening what a user names, with drgn: a vmcore, the running kernel, a QEMU guest."""

from __future__ import annotations

from dataclasses import dataclass, field

import drgn

from kplug.errors import InputError
from kplug.runtime.vmcoreinfo import VmcoreInfo


@dataclass(frozen=True)
class Request:
    """What to open, as the user gave it.

    `core` is a vmcore (or /proc/kcore), `qemu` a QMP socket; with neither it is the running kernel. `symbols` are files
    with debug information (vmlinux first, if one is given), `module_directories` folders that hold modules', and
    `vmcoreinfo` a file with the text of VMCOREINFO.
    """

    core: str | None = None
    qemu: str | None = None
    symbols: tuple[str, ...] = ()
    module_directories: tuple[str, ...] = ()
    vmcoreinfo: str | None = None


@dataclass(frozen=True)
class Opened:
    """A Program that stands on a kernel. `vmlinux` is the file with its symbols, None if there is none.

    `description` names the target for the user, `vmcoreinfo` is its note, `how` says what the dump did not state
    and where it was found; `warnings` go with every answer.
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


def open_kernel(request: Request) -> Opened:
    """Open it, with its debug information. InputError, worded for the user, if that cannot be."""
    prog = drgn.Program()
    try:
        if request.core is not None:
            prog.set_core_dump(request.core)
            description, live = f"vmcore {request.core}", False
        elif request.qemu is not None:
            prog.set_qemu_qmp(request.qemu)
            description, live = f"QEMU guest {request.qemu}", True
        else:
            prog.set_kernel()
            description, live = "the running kernel", True
        prog.load_debug_info(request.symbols, main=True)
    except drgn.MissingDebugInfoError:
        pass
    except Exception as error:  # drgn raises bare Exception for what its libraries reject
        raise InputError(f"{request.core or request.qemu or '/proc/kcore'}: {error}") from None
    vmlinux = prog.main_module().debug_file_path
    text = prog["VMCOREINFO"].string_().decode("utf-8", "replace")
    return Opened(prog, description, live, vmlinux, VmcoreInfo(text))
