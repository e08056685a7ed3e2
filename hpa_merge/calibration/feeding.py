"""Texts and the media in them become tensors: the one place where media are opened and handed to a processor."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from hpa_merge.calibration.images import open_images
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Sample

__all__ = ["Tensors", "open_media", "processor_inputs", "repeats", "truncated"]

Tensors = dict[str, torch.Tensor]


def open_media(sample: Sample) -> list[Image.Image]:
    """What the processor is given of a sample besides its text.

    Raises:
        CalibrationError: something cannot be opened, or is of a kind that no processor is given.
    """
    for media in sample.media:
        if media.kind != "image":
            raise CalibrationError(f"{sample.source} has {media.kind}, which is not read: remove the sample.")
    return open_images(sample)


def processor_inputs(
    tokenizer: Any, processor: Any, texts: Sequence[str], media: Sequence[list[Image.Image]], **options: Any
) -> Tensors:
    """The tensors of several texts, as the processor makes them where they have media, else the tokenizer.

    Args:
        media: what :func:`open_media` gives, of each text; of all or of none.
        options: of the tokenizer's call.
    """
    if media[0]:
        outputs = processor(text=list(texts), images=list(media), return_tensors="pt", **options)
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
        name: value[:, start:end]
        if value.shape[:2] == (1, tokens) and not name.startswith(("pixel_", "image_"))
        else value
        for name, value in inputs.items()
    }
