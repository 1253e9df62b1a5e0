"""kaslr and kplug: how the kernel was placed, and what kplug has to work with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kplug import __version__
from kplug.commands.base import Command, Facts, Output, Problem, add_json_argument
from kplug.placement import PERCPU_SECTION

if TYPE_CHECKING:
    from kplug.session import Session


def _kaslr(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    main = session.main
    if main is None:
        yield Problem("no vmlinux is loaded")
        return
    placement, root = main.placement, main.image.regions.root
    facts: dict[str, Any] = {"slide": placement.slide_text, "how": placement.source}
    if root is not None:
        facts["link"] = f"{root.start:#x}-{root.end:#x}  {root.start_symbol} .. {root.end_symbol}"
        facts["runtime"] = f"{placement.runtime(root.start):#x}-{placement.runtime(root.end):#x}"
    if placement.unmoved is not None:
        facts["per-CPU"] = f"{PERCPU_SECTION} is linked at 0: its addresses are offsets, and not moved"
    for number, way in enumerate(session.ways, 1):
        facts[f"way {number}"] = way
    yield Facts("kplug.kaslr/1", facts)


def _kplug(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    facts: dict[str, Any] = {
        "kplug": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **session.host_facts,
    }
    if session.target is not None:
        facts["target"] = session.target.description()
    for placed in session.images:
        image = placed.image
        kind = "module" if image.is_module else "vmlinux"
        facts[f"{kind} {image.name}" if image.is_module else kind] = image.path
        if not image.is_module:
            facts["release"] = image.release
            facts["build ID"] = image.build_id
            facts["symbols"] = f"{len(image.symbols)} from {image.symbols.source}"
            facts["regions"] = f"{len(image.regions.regions)}"
            facts["slide"] = f"{placed.placement.slide_text}  ({placed.placement.source})"
    for missing in session.missing:
        facts[f"missing {missing.what}"] = f"costs {missing.cost}; to get it: {missing.remedy}"
    for number, warning in enumerate(session.warnings, 1):
        facts[f"warning {number}"] = warning
    yield Facts("kplug.status/1", facts)


KASLR = Command(
    name="kaslr",
    summary="where the kernel is, and how that is known",
    description="Show the slide between link and runtime addresses, and which way it was found.",
    examples=(("", "the slide and the ways tried"),),
    add_arguments=add_json_argument,
    run=_kaslr,
)
KPLUG = Command(
    name="kplug",
    summary="what kplug is, and what it has to work with",
    description="Show kplug's version, what is loaded, how the slide was found, and what is missing and how to get it.",
    examples=(("", "the state of things"),),
    add_arguments=add_json_argument,
    run=_kplug,
)
