"""A vmlinux alone, modules beside it, files that change: no target. Truth: nm and readelf of the same files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.boot_image_builder import without_sections
from support.gdb_expected import addresses_command, check_symbols, layer, names_command, nm, sample, sections
from support.gdbhelp import run

from kplug.image.boot.boot_image import open_boot_image

if TYPE_CHECKING:
    from vmimages import KernelFiles

pytestmark = pytest.mark.kernel


def test_symbols_as_linked(bare_61: Path, tmp_path: Path) -> None:
    symbols = sample(nm(bare_61), 150)
    by_address, by_name = addresses_command(symbols), names_command(symbols)
    session = run(["set kplug lines off", by_address, by_name, "kaslr", "set kplug slide 0x1000000",
                   "kwhere --json schedule"], tmp_path, vmlinux=bare_61)  # fmt: skip
    (answer,) = session["kwhere --json schedule"].json
    assert answer["warnings"] == []  # the user's word, and no memory to check it by
    assert int(answer["link_address"], 16) == int(answer["address"], 16) - 0x1000000
    check_symbols(session[by_address].json, symbols, 0)
    check_symbols(session[by_name].json, symbols, 0)
    for answer in session[by_address].json:
        known = {name for name, value in answer["state"].items() if value is not None}
        assert known <= {"freed"}
    assert re.search(r"^how +as linked; there is no target$", session["kaslr"].text, re.MULTILINE)


def test_segments_alone(kernel_61: KernelFiles, bare_61: Path, tmp_path: Path) -> None:
    """A vmlinux without section headers is known by its banner, and has its own kallsyms."""
    path = tmp_path / "vmlinux"
    path.write_bytes(without_sections(open_boot_image(str(kernel_61.vmlinuz)).payload))
    session = run(["set kplug lines off", "kwhere --json schedule"], tmp_path, vmlinux=path)
    (answer,) = session["kwhere --json schedule"].json
    (address,) = {symbol.address for symbol in nm(bare_61) if symbol.name == "schedule"}
    assert int(answer["address"], 16) == address


def test_other_kernels(kernel_612: KernelFiles, kernel_arm64: KernelFiles, tmp_path: Path) -> None:
    for files in (kernel_612, kernel_arm64):
        symbols = sample(nm(files.vmlinux), 50)
        command = addresses_command(symbols)
        # gdb may not know the machine; then the file is named to kplug alone.
        session = run([f"set kplug vmlinux {files.vmlinux}", command], tmp_path)
        check_symbols(session[command].json, symbols, 0)


def test_a_module_without_a_place(kernel_61: KernelFiles, bare_61: Path, tmp_path: Path) -> None:
    """A pasted line says what is where in the module, and not where the module was: its file in the tree tells."""
    module = tmp_path / "kernel" / "loop.ko"
    module.parent.mkdir()
    shutil.copy(next(kernel_61.debug_modules.rglob("loop.ko")), module)
    shutil.copy(bare_61, tmp_path / "vmlinux")
    (answer,) = run(["kwhere --json lo_ioctl+0x9/0x81f [loop]"], tmp_path, vmlinux=tmp_path / "vmlinux")[
        "kwhere --json lo_ioctl+0x9/0x81f [loop]"
    ].json
    (start,) = {symbol.address for symbol in nm(module) if symbol.name == "lo_ioctl"}
    assert answer["address"] is None
    assert (layer(answer, "section")["name"], layer(answer, "section")["offset"]) == (".text", hex(start + 9))


def test_a_file_for_kplug_alone(kernel_61: KernelFiles, tmp_path: Path) -> None:
    """Without a file of its own and a target, gdb's machine is an i386; the kernel's is the vmlinux's."""
    path, text = next(kernel_61.debug_modules.rglob("loop.ko")), 0xFFFFFFFFC0400000
    (schedule,) = [symbol.address for symbol in nm(kernel_61.vmlinux) if symbol.name == "schedule"]
    by_value, by_variable = f"p $ksection({schedule:#x})", "kwhere -b $place + 8"
    session = run(
        ["show architecture", f"set kplug vmlinux {kernel_61.vmlinux}", f"add-symbol-file {path} {text:#x}",
         f"set $place = {schedule:#x}", by_value, by_variable, f"kwhere --json {text + 0x10:#x}"],
        tmp_path,
    )  # fmt: skip
    assert "i386" in session["show architecture"].text
    assert session[by_value].text.endswith('= ".text"\n')
    assert "schedule+0x8" in session[by_variable].text
    (answer,) = session[f"kwhere --json {text + 0x10:#x}"].json
    assert layer(answer, "module")["name"] == "loop"


