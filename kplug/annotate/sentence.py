"""The sentence of an event, with what its address means as a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kplug import model
from kplug.log.finding import Role
from kplug.summary import summarize

if TYPE_CHECKING:
    from kplug.annotate.answers import LogAnswers
    from kplug.log.event import Event


def sentence_of(event: Event, answers: LogAnswers) -> str:
    """`... read 0xdead000000000108 (LIST_POISON1+0x8) in foo.`"""
    if event.address is None:
        return event.sentence
    annotation = answers.of_address(event.address, Role.REGISTER)
    special = None if annotation is None else annotation.first(model.SPECIAL)
    # What may be an address all the same is summarised as one.
    if annotation is None or special is None or summarize(annotation).head != special.name:
        return event.sentence
    # Not that of NULL+0x18, which says what it means, nor that of a page.
    return re.sub(
        rf"(?<![\w+])(?<!page at ){event.address:#x}\b",
        lambda match: f"{match.group()} ({special.name})",
        event.sentence,
    )
