"""The architectures of the tiny checkpoints: config classes of transformers itself, and the processor of each."""

from collections.abc import Callable

import torch
from tiny_processors import (
    BOS_ID,
    EOS_ID,
    IMAGE_ID,
    IMAGE_PAD_ID,
    LLAVA_IMAGE_SIZE,
    LLAVA_IMAGE_TOKENS,
    LLAVA_PATCH_SIZE,
    PAD_ID,
    QWEN_MERGE_SIZE,
    QWEN_PATCH_SIZE,
    VIDEO_PAD_ID,
    VISION_END_ID,
    VISION_START_ID,
    llava_processor,
    qwen2_5_vl_processor,
    text_tokenizer,
)
from transformers import (
    CLIPVisionConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

ARCHITECTURES: tuple[str, ...] = ("llama", "qwen2_tied", "gpt2", "phi3", "gemma3", "llava", "qwen2_5_vl")
VISION_ARCHITECTURES: tuple[str, ...] = ("llava", "qwen2_5_vl")

_SPECIAL_IDS = {"pad_token_id": PAD_ID, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}
_SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    **_SPECIAL_IDS,
}


def build(name: str) -> PreTrainedModel:
    """The architecture with transformers' own initialisation; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        return _BUILDERS[name]().eval()


def processor_of(name: str):
    """The processor of a vision-language model, the tokenizer of a text model (GPT-2's has no chat template)."""
    if name == "llava":
        return llava_processor()
    if name == "qwen2_5_vl":
        return qwen2_5_vl_processor()
    return text_tokenizer(chat=name != "gpt2")


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**{**_SIZES, "num_hidden_layers": 4}, tie_word_embeddings=False))


def _qwen3() -> PreTrainedModel:
    sizes = {**_SIZES, "num_hidden_layers": 2, "head_dim": 16}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, tie_word_embeddings=False))


def _qwen2_tied() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**_SIZES, tie_word_embeddings=True))


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=512, n_embd=48, n_inner=144, n_layer=3, n_head=4, n_positions=512, **_SPECIAL_IDS)
    )


def _phi3() -> PreTrainedModel:
    return Phi3ForCausalLM(Phi3Config(**_SIZES, original_max_position_embeddings=512, tie_word_embeddings=False))


def _gemma3() -> PreTrainedModel:
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **{**_SIZES, "num_hidden_layers": 4, "intermediate_size": 160},
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        )
    )


def _llava() -> PreTrainedModel:
    vision = CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=LLAVA_IMAGE_SIZE,
        patch_size=LLAVA_PATCH_SIZE,
        projection_dim=32,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**_SIZES),
            image_token_index=IMAGE_ID,
            image_seq_length=LLAVA_IMAGE_TOKENS,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )


def _qwen2_5_vl() -> PreTrainedModel:
    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_heads": 4,
        "out_hidden_size": _SIZES["hidden_size"],
        "patch_size": QWEN_PATCH_SIZE,
        "spatial_merge_size": QWEN_MERGE_SIZE,
        "window_size": QWEN_PATCH_SIZE * QWEN_MERGE_SIZE,
        "fullatt_block_indexes": [1],
    }
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            vision_config=vision,
            text_config={**_SIZES, "rope_parameters": rotary},
            image_token_id=IMAGE_PAD_ID,
            video_token_id=VIDEO_PAD_ID,
            vision_start_token_id=VISION_START_ID,
            vision_end_token_id=VISION_END_ID,
            tie_word_embeddings=False,
        )
    )


_BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "qwen2_tied": _qwen2_tied,
    "gpt2": _gpt2,
    "phi3": _phi3,
    "gemma3": _gemma3,
    "llava": _llava,
    "qwen2_5_vl": _qwen2_5_vl,
}
