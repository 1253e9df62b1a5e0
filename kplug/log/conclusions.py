"""What follows from the lines of a report: its title, whom it blames, what was accessed."""

from __future__ import annotations

import re
from collections.abc import Callable

from kplug.log.event import Event, Frame
from kplug.log.headers import read_taints
from kplug.log.machinery import is_machinery, is_reporting
from kplug.log.report import Report
from kplug.log.sentence import sentence
from kplug.log.signature import functions_of, signature
from kplug.log.templates import filled

_HEXADECIMAL = re.compile(r"\b(?:0x[0-9a-f]{5,16}|[0-9a-f]{16}|(?=[a-f]{0,7}\d)[0-9a-f]{8})\b")
_ACCESSES = {
    **dict.fromkeys(("read", "load", "r"), "read"),
    **dict.fromkeys(("write", "store", "w"), "write"),
    **dict.fromkeys(("execute", "exec", "fetch", "x"), "execute"),
}
# arch/riscv/include/asm/csr.h: EXC_INST_PAGE_FAULT and so on.
_CAUSES = {12: "execute", 13: "read", 15: "write"}


def conclude(report: Report, whole: bool) -> Event:
    """The event of a report; `whole`: the log goes on after it, which ends it if its kind has no mark for that."""
    facts = report.facts
    traces = report.traces
    access = _access(facts) or _access_by_cause(report)
    function, functions = _blamed(report, _callers(report, access) or _suspects(report))
    named = dict(facts)
    if function is not None:
        named["function"] = function
    if access is not None:
        named["access"] = access
    taints = read_taints(facts["taints"]) if "taints" in facts else () if "untainted" in facts else None
    address = _hexadecimal(facts.get("address"))
    if address is None and report.kind.accesses:
        address = report.data.registers.get("CR2")
    event = Event(
        report.first_line,
        report.last_line,
        report.kind.type,
        titled(report.title or report.kind.title, named),
        function,
        signature(report.kind.type, functions),
        not report.kind.incomplete and not report.mixed and (report.is_whole or (whole and not report.kind.ends)),
        access,
        address,
        _decimal(facts.get("bytes")),
        _decimal(facts.get("cpu")),
        _decimal(facts.get("pid")),
        facts.get("comm"),
        facts.get("release"),
        facts.get("build", "").strip() or None,
        taints,
        facts.get("hardware"),
        facts.get("workqueue"),
        report.ip,
        traces,
        report.data.registers,
        tuple(report.data.stack),
        report.data.code,
        tuple(report.data.modules) if report.data.modules is not None else None,
        tuple(report.data.unloaded),
        facts.get("panic"),
        _hexadecimal(facts.get("kaslr_offset")),
        facts,
    )
    return event._replace(sentence=sentence(event, report.sentence or report.kind.sentence))


def titled(template: str, named: dict[str, str]) -> str:
    """The title, without the bracketed parts that name what is not stated."""
    # Addresses differ from boot to boot.
    return _HEXADECIMAL.sub("ADDR", filled(template, named))


def _callers(report: Report, access: str | None) -> list[list[str]]:
    """Whom a call to where no code is can be blamed on: nothing ran where the pointer is."""
    ip = report.ip
    if access != "execute" or ip is None or ip.offset:
        return []
    traces = [[frame for frame in trace.frames if not report.is_ip(frame)] for trace in report.traces if trace.main]
    found = [functions_of(frames) for frames in ([report.data.link] if report.data.link else [], *traces)]
    return [functions for functions in found if functions]


def _suspects(report: Report) -> list[list[str]]:
    candidates: list[list[str]] = []
    for where in report.kind.blames:
        if where == "stated" and "symbol" in report.facts:
            candidates.append(functions_of([Frame(report.facts["symbol"])]))
        elif where == "ip" and report.ip is not None:
            candidates.append(functions_of([report.ip]))
        elif where == "trace":
            candidates.extend(functions_of(trace.frames) for trace in report.traces if trace.main)
    return candidates


def _blamed(report: Report, candidates: list[list[str]]) -> tuple[str | None, list[str]]:
    """The guilty function, and with it those that called it, for the signature."""
    # If all are helpers, the first of these; if all report, nobody is named.
    for passes in (is_machinery, is_reporting):
        left = [_below(functions, passes, report.kind.passed_over) for functions in candidates]
        first = next((functions for functions in left if functions), None)
        if first is not None:
            break
    else:
        return None, []
    function = first[0]
    callers = next((functions for functions in left if functions not in ([], [function])), first)
    following = callers[callers.index(function) + 1 :] if function in callers else callers
    return function, [function, *(each for each in following if not is_machinery(each, report.kind.passed_over))]


def _below(functions: list[str], passes: Callable[..., bool], passed_over: tuple[str, ...]) -> list[str]:
    """The functions from the first that is not passed over on."""
    start = next((index for index, each in enumerate(functions) if not passes(each, passed_over)), len(functions))
    return functions[start:]


def _access(facts: dict[str, str]) -> str | None:
    word = facts.get("access")
    if word is not None:
        return _ACCESSES.get(word.lower(), word.lower())
    if "error_code" in facts:  # arch/x86/include/asm/trap_pf.h
        bits = int(facts["error_code"], 16)
        return "execute" if bits & 1 << 4 else "write" if bits & 1 << 1 else "read"
    if "esr" in facts:  # arch/arm64/include/asm/esr.h: EC, and WnR of data aborts
        syndrome = int(facts["esr"], 16)
        exception_class = syndrome >> 26 & 0x3F
        if exception_class in (0x20, 0x21):
            return "execute"
        if exception_class in (0x24, 0x25):
            return "write" if syndrome & 1 << 6 else "read"
    if "fsr" in facts:  # arch/arm/mm/fault.h: FSR_WRITE
        return "write" if int(facts["fsr"], 16) & 1 << 11 else "read"
    return None


def _access_by_cause(report: Report) -> str | None:
    """What a page fault's registers say that was done: scause of riscv, DSISR of powerpc."""
    registers = report.data.registers
    if report.kind.type not in ("null-deref", "page-fault"):
        return None
    if "DSISR" in registers:  # arch/powerpc/include/asm/reg.h: DSISR_ISSTORE
        return "write" if registers["DSISR"] & 0x02000000 else "read"
    return _CAUSES.get(registers.get("cause", 0))


def _hexadecimal(text: str | None) -> int | None:
    try:
        return int(text, 16) if text else None
    except ValueError:
        return None


def _decimal(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
