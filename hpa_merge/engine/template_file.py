"""The chat template that the user gives as a file; needs no transformers."""

from collections.abc import Sequence
from pathlib import Path

from hpa_merge.config import DAY, template_arguments
from hpa_merge.errors import ConfigError
from hpa_merge.files.parsing import read_bounded

__all__ = ["read_template"]

TEMPLATE_BYTES = 2**20
"""The longest file of a chat template; of real ones, the longest has 30 kB."""


def read_template(given: str, arguments: Sequence[str], date: str) -> str | None:
    """The template in the file ``given``; None if it is a name that the checkpoint has for one of its templates.

    Args:
        given: empty for the checkpoint's own template.
        arguments, date: the options of the template, which are checked too.

    Raises:
        ConfigError: the file cannot be read, or an argument is none, or the date is none.
    """
    if not DAY.holds(date):
        raise ConfigError(f"template_date is {date!r}: it has to be {DAY.words}.")
    path = Path(given)
    template_arguments(arguments)
    if not given or not (path.exists() or path.suffix in (".jinja", ".jinja2", ".j2")):
        return None
    try:
        text = read_bounded(path, TEMPLATE_BYTES).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"chat_template {given} cannot be read ({error.strerror}): check the path.") from None
    except ValueError as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError(f"chat_template {given} is not a template ({why}): give a file of Jinja.") from None
    if not text.strip():
        raise ConfigError(f"chat_template {given} is empty: give a file of Jinja.")
    return text
