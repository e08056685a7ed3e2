"""LLaVA in the layout of its own code base: the folder of a language model with a projector, and a CLIP tower.

Its config.json is a Llama's or a Mistral's with a few ``mm_…`` keys, and only names the tower. The tower has its own
folder, even if its weights are in the checkpoint too. This file translates such a config and its keys to transformers'
``LlavaForConditionalGeneration``, which computes the same numbers.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, MistralConfig, PretrainedConfig, PreTrainedModel

from hpa_merge.counting import counted
from hpa_merge.errors import CheckpointError
from hpa_merge.files.architectures import LLAVA, LLAVA_MISTRAL, TOWER, is_original_llava

__all__ = ["TOWER", "adapt", "is_original_llava", "llava_config", "module_name"]

TEXT_CONFIGS: dict[str, type[PretrainedConfig]] = {
    **dict.fromkeys(LLAVA, LlamaConfig),
    LLAVA_MISTRAL: MistralConfig,
}
"""The classes that are read, as config.json names them, and the configuration of their language models."""

MODULES = (
    (TOWER, "model.vision_tower."),
    ("model.mm_projector.", "model.multi_modal_projector."),
    ("model.", "model.language_model."),
)
"""Prefixes of its keys, and the modules of transformers' LLaVA that replace them; the first match counts."""

IMAGE = -200
"""The placeholder of an image in the token ids; no token has this id."""

FEATURES: dict[Any, Literal["default", "full"]] = {"patch": "default", "cls_patch": "full"}
"""``mm_vision_select_feature``: whether the class token is dropped, and transformers' word for it."""

ASPECT_RATIOS = (None, "square", "pad")
"""``image_aspect_ratio``: one view of each image; the other values are LLaVA 1.6's, with several views."""

ATTENTION = ("attn_implementation", "_attn_implementation", "_flash_attn_2_enabled")
"""Settings of the training in config.json that the merge must not use."""


def module_name(key: str) -> str:
    """The name of ``key`` in transformers' LLaVA."""
    for start, module in MODULES:
        if key.startswith(start):
            return module + key.removeprefix(start)
    return key


def llava_config(raw: dict[str, Any], tower: dict[str, Any], header: Mapping[str, Any], role: str) -> LlavaConfig:
    """The config of transformers' LLaVA.

    Args:
        raw: config.json.
        tower: config.json of the tower: of a CLIP model, or of its vision model alone.
        header: the checkpoint's tensors, including those of the tower.
        role: OLD or NEW, for messages.

    Raises:
        CheckpointError: transformers' LLaVA does not compute such a model, or the tower does not fit.
    """
    _check_variant(raw, role)
    if tower.get("model_type") not in ("clip", "clip_vision_model"):
        raise CheckpointError(
            f"{role}'s vision tower is a {tower.get('model_type')}, and of LLaVA's own layout only those with a CLIP "
            "tower are read: give the folder of that CLIP model with --vision-tower."
        )
    vision = CLIPVisionConfig.from_dict(tower["vision_config"] if tower["model_type"] == "clip" else tower)
    layer = raw.get("mm_vision_select_layer", -2)
    depth = vision.num_hidden_layers
    _check_tower(raw, vision, header, role)
    if not isinstance(layer, int) or not -depth - 1 <= layer <= depth:
        raise CheckpointError(
            f"{role}'s config.json has {layer!r} for mm_vision_select_layer, and "
            f"its vision tower has {counted(depth, 'layer')}: "
            "use --vision-tower with the folder of the tower that it was trained with."
        )
    text = {key: value for key, value in raw.items() if key not in ATTENTION and not key.startswith("mm_")}
    text_class = TEXT_CONFIGS[raw["architectures"][0]]
    feature = FEATURES[raw.get("mm_vision_select_feature", "patch")]
    side, patch = vision.image_size, vision.patch_size
    if not isinstance(side, int) or not isinstance(patch, int):
        raise ValueError(f"its vision tower has images of {side} and patches of {patch}")
    text_config = text_class.from_dict({**text, "model_type": text_class.model_type})
    return LlavaConfig(
        vision_config=vision,
        text_config=text_config,
        image_token_index=IMAGE,
        image_seq_length=(side // patch) ** 2 + (feature == "full"),
        projector_hidden_act="gelu",
        vision_feature_select_strategy=feature,
        vision_feature_layer=layer,
        architectures=["LlavaForConditionalGeneration"],
        dtype=text_config.dtype,
    )


def adapt(model: PreTrainedModel, raw: Mapping[str, Any]) -> None:
    """Give transformers' LLaVA, on the meta device, the projector of config.json, and let it accept placeholders."""
    sizes = [raw["mm_hidden_size"], *[raw["hidden_size"]] * _projector_depth(raw)]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.GELU(), nn.Linear(inputs, outputs, dtype=model.dtype, device="meta")]
    model.model.multi_modal_projector = layers[1] if _is_linear(raw) else nn.Sequential(*layers[1:])
    model.get_input_embeddings().register_forward_pre_hook(_without_images)


