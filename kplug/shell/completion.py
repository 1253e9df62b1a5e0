"""`kplug completion bash|zsh|fish`: a completion script, made from the commands' own declarations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from kplug.commands import COMMANDS
from kplug.errors import UsageError

OTHER_WORDS = ("annotate", "extract", "doctor", "gdb-script", "completion")
SHELLS = ("bash", "zsh", "fish")

_BASH = """\
# bash completion for kplug:  source <(kplug completion bash)
_kplug() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} options=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ] && [[ $current != -* ]]; then
        COMPREPLY=($(compgen -W "{words}" -- "$current"))
        return
    fi
    case $previous in
        -o|--output|-s|--vmlinux|-c|--core|--qemu|--vmcoreinfo|--module-dir|--module|--lds|--map)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return ;;
        completion) COMPREPLY=($(compgen -W "{shells}" -- "$current")); return ;;
        --kaslr) COMPREPLY=($(compgen -W "auto none" -- "$current")); return ;;
        --color) COMPREPLY=($(compgen -W "auto always never" -- "$current")); return ;;
    esac
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    COMPREPLY=($(compgen -W "$options" -- "$current"))
}}
complete -F _kplug kplug
"""

# A command that takes a file.
_BASH_FILE = """\
        {name}) options='{options}'
            if [[ $current != -* ]]; then
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                return
            fi ;;"""

_ZSH = """\
# zsh completion for kplug:  source <(kplug completion zsh)
autoload -U +X bashcompinit && bashcompinit
{bash}"""


def completion_script(words: Sequence[str]) -> str:
    """The script for the shell named in `words`. Raises UsageError if there is none for it."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(f"kplug completion: must be one of {', '.join(SHELLS)}")
    if words[0] == "fish":
        return _fish()
    cases = "\n".join(
        [
            f"        -*) options='{' '.join(_prompt_options())}' ;;",
            *(_bash_case(name, options) for name, options in _options().items()),
            *(_BASH_FILE.format(name=name, options=" ".join(options)) for name, options in _file_options().items()),
        ]
    )
    bash = _BASH.format(words=" ".join((*COMMANDS, *OTHER_WORDS)), shells=" ".join(SHELLS), cases=cases)
    return bash if words[0] == "bash" else _ZSH.format(bash=bash)


def _bash_case(name: str, options: Sequence[str]) -> str:
    if COMMANDS[name].file_word:
        return _BASH_FILE.format(name=f"{name}|k{name}", options=" ".join(options))
    return f"        {name}|k{name}) options='{' '.join(options)}' ;;"


def _fish() -> str:
    lines = ["# fish completion for kplug:  kplug completion fish | source"]
    lines += [
        f"complete -c kplug -n __fish_use_subcommand -f -a {name} -d '{command.summary}'"
        for name, command in COMMANDS.items()
    ]
    lines += [f"complete -c kplug -n __fish_use_subcommand -f -a {word}" for word in OTHER_WORDS]
    lines += [f"complete -c kplug -n __fish_use_subcommand {_fish_option(option)}" for option in _prompt_options()]
    for name, options in (*_options().items(), *_file_options().items()):
        for option in options:
            lines.append(f"complete -c kplug -n '__fish_seen_subcommand_from {name}' {_fish_option(option)}")
    return "\n".join(lines) + "\n"


def _fish_option(option: str) -> str:
    return f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"


def _prompt_options() -> list[str]:
    """The options of a command line without a command."""
    from kplug.shell.arguments import prompt_parser

    return _option_strings(prompt_parser())


def _options() -> dict[str, list[str]]:
    """The options of each command at the shell, by its name."""
    from kplug.shell.arguments import command_parser

    return {name: _option_strings(command_parser(command)) for name, command in COMMANDS.items()}


def _file_options() -> dict[str, list[str]]:
    """The options of what takes files and is no k-command, by its name."""
    from kplug.shell import annotate, extract

    return {"annotate": _option_strings(annotate.parser()), "extract": _option_strings(extract.parser())}


def _option_strings(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]
