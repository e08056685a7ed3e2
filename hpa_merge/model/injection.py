"""adapter_config.json -> a model with peft's own layers, on the meta device; adapters that cannot be merged are
refused.

peft knows the kinds of adapters, where their layers belong, and how to merge them. It is an extra. Only this file,
:mod:`hpa_merge.model.adapter` and :mod:`hpa_merge.model.adapter_service` import it, and only if NEW is an adapter.
"""

import importlib.util
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hpa_merge.errors import CheckpointError, extra

__all__ = ["PREFIX", "describe", "inject", "place", "quietly", "read_config", "tuner_prefix"]

PREFIX = "base_model.model."
"""The prefix that peft gives to the path of every module of the model."""

TYPES = {
    "BOFT": "BOFT",
    "C3A": "C3A",
    "DELORA": "DeLoRA",
    "FOURIERFT": "FourierFT",
    "GRALORA": "GraLoRA",
    "HRA": "HRA",
    "IA3": "IA3",
    "LN_TUNING": "LN tuning",
    "LOHA": "LoHa",
    "LOKR": "LoKr",
    "LORA": "LoRA",
    "MISS": "MiSS",
    "OFT": "OFT",
    "RANDLORA": "RandLoRA",
    "ROAD": "RoAd",
    "TRAINABLE_TOKENS": "trainable tokens",
    "VERA": "VeRA",
}
"""The kinds of adapters that can be merged tensor by tensor, with their names for people; the tests cover all."""

STARTS = (True, False, "gaussian", "eva", "orthogonal", None)
"""Initialisations of a LoRA that leave the base unchanged; the others subtract something from the base too."""

OPTIONS = {"use_rslora": "rsLoRA", "use_dora": "DoRA", "lora_bias": "lora_bias"}


def read_config(folder: Path, raw: Mapping[str, Any], own: Mapping[str, tuple[int, ...]]) -> Any:
    """The ``PeftConfig`` of an adapter folder.

    Args:
        raw: its adapter_config.json, parsed.
        own: shapes of the adapter's tensors.

    Raises:
        CheckpointError: peft is missing, or does not know it; or it is of a kind that cannot be merged.
    """
    if importlib.util.find_spec("peft") is None:
        raise CheckpointError(
            f"NEW {folder} is a PEFT adapter, and peft is not installed: {extra('peft')}, or give a merged checkpoint."
        )
    kind = raw.get("peft_type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise CheckpointError(
            f"NEW {folder} is an adapter of type {kind}, which cannot be merged into the weights tensor by tensor: "
            f"give an adapter of type {', '.join(sorted(TYPES))}, or a merged checkpoint if there can be one."
        )
    start, ranks = raw.get("init_lora_weights"), [raw.get("r"), *_values(raw.get("rank_pattern"))]
    if not (start in STARTS or (isinstance(start, str) and start.lower() in STARTS)):
        raise CheckpointError(
            f"NEW {folder} is an adapter that began as {start}, which changes the base weights too: save it as a plain "
            "LoRA with path_initial_model_for_weight_conversion, or merge it with merge_and_unload()."
        )
    if raw.get("layer_replication"):
        raise CheckpointError(
            f"NEW {folder} is an adapter that repeats layers of its base (layer_replication), and OUT has OLD's: "
            "merge it first, with merge_and_unload() and then save_pretrained(), and do so for OLD."
        )
    longest = max((size for shape in own.values() for size in shape), default=0)
    if any(isinstance(rank, int) and rank > longest for rank in ranks):
        raise CheckpointError(
            f"NEW {folder}: adapter_config.json has a rank that no tensor of the adapter has: "
            "fetch or save the adapter again."
        )
    import hpa_merge.libraries.peft  # noqa: F401 - before peft itself

    # isort: split
    import peft

    try:
        config_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)]
        known = {field.name for field in fields(config_class)} | {"runtime_config", "auto_mapping", "peft_version"}
        if unknown := sorted(key for key, value in raw.items() if value and key not in known):
            raise ValueError(f"it has {unknown[0]}")
        config = config_class.from_pretrained(str(folder))
    except Exception as error:  # the file may hold anything
        raise CheckpointError(
            f"NEW {folder}: adapter_config.json is not one that peft {peft.__version__} understands "
            f"({_reason(error)}): install the version that made it, or save the adapter again."
        ) from error
    config.inference_mode = True
    if hasattr(config, "megatron_config"):
        config.megatron_config = None  # no transformers model has such layers, and peft would import what it names
    return config


