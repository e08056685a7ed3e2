"""Shell completion: click's own machinery, behind a ``main`` that finds the command by itself.

The script that ``hpa-merge completion bash`` prints calls the program with ``_HPA_MERGE_COMPLETE`` in its environment
at each press of the tab key, and reads one candidate a line. The first word may be a command or OLD.
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
    context_settings=HELP,
    epilog="""\b
To have it in every new shell, add this line to ~/.bashrc or ~/.zshrc:
  eval "$(hpa-merge completion bash)"      (zsh in the place of bash for zsh)
and for fish:
  hpa-merge completion fish > ~/.config/fish/completions/hpa-merge.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print the script that completes hpa-merge's commands, options and paths in SHELL."""
    click.echo(_completer(shell, click.Command(PROGRAM)).source())


def asked_for() -> str:
    """What a shell asks: ``bash_complete``, ``bash_source`` and so on; empty where none does."""
    return os.environ.get(VARIABLE, "")


def completions(asked: str, merge: click.Command, commands: Mapping[str, click.Command]) -> str | None:
    """The answer to ``asked``; None where that is nothing we know.

    Args:
        merge: the command where the first word is none of ``commands``.
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
        if not words and not incomplete.startswith("-"):  # after the paths: bash forgets what it was told before one
            items += [
                CompletionItem(name, help=command.get_short_help_str())
                for name, command in commands.items()
                if name.startswith(incomplete)
            ]
    return "\n".join(completer.format_completion(item) for item in items)


def _without_signs(words: list[str], incomplete: str) -> tuple[list[str], str]:
    """Bash makes three words of ``--option=value`` and of ``NAME=FILE``, and completes the last of them alone."""
    if incomplete == "=":
        words, incomplete = [*words, "="], ""
    if words and words[-1] == "=":
        words = words[: -1 if words[-2:-1] and words[-2].startswith("-") else -2]
    return words, incomplete


def _completer(shell: str, command: click.Command) -> ShellComplete:
    made = get_completion_class(shell)
    assert made is not None, shell
    return made(command, {}, PROGRAM, VARIABLE)
