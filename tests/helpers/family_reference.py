"""The textbook merge of any family, with no name known by hand: what a tensor on disk is, its values tell.

The weights are random, so every row of a matrix on disk is found in one place of the model that ``from_pretrained``
loads, whatever was renamed, fused, split, interleaved or turned on the way. Where its rows arrive as rows its inputs
are columns; where its columns do, it lies transposed. Without a line of the package.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from family_pairs import Family, Inputs, Pair
from reference import LinearResult, Settings, as_rows, curvature, load_model, load_tensors, merge_linear, placed
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

__all__ = ["ROUTER", "Seen", "compromise_of", "located", "matrices", "read_by", "reference_of", "seen_in"]

ROUTER = re.compile(r"\.(gate|gate\.wg|router|router\.layer|router\.proj|router\.classifier)$")
"""How the path of a linear that chooses among experts ends."""

Read = dict[str, list[Tensor]]
"""What each linear, and each expert's matrix, read: ``[tokens, c]`` a visit."""

ALL_AT_ONCE = {"Llama4TextExperts"}
"""Modules that are given a copy of every token for each expert, zero where it is not routed there."""

GROUPED = {"AriaGroupedExpertsGemm": True, "JetMoeParallelExperts": False}
"""Modules of one stack that are given the tokens in the order of the experts, and how many there are for each; whether
they multiply ``x @ W``."""


RAW = {"Gemma3MultiModalProjector": {"mm_input_projection_weight": True}}
"""Parameters that are weights of no module, and whether they lie ``[c, r]``."""


HEADS = {
    "RecurrentGemmaRglru": (True, ("input_gate_weight", "recurrent_gate_weight")),
    "ZambaMambaMixer": (False, ("x_proj_weight", "dt_proj_weight")),
}
"""Modules with parameters of one matrix for each head: whether they multiply ``x @ W``, and which parameters."""


@dataclass(frozen=True)
class Seen:
    """A linear of a pair: its weight on disk before and after, what it reads in both sets, its depth, and its inputs'
    axis."""

    old: Tensor
    new: Tensor
    safety: list[Tensor]  # [tokens, c] a visit
    task: list[Tensor]
    depth: tuple[int, int]
    axis: int


def seen_in(pair: Pair) -> dict[str, Seen]:
    """Every linear of NEW, by the name that the report is to have for it."""
    sides = []
    for folder, samples in ((pair.old, pair.safety_inputs), (pair.new, pair.task_inputs)):
        model = load_model(folder)
        tensors = dict(matrices(load_tensors(folder)))
        sides.append((tensors, located(model, tensors), read_by(model, samples)))
    (old, _, safety), (new, places, task) = sides
    depths = partial(_depth, pair.family, _blocks(places))
    results = {}
    for name, (observers, axis) in places.items():
        inputs = [_visits(read, observers, new[name].shape[axis]) for read in (safety, task)]
        results[name] = Seen(old[name], new[name], *inputs, depths(observers[0]), axis)
    return results


def reference_of(seen: Mapping[str, Seen], settings: Settings | None = None) -> dict[str, LinearResult]:
    """The textbook merge of every linear."""
    settings = settings or Settings()
    return {
        name: merge_linear(
            each.old, each.new, each.safety, each.task, each.depth, settings, input_axis=each.axis, name=name
        )
        for name, each in seen.items()
    }


def compromise_of(seen: Seen, w: float, damping: float = 0.01) -> Tensor:
    """``W_old + ΔW H_t (H_t + w H_s)⁻¹`` in float64, as on disk."""
    old, new = (as_rows(weight.double(), seen.axis) for weight in (seen.old, seen.new))
    h_s, h_t = curvature(seen.safety, damping), curvature(seen.task, damping)
    return as_rows(old + torch.linalg.solve(h_t + w * h_s, (new - old) @ h_t, left=False), seen.axis)


