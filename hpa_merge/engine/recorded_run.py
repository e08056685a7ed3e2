"""A calibration set that does not run, as an earlier run has encoded it, with the weights of its model."""

from collections import Counter
from collections.abc import Collection
from typing import final

import torch

from hpa_merge.engine.beginnings import SetBeginning
from hpa_merge.engine.sets import GivenSet
from hpa_merge.engine.weights import Weights
from hpa_merge.records import Sample

__all__ = ["RecordedRun"]


@final
class RecordedRun:
    """What :class:`~hpa_merge.engine.calibration_run.CalibrationRun` is asked for if no sample runs.

    Attributes:
        purpose, role, weights, inputs, used, tally, shown, dtype: as there; nothing is encoded or shown.
    """

    inputs: tuple[()] = ()
    shown: tuple[()] = ()
    ranks = 1
    leads = True
    other_tokens = 0

    def __init__(
        self, purpose: str, weights: Weights, given: GivenSet, begun: SetBeginning, dtype: torch.dtype
    ) -> None:
        """``given``: what was drawn; ``begun``: what became of it; ``dtype``: that its samples would run in now.

        Raises:
            KeyError, LookupError, TypeError, ValueError: that cannot have become of it.
        """
        self.purpose, self.role, self.weights, self.dtype = purpose, weights.role, weights, dtype
        self.used, self.tally = begun.used, begun.tally(purpose, given)
        self._samples = [given.samples.samples[each.place] for each in begun.used]

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return self.tally.tokens

    @property
    def own_tokens(self) -> int:
        """Tokens of the samples of this rank, which is alone."""
        return sum(each.tokens for each in self.used)

    @property
    def leaf_share(self) -> float:
        """The share of the tokens that the largest leaf has."""
        of_leaves: Counter[int] = Counter()
        for each in self.used:
            of_leaves[each.leaf] += each.tokens
        return max(of_leaves.values(), default=0) / max(1, of_leaves.total())

    def counted(self, samples: Collection[Sample]) -> tuple[int, int]:
        """How many of these are used, and their tokens."""
        wanted = set(map(id, samples))
        tokens = [each.tokens for sample, each in zip(self._samples, self.used, strict=True) if id(sample) in wanted]
        return len(tokens), sum(tokens)
