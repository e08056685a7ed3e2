"""What is compared: rules at several strengths, and readings of HPA, as options of :class:`hpa_merge.HPAConfig`."""

from collections.abc import Callable
from typing import Any

SEQUENTIAL, FROZEN = "sequential", "frozen"
"""The ends of every curve: OUT is NEW, which is also the first row of the paper's ablation; or OUT is OLD."""


def _sweep(rule: str, values: tuple[Any, ...], options: Callable[[Any], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{rule} {value}": {"method": rule, **options(value)} for value in values}


def _shares(p_max: float) -> dict[str, Any]:
    return {"p_max": p_max, "p_min": p_max / 3}  # as with the defaults, 15 and 5


SWEEPS: dict[str, dict[str, dict[str, Any]]] = {
    "hpa": _sweep("hpa", (7.5, 15, 30), _shares),
    "energy": _sweep("energy", (15, 30), _shares),
    "random": _sweep("random", (15,), _shares),
    "linear": _sweep("linear", (0.75, 0.5, 0.25), lambda weight: {"weight": weight}),
    "regmean": _sweep("regmean", (0.3, 1, 3, 10), lambda weight: {"safety_weight": weight}),
    "cgm": _sweep("cgm", (0.3, 1), lambda weight: {"safety_weight": weight}),
    "null-space": _sweep("null-space", (0.3, 0.8), lambda share: {"safety_energy": share}),
    "safe-delta": _sweep("safe-delta", (60, 30, 15), lambda budget: {"safety_budget": budget}),
    "model-tailor": _sweep("model-tailor", (30, 10), lambda share: {"patch_share": share}),
    "blocks": _sweep("blocks", ("1", "1-2"), lambda blocks: {"blocks": blocks}),
}
"""The strengths of each rule, from weak to strong, by the names that the results have."""

READINGS: dict[str, dict[str, Any]] = {
    "hpa ε̄": {"selection": "safety", "orthogonal": False},
    "hpa φ": {"selection": "shared", "orthogonal": False},
    "hpa ε̄+φ": {"orthogonal": False},
    "hpa product": {"saliency": "product"},
    "hpa sum": {"hessian_scale": "sum"},
    "hpa log-mean": {"averaging": "log-mean"},
    "hpa by row": {"orthogonal_by": "row"},
    "hpa by column": {"orthogonal_by": "column"},
    "hpa one-based": {"depth_range": "one-based"},
    "hpa full range": {"depth_range": "full"},
    "hpa excess": {"excess": "keep"},
}
"""The paper's ablation, and what its text leaves open."""

METHODS = {name: options for sweep in SWEEPS.values() for name, options in sweep.items()} | READINGS

HPA = "hpa 15"
"""HPA with its default options."""

ABLATION = {  # the paper's five rows, as they are built up
    "1: —": SEQUENTIAL,
    "2: ε̄": "hpa ε̄",
    "3: φ": "hpa φ",
    "4: ε̄, φ": "hpa ε̄+φ",
    "5: ε̄, φ, W̃": HPA,
}
