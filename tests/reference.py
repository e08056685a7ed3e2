"""The textbook version of the merge: both models whole, plain hooks, float64, explicit inverses, Python sets and sorts.

Slow, and on purpose without a line of the package: the fast implementation is held against it. The forward passes run
in the checkpoints' own dtype, as the package's do; everything after a captured activation is float64, and the column
budgets are exact rationals of the decimal numbers a user would have typed. Symbols are those of the design's section 1.

Where the design leaves a case open: a column that did not change scores zero (ties: lower index); ``m`` is the mean of
``log(ε̄/ζ̄)`` with the energies cancelled, so ``saliency="product"`` turns its sign; ``κ = 0`` where the old
weight is all zeros; with fewer candidates than ``n_keep`` all of them are kept.
"""

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

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
    """Which columns are kept, and what decided it; the fields are per column."""

    focus_safety: frozenset[int]  # S
    focus_task: frozenset[int]  # T
    phi: tuple[float, ...]
    kept: frozenset[int]  # M
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
    n_keep: int = 0
    n_focus: int = 0
    kept: frozenset[int] = frozenset()  # M
    alpha: float = math.nan
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


def reference_merge(
    old: Path,
    new: Path,
    safety_inputs: Sequence[Mapping[str, Tensor]],
    task_inputs: Sequence[Mapping[str, Tensor]],
    settings: Settings | None = None,
    depth_of: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, LinearResult]:
    """Every linear of the checkpoint ``new`` by tensor name, tied heads left out.

    ``*_inputs`` are keyword arguments of the model, one sample each. ``depth_of`` (by tensor name) replaces the depths
    that the module paths give.
    """
    settings = settings or Settings()
    old_model, new_model = load_model(old), load_model(new)
    old_tensors, new_tensors = load_tensors(old), load_tensors(new)
    safety = captured_inputs(old_model, safety_inputs)
    task = captured_inputs(new_model, task_inputs)
    depths = module_depths(new_model)
    results = {}
    for path, module in linears(new_model).items():
        name = checkpoint_name(new_model.config.model_type, path)
        for tensors, model in ((old_tensors, old_model), (new_tensors, new_model)):
            weight = model.get_submodule(path).weight
            if tensors[name].dtype != weight.dtype or not torch.equal(tensors[name], weight):
                raise AssertionError(f"tensor {name} is not the weight of the module {path}")
        result = merge_linear(
            old_tensors[name],
            new_tensors[name],
            safety[path],
            task[path],
            depth_of[name] if depth_of is not None else depths[path],
            settings,
            input_axis=0 if isinstance(module, Conv1D) else 1,
            name=name,
            module=path,
        )
        results[name] = result
    return results


# --- one linear ---


