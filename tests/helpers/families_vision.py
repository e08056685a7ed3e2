"""Rows of the matrix: models that read images and text, with their real processors where these need no torchvision."""

from functools import partial

from families_experts import FOUR, SMALL
from families_text import HEAD, LINEAR, ROPE
from family_pairs import Family
from family_processors import token
from family_vision import CLIP, IMAGE, MROPE, PIXTRAL, QWEN_VISION, SIGLIP, one_image, pixtral, qwen_ids, tiles, vision

__all__ = ["QWEN3_TEXT", "QWEN3_VISION", "TOWER", "VISION_FAMILIES", "VISUAL"]

QWEN3_VISION = {**QWEN_VISION, "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
QWEN3_TEXT = {**HEAD, "rope_parameters": {**MROPE, "mrope_interleaved": True}}
LINEAR_ATTENTION = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": LINEAR,
}  # fmt: skip
VISUAL = ("model.visual.blocks",)
TOWER = ("model.vision_tower.encoder.layers",)
EXPERTS = {**FOUR, **SMALL}

VISION_FAMILIES: tuple[Family, ...] = (
    vision(
        "LLaVA 1.5",
        "Llava",
        lambda: {"vision_config": CLIP, "image_token_index": 4, "image_seq_length": 4},
        {"model_type": "llama"},
        stacks=TOWER,
        real="llava",
    ),
    vision(
        "LLaVA-NeXT",
        "LlavaNext",
        lambda: {
            "vision_config": CLIP,
            "image_token_index": 4,
            "image_seq_length": 4,
            "image_grid_pinpoints": [[28, 56], [56, 28]],
        },
        {"model_type": "mistral"},
        stacks=TOWER,
        real="llava_next",
    ),
    vision(
        "LLaVA-OneVision",
        "LlavaOnevision",
        lambda: {
            "vision_config": SIGLIP,
            "image_token_index": 4,
            "video_token_index": token("llava_onevision", "<video>"),
            "image_grid_pinpoints": [[28, 56], [56, 28]],
        },
        {"model_type": "qwen2"},
        stacks=TOWER,
        real="llava_onevision",
    ),
    vision(
        "Qwen2-VL",
        "Qwen2VL",
        lambda: {
            "vision_config": {
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": 32,
                "num_heads": 4,
                "mlp_ratio": 2,
                "patch_size": 14,
            },
            **qwen_ids("qwen2_vl"),
        },
        {"rope_parameters": MROPE},
        stacks=VISUAL,
        real="qwen2_vl",
    ),
    vision(
        "Qwen2.5-VL",
        "Qwen2_5_VL",
        lambda: {
            "vision_config": {**QWEN_VISION, "out_hidden_size": 32, "window_size": 28, "fullatt_block_indexes": [1]},
            **qwen_ids("qwen2_5_vl"),
        },
        {"rope_parameters": MROPE},
        stacks=VISUAL,
        real="qwen2_5_vl",
    ),
    vision(
        "Qwen3-VL",
        "Qwen3VL",
        lambda: {"vision_config": QWEN3_VISION, **qwen_ids("qwen3_vl")},
        QWEN3_TEXT,
        stacks=VISUAL,
        real="qwen3_vl",
    ),
    vision(
        "Qwen3-VL-MoE",
        "Qwen3VLMoe",
        lambda: {"vision_config": QWEN3_VISION, **qwen_ids("qwen3_vl")},
        {**QWEN3_TEXT, **EXPERTS},
        stacks=VISUAL,
        real="qwen3_vl",
    ),
    vision(
        "Qwen3.5 (images)",
        "Qwen3_5",
        lambda: {"vision_config": {**QWEN3_VISION, "deepstack_visual_indexes": []}, **qwen_ids("qwen3_vl")},
        {**QWEN3_TEXT, **LINEAR_ATTENTION},
        stacks=VISUAL,
        real="qwen3_vl",
    ),
    vision(
        "Gemma 3 (images)",
        "Gemma3",
        lambda: {
            "vision_config": SIGLIP,
            "mm_tokens_per_image": 4,
            "image_token_index": 13,
            "boi_token_index": 11,
            "eoi_token_index": 12,
        },
        {**HEAD, "query_pre_attn_scalar": 8, "sliding_window": 8},
        stacks=TOWER,
        real="gemma3",
    ),
    vision(
        "PaliGemma",
        "PaliGemma",
        lambda: {"vision_config": SIGLIP, "image_token_index": 4, "projection_dim": 32},
        {"model_type": "gemma2", **HEAD, "query_pre_attn_scalar": 8, "sliding_window": 8},
        stacks=TOWER,
        real="paligemma",
    ),
    vision(
        "Idefics 3",
        "Idefics3",
        lambda: {
            "vision_config": {**CLIP, "model_type": "idefics3_vision"},
            "image_token_id": IMAGE,
            "scale_factor": 2,
            "pad_token_id": 0,
        },
        {"model_type": "llama"},
        stacks=("model.vision_model.encoder.layers",),
        by_hand=tiles,
        text="model.text_model.layers",
    ),
    vision(
        "SmolVLM",
        "SmolVLM",
        lambda: {
            "vision_config": {**CLIP, "model_type": "smolvlm_vision"},
            "image_token_id": IMAGE,
            "scale_factor": 2,
            "pad_token_id": 0,
        },
        {"model_type": "llama"},
        stacks=("model.vision_model.encoder.layers",),
        by_hand=tiles,
        text="model.text_model.layers",
    ),
    vision(
        "InternVL 3",
        "InternVL",
        lambda: {
            "vision_config": {
                "hidden_size": 24,
                "intermediate_size": 40,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "image_size": [28, 28],
                "patch_size": [14, 14],
            },
            "image_token_id": token("internvl", "<IMG_CONTEXT>"),
            "image_seq_length": 1,
        },
        {"model_type": "qwen2"},
        stacks=("model.vision_tower.encoder.layer",),
        real="internvl",
    ),
    vision(
        "Mistral 3",
        "Mistral3",
        lambda: {"vision_config": PIXTRAL, "image_token_index": IMAGE},
        {"model_type": "mistral", **HEAD},
        stacks=("model.vision_tower.transformer.layers",),
        by_hand=pixtral,
    ),
    vision(
        "Aya Vision",
        "AyaVision",
        lambda: {
            "vision_config": SIGLIP,
            "downsample_factor": 2,
            "image_token_index": token("aya_vision", "<|IMG_PATCH|>"),
            "adapter_layer_norm_eps": 1e-6,
        },
        {"model_type": "cohere2", "sliding_window": 8},
        stacks=TOWER,
        real="aya_vision",
    ),
    vision(
        "Llama 3.2 Vision",
        "Mllama",
        lambda: {
            "image_token_index": token("mllama", "<|image|>"),
            "vision_config": {
                "hidden_size": 24,
                "intermediate_size": 40,
                "num_hidden_layers": 3,
                "num_global_layers": 1,
                "attention_heads": 4,
                "image_size": 28,
                "patch_size": 14,
                "max_num_tiles": 2,
                "vision_output_dim": 48,
                "intermediate_layers_indices": [1],
                "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            },
        },
        {"cross_attention_layers": [1], "rope_parameters": ROPE},
        real="mllama",
        stacks=("model.vision_model.transformer.layers", "model.vision_model.global_transformer.layers"),
    ),
    vision(
        "GLM-4.1V",
        "Glm4v",
        lambda: {
            "vision_config": {**QWEN_VISION, "out_hidden_size": 32, "image_size": 28},
            "image_token_id": token("glm4v", "<|image|>"),
            "video_token_id": token("glm4v", "<|video|>"),
            "image_start_token_id": token("glm4v", "<|begin_of_image|>"),
            "image_end_token_id": token("glm4v", "<|end_of_image|>"),
            "video_start_token_id": token("glm4v", "<|begin_of_video|>"),
            "video_end_token_id": token("glm4v", "<|end_of_video|>"),
        },
        {"rope_parameters": MROPE},
        stacks=VISUAL,
        real="glm4v",
    ),
    vision(
        "Llama 4",
        "Llama4",
        lambda: {
            "image_token_index": IMAGE,
            "vision_config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "image_size": 28,
                "patch_size": 7,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
            },
        },
        {**HEAD, "num_local_experts": 4, "intermediate_size_mlp": 48, "interleave_moe_layer_step": 2},
        stacks=("vision_model.model.layers",),
        text="language_model.model.layers",
        by_hand=partial(one_image, 4),
        after=("language_model.lm_head",),
    ),
    vision(
        "Qwen3.5-MoE (images)",
        "Qwen3_5Moe",
        lambda: {"vision_config": {**QWEN3_VISION, "deepstack_visual_indexes": []}, **qwen_ids("qwen3_vl")},
        {**QWEN3_TEXT, **LINEAR_ATTENTION, **EXPERTS, "shared_expert_intermediate_size": 16},
        stacks=VISUAL,
        real="qwen3_vl",
    ),
    vision(
        "VipLLaVA",
        "VipLlava",
        lambda: {"vision_config": CLIP, "image_token_index": IMAGE, "vision_feature_layers": [-2, -1]},
        {"model_type": "llama"},
        stacks=TOWER,
        by_hand=partial(one_image, 4),
    ),
    vision(
        "LLaVA with SigLIP",
        "Llava",
        lambda: {
            "vision_config": {**SIGLIP, "vision_use_head": True},
            "image_token_index": IMAGE,
            "vision_feature_select_strategy": "full",
        },
        {"model_type": "llama"},
        stacks=TOWER,
        by_hand=partial(one_image, 4),
        note="the tower's pooling head, torch's own attention, is merged too",
    ),
    vision(
        "Cohere 2 Vision",
        "Cohere2Vision",
        lambda: {
            "vision_config": SIGLIP,
            "downsample_factor": 2,
            "image_token_id": IMAGE,
            "alignment_intermediate_size": 64,
        },
        {"model_type": "cohere2", "sliding_window": 8},
        stacks=TOWER,
        by_hand=partial(one_image, 1),
    ),
)
