"""Rows of the matrix: models that take videos and sounds, with their real processors; these need torchvision."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import tiny_processors as tiny
import transformers
from families_vision import QWEN3_TEXT, QWEN3_VISION, TOWER, VISUAL
from family_pairs import Family
from family_processors import SIDE, images, qwen_images
from family_vision import CLIP, MROPE, QWEN_VISION, SIGLIP, build

__all__ = ["MEDIA_FAMILIES"]

AUDIO = {
    "num_mel_bins": 8, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "max_source_positions": 100,
}  # fmt: skip
PINPOINTS = {"image_grid_pinpoints": [[28, 56], [56, 28]]}
QWEN_WORDS = "<|vision_start|><|video_pad|><|vision_end|>"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
OMNI_TOKENS = {
    "image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>", "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
}  # fmt: skip
LLAVA = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def _make(name: str, template: dict[str, str], specials: dict[str, str] | None = None, **parts: Any) -> Any:
    return getattr(transformers, name)(
        tokenizer=tiny._tokenizer(**(specials or {})), chat_template=tiny.media_template(**template), **parts
    )


def _videos(name: str, **options: Any) -> Any:
    return getattr(transformers, f"{name}VideoProcessor")(**options)


def _qwen_videos(name: str = "Qwen2VL", frames: int = 1) -> Any:
    size = {"shortest_edge": 28**2 * frames, "longest_edge": 56**2 * frames}
    return _videos(name, patch_size=14, merge_size=2, size=size)


def _sounds() -> Any:
    return transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=2)


PROCESSORS: dict[str, Callable[[], Any]] = {
    "qwen2_5_vl": lambda: _make(
        "Qwen2_5_VLProcessor", {"video": QWEN_WORDS, "image": QWEN_IMAGE}, image_processor=qwen_images(),
        video_processor=_qwen_videos(),
    ),
    "qwen3_vl": lambda: _make(
        "Qwen3VLProcessor", {"video": QWEN_WORDS}, image_processor=qwen_images(),
        video_processor=_qwen_videos("Qwen3VL", frames=4),
    ),
    "llava_next_video": lambda: _make(
        "LlavaNextVideoProcessor", {"video": "<video>\n"}, {"video_token": "<video>"},
        image_processor=images("LlavaNextImageProcessor", size={"shortest_edge": 28}, crop_size=SIDE, **PINPOINTS),
        video_processor=_videos(
            "LlavaNextVideo", size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
        ),
        **LLAVA,
    ),
    "llava_onevision": lambda: _make(
        "LlavaOnevisionProcessor", {"video": "<video>"}, {"video_token": "<video>"},
        image_processor=images("LlavaOnevisionImageProcessor", size=SIDE, **PINPOINTS),
        video_processor=_videos("LlavaOnevision", size=SIDE), num_image_tokens=4, vision_feature_select_strategy="full",
    ),
    "video_llava": lambda: _make(
        "VideoLlavaProcessor", {"video": "<video>\n", "image": "<image>"}, {"video_token": "<video>"},
        image_processor=images("VideoLlavaImageProcessor", size={"shortest_edge": 28}, crop_size=SIDE),
        video_processor=_videos("VideoLlava", size={"shortest_edge": 28}, crop_size=SIDE),
        **LLAVA,
    ),
    "internvl": lambda: _make(
        "InternVLProcessor", {"video": "<video>\n"},
        {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
         "video_token": "<video>"},
        image_processor=images("GotOcr2ImageProcessor", size=SIDE, crop_to_patches=True, min_patches=1, max_patches=2),
        video_processor=_videos("InternVL", size=SIDE), image_seq_length=1,
    ),
    "qwen2_audio": lambda: _make(
        "Qwen2AudioProcessor", {"audio": "<|audio_bos|><|AUDIO|><|audio_eos|>"},
        {"a": "<|AUDIO|>", "b": "<|audio_bos|>", "c": "<|audio_eos|>"}, feature_extractor=_sounds(),
    ),
    "qwen2_5_omni": lambda: _make(
        "Qwen2_5OmniProcessor",
        {"video": "<|vision_bos|><|VIDEO|><|vision_eos|>", "audio": "<|audio_bos|><|AUDIO|><|audio_eos|>"},
        OMNI_TOKENS, image_processor=qwen_images(), video_processor=_qwen_videos(), feature_extractor=_sounds(),
    ),
}  # fmt: skip


@cache
def processor(name: str) -> Any:
    return PROCESSORS[name]()


def token(name: str, text: str) -> int:
    return int(processor(name).tokenizer.convert_tokens_to_ids(text))


def row(
    name: str,
    prefix: str,
    real: str,
    values: Callable[[], dict[str, Any]],
    language: dict[str, Any],
    media: tuple[str, ...] = ("video",),
    **fields: Any,
) -> Family:
    return Family(
        name,
        "video and sound",
        partial(build, f"{prefix}ForConditionalGeneration", f"{prefix}Config", values, language),
        processor=partial(processor, real),
        **{"text": "model.language_model.layers", "media": media, **fields},
    )


def qwen_ids(name: str) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start",
             "vision_end_token_id": "vision_end"}  # fmt: skip
    return {key: token(name, f"<|{text}|>") for key, text in names.items()}


def omni_ids() -> dict[str, int]:
    names = {
        "audio_token_id": "audio_token", "image_token_id": "image_token", "video_token_id": "video_token",
        "vision_start_token_id": "vision_bos_token", "vision_end_token_id": "vision_eos_token",
        "audio_start_token_id": "audio_bos_token", "audio_end_token_id": "audio_eos_token",
    }  # fmt: skip
    return {key: token("qwen2_5_omni", OMNI_TOKENS[name]) for key, name in names.items()}


IMAGE_UNITS = ("embeddings", "pre_layrnorm", *(f"encoder.layers.{n}" for n in range(3)), "post_layernorm")
IMAGE_TOWER = tuple(
    f"image_tower.encoder.layers.{n}.{leaf}"
    for n in range(3)
    for leaf in (*(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")
)

QWEN2_5_VISION = {**QWEN_VISION, "out_hidden_size": 32, "window_size": 28, "fullatt_block_indexes": [1]}

MEDIA_FAMILIES: tuple[Family, ...] = (
    row(
        "Qwen2.5-VL (video)",
        "Qwen2_5_VL",
        "qwen2_5_vl",
        lambda: {"vision_config": QWEN2_5_VISION, **qwen_ids("qwen2_5_vl")},
        {"rope_parameters": MROPE},
        stacks=VISUAL,
    ),
    row(
        "Qwen3-VL (video)",
        "Qwen3VL",
        "qwen3_vl",
        lambda: {"vision_config": QWEN3_VISION, **qwen_ids("qwen3_vl")},
        QWEN3_TEXT,
        stacks=VISUAL,
    ),
    row(
        "LLaVA-NeXT-Video",
        "LlavaNextVideo",
        "llava_next_video",
        lambda: {
            "vision_config": {**CLIP, "image_size": 56},
            "image_token_index": tiny.IMAGE_ID,
            "video_token_index": token("llava_next_video", "<video>"),
            **PINPOINTS,
        },
        {"model_type": "llama"},
        stacks=TOWER,
    ),
    row(
        "LLaVA-OneVision (video)",
        "LlavaOnevision",
        "llava_onevision",
        lambda: {
            "vision_config": SIGLIP,
            "image_token_index": tiny.IMAGE_ID,
            "video_token_index": token("llava_onevision", "<video>"),
            "vision_feature_select_strategy": "full",
            **PINPOINTS,
        },
        {"model_type": "qwen2"},
        stacks=TOWER,
    ),
    row(
        "Video-LLaVA",
        "VideoLlava",
        "video_llava",
        lambda: {
            "vision_config": CLIP,
            "image_token_index": tiny.IMAGE_ID,
            "video_token_index": token("video_llava", "<video>"),
        },
        {"model_type": "llama"},
        stacks=("model.video_tower.encoder.layers",),
        unreached=IMAGE_TOWER,
        unvisited=frozenset(f"model.image_tower.{unit}" for unit in IMAGE_UNITS),
    ),
    row(
        "InternVL 3 (video)",
        "InternVL",
        "internvl",
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
    ),
    row(
        "Qwen2-Audio",
        "Qwen2Audio",
        "qwen2_audio",
        lambda: {"audio_config": AUDIO, "audio_token_index": token("qwen2_audio", "<|AUDIO|>")},
        {"model_type": "qwen2"},
        media=("audio",),
        stacks=("model.audio_tower.layers",),
    ),
    row(
        "Qwen2.5-Omni (thinker)",
        "Qwen2_5OmniThinker",
        "qwen2_5_omni",
        lambda: {
            "audio_config": {**AUDIO, "n_window": 10, "output_dim": 32},
            "vision_config": QWEN2_5_VISION,
            **omni_ids(),
        },
        {"rope_parameters": MROPE, "max_position_embeddings": 2048},
        media=("audio", "video"),
        stacks=("model.audio_tower.layers", *VISUAL),
        unvisited=frozenset({"model.audio_tower.audio_bos_eos_token"}),
    ),
)
