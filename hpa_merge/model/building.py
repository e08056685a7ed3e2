"""config.json -> a model on the meta device, by transformers' own class, within bounds on its size."""

import itertools
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import PretrainedConfig, PreTrainedModel

from hpa_merge.custom_code.failing import blaming, place_of
from hpa_merge.custom_code.finding import Code
from hpa_merge.custom_code.running import running
from hpa_merge.errors import CheckpointError, HPAError
from hpa_merge.files.parsing import CONFIG, read_json
from hpa_merge.model.architecture import absent_tensors, named_class
from hpa_merge.model.classes import check_trusted, classes_of, read_model_config
from hpa_merge.model.conversion import Header, find_conversions
from hpa_merge.model.original_llava import adapt, llava_config
from hpa_merge.model.transformers_fixes import repair

__all__ = ["Computing", "bounded_modules", "build_meta_model", "check_counts", "count_tensors", "decoder_start"]

COUNTED = ("layer", "depth", "block", "expert", "stage", "level", "codebook", "quantizer", "flow", "repeat", "type")
"""Endings of the keys in config.json that count modules; each module has a tensor. Other counts are bounded while the
model is built."""

MODULES = (20_000, 200)
"""The most modules and parameters that are built: a constant, and a number for each tensor that has bytes. In real
models, stacks of experts have the most for a tensor: two tensors can hold 128 experts."""

MOST_MODULES = 500_000
"""The most for any number of tensors: a module takes 10 kB. The largest mixtures of experts have 100,000 tensors, most
of them a module with one parameter."""

LABELS = 10**5
"""The most labels of a classifier; transformers makes a name for each."""

Computing = Mapping[torch.dtype, torch.dtype]
"""The dtype that a model runs in, by the dtype that ``dtype="auto"`` gives, where it is another one."""

BUFFER_BYTES = 2**32
"""The most bytes of buffers that a model computes itself, such as masks and rotary tables: 4 GiB in memory."""


def build_meta_model(
    folder: Path,
    header: Header,
    role: str,
    tower: Path | None = None,
    architecture: type[PreTrainedModel] | None = None,
    code: Code | None = None,
    computing: Computing | None = None,
) -> PreTrainedModel:
    """The model of ``folder``'s config.json on the meta device, in the dtype that ``dtype="auto"`` gives.

    Args:
        tower: folder of the vision tower, if ``folder`` has LLaVA's own layout.
        architecture: its class; None for the one that :mod:`.architecture` finds.
        code: the code that the checkpoint brings, which is run; None: none is run.
        computing: for each dtype that this would be, the one that it is instead.

    Raises:
        CheckpointError: transformers cannot build it, or it is larger than any model with these tensors.
    """
    with blaming(code, role), running(code):
        return _build_from(folder, header, role, tower, architecture, code, computing or {})


def _build_from(
    folder: Path,
    header: Header,
    role: str,
    tower: Path | None,
    architecture: type[PreTrainedModel] | None,
    code: Code | None,
    computing: Computing,
) -> PreTrainedModel:
    """As :func:`build_meta_model`; the code, if any, may raise anything."""
    try:
        raw = _read_config(folder, header, role)
        if tower is None:
            if "auto_map" not in raw:
                _check_type(raw, role)
            config = read_model_config(folder, role, code)
        else:
            config = llava_config(raw, _read_config(tower, header, "the vision tower"), header, role)
        tried = [architecture] if architecture is not None else classes_of(config, folder, role, code)
        for each in tried:
            model = _build(each, config, header, role, computing)
            if len(tried) == 1 or _is_whole(model, header, role):
                break
        else:
            check_trusted(config, folder, role, code)
            architecture = named_class(config) or tried[-1]  # the error is about this one
            model = _build(architecture, config, header, role, computing)
        if tower is not None:
            adapt(model, raw)
        if next(model.parameters(), None) is None:
            raise ValueError(f"{type(model).__name__} has no parameter")
    except HPAError:
        raise
    except Exception as error:  # config.json may hold anything, and transformers may raise anything
        if place_of(error):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(" .:") or type(error).__name__
        raise CheckpointError(
            f"{role}'s config.json is not one that transformers {transformers.__version__} can build a model from "
            f"({reason}): correct that in the file, or install a version of transformers that supports the model."
        ) from error
    loaded = model.state_dict(keep_vars=True)
    computed = sum(buffer.nbytes for buffer_name, buffer in model.named_buffers() if buffer_name not in loaded)
    if computed > BUFFER_BYTES:
        raise CheckpointError(
            f"{role}'s config.json makes transformers compute tables of {computed} bytes: "
            "give the config.json that belongs to these weights."
        )
    repair(model)
    model.eval()
    return model


