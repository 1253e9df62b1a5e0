"""The k-commands, each declared once for every prompt."""

from __future__ import annotations

from kplug.commands.base import Command
from kplug.commands.info import INFO, NOTES
from kplug.commands.layout import REGIONS, SECTIONS, SEGMENTS
from kplug.commands.map import MAP
from kplug.commands.memory_words import X
from kplug.commands.mod import MOD
from kplug.commands.regs import REGS
from kplug.commands.stack import STACK
from kplug.commands.status import KASLR, KPLUG
from kplug.commands.sym import SYM
from kplug.commands.where import WHERE

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (WHERE, REGS, STACK, X, SYM, REGIONS, SECTIONS, SEGMENTS, MAP, MOD, INFO, NOTES, KASLR, KPLUG)
}
