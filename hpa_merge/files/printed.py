"""A list or a dictionary as Python prints it: what a table has in a cell that was never written as JSON."""

import ast
import json
import re
from typing import Any

from hpa_merge.files.parsing import LINE, parse_json

__all__ = ["parse_printed"]

LONGEST = 2**17
"""Characters of a text: 128 KiB, which Python's parser takes some seconds for at most."""

_TWO_STRINGS = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(\s*['"])?""", re.DOTALL)
"""A string as Python prints it, and the beginning of another one behind it."""


def parse_printed(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or dictionary that Python printed; None where it is none that JSON could hold, or too long.

    Two strings in a row are none, though Python would join them: so are arrays printed by numpy.
    """
    if len(text) > LONGEST or any(found[2] for found in _TWO_STRINGS.finditer(text)):
        return None
    try:
        value = ast.literal_eval(text.strip())
        if not isinstance(value, list | dict) or not _fits_json(value):
            return None
        checked: list[Any] | dict[str, Any] = parse_json(json.dumps(value, allow_nan=False), LINE)
        return checked
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _fits_json(value: object) -> bool:
    """Whether JSON has the types of a value: it has no tuples, and no keys that are no strings."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _fits_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_fits_json, value))
    return value is None or isinstance(value, str | bool | int | float)
