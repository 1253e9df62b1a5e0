"""Where a `Session` is put together, for whatever front end: of what was found of a kernel, its target and records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

from kplug.expressions import NO_HINTS, Hints
from kplug.image.images import as_images
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement
from kplug.records import Records, static_records
from kplug.resolver import LineSource
from kplug.session import Missing, Session
from kplug.space.address_space import AddressSpaceFacts
from kplug.target import Target

Facts = Union[AddressSpaceFacts, Callable[[], AddressSpaceFacts]]


@dataclass(frozen=True)
class Found:
    """A kernel as it was opened or found, before anything is asked of it.

    `images` are the vmlinux first, then modules. `machine` is the architecture and `placement` where the kernel is,
    where no image tells these; `facts` are those of its address space, where more is known than the vmlinux tells.
    `warnings` go with every answer, `ways` are those by which it was found or placed. It is not `lasting` where it will
    still move, and `is_running` where it is the running kernel, of which no image is known.
    """

    images: Sequence[PlacedImage] = ()
    machine: str = ""
    placement: Placement | None = None
    facts: Facts | None = None
    warnings: Sequence[str] = ()
    ways: Sequence[str] = ()
    lasting: bool = True
    is_running: bool = False


@dataclass(frozen=True)
class FrontEnd:
    """What a front end says of itself: `hints` are its words for what a person can do, `facts` what there is of it, and
    `missing` what it lacks."""

    hints: Hints = NO_HINTS
    facts: Mapping[str, str] = field(default_factory=dict)
    missing: Iterable[Missing] = ()


def session_of(
    found: Found,
    target: Target | None = None,
    records: Records | None = None,
    *,
    lines: LineSource | None = None,
    front_end: FrontEnd = FrontEnd(),
) -> Session:
    """The session of a kernel. Without a `target` there are its files alone; without `records` a target's memory tells
    what symbols lead to. `lines` are the source lines, where the records are not asked for these."""
    if records is None and target is not None:
        records = static_records(found.images, target, found.lasting)
    answers = records if records is not None else Records(as_images(found.images))
    return Session(
        answers.images,
        target=target,
        facts=found.facts if found.facts is not None else answers.facts,
        machine=found.machine,
        contents=answers.areas,
        lines=lines if lines is not None else answers.lines,
        states=answers.states,
        locators=answers.locators,
        percpu=answers.percpu,
        modules=answers.modules,
        placement=found.placement,
        warnings=found.warnings,
        ways=found.ways,
        host_facts=front_end.facts,
        missing=tuple(front_end.missing),
        hints=front_end.hints,
        is_running=found.is_running,
    )
