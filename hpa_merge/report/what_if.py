"""How much of the update other settings would undo, as text of some hundred characters for each weight.

``what_if`` of a report is the grid of settings. ``what_if`` of a linear has two characters for each of them, in their
order: the share of ``‖ΔW‖²`` that the setting undoes, in 4,095ths, as two digits of base64, the more significant one
first.
"""

import math
import string
from collections.abc import Iterable, Mapping

from hpa_merge.config import option_fields
from hpa_merge.methods import find_rule
from hpa_merge.methods.what_if import Grid

__all__ = ["LEVELS", "are_shares", "check_grid", "missing_because", "pack_shares", "unpack_shares"]

LEVELS = 4095
"""The greatest number of two digits, which stands for all of the update."""

MOST = 1024
"""The most settings of a grid."""

GREATEST = 1e100
"""The greatest value of an option in a grid."""

_DIGITS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"

_KNOWN = frozenset(_DIGITS)

_PAIRS = tuple(first + second for first in _DIGITS for second in _DIGITS)

_LEVEL: Mapping[str, int] = {pair: level for level, pair in enumerate(_PAIRS)}


def pack_shares(shares: Iterable[float]) -> str:
    """Shares between 0 and 1, up to rounding, as text."""
    return "".join(_PAIRS[round(LEVELS * min(1.0, max(0.0, share)))] for share in shares)


def unpack_shares(text: str) -> list[int]:
    """The shares in 4,095ths: the inverse of :func:`pack_shares`.

    Raises:
        KeyError: the text holds something else.
    """
    return [_LEVEL[text[place : place + 2]] for place in range(0, len(text), 2)]


def are_shares(text: str) -> bool:
    """Whether a text that may come from anyone is of this form."""
    return len(text) <= 2 * MOST and len(text) % 2 == 0 and _KNOWN.issuperset(text)


def check_grid(grid: Grid) -> None:
    """Check that a grid that may come from anyone is one: its sizes, and that the settings are of known options.

    Raises:
        ValueError: it is not.
    """
    known, moved = option_fields(), [name for slider in grid.sliders for name in slider.options]
    sizes = len(grid.sizes) == len(grid.sliders) and all(1 < size <= MOST for size in grid.sizes)
    if not sizes or math.prod(grid.sizes) != len(grid.settings) or len(grid.settings) > MOST:
        raise ValueError("what_if does not have a setting for each position of its sliders")
    if not 0 <= grid.own < len(grid.settings):
        raise ValueError("what_if does not have the merge's own setting")
    numbers = {name for name, (default, _) in known.items() if type(default) is float}
    if not {*moved} <= numbers or any(not {*moved} <= setting.keys() <= numbers for setting in grid.settings):
        raise ValueError("the settings of what_if do not have the options of its sliders")
    if not all(0.0 <= value <= GREATEST for setting in grid.settings for value in setting.values()):
        raise ValueError("a value of what_if cannot be")


def missing_because(method: str) -> str:
    """Why the reports of a method have no such figures, in a sentence; empty if they can have them."""
    rule = find_rule(method)
    if rule is None or not rule.no_grid:
        return ""
    return (
        f"What other settings of {rule.name} would undo does not follow from what a merge gathers: {rule.no_grid}. "
        "hpa-merge sweep makes several OUTs from one read of OLD and NEW, and compares them."
    )
