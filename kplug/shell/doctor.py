"""`kplug doctor`: the sources for answers about the running kernel, what is missing, and how to get it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.base import HelpFormatter, Parser, add_json_argument
from kplug.named_tuples import NamedTuple
from kplug.outputs import Column, Table

if TYPE_CHECKING:
    from kplug.live.survey import Survey, SurveyRow

_DESCRIPTION = """Look for all sources of information on the running kernel. Say what each is used for, and which
command gets what is missing. Exit status 0 if kwhere can answer with symbols, 1 if not."""
_EPILOG = """examples:
  kplug doctor            what anybody may see
  sudo kplug doctor       what root may see
  kplug doctor --json     one JSON object for each thing, one per line"""
_COLUMNS = (
    Column("WHAT", "what", role="label"),
    Column("STATE", "state"),
    Column("GIVES", "gives"),
    Column("FOUND, OR HOW TO GET IT", "note"),
)
_TITLES = {"kernel": "the kernel", "privilege": "privileges", "source": "sources", "tool": "tools"}


def parser() -> Parser:
    """The parser of the command's own words."""
    made = Parser(prog="kplug doctor", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=HelpFormatter)
    add_json_argument(made)
    return made


class Diagnosis(NamedTuple):
    """The output, in the form that `arguments` request, and whether there are answers about the running kernel."""

    arguments: argparse.Namespace
    tables: Sequence[Table]
    answers: bool


def run(words: Sequence[str]) -> Diagnosis:
    """Run one command line. UsageError."""
    arguments = parser().parse_args(list(words))
    from kplug.live import machine
    from kplug.live.survey import survey

    found = survey(machine.Machine())
    return Diagnosis(arguments, list(tables(found)), found.answers)


def tables(found: Survey) -> Iterator[Table]:
    """The findings by group, then what the answers are made from."""
    for group, title in _TITLES.items():
        rows = [_row(finding) for finding in found.findings if finding.group == group]
        yield Table("kplug.doctor/1", _COLUMNS, rows, title=title)
    rows = [_verdict("kplug where", found.answers, found.live.used)]
    rows += [_verdict("not used", False, [why]) for why in found.live.unused]
    columns = (Column("ANSWERS", "what", role="label"), Column("STATE", "state"), Column("FROM", "note"))
    yield Table("kplug.doctor/1", columns, rows, title="answers")


def _row(finding: SurveyRow) -> dict[str, Any]:
    return {**finding._asdict(), "note": finding.remedy or finding.found}


def _verdict(what: str, good: bool, why: Sequence[str]) -> dict[str, Any]:
    from kplug.live.survey import MISSING, THERE, SurveyRow

    return _row(SurveyRow("answer", what, THERE if good else MISSING, "; ".join(why) or None, "answers", None))