def test_tables(kernel_61: KernelFiles, tmp_path: Path) -> None:
    session = run(["ksections --json", "ksegments --json", "kregions --json", "ksections"], tmp_path,
                  vmlinux=kernel_61.vmlinux)  # fmt: skip
    found = {row["name"]: row for row in session["ksections --json"].json}
    for name, (_, size) in sections(kernel_61.vmlinux).items():
        assert name in found, name
        assert int(str(found[name]["size"]), 0) == size, name
    assert len(session["ksegments --json"].json) == 5
    assert "sched.text" in {row["name"] for row in session["kregions --json"].json}
    assert ".init.text" in session["ksections"].text


def test_expressions(kernel_61: KernelFiles, tmp_path: Path) -> None:
    commands = [
        "kwhere --brief schedule + 4",
        "kwhere --brief (unsigned long)&init_task",
        "kwhere --brief &init_task.comm",
        "kwhere --brief init_task.comm",
        "kwhere --brief 'core.c'::schedule_timeout",
        "kwhere --brief (char *)0xffffffff81000000 + 0x10",
        "kwhere --brief schedule no_such_name init_task",
        "kwhere --brief no_such_name",
        "kwhere --brief *init_task",
        "kwhere --brief 1.5",
        "kwhere 0x1ffffffffffffffff",
        "kwhere --no-such-option",
        "kwhere -h",
        "kwhere",
        "kwhere $pc",
        'kwhere "',
        "kwhere --brief inode.c:init_once",
    ]
    session = run(commands, tmp_path, vmlinux=kernel_61.vmlinux)
    linked = {symbol.name: symbol.address for symbol in nm(kernel_61.vmlinux)}
    assert session[commands[0]].text.split()[:2] == [f"{linked['schedule'] + 4:#x}", "schedule+0x4"]
    assert session[commands[1]].text.startswith(f"{linked['init_task']:#x}  init_task+0x0")
    assert session[commands[2]].text == session[commands[3]].text
    assert re.match(rf"{linked['init_task'] >> 16:x}".join(("0x", ".*init_task\\+0x")), session[commands[2]].text)
    assert session[commands[4]].text.startswith(f"{linked['schedule_timeout']:#x}  schedule_timeout+0x0")
    assert "0xffffffff81000010" in session[commands[5]].text
    assert "1 of the above could not be answered" in session[commands[6]].complaint
    for command in commands[7:13]:
        assert "usage" in session[command].text if command.endswith("-h") else session[command].complaint
    assert "is not closed" in session['kwhere "'].complaint
    assert "init_once+0x0" in session["kwhere --brief inode.c:init_once"].text
    complaint = session["kwhere 0x1ffffffffffffffff"].complaint
    assert "64 bits" in complaint or "too large" in complaint
    assert "no address given" in session["kwhere"].complaint
    assert "$pc" in session["kwhere $pc"].complaint