def merge_linear(
    old: Tensor,
    new: Tensor,
    safety: Sequence[Tensor],
    task: Sequence[Tensor],
    depth: tuple[int, int],
    settings: Settings,
    *,
    input_axis: int = 1,
    name: str = "weight",
    module: str = "",
) -> LinearResult:
    """``old``, ``new``: as on disk; ``safety``, ``task``: inputs ``(tokens, c)``, one tensor a visit of the module."""
    w_old, w_new = (as_rows(weight.double(), input_axis) for weight in (old, new))  # (r, c)
    c = w_old.shape[1]
    n_s, n_t = (sum(x.shape[0] for x in visits) for visits in (safety, task))
    untouched = {
        "name": name,
        "module": module,
        "input_axis": input_axis,
        "depth": depth,
        "settings": settings,
        "tokens": (n_s, n_t),
    }
    if torch.equal(w_old, w_new):
        return LinearResult(**untouched, status="unchanged", weight=new.double())
    if n_s == 0 or n_t == 0:
        if settings.uncalibrated == "error":
            raise ValueError(f"{name} changed, but no calibration token reaches it in both sets")
        source = old if settings.uncalibrated == "old" else new
        return LinearResult(**untouched, status="uncalibrated", weight=source.double())

    update = w_new - w_old
    energy = (update**2).sum(dim=0) / update.shape[0]
    inverse_safety = torch.linalg.inv(curvature(safety, settings.damping)).diagonal().clone()
    inverse_task = torch.linalg.inv(curvature(task, settings.damping)).diagonal().clone()
    if settings.saliency == "quotient":
        epsilon, zeta = energy / inverse_safety, energy / inverse_task
        log_ratios = inverse_task.log() - inverse_safety.log()
    else:
        epsilon, zeta = energy * inverse_safety, energy * inverse_task
        log_ratios = inverse_safety.log() - inverse_task.log()
    m = math.fsum(log_ratios.tolist()) / c
    alpha = settings.alpha_min + (settings.alpha_max - settings.alpha_min) * (1 + math.tanh(m)) / 2

    share, n_keep, n_focus = column_budgets(c, depth, settings)
    choice = choose_columns(epsilon.tolist(), zeta.tolist(), alpha, n_keep, n_focus, settings.selection)

    old_size = (w_old**2).sum().item()
    kappa = (update * w_old).sum().item() / old_size if old_size > 0 else 0.0
    adapted = w_new - kappa * w_old if settings.orthogonal else w_new
    merged = adapted.clone()
    for column in choice.kept:
        merged[:, column] = w_old[:, column]
    return LinearResult(
        **untouched,
        status="merged",
        weight=as_rows(merged, input_axis).contiguous(),
        share=float(share),
        n_keep=n_keep,
        n_focus=n_focus,
        kept=choice.kept,
        alpha=alpha,
        kappa=kappa,
        energy=energy,
        inverse_safety=inverse_safety,
        inverse_task=inverse_task,
        epsilon=epsilon,
        zeta=zeta,
        score=epsilon if choice.decided_by == "epsilon" else torch.tensor(choice.phi, dtype=torch.float64),
        choice=choice,
    )


def as_rows(weight: Tensor, input_axis: int) -> Tensor:
    """Between the orientation on disk and ``(r, c)``; its own inverse."""
    return weight if input_axis == 1 else weight.T


def curvature(visits: Sequence[Tensor], damping: float) -> Tensor:
    """``H = (2/N) Σ x xᵀ + λI``, ``λ = damping · mean(diag((2/N) Σ x xᵀ))``, as a float64 matrix ``(c, c)``."""
    c = visits[0].shape[1]
    total = torch.zeros(c, c, dtype=torch.float64)
    for x in visits:
        total += x.double().T @ x.double()
    total *= 2 / sum(x.shape[0] for x in visits)
    return total + damping * total.diagonal().mean() * torch.eye(c, dtype=torch.float64)


def column_budgets(c: int, depth: tuple[int, int], settings: Settings) -> tuple[Fraction, int, int]:
    """``p`` in percent, ``n_keep``, ``n_focus``, in exact arithmetic."""
    block, blocks = depth
    p_max, p_min, ratio = (Fraction(str(x)) for x in (settings.p_max, settings.p_min, settings.focus_ratio))
    share = p_max - Fraction(block, blocks) * (p_max - p_min)
    n_keep = math.floor(share / 100 * c + Fraction(1, 2))
    n_focus = min(c, math.floor(ratio * share / 100 * c + Fraction(1, 2)))
    return share, n_keep, n_focus


# --- choosing columns ---


def choose_columns(
    epsilon: Sequence[float], zeta: Sequence[float], alpha: float, n_keep: int, n_focus: int, selection: Selection
) -> Choice:
    """``S``, ``T``, ``O``, ``φ`` and ``M`` of the design's table."""
    columns = range(len(epsilon))
    phi = [e - alpha * z for e, z in zip(epsilon, zeta, strict=True)]
    scale = [e + alpha * z for e, z in zip(epsilon, zeta, strict=True)]
    safety, task = top(columns, n_focus, epsilon), top(columns, n_focus, zeta)
    candidates, n, decided_by, always = _last_decision(columns, safety, task, n_keep, selection)
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
    columns: Collection[int], safety: frozenset[int], task: frozenset[int], n_keep: int, selection: Selection
) -> tuple[frozenset[int], int, Literal["epsilon", "phi"], frozenset[int]]:
    """``(candidates, n, score, always)``: kept are ``always`` and the ``n`` candidates of the largest score."""
    shared = safety & task
    safety_only = safety - shared
    if selection == "safety":
        return frozenset(columns), n_keep, "epsilon", frozenset()
    if selection == "shared":
        return shared, n_keep, "phi", frozenset()
    if len(safety_only) >= n_keep:
        return safety_only, n_keep, "epsilon", frozenset()
    return shared, n_keep - len(safety_only), "phi", safety_only


