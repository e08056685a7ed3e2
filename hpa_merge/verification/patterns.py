"""Tries the regular expressions of a report's options in a child process with limits.

A regular expression can take forever. One that ends there, on the names of NEW's tensors, ends here too.
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
"""A regular expression without these takes linear time."""


def try_patterns(config: HPAConfig, names: Iterable[str]) -> None:
    """Match the expressions that could take long with ``names`` in a child process.

    Raises:
        ConfigError: they exceed the limits.
    """
    patterns = [pattern for pattern in (*config.include, *config.exclude) if REPEATING.intersection(pattern)]
    if not patterns:
        return
    child = Child(SERVICE, MEMORY)
    try:
        child.call("search", patterns, list(names), limits=SEARCHING)
    except Stopped as stopped:
        raise ConfigError(
            f"matching the report's include and exclude with NEW's tensors takes too much ({stopped}): no merge has "
            "used them, so fetch the folder again."
        ) from stopped
    finally:
        child.close()
