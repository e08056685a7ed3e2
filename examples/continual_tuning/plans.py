"""Which chains there are: the regimes, and the parts of the experiment."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bases import Regime
from chain import Chain
from methods import FROZEN, HPA, METHODS, READINGS, SEQUENTIAL, SWEEPS

REGIMES = {
    "lora": Regime(),
    "full": Regime(tuning="full"),
    "decay": Regime(tuning="full", decay=10.0),
    "spread": Regime(tuning="full", spread=1.0),
    "spread-lora": Regime(spread=1.0),
    "deep": Regime(depth=8),
    "wide": Regime(width=256),
    "long": Regime(order=2 * Regime.order),
    "large": Regime(width=320, depth=8, haste=0.5),
    "reduced": Regime(
        width=64, depth=3, lessons=0.25, haste=3.0, order=("colour", "count")
    ),  # what the test suite runs
}

ENDS = (SEQUENTIAL, FROZEN)
ALL = (*ENDS, *(name for settings in SWEEPS.values() for name in settings))
MAIN = (*ENDS, HPA, "hpa 30", "regmean 1", "regmean 3", "linear 0.5", "linear 0.25", "null-space 0.3")
FEW = (*ENDS, HPA, "regmean 1", "regmean 3")


@dataclass(frozen=True)
class Part:
    """Chains that answer one question.

    Attributes:
        safety_samples: numbers of safety samples, each a variation.
        safety_from: ``first``: the safety samples have the refusals of the aligned model, the paper's θ₀, in every
            step; ``old``: those of OLD, made anew in every step.
    """

    regimes: tuple[str, ...]
    methods: tuple[str, ...]
    injected: tuple[float, ...] = (0.0,)
    safety_samples: tuple[int, ...] = (8,)
    safety_from: str = "first"

    def chains(self, base: int) -> Iterator[Chain]:
        """Those on one base."""
        for regime in self.regimes:
            for injected in self.injected:
                for samples in self.safety_samples:
                    for method in self.methods:
                        yield Chain(regime, REGIMES[regime], base, injected, method, samples, self.safety_from)


PARTS = {
    "curves": Part(("lora",), ALL),
    "injected": Part(("lora",), MAIN, (0.01,)),
    "spread": Part(("spread",), MAIN),
    "full": Part(("full",), MAIN),
    "spread-lora": Part(("spread-lora",), MAIN),
    "shares": Part(("lora",), FEW, (0.001, 0.05)),
    "samples": Part(("lora",), (HPA, "regmean 3"), (0.01,), (32, 128)),
    "origin": Part(("lora",), (HPA, "regmean 3"), (0.0, 0.01), safety_from="old"),
    "readings": Part(("lora",), (*READINGS, HPA, SEQUENTIAL)),
    "orthogonal": Part(("decay",), (SEQUENTIAL, HPA, "hpa ε̄+φ")),
    "shapes": Part(("long", "deep", "wide"), FEW),
    "large": Part(("large",), FEW),
    "reduced": Part(("reduced",), (*ENDS, HPA, "regmean 1")),
}
"""The parts of the experiment by name; ``reduced`` is what the test suite runs."""


def plan(parts: Iterable[str], bases: Iterable[int], only: Iterable[str] = METHODS) -> list[Chain]:
    """The chains of some parts, each once, base by base, so that what is finished can be compared in pairs."""
    wanted = {*only, *ENDS}
    chains = (chain for name in parts for base in bases for chain in PARTS[name].chains(base))
    return [chain for chain in dict.fromkeys(chains) if chain.method in wanted]
