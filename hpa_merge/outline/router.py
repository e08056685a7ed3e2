"""A matrix that chooses among experts, and what it chooses."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Choices", "Router"]

Choices: TypeAlias = "dict[str, Tensor]"
"""The experts of each token, ``[tokens, k]``, by the mixture's path."""


@final
@dataclass(frozen=True)
class Router:
    """A matrix by which the experts of one mixture are chosen.

    Attributes:
        weight: its name.
        module: path of the module that only routes.
        mixture: path of the module that holds the router and the experts.
        experts: the number of experts.
        scored: how many experts may be scored at once: shared ones, or ones that do nothing, may count too.
    """

    weight: str
    module: str
    mixture: str
    experts: int
    scored: frozenset[int]
