"""Shell completion, with click's own functions.

The script of ``hpa-merge completion bash`` calls the program with ``_HPA_MERGE_COMPLETE`` when the tab key is
pressed, and reads one candidate per line. The first word may be a command or OLD.
"""

import os
from collections.abc import Mapping

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from hpa_merge.cli.terminal import HELP

__all__ = ["VARIABLE", "asked_for", "completion_command", "completions"]

PROGRAM, VARIABLE = "hpa-merge", "_HPA_MERGE_COMPLETE"

SHELLS = ("bash", "zsh", "fish")


@click.command(
    short_help="Print the completion script for bash, zsh or fish.",
    context_settings=HELP,
    epilog="""\b
For every new shell, add this line to ~/.bashrc (or with zsh instead of bash to ~/.zshrc):
  eval "$(hpa-merge completion bash)"
For fish, run:
  hpa-merge completion fish > ~/.config/fish/completions/hpa-merge.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print the script that completes hpa-merge's commands, options and paths in SHELL."""
    click.echo(_completer(shell, click.Command(PROGRAM)).source())


def asked_for() -> str:
    """The request of a shell, such as ``bash_complete``; empty without one."""
    return os.environ.get(VARIABLE, "")


def completions(asked: str, merge: click.Command, commands: Mapping[str, click.Command]) -> str | None:
    """The answer to a request; None if it is unknown.

    Args:
        merge: the command if the first word is none of ``commands``.
    """
    shell, _, action = asked.partition("_")
    if shell not in SHELLS or action not in ("source", "complete"):
        return None
    if action == "source":
        return _completer(shell, merge).source()
    words, incomplete = _without_signs(*_completer(shell, merge).get_completion_args())
    if words and words[0] in commands:
        completer = _completer(shell, commands[words[0]])
        items = completer.get_completions(words[1:], incomplete)
    else:
        completer = _completer(shell, merge)
        items = completer.get_completions(words, incomplete)
        if not words and not incomplete.startswith("-"):  # after the paths: bash drops candidates before one
            items += [
                CompletionItem(name, help=command.get_short_help_str())
                for name, command in commands.items()
                if name.startswith(incomplete)
            ]
    return "\n".join(completer.format_completion(item) for item in items)


def _without_signs(words: list[str], incomplete: str) -> tuple[list[str], str]:
    """Undo bash's splitting of ``--option=value`` and ``NAME=FILE`` into three words."""
    if incomplete == "=":
        words, incomplete = [*words, "="], ""
    if words and words[-1] == "=":
        words = words[: -1 if words[-2:-1] and words[-2].startswith("-") else -2]
    return words, incomplete


def _completer(shell: str, command: click.Command) -> ShellComplete:
    made = get_completion_class(shell)
    assert made is not None, shell
    return made(command, {}, PROGRAM, VARIABLE)