def matrices(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The matrices on disk, a tensor of three dimensions as its slices."""
    for key, value in tensors.items():
        if value.ndim == 2:
            yield key, value
        elif value.ndim == 3:
            for place, part in enumerate(value):
                yield f"{key}[{place}]", part


def located(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[str, ...], int]]:
    """For each matrix that becomes linears or experts, and nothing else: which, and the axis of its inputs."""
    place_of: dict[bytes, str] = {}
    inside: set[str] = set()
    for name, matrix in _in_memory(model):
        for row in matrix:
            place_of[_digest(row)] = name
        inside.add(name)
    found = {}
    for name, matrix in tensors.items():
        for axis, rows in ((1, matrix), (0, matrix.T)):
            places = [place_of.get(_digest(row)) for row in rows]
            if all(place is not None for place in places):
                found[name] = tuple(dict.fromkeys(place for place in places if place is not None)), axis
                break
    return found


def _in_memory(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Every matrix that is to be merged, ``[r, c]``: linears that are no router and share their weight with linears
    alone, by the first of them, and the experts of each stack."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            if sharing(model, module)[0] == (path, True) and not ROUTER.search(path):
                yield path, module.weight if isinstance(module, nn.Linear) else module.weight.T
        elif isinstance(module, nn.MultiheadAttention):
            yield f"{path}.in_proj_weight", module.in_proj_weight
        elif type(module).__name__ in RAW:
            for leaf, turned in RAW[type(module).__name__].items():
                yield f"{path}.{leaf}", module.get_parameter(leaf).T if turned else module.get_parameter(leaf)
        elif (transposed := _transposed(module)) is not None:
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 3 and (
                    type(module).__name__ not in HEADS or name in HEADS[type(module).__name__][1]
                ):
                    for e, matrix in enumerate(parameter):
                        yield f"{path}.{name}[{e}]", matrix.T if transposed else matrix


def sharing(model: PreTrainedModel, linear: nn.Module) -> list[tuple[str, bool]]:
    """Paths of the modules that share a linear's weight, from the first; and whether all of them are linears."""
    shared = [(n, m) for n, m in model.named_modules() if getattr(m, "weight", None) is linear.weight]
    linears = all(isinstance(module, nn.Linear | Conv1D) for _, module in shared)
    return [(name, linears) for name, _ in shared]


def _transposed(module: nn.Module) -> bool | None:
    """Whether a module of experts multiplies ``x @ W`` and not ``x @ Wᵀ``, by shapes; None for other modules."""
    name = type(module).__name__
    if name in GROUPED:
        return GROUPED[name]
    if name in HEADS:
        return HEADS[name][0]
    first, last = (getattr(module, leaf, None) for leaf in ("gate_up_proj", "down_proj"))
    if isinstance(first, nn.Parameter) and isinstance(last, nn.Parameter) and first.ndim == 3:
        return first.shape[2] != last.shape[1]
    up = getattr(module, "up_proj", None)
    return False if isinstance(up, nn.Parameter) and up.ndim == 3 else None


def _digest(row: Tensor) -> bytes:
    return row.detach().double().numpy().tobytes()


# --- depth ---


def _blocks(places: Mapping[str, tuple[tuple[str, ...], int]]) -> Callable[[str], int]:
    names = [observer for observers, _ in places.values() for observer in observers]

    def count(stack: str) -> int:
        pattern = re.compile(rf"{re.escape(stack)}\.(\d+)\.")
        return max((int(match[1]) + 1 for name in names if (match := pattern.match(name))), default=0)

    return count


def _depth(family: Family, blocks: Callable[[str], int], path: str) -> tuple[int, int]:
    """``(l, L)`` by the row of the family."""
    for stack in (family.text, *family.stacks):
        if match := re.match(rf"{re.escape(stack)}\.(\d+)\.", path):
            return int(match[1]), blocks(stack)
    return (blocks(family.text) if path in family.after else 0), blocks(family.text)


# --- what is read ---


def _visits(read: Read, observers: Sequence[str], width: int) -> list[Tensor]:
    """What several modules read, what they read alike once."""
    distinct: list[list[Tensor]] = []
    for observer in observers:
        visits = read.get(observer, [])
        same = any(len(v) == len(visits) and all(map(torch.equal, v, visits)) for v in distinct)
        if visits and not same:
            distinct.append(visits)
    visits = [x for each in distinct for x in each]
    # tokens that are all zero activate nothing: a linear that reads no others is not reached
    return visits if any(bool(x.any()) for x in visits) else [torch.zeros(0, width)]


def read_by(model: PreTrainedModel, samples: Sequence[Inputs]) -> Read:
    """One forward pass a sample with hooks on linears and experts; experts are computed once more, one by one."""
    read: Read = defaultdict(list)

    def put(name: str, x: Tensor) -> None:
        if x.numel():
            read[name].append(x.detach().reshape(-1, x.shape[-1]).clone())

    def look(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if isinstance(module, nn.Linear | Conv1D):
            put(name, args[0])
        elif type(module).__name__ in GROUPED:
            for e, x in enumerate(args[0].split([int(n) for n in args[1]])):
                put(f"{name}.weight[{e}]", x)
        elif _transposed(module) is not None and hasattr(module, "down_proj"):
            _experts(name, module, (*args, *kwargs.values()), put)

    first = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            first[name], _ = sharing(model, module)[0]
    hooks = [m.register_forward_pre_hook(partial(look, n), with_kwargs=True) for n, m in model.named_modules()]
    hooks += [hook for n, m in model.named_modules() for hook in _hidden(n, m, put)]
    with torch.no_grad(), _multiplied(model, put):
        for sample in samples:
            model(**placed(sample), use_cache=False)
    for hook in hooks:
        hook.remove()
    joined: Read = defaultdict(list)
    for name, visits in read.items():
        joined[first.get(name, name)] += visits
    return joined


def _hidden(path: str, module: Any, put: Callable[[str, Tensor], None]) -> Iterator[Any]:
    """Hooks for weights that no linear's forward multiplies with: what they read follows from what others return."""
    kind = type(module).__name__
    if hasattr(module, "x_proj") and hasattr(module, "dt_proj"):

        def step(_: Any, __: Any, made: Tensor) -> None:
            steps = made[..., : module.dt_proj.weight.shape[1]]
            if kind == "FalconMambaMixer":
                steps = steps * torch.rsqrt(steps.square().mean(-1, keepdim=True) + module.config.mixer_rms_eps)
            put(f"{path}.dt_proj", module.dt_layernorm(steps) if hasattr(module, "dt_layernorm") else steps)

        yield module.x_proj.register_forward_hook(step)
    elif kind == "RecurrentGemmaRglru":

        def gates(_: Any, args: tuple[Any, ...]) -> None:
            for head, x in enumerate(args[0].chunk(len(module.input_gate_weight), dim=-1)):
                for leaf in ("input_gate_weight", "recurrent_gate_weight"):
                    put(f"{path}.{leaf}[{head}]", x)

        yield module.register_forward_pre_hook(gates)
    elif isinstance(module, nn.MultiheadAttention):

        def attend(_: Any, args: tuple[Any, ...]) -> None:
            given = [x.reshape(-1, x.shape[-1]) for x in args[:3]]
            for x in dict.fromkeys(given) if args[0] is args[1] else (given[0], given[1]):
                put(f"{path}.in_proj_weight", x)
            weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
            q, k, v = (
                nn.functional.linear(x, w, b).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
                for x, w, b in zip(args[:3], weights, biases, strict=True)
            )
            mixed = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
            put(f"{path}.out_proj", mixed.transpose(1, 2).flatten(2))

        yield module.register_forward_pre_hook(attend)
    elif kind == "Gemma3MultiModalProjector":
        yield module.mm_soft_emb_norm.register_forward_hook(
            lambda _, __, made: put(f"{path}.mm_input_projection_weight", made)
        )


@contextmanager
def _multiplied(model: PreTrainedModel, put: Callable[[str, Tensor], None]) -> Iterator[None]:
    """What the heads of Zamba read: the right factor of ``W[:, None] @ X``, with ``X`` of ``[heads, 1, c, n]``."""
    names = {
        module.get_parameter(leaf).data_ptr(): f"{path}.{leaf}"
        for path, module in model.named_modules()
        if type(module).__name__ == "ZambaMambaMixer"
        for leaf in HEADS["ZambaMambaMixer"][1]
    }
    product = Tensor.__matmul__

    def spying(left: Tensor, right: Tensor) -> Tensor:
        if (name := names.get(left.data_ptr())) is not None:
            for head, columns in enumerate(right):
                put(f"{name}[{head}]", columns[0].T)
        return product(left, right)

    with pytest.MonkeyPatch.context() as patch:
        if names:
            patch.setattr(Tensor, "__matmul__", spying)
        yield


def _experts(name: str, module: Any, args: Sequence[Any], put: Callable[[str, Tensor], None]) -> None:
    """What the matrices of each expert read, from what the module is called with."""
    first = "gate_up_proj" if hasattr(module, "gate_up_proj") else "up_proj"
    stack = getattr(module, first)
    tokens = args[0].reshape(-1, args[0].shape[-1])
    at_once = tokens.view(len(stack), -1, tokens.shape[-1]) if type(module).__name__ in ALL_AT_ONCE else None
    for e, weight in enumerate(stack[: len(module.down_proj)]):  # LongCat has experts beyond them that do nothing
        x = tokens[(args[1] == e).any(dim=-1)] if at_once is None else at_once[e][at_once[e].abs().sum(dim=1) > 0]
        middle = x @ weight if _transposed(module) else nn.functional.linear(x, weight)
        if (bias := getattr(module, f"{first}_bias", None)) is not None:
            middle = middle + bias[e]
        if first == "up_proj":
            middle = module.act_fn(middle)
        elif hasattr(module, "_apply_gate"):
            middle = module._apply_gate(middle)
        else:
            gate, up = middle.chunk(2, dim=-1)
            middle = up * module.act_fn(gate)
        put(f"{name}.{first}[{e}]", x)
        put(f"{name}.down_proj[{e}]", middle)
