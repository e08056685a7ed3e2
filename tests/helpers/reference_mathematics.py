"""The textbook version of the merge of one linear: options, curvature, column budgets, choice, near ties.

Without a line of the package, as ``reference.py`` is; symbols are those of the design's section 1.

Where the design leaves a case open: a column that did not change scores zero (ties: lower index); ``m`` is the mean of
``log(ε̄/ζ̄)`` with the energies cancelled, so ``saliency="product"`` turns its sign; ``κ = 0`` where the old
weight is all zeros; with fewer candidates than ``n_restored`` all of them are restored.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

Selection = Literal["balanced", "safety", "shared"]


@dataclass(frozen=True)
class Settings:
    """The options of the design's section 1."""

    p_max: float = 15.0
    p_min: float = 5.0
    focus_ratio: float = 2.0
    alpha_min: float = 0.4
    alpha_max: float = 0.8
    damping: float = 0.01
    selection: Selection = "balanced"
    orthogonal: bool = True
    saliency: Literal["quotient", "product"] = "quotient"
    uncalibrated: Literal["new", "old", "error"] = "new"


@dataclass(frozen=True)
class Choice:
    """Which columns are restored, and what decided it; the fields are per column."""

    focus_safety: frozenset[int]  # S
    focus_task: frozenset[int]  # T
    phi: tuple[float, ...]
    restored: frozenset[int]  # M
    decided_by: Literal["epsilon", "phi"]  # the score that drew the last line among the candidates
    margin: float  # smallest relative gap at a line that was drawn, as `_near` measures it; inf where none was


@dataclass(frozen=True)
class LinearResult:
    """One linear of the checkpoint. Only ``status == "merged"`` fills the fields after ``weight``."""

    name: str  # of the checkpoint tensor
    module: str
    input_axis: int  # 1: (r, c) as in nn.Linear; 0: (c, r) as in Conv1D
    depth: tuple[int, int]  # l, L
    status: Literal["merged", "unchanged", "uncalibrated"]
    weight: Tensor  # Ŵ before it is rounded: float64, in the checkpoint's orientation
    settings: Settings
    tokens: tuple[int, int]  # N_s, N_t
    share: float = 0.0  # p, percent
    n_restored: int = 0
    n_focus: int = 0
    restored: frozenset[int] = frozenset()  # M
    alpha: float = math.nan
    rtol: float = 0.0  # by how much an implementation's scores may differ that factors H in float32, relative
    kappa: float = math.nan  # computed whether or not `orthogonal` uses it
    energy: Tensor | None = None  # e (c)
    inverse_safety: Tensor | None = None  # diag H_s⁻¹ (c)
    inverse_task: Tensor | None = None  # diag H_t⁻¹ (c)
    epsilon: Tensor | None = None  # (c)
    zeta: Tensor | None = None  # (c)
    score: Tensor | None = None  # (c), `epsilon` or `phi`: what decided last
    choice: Choice | None = None

    @property
    def margin(self) -> float:
        """How near the nearest decision was; inf where nothing had to be decided."""
        return math.inf if self.choice is None else self.choice.margin


# --- curvature and budgets ---


def curvature(visits: Sequence[Tensor], damping: float) -> Tensor:
    """``H = (2/N) Σ x xᵀ + λI``, ``λ = damping · mean(diag((2/N) Σ x xᵀ))``, as a float64 matrix ``(c, c)``."""
    c = visits[0].shape[1]
    total = torch.zeros(c, c, dtype=torch.float64)
    for x in visits:
        total += x.double().T @ x.double()
    total *= 2 / sum(x.shape[0] for x in visits)
    return total + damping * total.diagonal().mean() * torch.eye(c, dtype=torch.float64)


def column_budgets(c: int, depth: tuple[int, int], settings: Settings) -> tuple[Fraction, int, int]:
    """``p`` in percent, ``n_restored``, ``n_focus``, in exact arithmetic."""
    block, blocks = depth
    p_max, p_min, ratio = (Fraction(str(x)) for x in (settings.p_max, settings.p_min, settings.focus_ratio))
    share = p_max - Fraction(block, blocks) * (p_max - p_min)
    n_restored = math.floor(share / 100 * c + Fraction(1, 2))
    n_focus = min(c, math.floor(ratio * share / 100 * c + Fraction(1, 2)))
    return share, n_restored, n_focus


# --- choosing columns ---


def choose_columns(
    epsilon: Sequence[float], zeta: Sequence[float], alpha: float, n_restored: int, n_focus: int, selection: Selection
) -> Choice:
    """``S``, ``T``, ``O``, ``φ`` and ``M`` of the design's table."""
    columns = range(len(epsilon))
    phi = [e - alpha * z for e, z in zip(epsilon, zeta, strict=True)]
    scale = [e + alpha * z for e, z in zip(epsilon, zeta, strict=True)]
    safety, task = top(columns, n_focus, epsilon), top(columns, n_focus, zeta)
    candidates, n, decided_by, always = _last_decision(columns, safety, task, n_restored, selection)
    score, score_scale = (epsilon, epsilon) if decided_by == "epsilon" else (phi, scale)
    chosen = top(candidates, n, score)
    margin = _margin(chosen, candidates, score, score_scale)
    if selection != "safety":
        margin = min(margin, _margin(safety, columns, epsilon, epsilon), _margin(task, columns, zeta, zeta))
    return Choice(safety, task, tuple(phi), always | chosen, decided_by, margin)


