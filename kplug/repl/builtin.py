"""The prompt's own commands: what one is."""

from __future__ import annotations

from kplug.commands.base import Command


class PromptCommand(Command):
    """A command that only the prompt has, without a `k` before its name. `other_names` are aliases."""

    other_names: tuple[str, ...] = ()

    @property
    def host_name(self) -> str:
        return self.name
