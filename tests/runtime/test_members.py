"""`ADDRESS as TYPE` on a real kernel: by DWARF and by BTF alike, in the objects that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import drgn
import pytest
from drgn.helpers.linux.pid import find_task
from support.answers import only

import kplug
from kplug.memory.btf import btf_layouts
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.type_layouts import ProgramLayouts
from kplug.type_layouts import at_offset

if TYPE_CHECKING:
    from vmimages import DumpSet

    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


@pytest.fixture(scope="module")
def session(dumps: DumpSet) -> Session:
    return kplug.open(core=str(dumps.paths["elf"]), vmlinux=str(dumps.files.vmlinux))


def program(session: Session) -> drgn.Program:
    assert isinstance(session.target, DrgnTarget)
    return session.target.kernel.prog


def member(session: Session, expression: str) -> tuple[str, str, str, int | None, tuple[str, ...]]:
    (answer,) = session.where(expression)
    layer = only(answer, "member")
    details = layer.details
    return details["member"], details["base"], details["member_type"], layer.offset(answer.address), answer.warnings


def test_in_the_objects_that_are_there(session: Session) -> None:
    prog = program(session)
    task = find_task(prog, 1)
    for path, type_ in (("pid", "pid_t"), ("se.load.weight", "unsigned long"), ("comm", None)):
        place = task
        for name in path.split("."):
            place = place.member_(name)
        address = place.address_ if place.address_ is not None else 0
        found = member(session, f"{address + 1:#x} as struct task_struct")
        if type_ is None:
            assert found == ("comm[1]", hex(task.value_()), "char", 0, ())
        else:
            assert found == (path, hex(task.value_()), type_, 1, ())
    mm = task.mm
    pgd = mm.pgd.address_
    assert pgd is not None
    assert member(session, f"{pgd + 4:#x} as struct mm_struct") == ("pgd", hex(mm.value_()), "pgd_t *", 4, ())
    offset = drgn.offsetof(prog.type("struct task_struct"), "pid")
    assert member(session, f"{offset:#x} as task_struct") == ("pid", "0x0", "pid_t", 0, ())
    assert member(session, f"init_task+{offset:#x} as struct task_struct")[0] == "pid"
    runqueue = next(iter(session.where("runqueues@1"))).address
    assert member(session, "runqueues@1 as struct rq")[1] == hex(runqueue)


def test_btf_and_dwarf_agree(session: Session) -> None:
    assert isinstance(session.target, DrgnTarget)
    dwarf, main = ProgramLayouts(session.target.kernel), session.main
    assert main is not None
    types = btf_layouts(main, None)
    assert types is not None
    for name in ("task_struct", "page", "tcphdr", "sk_buff", "kmem_cache"):
        one, other = dwarf.named("struct", name), types.named("struct", name)
        assert one is not None
        assert other is not None
        assert (one.name, one.size) == (other.name, other.size)
        size = one.size or 0
        for offset in range(0, size, max(1, size // 32) | 1):
            assert at_offset(one, offset) == at_offset(other, offset), (name, hex(offset))
