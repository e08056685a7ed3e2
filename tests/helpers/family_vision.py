"""What the rows of vision-language models are made of: builders, sizes of vision towers, images made by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from family_pairs import SIZES, Family
from family_processors import processor, token
from torch import Tensor
from transformers import PreTrainedModel

__all__ = [
    *("CLIP", "IMAGE", "MROPE", "PIXTRAL", "QWEN_VISION", "SIGLIP"),
    *("build", "one_image", "pixtral", "qwen_ids", "tiles", "vision"),
]

TEXT_STACK = "model.language_model.layers"
IMAGE = 500
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "image_size": 28, "patch_size": 14, "projection_dim": 16,
}  # fmt: skip
SIGLIP = {**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
PIXTRAL = {**CLIP, "model_type": "pixtral", "head_dim": 8, "num_attention_heads": 3, "image_size": 56}
QWEN_VISION = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2,
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def build(model: str, config: str, values: Callable[[], dict[str, Any]], text: dict[str, Any], **sizes: Any) -> Any:
    words = {**SIZES, **text, **sizes}
    made = getattr(transformers, config)(text_config=words, **values())
    return getattr(transformers, model)(made)


def vision(
    name: str,
    prefix: str,
    values: Callable[[], dict[str, Any]],
    language: dict[str, Any],
    *,
    stacks: tuple[str, ...],
    real: str = "",
    by_hand: Callable[[torch.Generator, bool], dict[str, Tensor]] | None = None,
    model: str = "",
    **row: Any,
) -> Family:
    made: Callable[..., PreTrainedModel] = partial(
        build, model or f"{prefix}ForConditionalGeneration", f"{prefix}Config", values, language
    )
    return Family(
        name,
        "vision-language",
        made,
        **{"text": TEXT_STACK, **row},
        stacks=stacks,
        processor=partial(processor, real) if real else None,
        by_hand=by_hand,
    )


def words(draw: torch.Generator, image_tokens: int, image: int = IMAGE) -> dict[str, Tensor]:
    """Between 9 and 14 tokens of text with an image's tokens among them."""
    length = int(torch.randint(9, 15, (), generator=draw))
    ids = torch.randint(3, 400, (length,), generator=draw)
    ids = torch.cat([ids[:4], torch.full((image_tokens,), image), ids[4:]])[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pixels(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=draw)


def tiles(draw: torch.Generator, has_image: bool) -> dict[str, Tensor]:
    """Idefics 3, SmolVLM: two tiles of 28×28, one token each."""
    sample = words(draw, 2 if has_image else 0)
    return sample | ({"pixel_values": pixels(draw, 1, 2, 3, 28, 28)} if has_image else {})


def pixtral(draw: torch.Generator, has_image: bool) -> dict[str, Tensor]:
    """Mistral 3: one image of 28×56 in patches of 14, merged 2×2."""
    sample = words(draw, 2 if has_image else 0)
    image = {"pixel_values": pixels(draw, 1, 3, 28, 56), "image_sizes": torch.tensor([[28, 56]])}
    return sample | (image if has_image else {})


def one_image(tokens: int, draw: torch.Generator, has_image: bool) -> dict[str, Tensor]:
    """One image of 28×28."""
    sample = words(draw, tokens if has_image else 0)
    return sample | ({"pixel_values": pixels(draw, 1, 3, 28, 28)} if has_image else {})


def qwen_ids(name: str) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start",
             "vision_end_token_id": "vision_end"}  # fmt: skip
    return {key: token(name, f"<|{text}|>") for key, text in names.items()}