# --- near ties ---

_MOST_ALTERNATIVES = 20_000


def same_columns(result: LinearResult, kept: Collection[int], rtol: float) -> bool:
    """Could ``kept`` be the kept columns of an implementation whose scores are off by at most about ``rtol``?

    True where it equals the reference's set; else every line the method draws (the focus sets, then the kept columns
    among the candidates that follow from them) may be drawn otherwise, but only between columns whose scores in the
    reference lie within ``rtol`` of each other, and ``kept`` has to be what such lines give. So a column that moves up
    because a near tie elsewhere made room is accepted, and a set that no consistent choice gives is not.

    ``ε̄`` and ``ζ̄`` are compared relative to themselves, ``φ = ε̄ − αζ̄`` relative to ``ε̄ + αζ̄``: what it is a difference
    of. Two exact zeros (columns that did not change) are no near tie: the lower index wins.
    """
    wanted = frozenset(kept)
    if wanted == result.kept:
        return True
    if result.choice is None or len(wanted) != len(kept):
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
            candidates, n, decided_by, always = _last_decision(columns, safety, task, result.n_keep, selection)
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


# --- models ---


def load_model(folder: Path) -> PreTrainedModel:
    """The whole model in its own class and dtype."""
    config = AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder, dtype="auto").eval()


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of every shard."""
    tensors: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(shard)
    return tensors


def linears(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Every ``nn.Linear`` and ``Conv1D`` by module path, without heads whose weight is an embedding's."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in embeddings
    }


def captured_inputs(model: PreTrainedModel, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, list[Tensor]]:
    """What every linear reads, ``(tokens, c)`` a visit, over one forward pass a sample."""
    seen: dict[str, list[Tensor]] = {path: [] for path in linears(model)}

    def capture(path: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]
            seen[path].append(x.detach().reshape(-1, x.shape[-1]).clone())

        return hook

    handles = [module.register_forward_pre_hook(capture(path)) for path, module in linears(model).items()]
    with torch.no_grad():
        for sample in samples:
            if sample["input_ids"].shape[0] != 1:
                raise ValueError("one sample a call: the batch size is 1")
            model(**sample, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


# Module path -> path in the checkpoint: the first prefix that fits is exchanged.
_PREFIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "llava": (
        ("model.language_model.", "language_model.model."),
        ("lm_head", "language_model.lm_head"),
        ("model.", ""),  # vision_tower, multi_modal_projector
    ),
    "qwen2_5_vl": (("model.language_model.", "model."), ("model.visual.", "visual.")),
}


def checkpoint_name(model_type: str, path: str) -> str:
    """The checkpoint tensor of a module's weight, as ``save_pretrained`` writes it for the seven tiny models."""
    for prefix, written in _PREFIXES.get(model_type, ()):
        if path.startswith(prefix):
            return f"{written}{path.removeprefix(prefix)}.weight"
    return f"{path}.weight"


_TEXT_BLOCK = re.compile(r"^(?:model\.language_model\.layers|model\.layers|transformer\.h)\.(\d+)\.")
_VISION_BLOCK = re.compile(r"^(?:model\.vision_tower\.encoder\.layers|model\.visual\.blocks)\.(\d+)\.")


def module_depths(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """``(l, L)`` of every linear: its block in its own stack; 0 before the text stack; ``L`` for an untied head."""
    paths = list(linears(model))

    def blocks(pattern: re.Pattern[str]) -> int:
        return max((int(found[1]) + 1 for path in paths if (found := pattern.match(path))), default=0)

    text_blocks, vision_blocks = blocks(_TEXT_BLOCK), blocks(_VISION_BLOCK)
    depths = {}
    for path in paths:
        if found := _TEXT_BLOCK.match(path):
            depths[path] = int(found[1]), text_blocks
        elif found := _VISION_BLOCK.match(path):
            depths[path] = int(found[1]), vision_blocks
        else:
            depths[path] = (text_blocks if path == "lm_head" else 0), text_blocks
    return depths
