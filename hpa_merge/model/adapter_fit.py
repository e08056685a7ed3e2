"""A configuration with exactly the modules that an adapter has tensors for, by their paths in OLD.

``target_modules`` is a list of endings or a regular expression, written for the model that was trained. In OLD it may
match nothing, or a vision tower as well.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest import mock

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hpa_merge.model.adapter_names import Belonging, find_modules, translations
from hpa_merge.model.conversion import present_paths
from hpa_merge.model.injection import PREFIX, tuner_prefix

__all__ = ["as_fitted", "belonging_of", "difference", "fit", "parameters_of"]

WRAPPED = (nn.Linear, nn.Embedding, Conv1D, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules that peft replaces; it only adds to a parameter of another module."""

PATTERNS = ("rank_pattern", "alpha_pattern")
"""Settings by module: a list of endings, or regular expressions."""

CHOICES = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Further settings that choose modules."""


def belonging_of(
    model: PreTrainedModel,
    config: Any,
    names: Mapping[str, tuple[int, ...]],
    known_as: Callable[[str], str],
    place: str,
) -> dict[str, Belonging]:
    """What each of the adapter's tensors belongs to, by name; tensors that several layers share are left out.

    Args:
        names: shapes of the adapter's tensors, by their plain names.
        known_as: translates a path in another layout.
        place: the beginning of a message.

    Raises:
        CheckpointError: one belongs nowhere.
    """
    present = present_paths(model)
    modules = {path: _shape(module) for path, module in model.named_modules()}
    own = {name: shape for name, shape in names.items() if name.startswith(PREFIX)}
    return find_modules(
        own, tuner_prefix(config), modules, lambda path: (known_as(path), present(known_as(path))), place
    )


def parameters_of(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters that peft cannot adapt through their module, such as stacks, by the module's path."""
    found = {
        path: [name for name, value in module.named_parameters(recurse=False) if value.ndim in (2, 3)]
        for path, module in model.named_modules()
        if not isinstance(module, WRAPPED)
    }
    return {path: names for path, names in found.items() if names}


def _shape(module: nn.Module) -> tuple[int, ...]:
    """The shape of a module's weight, or of its stack of experts; empty without one."""
    own = dict(module.named_parameters(recurse=False))
    stacks = [value for value in own.values() if value.ndim == 3]
    weight = own.get("weight", stacks[0] if stacks else None)
    return () if weight is None else tuple(weight.shape)


def fit(config: Any, belonging: Collection[Belonging], parameters: Mapping[str, Collection[str]]) -> Any:
    """The configuration with the modules that the adapter has tensors for, and their ranks by their paths in OLD.

    Args:
        config: peft's, as adapter_config.json has it.
        belonging: what the adapter's tensors belong to.
        parameters: as :func:`parameters_of` gives them for OLD.
    """
    fitted = deepcopy(config)
    layers = [each for each in belonging if each.changes]
    direct = tuple(f".{target}" for target in getattr(config, "target_parameters", None) or ())
    stacks = {
        each.module: parameters.get(each.module, ["weight"])
        for each in layers
        if each.module in parameters or (direct and f".{each.saved}.weight".endswith(direct))
    }
    single = {each.part for each in layers if each.part}
    saved = {each.module: each.saved for each in layers}
    for choice in CHOICES:
        if hasattr(fitted, choice):
            setattr(fitted, choice, None)
    if stacks:
        _fit_stacks(fitted, stacks, single)
    fitted.target_modules = sorted(saved.keys() - stacks.keys())
    for name in PATTERNS:
        if given := getattr(config, name, None):
            kept = {re.escape(path): value for path in saved if (value := _match(given, saved[path])) is not None}
            setattr(fitted, name, (getattr(fitted, name) if stacks else {}) | kept)
    forward = getattr(config, "feedforward_modules", None)
    if forward:
        fitted.feedforward_modules = [path for path in fitted.target_modules if _ends(saved[path], forward)]
    if getattr(config, "modules_to_save", None):
        whole = {each.saved: each.module for each in belonging if not each.changes}
        fitted.modules_to_save = sorted(set(_saved(config.modules_to_save, whole))) or None
    return fitted


