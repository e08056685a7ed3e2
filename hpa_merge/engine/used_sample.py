"""A sample that is used, as every rank and a statistics file know it."""

from dataclasses import dataclass
from typing import final

__all__ = ["UsedSample"]


@final
@dataclass(frozen=True)
class UsedSample:
    """A sample that is used, as every rank knows it.

    Attributes:
        place: its place among those that were drawn.
        leaf: its leaf, which depends on how many were drawn alone.
        rank: the rank that runs it.
        tokens: how many it has; what a decoder reads apart from the encoder counts too.
        digest: of what the model gets.
    """

    place: int
    leaf: int
    rank: int
    tokens: int
    digest: str
