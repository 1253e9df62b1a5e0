"""Builds the `Session` for every front end, from a kernel that was found, its target and its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Callable, Union  # collections.abc.Callable in a Union is an error before Python 3.9.2

from kplug.expressions import NO_HINTS, Hints
from kplug.frozen import Frozen, field
from kplug.image.images import as_images
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement
from kplug.records import Records, static_records
from kplug.resolver import LineSource
from kplug.session import Missing, Session
from kplug.space.address_space import AddressSpaceFacts
from kplug.target import Target

if TYPE_CHECKING:
    from kplug.module_files import UnplacedModules
    from kplug.type_layouts import TypeLayouts

Facts = Union[AddressSpaceFacts, Callable[[], AddressSpaceFacts]]


class Found(Frozen):
    """A kernel as it was opened or found, before any question.

    `images`: the vmlinux first, then modules. `machine` (the architecture) and `placement` are for a kernel without an
    image that gives them. `facts`: those of the address space, if more is known than the vmlinux shows. `warnings` go
    with every answer; `ways` are those in which it was found or placed. `lasting` is false for a kernel that will still
    move. `is_running`: it is the running kernel, and no image of it is known. `unread` is what else may have an
    address that the images do not have: said once. `module_files` gives those of modules without a place.
    """

    images: Sequence[PlacedImage] = ()
    machine: str = ""
    placement: Placement | None = None
    facts: Facts | None = None
    warnings: Sequence[str] = ()
    ways: Sequence[str] = ()
    lasting: bool = True
    is_running: bool = False
    unread: str | None = None
    module_files: Callable[[], UnplacedModules] | None = None


class FrontEnd(Frozen):
    """What a front end reports about itself: its words for what the user can do (`hints`), its version and state
    (`facts`), and what it lacks (`missing`)."""

    hints: Hints = NO_HINTS
    facts: Mapping[str, str] = field(default_factory=dict)
    missing: Iterable[Missing] = ()


_ANY_FRONT_END = FrontEnd()


def unplaced_modules(
    directories: Sequence[str], main: PlacedImage | None, lines: LineSource | None = None
) -> Callable[[], UnplacedModules]:
    """What opens the files of modules without a place; few questions need it."""

    @cache
    def files() -> UnplacedModules:
        from kplug.module_files import UnplacedModules

        return UnplacedModules(directories, main, lines)

    return files


def session_of(
    found: Found,
    target: Target | None = None,
    records: Records | None = None,
    *,
    lines: LineSource | None = None,
    types: Sequence[TypeLayouts] = (),
    front_end: FrontEnd = _ANY_FRONT_END,
) -> Session:
    """The session of a kernel: without a `target` of its files alone, without `records` of what symbols lead to in the
    target's memory. `lines` replaces the records' source lines; `types` are asked before the records'."""
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
        types=(*types, *answers.types),
        states=answers.states,
        locators=answers.locators,
        percpu=answers.percpu,
        virtual=answers.virtual,
        modules=answers.modules,
        programs=answers.programs,
        placement=found.placement,
        warnings=found.warnings,
        ways=found.ways,
        host_facts=front_end.facts,
        missing=tuple(front_end.missing),
        hints=front_end.hints,
        is_running=found.is_running,
        unread=found.unread,
        module_files=found.module_files,
    )
