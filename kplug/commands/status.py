"""kaslr and kplug: how the kernel's place was found, and what kplug has to work with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kplug import __version__
from kplug.commands.base import Command, add_json_argument
from kplug.errors import UsageError
from kplug.expressions import with_hint
from kplug.image.elf.sections import PERCPU_SECTION
from kplug.outputs import NamedFacts, Output, Range

if TYPE_CHECKING:
    from kplug.image.placed import PlacedImage
    from kplug.session import Session


def _kaslr(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    main = session.main
    if main is None:
        yield NamedFacts("kplug.kaslr/1", _without_vmlinux(session))
        return
    placement, root = main.placement, main.image.regions.root
    facts: dict[str, Any] = {"slide": placement.kaslr_offset_text if placement.known else None, "how": placement.source}
    if root is not None:
        facts["link"] = Range(root.start, root.end) if placement.link_known else None
        facts["runtime"] = Range(placement.runtime(root.start), placement.runtime(root.end))
    if placement.unmoved is not None:
        facts["per-CPU"] = f"{PERCPU_SECTION} is linked at 0: its addresses are offsets, and not moved"
    facts["ways"] = list(session.ways)
    yield NamedFacts("kplug.kaslr/1", facts)


def _without_vmlinux(session: Session) -> dict[str, Any]:
    """What the kernel itself reported. UsageError if that is nothing."""
    placement = session.placement
    if placement is None:
        raise UsageError(with_hint("no vmlinux is loaded", session.hints.vmlinux))
    return {"slide": placement.kaslr_offset_text, "how": placement.source, "ways": list(session.ways)}


def _kplug(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    facts: dict[str, Any] = {
        "kplug": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **session.host_facts,
        **({"target": session.target.description()} if session.target is not None else {}),
        **_crash_facts(session),
        **_types_facts(session),
        "images": [_image_facts(placed) for placed in session.images.given],
        **_loaded_facts(session),
        **({"used": list(session.ways)} if session.target is None and session.ways else {}),
        "missing": [
            {"what": missing.what, "cost": missing.cost, "remedy": missing.remedy} for missing in session.missing
        ],
        "warnings": list(session.warnings),
    }
    yield NamedFacts("kplug.status/1", facts)


def _crash_facts(session: Session) -> Mapping[str, str]:
    """Which task crashed and why, if the target has that."""
    return session.target.crash_facts() if session.target is not None else {}


def _types_facts(session: Session) -> Mapping[str, str]:
    """The source of the types used to read memory, if there is memory."""
    source = session.target.types_source() if session.target is not None else None
    return {"types": source} if source is not None else {}


def _loaded_facts(session: Session) -> dict[str, Any]:
    """How many modules the kernel has loaded, besides the given images; kmod lists them."""
    loaded = len(session.images) - len(session.images.given)
    return {"loaded_modules": loaded} if loaded else {}


def _image_facts(placed: PlacedImage) -> dict[str, Any]:
    image, placement = placed.image, placed.placement
    facts: dict[str, Any] = {
        "name": image.name,
        "kind": "module" if image.is_module else "vmlinux",
        "path": image.path,
        "build_id": image.build_id,
        "symbols": len(image.symbols),
        "symbols_from": image.symbols.source,
    }
    if not image.is_module:
        facts["release"] = image.release
        facts["regions"] = len(image.regions.regions)
        facts["slide"] = placement.kaslr_offset_text if placement.known else None
        facts["how"] = placement.source
    return facts


KASLR = Command(
    name="kaslr",
    summary="where the kernel is, and how that is known",
    description="Show the KASLR offset, from link to runtime addresses, and which way it was found.",
    examples=(("", "the KASLR offset and the ways tried"),),
    add_arguments=add_json_argument,
    run=_kaslr,
)
KPLUG = Command(
    name="kplug",
    summary="kplug's version, what is loaded, and what is missing",
    description="Show kplug's version, what is loaded, how the KASLR offset was found, and how to get what is missing.",
    examples=(("", "the current state"),),
    add_arguments=add_json_argument,
    run=_kplug,
)
