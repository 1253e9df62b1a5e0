"""Code in the modules' area that is no module's, in a guest that has some of each kind, against its own kallsyms.

The guest is given a BPF program, kprobes (by ftrace, by breakpoint, optimised), and the function tracer; one module is
unloaded. Then it is dumped.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.kept_guests import kept_guest
from support.open_dumps import open_dump

from kplug import model
from kplug.commands.mod import MOD
from kplug.outputs import Table
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.executable_allocations import executable_allocations, probes
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.session import session_of
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import VM, GroundTruth

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

_PSEUDO_MODULES = ("bpf", "__builtin__ftrace", "__builtin__kprobes")
_BASE = 0x400000


def _bpf_loader() -> bytes:
    """A static x86_64 program that loads a BPF program ("return 0") and stays: else the kernel would unload it."""
    call, number = b"\x0f\x05", struct.Struct("<I")
    stay = b"\xb8" + number.pack(34) + call + b"\xeb\xf7"  # mov eax, __NR_pause; syscall; again
    leave = b"\xf7\xd8\x89\xc7\xb8" + number.pack(60) + call  # exit(-eax)

    def code(attributes: int) -> bytes:
        arguments = b"\xbf" + number.pack(5) + b"\xbe" + number.pack(attributes) + b"\xba" + number.pack(64)
        # bpf(BPF_PROG_LOAD, attributes, 64); a negative result goes to `leave`.
        return b"\xb8" + number.pack(321) + arguments + call + b"\x85\xc0\x78" + bytes([len(stay)]) + stay + leave

    headers = 64 + 56
    attributes = headers + len(code(0)) + 7 & -8
    instructions, licence = attributes + 64, attributes + 64 + 16
    # union bpf_attr: BPF_PROG_TYPE_SOCKET_FILTER, 2 instructions, the licence, no log, no flags, a name.
    attr = struct.pack("<IIQQIIQII16s", 1, 2, _BASE + instructions, _BASE + licence, 0, 0, 0, 0, 0, b"kplug")
    program = struct.pack("<Bbhi", 0xB7, 0, 0, 0) + struct.pack("<Bbhi", 0x95, 0, 0, 0)  # r0 = 0; exit
    body = code(_BASE + attributes).ljust(attributes - headers, b"\0") + attr + program + b"GPL\0"
    size = headers + len(body)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, 4096) + body


class Busy(NamedTuple):
    session: Session
    kernel: Kernel
    truth: GroundTruth
    kprobes: str  # debugfs' list


def _make_busy(vm: VM, truth: Path) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in _bpf_loader())
    vm.run(f"printf '{octal}' >/tmp/bpf; chmod +x /tmp/bpf; /tmp/bpf >/dev/null 2>&1 &")
    vm.run("until grep -q '_kplug.*bpf' /proc/kallsyms; do sleep 0.1; done")
    vm.run("mkdir /t; mount -t tracefs t /t; mount -t debugfs d /sys/kernel/debug; rmmod dummy")
    vm.run("echo 'p:one do_sys_openat2' >/t/kprobe_events")
    # After the call of the tracer, which is no place for a probe; without and with an endbr64 before it.
    vm.run("cd /t; echo 'p:two do_sys_openat2+5' >>kprobe_events || echo 'p:two do_sys_openat2+9' >>kprobe_events")
    # The tracer's trampoline is the same for some functions as for all 50,000, which would slow the guest down.
    vm.run("cd /t; echo 'vfs_*' >set_ftrace_filter; echo 1 >events/kprobes/enable")
    vm.run("cd /t; echo function >current_tracer")
    vm.truth(truth)
    (truth / "kprobes").write_text(vm.run("cat /sys/kernel/debug/kprobes/list"))


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12"])
def busy(request: pytest.FixtureRequest) -> Busy:
    dumps = kept_guest("executable-allocations", request.param, _make_busy)
    session = session_of(open_dump(dumps))
    return Busy(session, session.target.kernel, dumps.truth, dumps.truth.text("kprobes"))  # type: ignore[union-attr]


def test_all_of_it_is_found_and_nothing_else(busy: Busy) -> None:
    told = {(s.name, s.address, s.module) for s in busy.truth.symbols if s.module in _PSEUDO_MODULES}
    assert {owner for _, _, owner in told} == set(_PSEUDO_MODULES)
    found = executable_allocations(busy.kernel)
    assert {(code.name, code.start, code.owner) for code in found.codes} == told
    assert found.problems == []


def test_each_address_of_it_is_answered(busy: Busy) -> None:
    for code in executable_allocations(busy.kernel).codes:
        for address in (code.start, code.start + 1, code.end - 1):
            annotation = busy.session.resolver.where(address)
            owner, symbol = annotation.first(model.MODULE), annotation.first(model.SYMBOL)
            assert owner is not None
            assert symbol is not None
            assert (owner.name, symbol.name) == (code.owner, code.name)
            assert annotation.region_class == model.TEXT
            assert annotation.first(model.GAP) is None
        after = busy.session.resolver.where(code.end).last(model.GAP)
        assert after is None or after.start == code.end


def test_what_each_is(busy: Busy) -> None:
    words = {code.what for code in executable_allocations(busy.kernel).codes}
    assert words == {
        "BPF program",
        "kprobe instruction slots",
        "ftrace trampoline that calls function_trace_call",
        "ftrace trampoline that calls kprobe_ftrace_handler",
    }


def test_a_kprobe_slot_names_its_probe(busy: Busy) -> None:
    """Probes by ftrace need no copy of an instruction; the others have one each."""
    truth = {int(line.split()[0], 16) for line in busy.kprobes.splitlines() if "[FTRACE]" not in line}
    start = busy.truth.address("do_sys_openat2")
    slots = {slot: where for slot, where in probes(busy.kernel).items() if slot}
    assert set(slots.values()) == {f"do_sys_openat2+{address - start:#x}" for address in truth}
    assert truth
    for slot, where in slots.items():
        layer = busy.session.resolver.where(slot + 1).last(model.SYMBOL)
        assert layer is not None
        assert (layer.name, layer.start, layer.details["probe"]) == ("kprobe_insn_slot", slot, where)


def test_modules_stay_modules(busy: Busy) -> None:
    for name, (base, _) in busy.truth.modules.items():
        layer = busy.session.resolver.where(base).first(model.MODULE)
        assert layer is not None
        assert layer.name == name


def test_the_unloaded_module_is_remembered(busy: Busy) -> None:
    assert [gone.name for gone in modules_of(busy.kernel).unloaded] == ["dummy"]
    highest = max(symbol.address for symbol in busy.truth.symbols)
    gap = busy.session.resolver.where(highest + (1 << 24)).last(model.GAP)
    assert gap is not None
    assert re.search(r"; unloaded: dummy$", gap.details["why"])
    tables = [o for o in MOD.run(busy.session, MOD.parser("kmod").parse_args([])) if isinstance(o, Table)]
    assert [row["name"] for row in tables[-1].rows] == ["dummy"]
    assert tables[-1].schema == "kplug.unloaded_modules/1"
