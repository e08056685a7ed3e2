"""What the user may have meant: a misspelt command or option, an option of another command, a flag before a command."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import click

from hpa_merge.counting import listed_words

__all__ = ["command_first", "meant_command", "meant_option"]

FLAGS = ("-h", "--help", "-q", "--quiet", "-v", "--verbose")
"""Flags that nearly every command has; before a command they are the command's."""

OTHER_WORDS = {
    "align": "hpa-merge OLD NEW …, without a word before OLD",
    "check": "hpa-merge verify",
    "compare": "hpa-merge eval",
    "draw": "hpa-merge report",
    "help": "hpa-merge --help",
    "merge": "hpa-merge OLD NEW …, without a word before OLD",
    "publish": "hpa-merge push",
    "repair": "hpa-merge OLD NEW …, without a word before OLD",
    "search": "hpa-merge tune",
    "show": "hpa-merge inspect",
    "test": "hpa-merge eval",
    "upload": "hpa-merge push",
    "version": "hpa-merge --version",
}
"""Words that other tools have for a command."""


def command_first(words: Sequence[str], commands: Mapping[str, click.Command]) -> list[str]:
    """The words with the command first, if only flags that every command has stand before it."""
    place = next((number for number, word in enumerate(words) if word not in FLAGS), None)
    if not place or words[place] not in commands:
        return list(words)
    return [words[place], *words[:place], *words[place + 1 :]]


def meant_command(words: Sequence[str], commands: Mapping[str, click.Command]) -> str:
    """A sentence about a first word that is neither a command nor what OLD can be; empty for any other.

    A word that is like no command is left to the merge, which says that OLD does not exist.
    """
    given = words[0] if words else ""
    if not given or given.startswith("-") or "/" in given or given in commands:
        return ""
    with suppress(OSError, ValueError):  # what no file can be called is looked at as a word
        if Path(given).exists():
            return ""
    word = given.lower()
    close = get_close_matches(word, commands, n=1) or [name for name in commands if word.isalpha() and name in word]
    meant = OTHER_WORDS.get(word) or (f"hpa-merge {close[0]}" if close else "")
    return f"there is no command {given!r} and no folder of that name: did you mean {meant}?" if meant else ""


def meant_option(
    error: click.NoSuchOption, command: click.Command, words: Sequence[str], commands: Mapping[str, click.Command]
) -> str:
    """The message of an unknown option, with the likeliest one, or with the commands that have it.

    Args:
        command: the one that refuses it.
        words: its arguments.
        commands: all others, by name.
    """
    typed = error.option_name
    if not typed.startswith("--"):  # a long option with one dash is taken for several short ones
        typed = next((word for word in words if word.startswith(typed) and len(word) > 2), typed)
    typed = typed.partition("=")[0]
    letters = typed.lstrip("-").lower().replace("_", "-")
    word = f"--{letters}"
    own = _long_options(command)
    longer = [option for option in own if option.startswith(word)]
    others = [f"hpa-merge {name}" for name, other in commands.items() if word in _long_options(other)]
    if word in own:
        hint = f": did you mean {word}?"
    elif others and word != "--help":
        hint = f": {listed_words(others)} {'has' if len(others) == 1 else 'have'} it."
    elif len(letters) > 1 and (likely := longer[:3] or get_close_matches(word, own, n=1)):
        hint = f": did you mean {listed_words(likely, 'or')}?"
    else:
        hint = f": {error.ctx.command_path if error.ctx else 'hpa-merge'} --help lists all."
    return f"No such option '{typed}'{hint}"


def _long_options(command: click.Command) -> list[str]:
    """The long forms of a command's options, in their order."""
    return [
        form
        for parameter in command.params
        for form in (*parameter.opts, *parameter.secondary_opts)
        if form.startswith("--")
    ]