def test_words(bare_61: Path, tmp_path: Path) -> None:
    """Whether a line of several words is one expression, and whose complaint is shown."""
    linked = {symbol.name: symbol.address for symbol in nm(bare_61)}
    commands = [
        "kwhere --brief ? schedule+0x4/0xc7",
        "kwhere --brief schedule init_task",
        "kwhere ? schedule+0x4/0xc7 [ext4]",
        "kwhere (no_such_name + 4)",
        "kwhere (unsigned long) no_such_name",
        "kwhere inode.c:no_such_name",
        "kwhere [<ffffffff81000000>] [ffffffff81000000]",
        "kwhere --brief finish_task_switch+0x10/0x2c5",
        "kwhere --brief > [   12.345678][    C0] RIP: 0010:schedule+0x4/0xc7",
    ]
    session = run(commands, tmp_path, vmlinux=bare_61)
    in_table = "finish_task_switch.isra.0"
    assert session[commands[7]].text.startswith(f"{linked[in_table] + 16:#x}  {in_table}+0x10")
    assert session[commands[0]].text.startswith(f"{linked['schedule'] + 4:#x}  schedule+0x4")
    assert session[commands[8]].text == session[commands[0]].text
    assert len(session[commands[1]].text.splitlines()) == 2
    assert "module ext4" in session[commands[2]].complaint
    assert "(no_such_name + 4)" in session[commands[3]].complaint + session.stderr
    assert "could not be answered" not in session[commands[3]].complaint
    assert "no_such_name" in session[commands[4]].complaint
    assert "no such symbol" in session[commands[5]].complaint
    assert session[commands[6]].text.count("_text") >= 2


def test_a_name_that_nobody_knows_is_kplugs_to_refuse_and_an_expression_gdbs(
    kernel_61: KernelFiles, tmp_path: Path
) -> None:
    """Without a file gdb would ask for its `file` command, which is not what is missing."""
    commands = [f"set kplug vmlinuz {kernel_61.vmlinuz}", "kwhere nosuch", "kwhere &nosuch+0x10", "kwhere (long)nosuch",
                "kwhere nosuch+0x10/0x20"]  # fmt: skip
    session = run(commands, tmp_path)
    assert session[commands[1]].complaint == "nosuch: no such symbol or section"
    assert session[commands[2]].complaint == "&nosuch+0x10: no such symbol or section"
    assert session[commands[3]].complaint.startswith("(long)nosuch: No symbol")
    assert session[commands[4]].complaint == "nosuch+0x10/0x20: no such symbol or section"


def test_values(kernel_61: KernelFiles, tmp_path: Path) -> None:
    commands = [
        'printf "%s|%s|%s|%s\\n", $kwhere(&schedule), $ksection(schedule), $kregion(schedule), $kclass(schedule)',
        'printf "%s %s %s\\n", $kclass(&init_task), $kclass(linux_banner), $kclass(0xffffffff00000000)',
        'p $_streq($kclass(&schedule), "text")',
        "p $kclass()",
        "p $kclass(init_task)",
        "p $ksection(-1)",
        "help function",
    ]
    session = run(commands, tmp_path, vmlinux=kernel_61.vmlinux)
    assert session[commands[0]].text == "schedule+0x0 .text [text > sched.text]|.text|sched.text|text\n"
    assert session[commands[1]].text == "data rodata none\n"
    assert session[commands[2]].text.endswith("= 1\n")
    assert "one address" in session[commands[3]].complaint
    assert "not an address" in session[commands[4]].complaint
    assert session[commands[5]].text.endswith('= ""\n')
    for name in ("kwhere", "ksection", "kregion", "kclass"):
        assert f"function {name} -- " in session["help function"].text


def addr2line(path: Path, addresses: list[int]) -> list[list[tuple[str, str]]]:
    """binutils' chains, innermost first: (function, file:line)."""
    arguments = ["addr2line", "-fiae", str(path), *(f"{address:#x}" for address in addresses)]
    lines = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
    chains: list[list[tuple[str, str]]] = []
    rows = iter(lines)
    for line in rows:
        if line.startswith("0x"):
            chains.append([])
        else:
            chains[-1].append((line, re.sub(r" \(discriminator \d+\)$", "", next(rows))))
    return chains


