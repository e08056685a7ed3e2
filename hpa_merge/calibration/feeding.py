"""Texts and the media in them become tensors: the one place where media are handed to a processor."""

from collections.abc import Sequence
from typing import Any

import torch

from hpa_merge.calibration.media import Opened, processor_arguments

__all__ = ["Tensors", "processor_inputs", "repeats", "truncated"]

Tensors = dict[str, torch.Tensor]

OF_MEDIA = ("pixel_", "image_", "video_", "audio_", "feature_", "input_features")
"""How the names of tensors begin that do not go along the tokens."""


def processor_inputs(
    tokenizer: Any, processor: Any, texts: Sequence[str], media: Sequence[Opened], **options: Any
) -> Tensors:
    """The tensors of several texts, as the processor makes them where they have media, else the tokenizer.

    Args:
        media: of each text; of all or of none.
        options: of the tokenizer's call.
    """
    if media[0].kinds:
        outputs = processor(text=list(texts), **processor_arguments(media), return_tensors="pt", **options)
    else:
        outputs = tokenizer(list(texts), return_tensors="pt", **options)
    return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def repeats(tokenizer: Any, text: str, ids: Sequence[int]) -> tuple[int, int]:
    """How many tokens at the beginning and at the end of a text's ids the tokenizer added though the text has them.

    Args:
        ids: of ``text``, with the special tokens that the tokenizer adds to any text.
    """
    special = tuple(filter(None, tokenizer.all_special_tokens))
    if not special or not (text.startswith(special) or text.endswith(special)):
        return 0, 0
    bare, ids = list(tokenizer(text, add_special_tokens=False)["input_ids"]), list(ids)
    for start in range(len(ids) - len(bare) + 1):
        if ids[start : start + len(bare)] == bare:
            before, after = ids[:start], ids[start + len(bare) :]
            twice_before = len(before) if before and bare[: len(before)] == before else 0
            twice_after = len(after) if after and bare[-len(after) :] == after else 0
            return twice_before, twice_after
    return 0, 0


def truncated(inputs: Tensors, start: int, end: int) -> Tensors:
    """The tokens from ``start`` to before ``end``: of every ``[1, n, …]`` tensor along the tokens, and not of the
    media's."""
    tokens = inputs["input_ids"].shape[1]
    return {
        name: value[:, start:end] if value.shape[:2] == (1, tokens) and not name.startswith(OF_MEDIA) else value
        for name, value in inputs.items()
    }