def _without_images(embedding: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Token ids with any token in place of an image's placeholder; its embedding is overwritten later."""
    return (arguments[0].clamp(min=0),)


def _is_linear(raw: Mapping[str, Any]) -> bool:
    return bool(raw.get("mm_projector_type", "linear") == "linear")


def _projector_depth(raw: Mapping[str, Any]) -> int:
    """How many linears the projector has; 0 for an unknown kind."""
    found = re.fullmatch(r"mlp([1-9])x_gelu", str(raw.get("mm_projector_type")))
    return 1 if _is_linear(raw) else int(found[1]) if found else 0


def _check_variant(raw: Mapping[str, Any], role: str) -> None:
    """Raise CheckpointError for a setting that transformers' LLaVA does not compute."""
    for key, known, known_as in (
        ("mm_projector_type", _projector_depth(raw) > 0, "linear or mlp2x_gelu (any number up to 9)"),
        ("mm_vision_select_feature", raw.get("mm_vision_select_feature", "patch") in FEATURES, " or ".join(FEATURES)),
        ("image_aspect_ratio", raw.get("image_aspect_ratio") in ASPECT_RATIOS, "square or pad"),
        ("mm_patch_merge_type", raw.get("mm_patch_merge_type") in (None, "flat"), "flat"),
        ("mm_resampler_type", not raw.get("mm_resampler_type"), "none"),
        ("s2", not raw.get("s2"), "false"),
    ):
        if not known:
            raise CheckpointError(
                f"{role}'s config.json has {raw.get(key)!r} for {key}, and of LLaVA's own layout only {known_as} is "
                "read: convert the checkpoint to the layout of transformers first, if it has a class for it."
            )
    for key in ("mm_hidden_size", "hidden_size"):
        if not isinstance(raw.get(key), int) or raw[key] < 1:
            raise CheckpointError(
                f"{role}'s config.json has {raw.get(key)!r} for {key}: give the config.json that belongs to these "
                "weights."
            )


def _check_tower(raw: Mapping[str, Any], vision: CLIPVisionConfig, header: Mapping[str, Any], role: str) -> None:
    """Raise CheckpointError unless the tower's config fits the tower that the projector was trained with."""
    inside = [key.partition(TOWER)[2] for key in header]
    blocks = {place[1] for key in inside if (place := re.match(r"vision_model\.encoder\.layers\.(\d+)\.", key))}
    for what, wanted, found in (
        ("channels", raw["mm_hidden_size"], vision.hidden_size),
        ("layers", len(blocks), vision.num_hidden_layers),
    ):
        if wanted != found:
            raise CheckpointError(
                f"{role}'s vision tower has {wanted} {what} and the folder that is given for it {found}: "
                "use --vision-tower with the folder of the tower that it was trained with."
            )
