"""The regular expressions among a report's options are first tried in a child process, with limits.

They are matched against the names of NEW's tensors, and a regular expression can take for ever. What came to an end
there comes to an end here too.
"""

from collections.abc import Iterable

from hpa_merge.config import HPAConfig
from hpa_merge.errors import ConfigError
from hpa_merge.isolation import Child, Limits, Stopped

__all__ = ["try_patterns"]

SERVICE = "hpa_merge.verification.pattern_service:PatternService"

SEARCHING = Limits(computing=20.0, waiting=300.0)
"""A hundred expressions over 100,000 names take some seconds."""

MEMORY = 2**30
"""Bytes for the names and the expressions: 1 GiB."""

REPEATING = frozenset("*+?{|")
"""Without one of these a regular expression is gone through once."""


def try_patterns(config: HPAConfig, names: Iterable[str]) -> None:
    """Look for every expression of the options in ``names``, in a child, where one could take long.

    Raises:
        ConfigError: they take too much.
    """
    patterns = [pattern for pattern in (*config.include, *config.exclude) if REPEATING.intersection(pattern)]
    if not patterns:
        return
    child = Child(SERVICE, MEMORY)
    try:
        child.call("search", patterns, list(names), limits=SEARCHING)
    except Stopped as stopped:
        raise ConfigError(
            f"the report's include and exclude take too much to be matched with NEW's tensors ({stopped}): no merge "
            "has used them, so fetch the folder again."
        ) from stopped
    finally:
        child.close()
