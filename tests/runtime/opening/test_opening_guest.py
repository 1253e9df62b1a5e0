"""A QEMU guest over QMP: one that hands over VMCOREINFO, one that does not, and one that goes away.

Truth: the guest's own /proc/kallsyms, through its console.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kplug.errors import InputError, MismatchError, TargetError
from kplug.runtime.finders import types_source
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.qmp import ask
from kplug.runtime.opening.request import Opened, Request
from kplug.runtime.session import kernel_of

if TYPE_CHECKING:
    from vmimages import VM

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

NAME = "amd64-6.1"


@pytest.fixture(scope="module")
def guest() -> Iterator[VM]:
    """A guest with VMCOREINFO in QEMU's hands."""
    from vmimages import boot

    with boot(NAME, quiet=True) as machine:
        yield machine


@pytest.fixture(scope="module")
def silent_guest() -> Iterator[VM]:
    """A guest of a QEMU without the vmcoreinfo device."""
    from vmimages import boot, options

    whole = options.command

    def without_device(*words: Any) -> list[str]:
        command = whole(*words)
        at = command.index("vmcoreinfo")
        return command[: at - 1] + command[at + 1 :]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "command", without_device)
        machine = boot(NAME, quiet=True)
    with machine:
        yield machine


@pytest.fixture(autouse=True)
def _connections_end() -> Iterator[None]:
    """A monitor serves one client at a time: what a test opened is closed before the next one."""
    yield
    gc.collect()


def opened(machine: VM, *, vmlinux: bool = True) -> Opened:
    symbols = (str(machine.files.vmlinux),) if vmlinux else ()
    return open_kernel(Request(qemu=str(machine.qmp_socket), symbols=symbols))


@cache
def symbol(machine: VM, name: str) -> int:
    """Asked once: an emulated guest takes a second to look through its kallsyms."""
    return int(machine.run(f"grep ' {name}$' /proc/kallsyms").split()[0], 16)


def reads(kernel: Kernel, schedule: int) -> None:
    """The kernel is where the guest says, and its memory can be read, with types and without."""
    assert kernel.symbol("schedule") == schedule
    assert kernel.image is not None
    banner = kernel.image.image.banner
    address = kernel.symbol("linux_banner")
    assert banner is not None
    assert address is not None
    assert kernel.read(address, len(banner)) == banner
    assert kernel.prog["init_task"].comm.string_() == b"swapper/0"


class TestGuest:
    @pytest.mark.parametrize("stopped", [False, True], ids=["runs", "stopped"])
    def test_it_hands_over_vmcoreinfo(self, guest: VM, stopped: bool) -> None:
        schedule = symbol(guest, "schedule")
        if stopped:
            guest.stop()
        try:
            found = opened(guest)
            assert found.how == ()
            assert found.warnings == ()
            assert found.live
            reads(kernel_of(found), schedule)
        finally:
            guest.cont()

    @pytest.mark.parametrize("stopped", [False, True], ids=["runs", "stopped"])
    @pytest.mark.parametrize("vmlinux", [True, False], ids=["vmlinux", "no vmlinux"])
    def test_vmcoreinfo_is_found_in_memory(self, silent_guest: VM, stopped: bool, vmlinux: bool) -> None:
        schedule, start = symbol(silent_guest, "schedule"), symbol(silent_guest, "_stext")
        if stopped:
            silent_guest.stop()
        try:
            found = opened(silent_guest, vmlinux=vmlinux)
            told = found.how if vmlinux else found.how[:-1]  # the last says where the symbols are from
            assert told == ("VMCOREINFO: the guest did not give it to QEMU (-device vmcoreinfo); found in its memory",)
            assert found.vmcoreinfo.symbols["_stext"] == start
            reads(kernel_of(found), schedule)
            assert types_source(kernel_of(found)) == ("DWARF" if vmlinux else "BTF in memory")
        finally:
            silent_guest.cont()

    def test_vmcoreinfo_given_by_hand(self, silent_guest: VM, tmp_path: Path) -> None:
        schedule = symbol(silent_guest, "schedule")
        note = tmp_path / "note"
        note.write_text(opened(silent_guest, vmlinux=False).vmcoreinfo.text)
        gc.collect()
        request = Request(
            qemu=str(silent_guest.qmp_socket), symbols=(str(silent_guest.files.vmlinux),), vmcoreinfo=str(note)
        )
        reads(kernel_of(open_kernel(request)), schedule)

    def test_dumps_without_the_note(self, silent_guest: VM, tmp_path: Path) -> None:
        """QEMU's own formats: by physical address, and compressed, with the hole below 4 GiB in it."""
        start = symbol(silent_guest, "_stext")
        for format in ("elf", "kdump-zlib"):
            silent_guest.qmp.dump(tmp_path / format, format)
            found = open_kernel(Request(str(tmp_path / format), symbols=(str(silent_guest.files.vmlinux),)))
            assert found.vmcoreinfo.symbols["_stext"] == start
            (tmp_path / format).unlink()

    def test_another_kernels_vmlinux(self, guest: VM) -> None:
        from vmimages import fetch

        wrong = str(fetch("amd64-6.12", quiet=True).vmlinux)
        with pytest.raises(MismatchError, match=rf"\(build ID .*but the target runs .*{guest.files.build_id}"):
            open_kernel(Request(qemu=str(guest.qmp_socket), symbols=(wrong,)))

    def test_a_monitor_that_another_client_holds(self, guest: VM, monkeypatch: pytest.MonkeyPatch) -> None:
        first = opened(guest, vmlinux=False)
        monkeypatch.setattr("kplug.runtime.opening.qmp.CONNECT_SECONDS", 0.5)
        with pytest.raises(InputError, match=r"another client holds it$"):
            ask(str(guest.qmp_socket))
        assert first.prog

    def test_it_goes_away(self) -> None:
        from vmimages import boot

        with boot(NAME, quiet=True) as machine:
            kernel = kernel_of(opened(machine))
            address = kernel.symbol("linux_banner")
            assert address is not None
            assert kernel.read(address, 5) == b"Linux"
        questions: tuple[Callable[[], object], ...] = (
            lambda: kernel.read(address, 8),
            lambda: kernel.read_physical(0x100000, 8),
        )
        for question in questions:
            with pytest.raises(TargetError) as raised:
                question()
            assert re.fullmatch(
                r"(physical )?memory at 0x[0-9a-f]+ cannot be read: the guest has gone away", str(raised.value)
            )
