"""kplug in a drgn script: what is this address?

    >>> from kplug.drgn import where
    >>> print(where(prog["init_task"].mm).brief)

Every function takes the Program as its first argument. As with drgn's own helpers, it may be left out: then it is the
Program of the object asked about, else drgn's default one. What is read from memory is remembered with the Program, and
forgotten at each call if the kernel is running. The functions work as soon as the Program is open, and know more once
it has debug information.

All raise `kplug.errors.KplugError`, one line that says what is wrong: UsageError if the Program is not a kernel,
ExpressionError if the argument is not an address.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from functools import cached_property
from typing import Union

from drgn import Object, Program, Symbol
from drgn.helpers.common.prog import takes_program_or_default

from kplug.errors import ExpressionError, KplugError
from kplug.image.columns import Columns
from kplug.model import Annotation
from kplug.render.json_lines import JsonLines
from kplug.render.text import TextRenderer
from kplug.runtime.attached import session_for
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.kernel.values import address_of
from kplug.session import Session

__all__ = ("Address", "Answer", "KplugError", "bulk", "session", "where", "where_all")

#: What can be asked about: a number; an object (the value of a pointer or integer, the address of a struct, array or
#: function); a drgn symbol; an expression as kwhere takes it ("schedule+0x10", "runqueues@1", "$pc").
Address = Union[int, Object, Symbol, str]


class Answer(Annotation):
    """The answer for one address: the data (`kplug.model.Annotation`), and its text and JSON forms.

    `str()` is the text that kwhere shows.
    """

    def __str__(self) -> str:
        return TextRenderer().annotation(self)

    @cached_property
    def brief(self) -> str:
        """The one-line answer: `0xffffffff81a114f4  schedule+0x4  .text  [text > sched.text]`."""
        return TextRenderer().brief(self)

    @cached_property
    def json(self) -> str:
        """The answer as one JSON object (kplug.where/1), on one line."""
        return JsonLines().annotation(self)


@takes_program_or_default
def where(prog: Program, address: Address, *, pid: int | None = None) -> Answer:
    """What an address is.

    >>> answer = where(0xffffffff81a114f4)
    >>> print(answer.brief)
    0xffffffff81a114f4  schedule+0x4  .text  [text > sched.text]
    >>> answer.last("symbol").name
    'schedule'

    :param prog: the kernel; may be left out
    :param address: see `Address`
    :param pid: the process that user addresses belong to; by default the selected one
    :raises kplug.errors.ExpressionError: if it is not an address, or stands for several (see `where_all`)
    :raises kplug.errors.KplugError: if it cannot be answered
    """
    answers = where_all(prog, address, pid=pid)
    if len(answers) > 1:
        places = ", ".join(f"{each.address:#x}" for each in answers[:4]) + (", ..." if len(answers) > 4 else "")
        raise ExpressionError(f"{address} stands for {len(answers)} addresses ({places}): use where_all()")
    return answers[0]


@takes_program_or_default
def where_all(prog: Program, address: Address, *, pid: int | None = None) -> list[Answer]:
    """What the addresses are that an expression stands for: several where symbols share a name, or on each CPU.

    >>> for answer in where_all("runqueues@*"):
    ...     print(answer.brief)

    Arguments and errors are those of `where`.
    """
    asked = session_for(prog)
    assert isinstance(asked.target, DrgnTarget)
    kernel = asked.target.kernel
    expression = address if isinstance(address, str) else hex(address_of(address, _named(address), kernel))
    with asked.program(pid):
        return [_answer(annotation) for annotation in asked.where(expression)]


@takes_program_or_default
def bulk(prog: Program, addresses: Iterable[int]) -> Columns:
    """The images' answers for many addresses, in columns: symbol, offset, section, region, class, ...

    No object is made for an address: a million of them take some seconds. Only vmlinux and modules are consulted;
    memory is not.

    >>> columns = bulk(frame.pc for frame in prog.stack_trace(1))
    >>> list(zip(columns.symbol, columns.offset))

    :param prog: the kernel; may be left out
    :param addresses: runtime addresses
    """
    return session_for(prog).resolver.bulk(list(map(operator.index, addresses)))


@takes_program_or_default
def session(prog: Program) -> Session:
    """The kernel as kplug sees it: images in their places, address space, resolver (`kplug.session.Session`)."""
    return session_for(prog)


def _named(address: int | Object | Symbol) -> str:
    """What an error calls it."""
    return f"an object of type {address.type_.type_name()}" if isinstance(address, Object) else str(address)


def _answer(annotation: Annotation) -> Answer:
    return Answer(
        annotation.input,
        annotation.address,
        annotation.link_address,
        annotation.region_class,
        annotation.layers,
        annotation.state,
        annotation.warnings,
    )


# drgn's prompt shows its own result types by str(). Have it show this one the same way; a script has no prompt.
if "drgn.cli" in sys.modules:
    sys.modules["drgn.cli"].display_str(Answer)