def _fit_stacks(fitted: Any, stacks: Mapping[str, Collection[str]], single: set[str]) -> None:
    """Set parameters as targets; peft knows which of them hold the linears of single experts.

    Args:
        stacks: parameters of the modules, by the modules' paths.
        single: names of the linears of single experts.
    """
    from peft.utils import transformers_weight_conversion as conversion

    named = {"weight", *(target.rpartition(".")[2] for target in fitted.target_parameters or ())}
    if single:
        kind = next(
            (kind for kind, parts in conversion._MOE_TARGET_MODULE_MAPPING.items() if single <= parts.keys()), ""
        )
        named |= {conversion._MOE_TARGET_MODULE_MAPPING[kind][part] for part in single} if kind else set()
        for name, parts in conversion._MOE_FUSED_TARGETS.get(kind, {}).items():
            if single.issuperset(parts):  # peft makes one LoRA of their ranks together
                for pattern, whole in zip(PATTERNS, (fitted.r, fitted.lora_alpha), strict=True):
                    wanted = {rf".*\.{re.escape(name)}": whole * len(parts)}
                    setattr(fitted, pattern, (getattr(fitted, pattern) or {}) | wanted)
    fitted.target_parameters = sorted(
        f"{stack}.{name}" for stack, names in stacks.items() for name in names if name in named
    )


def _match(patterns: Mapping[str, Any], path: str) -> Any:
    """The value of the first pattern that matches a path, as peft finds it; None if none does."""
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path)), None)


def _ends(path: str, modules: str | Collection[str]) -> bool:
    if isinstance(modules, str):
        return re.fullmatch(modules, path) is not None
    return any(path.endswith(ending) for ending in modules)


def _saved(endings: Iterable[str], whole: Mapping[str, str]) -> Iterator[str]:
    """The paths in OLD of the saved modules, from the paths of the modules in them that have tensors."""
    for path, module in whole.items():
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            inside = len(parts) - length
            if any(".".join(parts[:length]).endswith(ending) for ending in endings):
                yield module if not inside else ".".join(module.split(".")[:-inside])
                break


@contextmanager
def as_fitted() -> Iterator[None]:
    """Let peft take the targets as they are: it would rewrite names of modules outside of the stacks too."""
    from peft.utils import transformers_weight_conversion as conversion

    with mock.patch.object(conversion, "convert_peft_config_for_transformers", return_value=None):
        yield


def difference(configured: Collection[str] | None, belonging: Collection[Belonging], whole: Collection[str]) -> str:
    """What the user should know about an adapter whose configuration does not fit OLD.

    Args:
        configured: paths of the layers that the configuration makes; None if it makes no model.
        belonging: what the adapter's tensors belong to.
        whole: endings of the paths of the modules that it should have as a whole.
    """
    modules = {each.module for each in belonging if each.changes}
    told = (
        [f"names of its tensors are translated ({renamed})"] if (renamed := "; ".join(translations(belonging))) else []
    )
    beyond = sorted(set(configured or ()) - modules)
    if configured is None or modules - set(configured):
        told.append(f"its target_modules do not choose in OLD the {len(modules)} modules that it has tensors for")
    elif beyond:
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        told.append(f"its target_modules also choose {beyond[0]}{more}, for which it has no tensors")
    found = [f".{each.saved}." for each in belonging if not each.changes]
    if lost := sorted(name for name in whole if not any(f".{name}." in path for path in found)):
        told.append(f"its modules_to_save name {', '.join(lost)}, for which it has no tensors")
    return (
        " and ".join(told or ["its configuration does not fit its tensors"])
        + ": its tensors say which modules it changes."
    )