def describe(config: Any) -> str:
    """A description for people: ``LoRA (DoRA) of rank 8, trained on org/name``."""
    options = [name for option, name in OPTIONS.items() if getattr(config, option, False)]
    rank, base = getattr(config, "r", None), str(config.base_model_name_or_path or "")
    return (
        TYPES[str(config.peft_type.value)]
        + (f" ({', '.join(options)})" if options else "")
        + (f" of rank {rank}" if isinstance(rank, int) and rank > 0 else "")
        + (f", trained on {base}" if base and base.isprintable() else "")
    )


def tuner_prefix(config: Any) -> str:
    """The beginning of the names of the parameters that peft adds, such as ``lora_``."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    return str(PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type])


def inject(model: PreTrainedModel, config: Any, folder: Path) -> tuple[nn.Module, nn.Module]:
    """The model with the adapter's layers, and the model after merging them; both on the meta device.

    Raises:
        CheckpointError: the model has no such modules, or merging would change what the model consists of.
    """
    import peft

    shapes, tied = _shapes(model), _tied(model)
    try:
        wrapped = peft.get_peft_model(model, config, low_cpu_mem_usage=True)
        if getattr(config, "ensure_weight_tying", False):
            _tie_saved(wrapped, tied)
        merged = deepcopy(wrapped).merge_and_unload()
    except Exception as error:  # a configuration that does not fit makes peft raise anything
        raise CheckpointError(
            f"NEW {folder} is an adapter that peft cannot merge into OLD ({_reason(error)}): "
            "give as OLD the model that it was trained on."
        ) from error
    if untied := sorted(tied - _tied(merged)):
        raise CheckpointError(
            f"NEW {folder} is an adapter that unties {' and '.join(untied[0])}, which are one tensor in OLD: train it "
            "with ensure_weight_tying, or give an OLD and a merged NEW whose embeddings are not tied."
        )
    if shapes != _shapes(merged):
        raise CheckpointError(
            f"NEW {folder} is an adapter that changes which tensors the model has: "
            "merge it first, with merge_and_unload() and then save_pretrained()."
        )
    return wrapped, merged


def _tie_saved(wrapped: nn.Module, tied: Iterable[tuple[str, ...]]) -> None:
    """Tie the copies in ``modules_to_save`` of tied modules, as peft does outside of the meta device."""
    for first, *others in tied:
        try:
            modules = [wrapped.get_submodule(PREFIX + name.rpartition(".")[0]) for name in (first, *others)]
            kept = [next(iter(module.get_submodule("modules_to_save").children())) for module in modules]
        except AttributeError:  # one of them is not saved
            continue
        for module, name in zip(kept[1:], others, strict=True):
            module._parameters[name.rpartition(".")[2]] = kept[0].get_parameter(first.rpartition(".")[2])


def place(wrapped: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors by their names in ``wrapped``, converted if transformers' layers have changed.

    They come from peft's own loading, which is stopped before it touches a parameter.

    Raises:
        CheckpointError: peft cannot load them.
    """
    from peft import set_peft_model_state_dict

    found: dict[str, Tensor] = {}

    def take(module: nn.Module, state: dict[str, Tensor], *_: Any) -> None:
        found.update(state)
        state.clear()

    hook = wrapped.register_load_state_dict_pre_hook(take)
    try:
        set_peft_model_state_dict(wrapped, dict(tensors))
    except Exception as error:  # as above
        raise CheckpointError(
            f"NEW {folder} is an adapter whose tensors do not fit OLD ({_reason(error)}): "
            "give as OLD the model that it was trained on."
        ) from error
    finally:
        hook.remove()
    return found


@contextmanager
def quietly() -> Iterator[None]:
    """Silence peft's warnings, which are for training, and disable gradients."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict(keep_vars=True).items()}


def _tied(model: nn.Module) -> set[tuple[str, ...]]:
    """Groups of names that share one tensor."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, value in model.state_dict(keep_vars=True).items():
        names[id(value)].append(name)
    return {tuple(same) for same in names.values() if len(same) > 1}


def _values(mapping: Any) -> list[Any]:
    return list(mapping.values()) if isinstance(mapping, dict) else []


def _reason(error: BaseException) -> str:
    """The text of ``error`` on one line, shortened."""
    return " ".join(str(error).split())[:200].rstrip(" .:") or type(error).__name__
