"""The statistics of one unit, computed from the activations that its linears have read."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

from torch import Tensor

from hpa_merge.core import Curvature, Hessian, InverseHessian, SingularCurvature
from hpa_merge.core.gathered import Recent
from hpa_merge.errors import NumericalError
from hpa_merge.model import LinearTensor

__all__ = ["Observed"]


@final
class Observed:
    """The :class:`~hpa_merge.engine.statistics.Statistics` of one unit, computed lazily."""

    def __init__(self, purpose: str, role: str, curvatures: Mapping[str, Curvature], damping: float) -> None:
        """``curvatures``: by the observer's name; ``purpose`` and ``role`` are for messages."""
        self._purpose = purpose
        self._role = role
        self._curvatures = curvatures
        self._damping = damping
        self._diagonals: dict[Curvature, Tensor] = {}  # linears that read the same tensor share one
        self._inverse: dict[Curvature, InverseHessian] = {}  # at most one
        self._hessians: Recent[Curvature] = Recent()

    def reached(self, linear: LinearTensor) -> bool:
        return any(curvature.peak != 0.0 for curvature in self._of(linear))

    def tokens(self, linear: LinearTensor) -> int:
        return sum(curvature.tokens for curvature in self._of(linear))

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
        curvature, *others = self._of(linear)
        if others:  # modules that read different tensors and share one weight on disk
            curvatures = (curvature, *others)
            curvature = Curvature(curvature.columns, offload=curvature.offload)
            for part in curvatures:
                curvature.absorb(part)
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

    def _of(self, linear: LinearTensor) -> list[Curvature]:
        """The curvatures of the linear's observers, each once."""
        return list(dict.fromkeys(self._curvatures[o] for o in linear.observers if o in self._curvatures))
