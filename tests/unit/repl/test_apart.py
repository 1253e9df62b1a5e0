"""Lines of Python that have nothing of the kernel's: they do not wait for who reads its debug information."""

from __future__ import annotations

import drgn
import pytest

from kplug.repl.python import Python


@pytest.mark.parametrize("text", ["print(6*7)", "0x1000 + 5", "hex(1 << 63)", "'x' * 3", "len([1, 2])", "1; 2"])
def test_pythons_own_names_are_apart(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    python = Python(drgn.Program(), lambda name: 0)
    assert python.is_apart(text)
    python.run(text)
    assert capsys.readouterr().out
    assert python._namespace is None  # drgn's helpers were not imported for it


@pytest.mark.parametrize(
    "text",
    ["prog", "prog['jiffies']", "x", "x = 1", "import os", "print(prog)", "eval('prog')", "globals()", "_", "$rip + 8",
     "def f(): pass", "[n for n in (1, 2)]", "print(", "getattr(prog, 'flags')", "__import__('os')"],
)  # fmt: skip
def test_what_may_be_of_the_kernel_is_not(text: str) -> None:
    assert not Python(drgn.Program(), lambda name: 0).is_apart(text)


def test_a_name_that_the_user_made_is_not() -> None:
    python = Python(drgn.Program(), lambda name: 0)
    python.run("hex = prog.flags")
    assert not python.is_apart("hex")
    assert python.is_apart("oct(8)")
