"""Which part of a model each module is, over many families of transformers, built on the meta device."""

from collections.abc import Iterable

import pytest
import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from hpa_merge.model import COMPONENTS
from hpa_merge.model.components import find_components

CLIP_LIKE = {"vision": "model.vision_tower", "projector": "model.multi_modal_projector"}
TEXT = {"embeddings": "model.language_model.embed_tokens", "language": "model.language_model", "head": "lm_head"}
QWEN = {"projector": "model.visual.merger", "vision": "model.visual", **TEXT}

FAMILIES: dict[str, dict[str, str]] = {
    "Llama": {"embeddings": "model.embed_tokens", "head": "lm_head", "language": "model"},
    "GPT2": {"embeddings": "transformer.wte transformer.wpe", "language": "transformer"},
    "GPTNeoX": {"embeddings": "gpt_neox.embed_in", "head": "lm_head", "language": "gpt_neox"},
    "OPT": {"embeddings": "model.decoder.embed_tokens model.decoder.embed_positions", "language": "model.decoder"},
    "Bloom": {"embeddings": "transformer.word_embeddings", "language": "transformer"},
    "Mamba": {"embeddings": "backbone.embeddings", "language": "backbone"},
    "Mixtral": {"embeddings": "model.embed_tokens", "head": "lm_head", "language": "model"},
    "Zamba2": {"embeddings": "model.embed_tokens", "language": "model"},
    "T5": {"embeddings": "shared", "head": "lm_head", "language": "encoder decoder"},
    "Bart": {
        "embeddings": "model.shared model.encoder.embed_positions model.decoder.embed_positions",
        "language": "model final_logits_bias",
    },
    "Llava": CLIP_LIKE | TEXT,
    "LlavaNext": CLIP_LIKE | {"projector": "model.multi_modal_projector model.image_newline"} | TEXT,
    "PaliGemma": CLIP_LIKE | TEXT,
    "InternVL": CLIP_LIKE | TEXT,
    "Mistral3": CLIP_LIKE | TEXT,
    "Qwen2AudioForConditionalGeneration": {**CLIP_LIKE, "vision": "model.audio_tower", **TEXT},
    "Mllama": CLIP_LIKE | {"vision": "model.vision_model"} | TEXT,
    "Llama4": {
        "vision": "vision_model",
        "projector": "multi_modal_projector",
        "embeddings": "language_model.model.embed_tokens",
        "head": "language_model.lm_head",
        "language": "language_model",
    },
    "Qwen2_5_VL": QWEN,
    "Qwen3VL": QWEN | {"projector": "model.visual.merger model.visual.deepstack_merger_list"},
    "Glm4v": QWEN | {"projector": "model.visual.merger model.visual.downsample"},
    "Idefics2": {
        "vision": "model.vision_model model.connector.perceiver_resampler",
        "projector": "model.connector.modality_projection",
        "embeddings": "model.text_model.embed_tokens",
        "language": "model.text_model",
        "head": "lm_head",
    },
    "Idefics": {
        "vision": "model.vision_model",
        "embeddings": "model.embed_tokens",
        "language": "model",
        "head": "lm_head",
    },
    "Blip2": {
        "vision": "vision_model qformer",
        "projector": "language_projection query_tokens",
        "embeddings": "language_model.model.decoder.embed_tokens language_model.model.decoder.embed_positions",
        "language": "language_model",
    },
    "Kosmos2": {
        "vision": "vision_model",
        "projector": "image_to_text_projection",
        "embeddings": "text_model.model.embed_tokens",
        "language": "text_model",
    },
    "PI0": {
        "vision": "model.vlm.vision_tower",
        "projector": "model.vlm.multi_modal_projector embed_action_time",
        "embeddings": "model.vlm.language_model.embed_tokens model.dit.embed_tokens",
        "language": "model.vlm.language_model model.dit",
        "head": "action_out_proj",
    },
    "T5Gemma2": {
        "vision": "model.encoder.vision_tower",
        "projector": "model.encoder.multi_modal_projector",
        "embeddings": "model.encoder.text_model.embed_tokens model.decoder.embed_tokens",
        "language": "model.encoder.text_model model.decoder",
    },
    "Udop": {
        "projector": "patch_embed encoder.embed_patches decoder.embed_patches",
        "embeddings": "shared encoder.cell_2d_embedding",
        "language": "encoder decoder",
    },
    "Fuyu": {"projector": "model.vision_embed_tokens", **TEXT},
    "Florence2": {
        **CLIP_LIKE,
        "embeddings": "model.language_model.shared model.language_model.encoder.embed_positions "
        "model.language_model.decoder.embed_positions",
        "language": "model.language_model",
    },
    "Git": {
        "vision": "git.image_encoder",
        "embeddings": "git.embeddings.word_embeddings git.embeddings.position_embeddings",
        "language": "git",
        "head": "output",
    },
}
"""Paths of each component; a module is in the one with the longest path above it."""


def build(name: str) -> PreTrainedModel:
    """The family's own generative class with its own default configuration, on the meta device."""
    endings = ("ForConditionalGeneration", "ForCausalLM", "LMHeadModel", "ForVisionText2Text", "")
    architecture = next(found for end in endings if (found := getattr(transformers, name + end, None)))
    config: PretrainedConfig = architecture.config_class()
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    if hasattr(vision, "out_hidden_size"):
        vision.out_hidden_size = text.hidden_size  # the defaults of the two do not fit
    with torch.device("meta"):
        return architecture._from_config(config)


def longest(name: str, paths: Iterable[str]) -> str:
    return max((path for path in paths if name == path or name.startswith(f"{path}.")), key=len, default="")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_is_in_its_component(name: str) -> None:
    model = build(name)
    owner = {path: component for component, paths in FAMILIES[name].items() for path in paths.split()}
    tensors = model.state_dict(keep_vars=True)
    embedded = {id(tensors[key]) for key in tensors if owner.get(longest(key, owner)) == "embeddings"}
    found = find_components(model)
    assert found.keys() == tensors.keys()
    for key, component in found.items():
        expected = "embeddings" if id(tensors[key]) in embedded else owner.get(longest(key, owner))
        assert component == expected, key
    assert set(found.values()) <= set(COMPONENTS)


def test_towers_as_wide_as_the_text() -> None:
    """Where the widths do not tell, a merger is what comes behind the blocks, and CLIP has none."""
    for name, expected in (("Qwen2_5_VL", "model.visual.merger"), ("Llava", "model.multi_modal_projector")):
        architecture = getattr(transformers, f"{name}ForConditionalGeneration")
        config = architecture.config_class()
        config.vision_config.hidden_size = config.get_text_config().hidden_size = 1280
        config.vision_config.intermediate_size = config.get_text_config().intermediate_size = 64
        config.get_text_config().num_attention_heads = config.get_text_config().num_key_value_heads = 16
        config.vision_config.out_hidden_size = 1280
        with torch.device("meta"):
            model = architecture._from_config(config)
        projector = {key for key, component in find_components(model).items() if component == "projector"}
        assert projector == {key for key in model.state_dict() if key.startswith(expected)}
