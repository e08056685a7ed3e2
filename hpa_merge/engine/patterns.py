"""The regular expressions of the options include and exclude."""

import re
from collections.abc import Sequence

from hpa_merge.config import OutOptions

__all__ = ["fits"]


def fits(config: OutOptions, key: str) -> bool:
    """Whether the expressions let a tensor be adapted."""
    return _matches(config.include, key, default=True) and not _matches(config.exclude, key, default=False)


def _matches(patterns: Sequence[str], key: str, *, default: bool) -> bool:
    return any(re.search(pattern, key) for pattern in patterns) if patterns else default
