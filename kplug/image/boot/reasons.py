"""Why no kernel was found, or not the one that is meant: what was found, what was tried, and what came of it.

The error of a failed attempt is never given as the cause: what begins like packed data need not be any.
"""

from __future__ import annotations

from collections.abc import Sequence

from kplug.files.bounded_output import MissingUnpackerError, UnpackError
from kplug.files.compression import Compression
from kplug.image.boot.formats import BadImageError, Container, NoKernelError
from kplug.image.boot.linux import SELF_EXTRACTING
from kplug.image.boot.search import Place
from kplug.named_tuples import NamedTuple

_MOST_TOLD = 3
_LONGEST = 160
# A shorter magic occurs in any noise: what begins with it is mentioned only if something was unpacked.
_LONG_MAGIC = 4


class Attempt(NamedTuple):
    """A place that looked like `what`, and what came of it. `rank` says how much it tells, the least most."""

    rank: int
    what: str
    position: int
    outcome: str


class Choice(NamedTuple):
    """One of several kernels."""

    what: str
    offset: int
    release: str | None


def attempt(place: Place, error: BadImageError | UnpackError, offset: int) -> list[Attempt]:
    """What to tell of a place that was no kernel; nothing, if its likeness was chance."""
    position, what = offset + place.position, place.what
    if isinstance(what, Container):
        outcome = "no kernel in it" if isinstance(error, NoKernelError) else str(error)
        return [Attempt(1, what.name, position, outcome)]
    assert isinstance(what, Compression)
    if isinstance(error, BadImageError):
        outcome = "unpacks, but not to a kernel" if isinstance(error, NoKernelError) else f"unpacks; {error}"
        return [Attempt(1, what.name, position, outcome)]
    if isinstance(error, MissingUnpackerError):
        return [Attempt(0, what.name, position, str(error))]
    if error.unpacked or len(what.magic) > _LONG_MAGIC:
        return [Attempt(2, f"what looks like {what.name}", position, str(error))]
    return []


def no_kernel(containers: Sequence[str], attempts: Sequence[Attempt], untried: int) -> str:
    """The sentence for data in which there is none, in as much of it as was tried."""
    names = ["ELF file" if name == SELF_EXTRACTING.name else name for name in containers]
    where = f"no kernel in the {' > '.join(names)}" if names else "no kernel found in it"
    if tuple(containers) == (SELF_EXTRACTING.name,):
        where = "a program or a library, not a kernel"
    sentence = f"{where}: neither a kernel's header nor a banner"
    told = sorted(attempts)[:_MOST_TOLD]
    if not told and not untried:
        return sentence if containers else f"{sentence}, no container, nothing packed"
    parts = [f"{each.what} at {each.position:#x}: {each.outcome[:_LONGEST]}" for each in told]
    parts[:1] = [f"tried {part}" for part in parts[:1]]
    if len(attempts) > len(told):
        parts.append(f"and {len(attempts) - len(told)} more")
    if untried:
        parts.append(f"not tried: {untried} more places that look like a container or packed data")
    return "; ".join([sentence, *parts])


def several(choices: Sequence[Choice]) -> str:
    """The sentence for a file with more kernels than one, none of which its header names."""
    listed = ", ".join(map(_described, choices[:_MOST_TOLD]))
    left = len(choices) - _MOST_TOLD
    more = f", and {left} more" if left > 0 else ""
    return f"{len(choices)} kernels in it: {listed}{more} (kplug extract --offset writes one)"


def several_banners(count: int) -> str:
    return f"{count} kernels' banners in it, and neither a header nor kallsyms tells where each kernel begins"


def several_inside(container: str, count: int) -> str:
    """The warning for a container that has several kernels, and says which is booted."""
    return f"its {container} has {count} kernels; this is the one that is booted by default"


def another(choice: Choice) -> str:
    """The warning for a file with a kernel besides the one that its header names."""
    return f"another kernel is in it: {_described(choice)} (kplug extract --offset {choice.offset:#x} writes it)"


def _described(choice: Choice) -> str:
    return f"{choice.what} at {choice.offset:#x}{f' ({choice.release})' if choice.release else ''}"
