"""The sentence that an analyst would write first of an event: who did what, and where; from what its lines state."""

from __future__ import annotations

from kplug.log.event import FIRST_PAGE, Event, address_words
from kplug.log.machinery import ALLOCATING, is_machinery
from kplug.log.names import normal
from kplug.log.signature import functions_of
from kplug.log.templates import filled

_DID = {"read": "read", "write": "wrote to", "execute": "jumped to"}
_DID_BYTES = {"read": "read", "write": "wrote"}
_INTERRUPTED = {"irq": "an interrupt", "softirq": "a softirq", "nmi": "an NMI"}
_LONGEST_WORDS = 80


def sentence(event: Event, template: str) -> str:
    """The template of the event's kind with what is known of the event."""
    # Words of the log, which may end in a mark of their own.
    named = {name: _short(value.strip().rstrip(".!")) for name, value in event.stated.items() if value}
    named.update({name: value for name, value in _facts(event).items() if value})
    return " ".join(filled(template, named).split())


def _short(words: str) -> str:
    if len(words) <= _LONGEST_WORDS:
        return words
    is_path = "/" in words and " " not in words
    return f"...{words[-_LONGEST_WORDS:]}" if is_path else f"{words[:_LONGEST_WORDS]}..."


def _facts(event: Event) -> dict[str, str | None]:
    """What sentences name besides what the lines state; None or empty is what is not known."""
    task = _task(event)
    cpu = None if event.cpu is None else f"CPU {event.cpu}"
    interrupt = _INTERRUPTED.get(_context(event))
    if interrupt is not None:
        within = f"in {interrupt}{f' on top of {task}' if task else ''}"
        who, by = f"{cpu or 'A CPU'}, {within},", f"on {cpu}, {within}" if cpu else within
    else:
        who = " on ".join(filter(None, (task, cpu))) or "The kernel"
        by = " ".join(filter(None, (task and f"in task {task}", cpu and f"on {cpu}")))
    return {
        "function": event.function,
        "task": task,
        "who": who,
        "by": by,
        "did": _DID.get(event.access or "", "accessed"),
        "target": _target(event),
        "how": _how(event, who, by),
        "object": _object(event),
        "allocated": _owner(event, "allocated"),
        "callee": _callee(event),
    }


def _task(event: Event) -> str | None:
    if event.pid is None:
        return event.comm or None
    return f"{event.comm} (pid {event.pid})" if event.comm else f"PID {event.pid}"


def _context(event: Event) -> str:
    """What the CPU was doing in the guilty function."""
    frames = event.frames
    of_function = (frame for frame in frames if frame.function and normal(frame.function) == event.function)
    frame = next(of_function, frames[0] if frames else None)
    return "task" if frame is None else frame.context


def _target(event: Event) -> str:
    address = event.address
    if address is None:
        return "an address that the log does not state"
    if "page_only" in event.stated:
        return "the first page (NULL or near it)" if address < FIRST_PAGE else f"the page at {address:#x}"
    return address_words(address)


def _how(event: Event, who: str, by: str) -> str:
    """Who accessed how much, as a sanitizer reports it."""
    did = _DID_BYTES.get(event.access or "")
    if did is None:
        return f", {by}" if by else ""
    if event.bytes is None:
        return f": {who} {did} memory"
    return f": {who} {did} {event.bytes} byte{'' if event.bytes == 1 else 's'}"


def _object(event: Event) -> str | None:
    """Who allocated what it is about, and who freed that."""
    owners = ((context, _owner(event, context)) for context in ("allocated", "freed"))
    done = " and ".join([f"{context} by {function}" for context, function in owners if function is not None])
    cache, size = event.stated.get("cache"), event.stated.get("object_size")
    what = f"the {f'{size}-byte ' if size else ''}object{f' of {cache}' if cache else ''}"
    return f"; {what} was {done}" if done else None


def _owner(event: Event, context: str) -> str | None:
    functions = [each for trace in event.traces if trace.context == context for each in functions_of(trace.frames)]
    return next((each for each in functions if not is_machinery(each, ALLOCATING)), None)


def _callee(event: Event) -> str | None:
    """What the guilty function called."""
    functions = functions_of(event.frames)
    at = functions.index(event.function) if event.function in functions else 0
    return functions[at - 1] if at else None
