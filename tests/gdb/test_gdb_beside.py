"""Beside another plugin in gdb that has commands of the same names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.elf_builder import small_vmlinux
from support.gdbhelp import SCRIPT, run

OTHER = '''
import gdb

class Other(gdb.Command):
    """Another plugin's."""

    def __init__(self, name):
        super().__init__(name, gdb.COMMAND_DATA)
        self.name = name

    def invoke(self, argument, from_tty):
        gdb.write(f"the other {self.name} of {argument}\\n")

for name in ("kmod", "kregs"):
    Other(name)
gdb.execute("define kx\\necho the user's own\\\\n\\nend")
gdb.execute("alias kstack = info")
'''
NUMBER = "0xdead000000000100"


@pytest.fixture
def other(tmp_path: Path) -> str:
    path = tmp_path / "other.py"
    path.write_text(OTHER)
    return f"source {path}"


def test_names_are_taken_and_given_back(other: str, tmp_path: Path) -> None:
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(bytes(small_vmlinux()))
    source, prefix, usual = f"source {SCRIPT}", "set kplug prefix kp_", "set kplug prefix k"
    session = run(
        ["kmod 1", source, prefix, "kmod 2", "kregs 3", "kx 4", "kstack", "kwhere 5", f"kp_where {NUMBER}",
         "kp_mod", f'printf "%s", $kp_where({NUMBER})', "complete kp_", "help kp_where", "show kplug prefix",
         source, "kmod 6", f"kp_where {NUMBER} ", usual, "kmod 7", f"kwhere {NUMBER}", "kp_where 8"],
        tmp_path, vmlinux=vmlinux, before=[other],
    )  # fmt: skip
    first, second, third = (result.text for result in session.all(source))
    assert {*re.findall(r"\w+", first.partition("plugins:")[2].partition("(")[0])} == {"kmod", "kregs", "kx", "kstack"}
    assert "`set kplug prefix PREFIX`" in first
    assert second == third == ""  # said once
    assert "the other" not in session["kmod 1"].complaint
    assert session["kmod 2"].text == "the other kmod of 2\n"
    assert session["kregs 3"].text == "the other kregs of 3\n"
    assert session["kx 4"].text == "the user's own\n"
    assert "kp_stack now" in session["kstack"].complaint  # gdb does not say what an alias was
    assert "kp_where now (`show kplug prefix`)" in session["kwhere 5"].complaint
    assert "LIST_POISON1" in session[f"kp_where {NUMBER}"].text
    assert session["kp_mod"].complaint
    assert "LIST_POISON1" in session[f'printf "%s", $kp_where({NUMBER})'].text
    assert {"kp_where", "kp_mod", "kp_kaslr"} <= {*session["complete kp_"].text.split()}
    assert "kp_where *(void **)$sp" in session["help kp_where"].text
    assert session["show kplug prefix"].text.endswith(": kp_.\n")
    assert session["kmod 6"].text == "the other kmod of 6\n"
    assert "LIST_POISON1" in session[f"kp_where {NUMBER} "].text
    assert "kmod" in session[usual].text
    assert session["kmod 7"].complaint
    assert "LIST_POISON1" in session[f"kwhere {NUMBER}"].text
    assert "kwhere now" in session["kp_where 8"].complaint


def test_a_plugin_loaded_later_keeps_its_names(other: str, tmp_path: Path) -> None:
    session = run([other, "set kplug prefix kp_", "kmod 1", "set kplug prefix 3k", "show kplug prefix"], tmp_path)
    assert session[f"source {SCRIPT}"].text == ""
    assert session["kmod 1"].text == "the other kmod of 1\n"
    assert "letters, digits and _" in session["set kplug prefix 3k"].complaint
    assert session["show kplug prefix"].text.endswith(": kp_.\n")