def test_lines(kernel_61: KernelFiles, tmp_path: Path) -> None:
    linked = {symbol.name: symbol.address for symbol in nm(kernel_61.vmlinux)}
    starts = [linked[name] for name in ("schedule", "vfs_read", "tcp_v4_rcv", "do_exit", "kfree")]
    addresses = [start + offset for start in starts for offset in (0, 0x14, 0x41)]
    command = "kwhere --json " + " ".join(f"{address:#x}" for address in addresses)
    asked = [f"info line *{address:#x}" for address in addresses]
    brief = f"kwhere {addresses[0]:#x} -b {addresses[1]:#x} -l init_task"
    session = run([command, *asked, brief, "set kplug lines off", command, "kwhere --json init_task"], tmp_path,
                  vmlinux=kernel_61.vmlinux)  # fmt: skip
    ends = [line.split()[-1] for line in session[brief].text.splitlines()]
    lined, bare = (result.json for result in session.all(command))
    assert ends == [*(layer(answer, "line")["name"] for answer in lined[:2]), "[data]"]
    inlined = exact = 0
    for answer, question, chain in zip(lined, asked, addr2line(kernel_61.vmlinux, addresses)):
        details = layer(answer, "line")["details"]
        told = re.match(r'Line (\d+) of "(.*?)"', session[question].text)
        assert told, session[question].text
        assert (str(details["line"]), details["file"]) == told.groups()
        # gdb takes the last row that begins a statement, binutils any row: the line may differ, the functions not.
        exact += chain[0][1].endswith(f"{details['file']}:{details['line']}")
        functions = [entry["function"] for entry in details["inlined"]]
        assert functions == ([name for name, _ in chain] if len(chain) > 1 else []), answer["summary"]
        if len(chain) > 1:
            inlined += 1
            for entry, (_, place) in zip(details["inlined"][1:], chain[1:]):
                assert place.endswith(f"{entry['file']}:{entry['line']}")
    assert exact > len(addresses) // 2
    assert inlined
    assert all(entry["kind"] != "line" for answer in bare for entry in answer["layers"])
    assert all(entry["kind"] != "line" for entry in session["kwhere --json init_task"].json[0]["layers"])


def test_members(kernel_61: KernelFiles, bare_61: Path, tmp_path: Path) -> None:
    """By gdb's own types, and by the BTF where gdb has none: the same, as gdb itself has the offsets."""
    names = ("pid", "se.load.weight", "comm[3]", "thread_info.flags", "tasks.prev")
    offsets = [f"p/x (long)&((struct task_struct *)0)->{name}" for name in names]
    told = run(offsets, tmp_path, vmlinux=kernel_61.vmlinux)
    places = [int(told[command].text.split()[-1], 16) for command in offsets]
    words = [f"kwhere --json {place:#x} as struct task_struct" for place in places]
    words += [
        "kwhere --json 0xd as struct tcphdr",
        f"kwhere --json init_task + {places[0] + 1} as 'struct task_struct'",
    ]
    wrong = "kwhere 0x18 as struct nosuch"
    by_dwarf, by_btf = (run([*words, wrong], tmp_path, vmlinux=vmlinux) for vmlinux in (kernel_61.vmlinux, bare_61))
    for name, command in zip((*names, "fin", "pid"), words):
        one, other = (layer(session[command].json[0], "member") for session in (by_dwarf, by_btf))
        assert one["details"] == other["details"]
        assert one["details"]["member"] == name
        assert (one["offset"], one["source"]) == ("0x1" if "init" in command else "0x0", "gdb's debug information")
        assert other["source"].startswith("BTF of ")
    assert "no such type" in by_dwarf[wrong].complaint


def test_module(kernel_61: KernelFiles, tmp_path: Path) -> None:
    path = next((kernel_61.debug_modules).rglob("loop.ko"))
    text, data = 0xFFFFFFFFC0400000, 0xFFFFFFFFC0410000
    session = run(
        [f"add-symbol-file {path} {text:#x} -s .data {data:#x}", "kwhere --json loop_probe",
         f"kwhere --json {text + 0x10:#x}", "kwhere --json lo_fops", "kwhere --json loop_init"],
        tmp_path, vmlinux=kernel_61.vmlinux,
    )  # fmt: skip
    offsets = {symbol.name: symbol.address for symbol in nm(path)}
    (answer,) = session["kwhere --json loop_probe"].json
    assert int(answer["address"], 16) == text + offsets["loop_probe"]
    assert layer(answer, "module")["name"] == "loop"
    assert layer(answer, "section")["name"] == ".text"
    (answer,) = session[f"kwhere --json {text + 0x10:#x}"].json
    assert layer(answer, "section")["offset"] == "0x10"
    # A section that got no address is nowhere: gdb's own answer for its symbols is no kernel address.
    assert session["kwhere --json lo_fops"].error or session["kwhere --json lo_fops"].json[0]["class"] in (
        "none",
        "percpu",
    )


