"""What the address in an event's sentence means."""

from __future__ import annotations

import pytest

from kplug.annotate.answers import LogAnswers
from kplug.annotate.sentence import sentence_of
from kplug.assembly import Found, FrontEnd, session_of
from kplug.log import events


@pytest.mark.parametrize(
    ("machine", "address", "said"),
    [
        ("x86_64", "dead000000000108", "0xdead000000000108 (LIST_POISON1+0x8)"),
        ("x86_64", "6b6b6b6b6b6b6b73", "0x6b6b6b6b6b6b6b73 (POISON_FREE+0x8)"),
        ("x86_64", "ffffc900012ff008", "0xffffc900012ff008"),
        ("x86_64", "0000000000000018", "NULL+0x18"),
    ],
)
def test_the_meaning_of_the_address(machine: str, address: str, said: str) -> None:
    (event,) = events([f"BUG: unable to handle page fault for address: {address}\n"])
    answers = LogAnswers(session_of(Found(machine=machine), front_end=FrontEnd({})))
    assert sentence_of(event, answers) == f"The kernel faulted as it accessed {said}."
