"""Which class of transformers reads a checkpoint.

An Auto class goes by ``model_type`` and by what its caller wants; ``architectures`` in config.json only names the class
that saved the folder. That may be missing, a class of somebody's own, one whose head is not there, or the model without
a head. Then the classes that generate text are tried, and the first that finds all its tensors reads the checkpoint.
"""

import re
from collections.abc import Collection, Iterable

import transformers
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)

__all__ = ["absent_tensors", "candidates", "is_headless", "named_class"]

GENERATING = (AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForSeq2SeqLM, AutoModelForCausalLM)
"""The Auto classes of models that generate text, the most comprehensive first: BART's decoder alone is a causal one."""


def named_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """The first class in ``architectures``; None if there is none, or no model of transformers has that name."""
    found = getattr(transformers, (config.architectures or [""])[0], None)
    whole = isinstance(found, type) and issubclass(found, PreTrainedModel) and found.forward is not nn.Module.forward
    return found if whole else None


def candidates(config: PretrainedConfig) -> list[type[PreTrainedModel]]:
    """The classes that may read a checkpoint, in the order in which they are tried; a named one with a head first."""
    named = named_class(config)
    inner, generating = _classes([AutoModel], config), _classes(GENERATING, config)
    own = [*inner, *generating]
    if own and named is not None and named not in own and not _is_for(named, config):
        named = None  # as an Auto class, which goes by model_type
    if named is not None and named not in inner:
        return [*dict.fromkeys([named, *generating])]
    return [*dict.fromkeys([*generating, *([named] if named is not None else []), *inner])]


def is_headless(model: PreTrainedModel) -> bool:
    """Whether the class is the one that transformers has for the model without a head."""
    return type(model) in _classes([AutoModel], model.config) and model.get_output_embeddings() is None


def absent_tensors(model: PreTrainedModel, loaded: Collection[str]) -> list[str]:
    """The parameters that ``from_pretrained`` would initialise at random, sorted; ties the weights as it does.

    Args:
        model: on the meta device.
        loaded: the parameters and buffers for which the checkpoint has tensors.
    """
    missing = set(model.state_dict(keep_vars=True)).difference(loaded)
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    missing.difference_update(name for name, _ in model.named_buffers())
    ignored = model._keys_to_ignore_on_load_missing or ()
    return sorted(name for name in missing if not any(re.search(pattern, name) for pattern in ignored))


def _is_for(named: type[PreTrainedModel], config: PretrainedConfig) -> bool:
    """Whether a class is made for a configuration, or for the text in it."""
    wanted = named.config_class
    return wanted is None or isinstance(config, wanted) or isinstance(config.get_text_config(), wanted)


def _classes(autos: Iterable[type], config: PretrainedConfig) -> list[type[PreTrainedModel]]:
    """The classes that Auto classes use for a configuration."""
    found: list[type[PreTrainedModel]] = []
    for auto in autos:
        mapping = auto._model_mapping  # type: ignore[attr-defined]
        if type(config) in mapping:
            classes = mapping[type(config)]
            found += classes if isinstance(classes, list | tuple) else [classes]
    return found
