"""The textbook version of the merge: both models whole, plain hooks, float64, explicit inverses, Python sets and sorts.

Slow, and on purpose without a line of the package: the fast implementation is held against it. The forward passes run
in the checkpoints' own dtype, as the package's do; everything after a captured activation is float64, and the column
budgets are exact rationals of the decimal numbers a user would have typed. Symbols are those of the design's section 1.

The mathematics of one linear is in ``reference_mathematics.py``; what tests need of it can be had from here.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers
from precision import inverse_diagonal_error
from reference_mathematics import (
    Choice,
    LinearResult,
    Settings,
    choose_columns,
    column_budgets,
    curvature,
    same_columns,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

__all__ = [
    "Choice",
    "LinearResult",
    "Settings",
    "as_rows",
    "captured_inputs",
    "checkpoint_name",
    "choose_columns",
    "column_budgets",
    "curvature",
    "linears",
    "load_model",
    "load_tensors",
    "merge_linear",
    "module_depths",
    "placed",
    "reference_merge",
    "same_columns",
]


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

    share, n_restored, n_focus = column_budgets(c, depth, settings)
    choice = choose_columns(epsilon.tolist(), zeta.tolist(), alpha, n_restored, n_focus, settings.selection)

    old_size = (w_old**2).sum().item()
    kappa = (update * w_old).sum().item() / old_size if old_size > 0 else 0.0
    adapted = w_new - kappa * w_old if settings.orthogonal else w_new
    merged = adapted.clone()
    for column in choice.restored:
        merged[:, column] = w_old[:, column]
    return LinearResult(
        **untouched,
        status="merged",
        weight=as_rows(merged, input_axis).contiguous(),
        share=float(share),
        n_restored=n_restored,
        n_focus=n_focus,
        restored=choice.restored,
        alpha=alpha,
        rtol=sum(float(inverse_diagonal_error(torch.cat(tuple(x)), settings.damping).max()) for x in (safety, task)),
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


# --- models ---


def load_model(folder: Path, dtype: str | torch.dtype = "auto") -> PreTrainedModel:
    """The whole model in its own class and dtype, or in another dtype; experts are computed one by one, as the package
    does it.

    Each parameter and buffer gets memory of its own, which begins where torch's CPU allocator puts everything (at a
    multiple of 64 bytes): where it begins within a file decides on some processors in which order a product is summed.
    """
    config = AutoConfig.from_pretrained(folder)
    architecture = getattr(transformers, config.architectures[0])
    model = architecture.from_pretrained(folder, dtype=dtype, experts_implementation="eager").eval()
    if config.model_type == "llama4":  # transformers 5.24.0 reads a field that its text model's output lacks
        model.language_model.register_forward_hook(lambda *call: setattr(call[2], "image_outputs", None))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


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
            model(**placed(sample), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def placed(sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A sample in memory of its own, for the same reason as the parameters in :func:`load_model`."""
    return {name: value.clone() for name, value in sample.items()}


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
