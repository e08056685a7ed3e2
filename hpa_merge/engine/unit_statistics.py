"""The statistics of one unit, computed from the activations that its linears have read.

A curvature of a few tokens says little about the tokens that an expert will read. Below ``min_expert_tokens`` an expert
gets the curvature of all tokens that the experts of its layer have read, its own among them, a token once for each
expert that has read it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

from torch import Tensor

from hpa_merge.core import Curvature, Hessian, InverseHessian, SingularCurvature
from hpa_merge.core.gathered import Recent
from hpa_merge.errors import NumericalError
from hpa_merge.outline import LinearTensor

__all__ = ["Observed", "is_pooled", "pooled_field"]


def pooled_field(linear: LinearTensor, tokens: Mapping[str, int], min_expert_tokens: int) -> dict[str, str]:
    """The field ``pooled`` of a linear's record, if it has one, from the tokens that it has read of each set."""
    sets = [purpose for purpose, count in tokens.items() if is_pooled(linear, count, min_expert_tokens)]
    return {"pooled": " ".join(sets)} if sets else {}


def is_pooled(linear: LinearTensor, tokens: int, min_expert_tokens: int) -> bool:
    """Whether a linear that has read so many tokens gets the curvature of all experts of its layer."""
    return bool(linear.pool) and tokens < min_expert_tokens


@final
class Observed:
    """The :class:`~hpa_merge.engine.statistics.Statistics` of one unit, computed lazily."""

    def __init__(
        self, purpose: str, role: str, curvatures: Mapping[str, Curvature], damping: float, min_expert_tokens: int
    ) -> None:
        """``curvatures``: by the observer's name; ``purpose`` and ``role`` are for messages."""
        self._purpose = purpose
        self._role = role
        self._curvatures = curvatures
        self._damping = damping
        self._min_expert_tokens = min_expert_tokens
        self._joined: dict[tuple[Curvature, ...], Curvature] = {}  # sums of several
        self._diagonals: dict[Curvature, Tensor] = {}  # linears that read the same tensor share one
        self._inverse: dict[Curvature, InverseHessian] = {}  # at most one
        self._hessians: Recent[Curvature] = Recent()

    def reached(self, linear: LinearTensor) -> bool:
        return any(curvature.peak != 0.0 for curvature in self._of(self._observers(linear)))

    def tokens(self, linear: LinearTensor) -> int:
        return sum(curvature.tokens for curvature in self._of(linear.observers))

    def inverse_diagonal(self, linear: LinearTensor) -> Tensor:
        curvature = self._curvature(linear)
        if curvature not in self._diagonals:
            with self._factoring(linear):
                self._diagonals[curvature] = curvature.inverse_diagonal(self._damping)
        return self._diagonals[curvature]

    def inverse(self, linear: LinearTensor) -> InverseHessian:
        """All of ``H⁻¹`` of a linear that is reached; only the last one is held."""
        curvature = self._curvature(linear)
        if curvature not in self._inverse:
            self._inverse.clear()
            with self._factoring(linear):
                self._inverse[curvature] = curvature.inverse(self._damping)
        return self._inverse[curvature]

    def hessian(self, linear: LinearTensor) -> Hessian:
        """``H`` of a linear that is reached; linears that read the same tensor get the same object.

        Raises:
            NumericalError: an activation is not finite.
        """
        curvature = self._curvature(linear)
        return self._hessians.get(curvature, lambda: curvature.hessian(self._damping))

    def _curvature(self, linear: LinearTensor) -> Curvature:
        """The curvature of the linear's input; raises NumericalError if an activation is not finite."""
        parts = self._of(self._observers(linear))
        if len(parts) > 1 and parts not in self._joined:  # a pool, or modules that share one weight on disk
            self._joined[parts] = Curvature(parts[0].columns, offload=parts[0].offload)
            for part in parts:
                self._joined[parts].absorb(part)
        curvature = self._joined[parts] if len(parts) > 1 else parts[0]
        if not math.isfinite(curvature.peak):
            raise NumericalError(
                f"the {self._purpose} activations that reach {linear.name} hold NaN or infinity: "
                f"check that {self._role} can run in its dtype."
            )
        return curvature

    @contextmanager
    def _factoring(self, linear: LinearTensor) -> Iterator[None]:
        """Name the linear in the error for a curvature that cannot be factored."""
        try:
            yield
        except SingularCurvature as error:
            raise NumericalError(
                f"the {self._purpose} curvature of {linear.name} cannot be factored, not even in float64 ({error}): "
                f"raise damping, which is {self._damping:g}."
            ) from error

    def _observers(self, linear: LinearTensor) -> tuple[str, ...]:
        """The observers whose tokens make up the curvature of a linear."""
        return linear.pool if is_pooled(linear, self.tokens(linear), self._min_expert_tokens) else linear.observers

    def _of(self, observers: Iterable[str]) -> tuple[Curvature, ...]:
        """The curvatures of the observers, each once."""
        return tuple(dict.fromkeys(self._curvatures[o] for o in observers if o in self._curvatures))
