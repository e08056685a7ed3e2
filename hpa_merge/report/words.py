"""Numbers, names and options as people read them."""

from collections.abc import Iterable, Mapping
from typing import Any

from hpa_merge.counting import counted, listed_words

__all__ = [
    "bytes_text",
    "counted",
    "counts_text",
    "listed",
    "listed_words",
    "number",
    "option_text",
    "percent",
    "seconds_text",
    "shortened",
]


def bytes_text(count: float) -> str:
    """``1.5 GB``: decimal units, as disks and checkpoints are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def listed(counts: Mapping[str, int]) -> str:
    """``12 adapted, 2 unchanged``; ``nothing`` without counts."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"


def counts_text(counts: Mapping[str, int]) -> str:
    """``2 routers, 1 norm``, of things by their name in the singular; ``nothing`` without counts."""
    return ", ".join(counted(count, thing) for thing, count in counts.items() if count) or "nothing"


def number(value: float, digits: int = 3) -> str:
    """A number with a true minus."""
    return f"{value:.{digits}g}".replace("-", "−")


def option_text(value: Any) -> str:
    """The value of an option."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    """A share between 0 and 1 in percent: one decimal under 10, none above."""
    return f"{100 * share:.{1 if round(100 * share, 1) < 10 else 0}f} %"


def seconds_text(seconds: float) -> str:
    """``3.1 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def shortened(names: Iterable[str], most: int = 4) -> str:
    """The first names of a list, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
