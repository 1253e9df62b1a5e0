"""kmod, and modules at the shell. Truth: the guest's own /proc/modules, /sys/module and kallsyms."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from support.open_dumps import session_in

from kplug import model
from kplug.commands.mod import MOD
from kplug.errors import UsageError
from kplug.outputs import NamedFacts, Output, Problem, Table
from kplug.session import Session
from kplug.shell.cli import main

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def session(dumps: DumpSet) -> Session:
    return session_in(dumps, modules=True)


def _kmod(session: Session, *words: str) -> list[Output]:
    return list(MOD.run(session, MOD.parser("kmod").parse_args(words)))


def test_the_table_is_lsmod_s(session: Session, dumps: DumpSet) -> None:
    (table,) = _kmod(session)
    assert isinstance(table, Table)
    told = [line.split() for line in dumps.truth.text("modules").splitlines()]
    rows = [[row["name"], int(row["size"]), row["refcount"], row["used_by"]] for row in table.rows]
    assert rows == [[m[0], int(m[1]), int(m[2]), [name for name in m[3].strip("-,").split(",") if name]] for m in told]
    assert {row["symbols_from"] for row in table.rows} == {"debug file"}
    assert all(str(row["path"]).endswith(f"/{row['name']}.ko") for row in table.rows)


def test_one_module(session: Session, dumps: DumpSet) -> None:
    facts, memory, sections = _kmod(session, "drop-monitor")
    assert isinstance(facts, NamedFacts)
    assert isinstance(memory, Table)
    assert isinstance(sections, Table)
    assert facts.facts["name"] == "drop_monitor"
    assert facts.facts["build_id"] == dumps.truth.module_build_ids["drop_monitor"]
    assert {row["type"] for row in memory.rows} == {"text", "rodata", "ro_after_init", "data", "percpu"}
    assert sum(row["size"] for row in memory.rows if row["type"] != "percpu") == dumps.truth.modules["drop_monitor"][1]
    truth = dumps.truth.module_sections["drop_monitor"]
    listed = {row["name"]: int(row["start"]) for row in sections.rows}
    per_cpu = {s.name: s.address for s in dumps.truth.symbols if s.module == "drop_monitor" and s.address >> 63 == 0}
    assert listed.pop(".data..percpu") == min(per_cpu.values())
    assert listed == {
        name: start for name, start in truth.items() if not name.startswith((".init", ".symtab", ".strtab"))
    }


def test_the_module_of_an_address(session: Session, dumps: DumpSet) -> None:
    base, _ = dumps.truth.modules["loop"]
    for word in (hex(base + 0x123), "lo_release+4"):
        facts, *_ = _kmod(session, word)
        assert isinstance(facts, NamedFacts)
        assert facts.facts["name"] == "loop"


def test_what_is_no_module(session: Session) -> None:
    outputs = _kmod(session, "nosuch", "0xffffffffc0000000", "schedule")
    assert all(isinstance(output, Problem) for output in outputs)
    first, second, third = (output.message for output in outputs if isinstance(output, Problem))
    assert first == "nosuch: no module of that name is loaded, and it is not an address"
    assert second == "0xffffffffc0000000: no module has 0xffffffffc0000000 in its memory"
    assert third.startswith("schedule: no module has 0x")


def test_without_memory_it_says_what_is_missing() -> None:
    """In gdb without drgn, and with files alone."""
    with pytest.raises(UsageError) as caught:
        _kmod(Session([]))
    message = str(caught.value)
    assert "kplug mod -c VMCORE, or --qemu QMP" in message
    assert "pip install" not in message  # it is installed
    assert ("sudo kplug" in message) == os.path.exists("/proc/kcore")
    assert "\n" not in message


def test_at_the_shell(dumps: DumpSet, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = ["-c", str(dumps.paths["elf"]), "-s", str(dumps.files.vmlinux)]
    assert main(["mod", *kernel, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(dumps.truth.modules)
    assert {row["schema"] for row in rows} == {"kplug.modules/1"}
    assert {row["symbols_from"] for row in rows} == {"kallsyms in memory"}
    assert all(part["start"].startswith("0xffffffffc0") for row in rows for part in row["memory"])


def test_the_answer_for_an_address_names_the_module(session: Session, dumps: DumpSet) -> None:
    (annotation,) = session.where("lo_release+4")
    layer = annotation.first(model.MODULE)
    assert layer is not None
    assert layer.name == "loop"
    assert {key: layer.details[key] for key in ("state", "memory", "taints", "build_id", "symbols_from")} == {
        "state": "live",
        "memory": "text",
        "taints": None,
        "build_id": dumps.truth.module_build_ids["loop"],
        "symbols_from": "debug file",
    }
    assert annotation.region_class == model.TEXT
