"""kplug in a drgn script: `from kplug.drgn import where`, on real dumps. Truth: the guests' own kallsyms, and drgn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import drgn
import pytest
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.pid import find_task
from support.drgn_dump import load_debug_info, open_program
from vmimages import DumpSet

from kplug.drgn import Answer, KplugError, bulk, session, where, where_all
from kplug.errors import ExpressionError, UsageError

pytestmark = pytest.mark.kernel


@pytest.fixture
def default(prog: drgn.Program) -> Iterator[drgn.Program]:
    """The dump as drgn's default Program, which it is at drgn's prompt and in `drgn SCRIPT`."""
    drgn.set_default_prog(prog)
    yield prog
    drgn.set_default_prog(None)


def symbol_of(answer: Answer) -> str:
    layer = answer.last("symbol")
    assert layer is not None, answer
    return layer.name


# -- what can be asked about -------------------------------------------------------------------------------------------


def test_a_number(prog: drgn.Program, dumped: DumpSet) -> None:
    schedule = dumped.truth.address("schedule")
    answer = where(prog, schedule + 4)
    assert (answer.address, symbol_of(answer), answer.region_class) == (schedule + 4, "schedule", "text")


def test_every_symbol_of_the_guests_own_list(prog: drgn.Program, dumped: DumpSet) -> None:
    of_image = [symbol for symbol in dumped.truth.symbols if symbol.module is None and symbol.address > 1 << 63]
    named: dict[int, set[str]] = {}
    for symbol in of_image:
        named.setdefault(symbol.address, set()).add(symbol.name)
    wrong = []
    for symbol in of_image[::97]:
        found = where(prog, symbol.address).last("symbol")
        if found is None or named[symbol.address].isdisjoint({found.name, *(found.details["aliases"] or ())}):
            wrong.append((symbol.name, found))
    assert not wrong


def test_an_object_in_memory_is_asked_about_where_it_is(prog: drgn.Program, dumped: DumpSet) -> None:
    assert where(prog["init_task"]).address == dumped.truth.address("init_task")
    assert where(prog["schedule"]).address == dumped.truth.address("schedule")
    comm = where(prog["init_task"].comm)
    assert (comm.address, symbol_of(comm)) == (prog["init_task"].comm.address_, "init_task")


def test_a_pointer_or_number_is_asked_about_by_its_value(prog: drgn.Program) -> None:
    operations = where(prog["init_task"].sched_class)
    assert (operations.address, symbol_of(operations)) == (prog["init_task"].sched_class.value_(), "idle_sched_class")
    assert where(drgn.Object(prog, "unsigned long", prog["init_task"].address_)).brief == where(prog["init_task"]).brief


def test_a_symbol_of_drgns(prog: drgn.Program) -> None:
    assert where(prog, prog.symbol("jiffies_64")).address == prog.symbol("jiffies_64").address


def test_a_cpus_instance(prog: drgn.Program) -> None:
    instance = per_cpu_ptr(prog["runqueues"].address_of_(), 1)
    for answer in (where(instance), where(prog, "runqueues@1")):
        percpu = answer.first("percpu")
        assert percpu is not None
        assert (answer.address, percpu.details["variable"], percpu.details["cpu"]) == (
            instance.value_(),
            "runqueues",
            1,
        )


def test_an_expression(prog: drgn.Program, dumped: DumpSet) -> None:
    answer = where(prog, "schedule+0x10")
    assert (answer.input, answer.address) == ("schedule+0x10", dumped.truth.address("schedule") + 0x10)


def test_an_expression_for_several_places(prog: drgn.Program) -> None:
    with pytest.raises(ExpressionError, match=r"runqueues@\* stands for 2 addresses \(0x.*\): use where_all\(\)"):
        where(prog, "runqueues@*")
    pointer = prog["runqueues"].address_of_()
    assert [each.address for each in where_all(prog, "runqueues@*")] == [
        per_cpu_ptr(pointer, cpu).value_() for cpu in (0, 1)
    ]


def test_what_is_no_address(prog: drgn.Program) -> None:
    with pytest.raises(ExpressionError, match="no_such_thing"):
        where(prog, "no_such_thing")
    with pytest.raises(ExpressionError, match="is in no memory, so it has no address"):
        where(prog["init_task"].comm.read_())
    with pytest.raises(ExpressionError, match="not an address"):
        where(prog, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ExpressionError, match="more than 64 bits"):
        where(prog, 1 << 64)


def test_python_is_not_evaluated(prog: drgn.Program) -> None:
    # At drgn's prompt a person types Python; a script's strings may come from a log.
    with pytest.raises(KplugError):
        where(prog, "__import__('os').getpid()")


# -- which program -----------------------------------------------------------------------------------------------------


def test_the_program_may_be_left_out(default: drgn.Program) -> None:
    assert where(default["schedule"].address_).brief == where("schedule").brief == where(default, "schedule").brief
    assert bulk([default["schedule"].address_]).symbol == ["schedule"]
    assert session() is session(default)


def test_no_kernel() -> None:
    with pytest.raises(UsageError, match="no kernel is open"):
        where(drgn.Program(), 0)
    process = drgn.Program()
    process.set_pid(os.getpid())
    with pytest.raises(UsageError, match="this program is not a Linux kernel"):
        where(process, 0)


def test_before_and_after_debug_information(dumped: DumpSet) -> None:
    prog = open_program(dumped)
    schedule = dumped.truth.address("schedule")
    first = where(prog, schedule)
    assert first.last("symbol") is None
    assert first.layers[0].name.startswith("kernel image mapping")
    load_debug_info(prog, dumped)
    assert symbol_of(where(prog, schedule)) == "schedule"
    assert session(prog) is session(prog)


# -- the answer's forms ------------------------------------------------------------------------------------------------


def test_forms(prog: drgn.Program, dumped: DumpSet) -> None:
    answer = where(prog, "init_task")
    lines = str(answer).splitlines()
    assert lines[0] == answer.brief
    assert lines[0].split()[:3] == [f"{dumped.truth.address('init_task'):#x}", "init_task+0x0", ".data"]
    assert len(lines) > len(answer.layers)
    command = [sys.executable, "-m", "kplug", "where", "--json", "init_task"]
    command += ["-c", str(dumped.paths["elf"]), "-s", str(dumped.files.vmlinux)]
    assert json.loads(answer.json) == json.loads(subprocess.check_output(command, text=True))


def test_bulk(prog: drgn.Program, dumped: DumpSet) -> None:
    # What follows the first frames may be in the program itself, where the unwinder goes astray.
    frames = [frame.pc for frame in prog.stack_trace(find_task(prog, 1))][:4]
    columns = bulk(prog, iter(frames))
    assert columns.symbol == [symbol_of(where(prog, pc)) for pc in frames]
    assert bulk(prog, [0x7FFF00000000]).image == [None]
