"""The command line's option for a field of the configuration, with its default and its help."""

from collections.abc import Callable
from typing import Any

import click

from hpa_merge.config import option_fields, option_item, option_metavar, option_words

__all__ = ["config_option"]


def config_option(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option of a field of :class:`HPAConfig`, with its default and its help."""
    default, text = option_fields()[name]
    flag = f"--{name.replace('_', '-')}"
    settings: dict[str, Any] = {"default": default, "help": text, "show_default": default not in ("", ())}
    if isinstance(default, bool):
        flag = f"{flag}/--no-{name.replace('_', '-')}"
    elif isinstance(default, tuple):
        settings |= {"multiple": True, "type": option_item(name)}
    elif words := option_words(name):
        settings["type"] = click.Choice(words)
    else:
        settings["type"] = type(default)
    if metavar := option_metavar(name):
        settings["metavar"] = metavar
    return click.option(flag, name, **settings)