def _build(
    architecture: type[PreTrainedModel], config: PretrainedConfig, header: Header, role: str, computing: Computing
) -> PreTrainedModel:
    """A model of a class, without its weights; of the text alone if the class is made for its configuration."""
    if architecture.config_class is not type(config) and architecture.config_class is type(config.get_text_config()):
        config = config.get_text_config()
    floating = (dtype for dtype, _ in header.values() if dtype.is_floating_point)
    stated = getattr(torch, config.dtype) if isinstance(config.dtype, str) else config.dtype
    dtype = stated or next(floating, torch.float32)
    dtype = computing.get(dtype, dtype)
    # other implementations may be code that is fetched from the Hub
    attention = config._attn_implementation if config._attn_implementation in ("eager", "sdpa") else None
    with torch.device("meta"), bounded_modules(count_tensors(header), role):
        model: PreTrainedModel = architecture._from_config(
            deepcopy(config), dtype=dtype, attn_implementation=attention, experts_implementation="eager"
        )
    return model


def _is_whole(model: PreTrainedModel, header: Header, role: str) -> bool:
    """Whether the checkpoint has every tensor that the model needs, in its shape."""
    try:
        conversions = find_conversions(model, header, role)
    except Exception:  # transformers' conversions may raise anything for the tensors of another class
        return False
    return not absent_tensors(model, {target for conversion in conversions for target in conversion.targets})


def _check_type(raw: dict[str, Any], role: str) -> None:
    """Raise CheckpointError for a config.json without a model_type; its class says which it should be."""
    if raw.get("model_type") is None:
        named = named_class(PretrainedConfig(architectures=raw.get("architectures")))
        kind = getattr(getattr(named, "config_class", None), "model_type", "")
        remedy = f'add "model_type": "{kind}", which {named.__name__} has' if named and kind else "add it"
        raise CheckpointError(
            f"{role}'s config.json has no model_type, without which transformers does not load it: {remedy}."
        )


def decoder_start(folder: Path, model: PreTrainedModel) -> int | None:
    """The first token of an encoder-decoder's decoder; None if neither configuration has it."""
    found = getattr(model.config, "decoder_start_token_id", None)
    if found is None and (folder / "generation_config.json").is_file():
        try:
            found = read_json(folder / "generation_config.json", CONFIG)["decoder_start_token_id"]
        except (OSError, ValueError, LookupError, TypeError):  # a broken file counts as none
            return None
    return found if type(found) is int else None


def count_tensors(header: Header) -> int:
    """How many tensors have bytes: a small file may hold any number of empty ones."""
    return sum(0 not in shape for _, shape in header.values())


@contextmanager
def bounded_modules(tensors: int, role: str) -> Iterator[None]:
    """Within the block, raise CheckpointError once a model has more modules than ``tensors`` tensors can fill."""
    most = min(MOST_MODULES, MODULES[0] + MODULES[1] * tensors)
    built = itertools.count(1)
    thread = threading.get_ident()

    def count(*_: object) -> None:
        if threading.get_ident() == thread and next(built) > most:
            raise CheckpointError(
                f"{role}'s config.json asks for more than {most} modules and parameters, which is too many for its "
                "tensors: give the config.json that belongs to these weights."
            )

    hooks = (register_module_module_registration_hook(count), register_module_parameter_registration_hook(count))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _read_config(folder: Path, header: Header, role: str) -> dict[str, Any]:
    """The content of a config.json that passes :func:`check_counts`."""
    raw, _ = PretrainedConfig.get_config_dict(folder, local_files_only=True)
    check_counts(raw, count_tensors(header), role)
    return raw


def check_counts(config: dict[str, Any], tensors: int, role: str) -> None:
    """Check the counts in config.json, because transformers makes that many modules or labels.

    Raises:
        CheckpointError: there are more layers, experts or the like than tensors, or more than ``LABELS`` labels.
    """
    most = max(1000, tensors)
    for key, value in config.items():
        bound = most if key.rstrip("s").endswith(COUNTED) else LABELS if key == "num_labels" else math.inf
        items = [value]
        while items:
            item = items.pop()
            if isinstance(item, list):
                items += item
            elif isinstance(item, dict):
                check_counts(item, tensors, role)
            elif isinstance(item, int | float) and item > bound:
                raise CheckpointError(
                    f"{role}'s config.json has {float(min(item, 10**300)):g} for {key}, which is too many for its "
                    "tensors: give the config.json that belongs to these weights."
                )
