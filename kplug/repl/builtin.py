"""What a command of the prompt's own is."""

from __future__ import annotations

from dataclasses import dataclass

from kplug.commands.base import Command


@dataclass(frozen=True)
class PromptCommand(Command):
    """A command that only the prompt has: no `k` stands before its name. `other_names` are typed for the same."""

    other_names: tuple[str, ...] = ()

    @property
    def host_name(self) -> str:
        return self.name