def test_file_changes(bare_61: Path, bare_612: Path, tmp_path: Path) -> None:
    vmlinux = tmp_path / "vmlinux"
    shutil.copy(bare_61, vmlinux)
    linked = [{symbol.name: symbol.address for symbol in nm(path)}["schedule"] for path in (bare_61, bare_612)]
    assert linked[0] != linked[1]
    session = run(
        [
            "kwhere --json schedule",
            f"shell cp {bare_612} {vmlinux}",
            "kwhere --json schedule ",
            "file",
            "kwhere schedule",
            f"file {bare_61}",
            "kwhere --json schedule  ",
            "kplug",
        ],
        tmp_path,
        vmlinux=vmlinux,
    )
    assert int(session["kwhere --json schedule"].json[0]["address"], 16) == linked[0]
    assert int(session["kwhere --json schedule "].json[0]["address"], 16) == linked[1]
    assert session["kwhere schedule"].complaint.startswith("no vmlinux")
    assert int(session["kwhere --json schedule  "].json[0]["address"], 16) == linked[0]
    assert re.search(r"debug information\n.*source lines", session["kplug"].text)


def test_completion_and_help(kernel_61: KernelFiles, tmp_path: Path) -> None:
    commands = ["complete kwhere sched_setaff", "complete kwhere --br", "complete kwhere &init_ta", "complete kwhere ",
                "complete ksym -", "complete kaslr --a", "complete kwhere a", "complete kregions --", "help kaslr",
                "help kwhere", "apropos kwhere", "help set kplug slide", "complete kwhere &init_task.thread_p",
                "complete kwhere (&init_task)->stack_c", "complete kwhere core.c:schedule_timeout_id",
                "complete kwhere cpu_up.col", "complete kwhere $sched", "complete kwhere finish_task_swi"]  # fmt: skip
    session = run(commands, tmp_path, vmlinux=kernel_61.vmlinux)
    assert session[commands[0]].text == "kwhere sched_setaffinity\n"
    assert session[commands[1]].text == "kwhere --brief\n"
    assert session[commands[2]].text == "kwhere &init_task\n"
    assert session[commands[3]].text.strip() in ("", "kwhere")
    assert "ksym --json\n" in session[commands[4]].text
    assert session[commands[5]].text == "kaslr --apply\n"
    assert 100 <= len(session[commands[6]].text.splitlines()) <= 201
    assert "kregions --json\n" in session[commands[7]].text
    assert re.search(r"^  kaslr --apply +\S", session["help kaslr"].text, re.MULTILINE)
    for said in ("Without EXPR it asks about $pc", "$kwhere(ADDRESS)", "*(void **)$sp"):
        assert said in session["help kwhere"].text
    assert "examples:" in session["help kwhere"].text
    assert "What is this address?" in session["apropos kwhere"].text
    assert "number of bytes" in session["help set kplug slide"].text
    assert session[commands[12]].text == "kwhere &init_task.thread_pid\n"
    assert session[commands[13]].text == "kwhere (&init_task)->stack_canary\n"
    assert session[commands[14]].text == "kwhere core.c:schedule_timeout_idle\n"
    assert session[commands[15]].text == "kwhere cpu_up.cold\n"
    assert "sched_" not in session[commands[16]].text  # a variable of gdb's, no symbol
    assert session[commands[17]].text == "kwhere finish_task_switch\nkwhere finish_task_switch.isra.0\n"
