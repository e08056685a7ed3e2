"""Real processors of vision-language families, tiny and built from nothing; the ids of their special tokens.

Video processors are left out, which need torchvision; images go through the classes that transformers takes, with it or
without.
"""

from functools import cache
from typing import Any

import tiny_processors as tiny
import transformers

__all__ = ["PROCESSORS", "SIDE", "images", "processor", "qwen_images", "token"]

SIDE = {"height": 28, "width": 28}
QWEN = "<|vision_start|><|image_pad|><|vision_end|>"


def _image_only(name: str) -> type:
    """A processor's class without its video processor, saved under the name of the real one."""
    real = getattr(transformers, name)
    attributes = [part for part in real.get_attributes() if part != "video_processor"]
    return type(name, (real,), {"get_attributes": classmethod(lambda cls: attributes)})


TILES = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
    **{f"tile{row}{column}": f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)},
}
"""The special tokens of processors that cut an image into tiles."""


def _make(name: str, images: Any, text: str, specials: dict[str, str] | None = None, **options: Any) -> Any:
    return _image_only(name)(
        image_processor=images,
        tokenizer=tiny._tokenizer(**(specials or {})),
        chat_template=tiny.parts_template(text),
        **options,
    )


def images(name: str, **options: Any) -> Any:
    return getattr(transformers, name)(**options)


def qwen_images(name: str = "Qwen2VLImageProcessor", patch: int = 14) -> Any:
    side = 2 * patch
    return images(name, patch_size=patch, merge_size=2, size={"shortest_edge": side**2, "longest_edge": 4 * side**2})


PROCESSORS: dict[str, Any] = {
    "llava": tiny.llava_processor,
    "llava_next": lambda: _make(
        "LlavaNextProcessor",
        images("LlavaNextImageProcessor", size={"shortest_edge": 28}, crop_size=SIDE,
                image_grid_pinpoints=[[28, 56], [56, 28]]),
        "<image>\n", patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    ),
    "llava_onevision": lambda: _make(
        "LlavaOnevisionProcessor",
        images("LlavaOnevisionImageProcessor", size=SIDE, image_grid_pinpoints=[[28, 56], [56, 28]]),
        "<image>\n", {"video_token": "<video>"}, num_image_tokens=4, vision_feature_select_strategy="full",
    ),
    "qwen2_vl": lambda: _make("Qwen2VLProcessor", qwen_images(), QWEN),
    "qwen2_5_vl": tiny.qwen2_5_vl_processor,
    "qwen3_vl": lambda: _make("Qwen3VLProcessor", qwen_images(), QWEN),
    "gemma3": tiny.gemma3_processor,
    "paligemma": lambda: _make(
        "PaliGemmaProcessor", images("SiglipImageProcessor", size=SIDE, image_seq_length=4), "<image>",
        {"image_token": "<image>"},
    ),
    "internvl": lambda: _make(
        "InternVLProcessor",
        images("GotOcr2ImageProcessor", size=SIDE, crop_to_patches=True, min_patches=1, max_patches=2),
        "<IMG_CONTEXT>\n",
        {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
         "video_token": "<video>"},
        image_seq_length=1,
    ),
    "aya_vision": lambda: _make(
        "AyaVisionProcessor",
        images("GotOcr2ImageProcessor", size=SIDE, crop_to_patches=True, min_patches=1, max_patches=2), "<image>",
        {f"x{n}": f"<|{t}|>" for n, t in enumerate(("START_OF_IMG", "END_OF_IMG", "IMG_PATCH", "IMG_LINE_BREAK"))}
        | {"image": "<image>"},
        patch_size=14, img_size=28, downsample_factor=2,
    ),
    "mllama": lambda: _make(
        "MllamaProcessor", images("MllamaImageProcessor", size=SIDE, max_image_tiles=2), "<|image|>",
        {"image_token": "<|image|>", "python": "<|python_tag|>"},
    ),
    "glm4v": lambda: _make(
        "Glm4vProcessor", qwen_images("Glm4vImageProcessor"), "<|begin_of_image|><|image|><|end_of_image|>",
        {"image_token": "<|image|>", "video_token": "<|video|>", "a": "<|begin_of_image|>", "b": "<|end_of_image|>",
         "c": "<|begin_of_video|>", "d": "<|end_of_video|>"},
    ),
    "idefics3": lambda: _make(
        "Idefics3Processor",
        images("Idefics3ImageProcessorPil", size={"longest_edge": 56}, max_image_size={"longest_edge": 28}), "<image>",
        TILES, image_seq_len=4,
    ),
}  # fmt: skip


@cache
def processor(name: str) -> Any:
    return PROCESSORS[name]()


def token(name: str, text: str) -> int:
    """The id of a special token in the processor's tokenizer."""
    return int(processor(name).tokenizer.convert_tokens_to_ids(text))