def top(candidates: Iterable[int], n: int, score: Sequence[float]) -> frozenset[int]:
    """The ``n`` candidates of the largest score, all of them where there are fewer; ties go to the lower index."""
    return frozenset(sorted(candidates, key=lambda column: (-score[column], column))[:n])


def _last_decision(
    columns: Collection[int], safety: frozenset[int], task: frozenset[int], n_restored: int, selection: Selection
) -> tuple[frozenset[int], int, Literal["epsilon", "phi"], frozenset[int]]:
    """``(candidates, n, score, always)``: restored are ``always`` and the ``n`` candidates of the largest score."""
    shared = safety & task
    safety_only = safety - shared
    if selection == "safety":
        return frozenset(columns), n_restored, "epsilon", frozenset()
    if selection == "shared":
        return shared, n_restored, "phi", frozenset()
    if len(safety_only) >= n_restored:
        return safety_only, n_restored, "epsilon", frozenset()
    return shared, n_restored - len(safety_only), "phi", safety_only


# --- near ties ---


_MOST_ALTERNATIVES = 20_000


def same_columns(result: LinearResult, restored: Collection[int], rtol: float) -> bool:
    """Could ``restored`` be the restored columns of an implementation whose scores are off by at most about ``rtol``?

    True where it equals the reference's set; else every line the method draws (the focus sets, then the restored
    columns among the candidates that follow from them) may be drawn otherwise, but only between columns whose scores in
    the reference lie within ``rtol`` of each other, and ``restored`` has to be what such lines give. So a column that
    moves up because a near tie elsewhere made room is accepted, and a set that no consistent choice gives is not.

    ``ε̄`` and ``ζ̄`` are compared relative to themselves, ``φ = ε̄ − αζ̄`` relative to ``ε̄ + αζ̄``: what it is a difference
    of. Two exact zeros (columns that did not change) are no near tie: the lower index wins.
    """
    wanted = frozenset(restored)
    if wanted == result.restored:
        return True
    if result.choice is None or len(wanted) != len(restored):
        return False
    epsilon, zeta = result.epsilon.tolist(), result.zeta.tolist()
    phi = result.choice.phi
    scale = [e + result.alpha * z for e, z in zip(epsilon, zeta, strict=True)]
    columns = frozenset(range(len(epsilon)))
    selection = result.settings.selection
    if not wanted <= columns:
        return False
    tasks = list(_possible_tops(columns, result.n_focus, zeta, zeta, rtol))
    for safety in _possible_tops(columns, result.n_focus, epsilon, epsilon, rtol):
        for task in tasks:
            candidates, n, decided_by, always = _last_decision(columns, safety, task, result.n_restored, selection)
            chosen = wanted - always
            score, score_scale = (epsilon, epsilon) if decided_by == "epsilon" else (phi, scale)
            if (
                always <= wanted
                and chosen <= candidates
                and len(chosen) == min(n, len(candidates))
                and _is_top(chosen, candidates, score, score_scale, rtol)
            ):
                return True
    return False


def _distance(a: int, b: int, score: Sequence[float], scale: Sequence[float]) -> float:
    """Relative distance of two columns' scores; inf where both are exactly zero, which nothing can blur."""
    size = max(abs(scale[a]), abs(scale[b]))
    return math.inf if size == 0 else abs(score[a] - score[b]) / size


def _is_top(
    chosen: frozenset[int], candidates: frozenset[int], score: Sequence[float], scale: Sequence[float], rtol: float
) -> bool:
    """Does every chosen column rank before every other candidate, or within ``rtol`` of it?"""
    return all(
        (-score[a], a) < (-score[b], b) or _distance(a, b, score, scale) <= rtol
        for a in chosen
        for b in candidates - chosen
    )


def _possible_tops(
    candidates: frozenset[int], n: int, score: Sequence[float], scale: Sequence[float], rtol: float
) -> Iterator[frozenset[int]]:
    """Every set that could be ``top(candidates, n, score)`` where scores within ``rtol`` may change places."""
    inside = top(candidates, n, score)
    outside = candidates - inside
    loose = [a for a in inside if any(_distance(a, b, score, scale) <= rtol for b in outside)]
    firm = inside - frozenset(loose)
    loose += [b for b in outside if any(_distance(a, b, score, scale) <= rtol for a in inside)]
    room = len(inside) - len(firm)
    if math.comb(len(loose), room) > _MOST_ALTERNATIVES:
        raise ValueError(f"{len(loose)} columns within {rtol} of one line: the tolerance is too wide for these scores")
    for extra in itertools.combinations(sorted(loose), room):
        chosen = firm | frozenset(extra)
        if _is_top(chosen, candidates, score, scale, rtol):
            yield chosen


def _margin(chosen: frozenset[int], candidates: Iterable[int], score: Sequence[float], scale: Sequence[float]) -> float:
    """The smallest distance between a chosen column and a candidate left out."""
    left_out = [column for column in candidates if column not in chosen]
    return min((_distance(a, b, score, scale) for a in chosen for b in left_out), default=math.inf)
