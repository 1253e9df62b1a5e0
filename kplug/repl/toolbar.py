"""The line below the prompt: what is looked at, and which CPU and task are selected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kplug.errors import KplugError
from kplug.render.safe import safe

if TYPE_CHECKING:
    from kplug.runtime.target import DrgnTarget
    from kplug.session import Session


def toolbar_text(session: Session, target: DrgnTarget) -> str:
    """Target, release, slide, CPU, task and frame. What is not known is left out."""
    parts = [target.description()]
    main = session.main
    if main is not None:
        parts.append(main.image.release or main.image.name)
        if main.placement.known:
            parts.append(f"KASLR {main.placement.slide_text}")
    parts += _selected(target)
    return safe("  ".join(parts))


def _selected(target: DrgnTarget) -> list[str]:
    try:
        thread = target.selection.thread
    except KplugError:
        return []
    parts = [] if thread.cpu is None else [f"CPU {thread.cpu}"]
    parts.append(f"PID {thread.tid} {thread.comm}{' (crashed)' if thread.crashed else ''}")
    try:
        frame = target.selection.frame
    except KplugError:  # a task that runs
        return parts
    return [*parts, f"#{frame.number} {frame.function or hex(frame.pc)}"]
