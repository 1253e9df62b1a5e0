"""The running kernel and QEMU guests as a Program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import drgn

from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.errors import InputError, MismatchError
from kplug.image.kernel_image import KernelImage
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.opening import vmcoreinfo_search
from kplug.runtime.opening.drgn_calls import error_words
from kplug.runtime.opening.request import OpenTarget
from kplug.runtime.opening.walked import walk_for_drgn

if TYPE_CHECKING:
    from kplug.runtime.opening.qmp import Guest


def open_running(given: str | None) -> OpenTarget:
    """The kernel of this machine, through /proc/kcore."""
    prog = drgn.Program(vmcoreinfo=given)
    try:
        prog.set_kernel()
    except PermissionError:
        raise InputError("/proc/kcore: only root may read the running kernel's memory (sudo kplug)") from None
    except Exception as error:
        raise InputError(f"the running kernel: {error_words(error)}") from None
    return OpenTarget("/proc/kcore", prog, "the running kernel")


def open_guest(address: str, given: str | None, image: KernelImage | None) -> OpenTarget:
    """A guest, through QEMU's monitor."""
    # What a vmcore does without is not imported for it.
    from kplug.runtime.opening.qmp import ask, connection_for_drgn
    from kplug.runtime.threads.monitor_registers import MonitorRegisters

    guest = ask(address)
    if image is not None and image.machine and guest.machine is not None and image.machine != guest.machine:
        raise MismatchError(f"{image.path} is for {image.machine}, but the guest at {address} is {guest.machine}")
    prog, how = drgn.Program(vmcoreinfo=given), []
    try:
        connection = connection_for_drgn(address)
        prog.set_qemu_qmp(connection)
        if given is not None:
            # drgn 0.3 takes the text, but only sets up page tables for one that it got from QEMU.
            prog.set_linux_kernel_custom(given, is_live=True)
            how.append("VMCOREINFO: as given (--vmcoreinfo)")
        elif not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
            _give_found_note(prog, address, guest, image)
            how.append("VMCOREINFO: the guest did not give it to QEMU (-device vmcoreinfo); found in its memory")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{address}: {error_words(error)}") from None
    walk_for_drgn(prog, (start for start, _ in guest.ranges), still=False)
    return OpenTarget(address, prog, f"QEMU guest {address}", how, cpus=MonitorRegisters(connection))


def _give_found_note(prog: drgn.Program, name: str, guest: Guest, image: KernelImage | None) -> None:
    """Give the guest's Program the VMCOREINFO that is found in the guest's memory."""
    rejected: list[VmcoreInfo] = []
    for info in vmcoreinfo_search.candidates(prog, guest.ranges, False, image, None):
        # If the kernel is not where it should be, the Program is left as it is: it can be set only once.
        if _stands_in(prog, info, (start for start, _ in guest.ranges)):
            prog.set_linux_kernel_custom(info.text, is_live=True)
            return
        rejected.append(info)
    raise InputError(f"{name}: {vmcoreinfo_search.not_found(rejected, 'no Linux kernel has booted there')}")


def _stands_in(guest: drgn.Program, info: VmcoreInfo, starts: Iterable[int]) -> bool:
    """`vmcoreinfo_search.stands_in_memory`, asked of a Program of its own that reads memory through `guest`."""
    prog = drgn.Program(guest.platform)

    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        return bytes(guest.read(address, size, True))

    prog.add_memory_segment(0, BEYOND_ADDRESSES - 1, read, True)
    try:
        prog.set_linux_kernel_custom(info.text, is_live=True)
    except Exception:
        return False
    walk_for_drgn(prog, starts, still=False)
    return vmcoreinfo_search.stands_in_memory(prog, info)
