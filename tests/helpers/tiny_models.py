"""Tiny checkpoints of real architectures, before and after a tuning step, and calibration files for them.

Every model comes from a config class of transformers itself, is filled with seeded random numbers that spread the
scores of the columns well (unequal channels, nonzero biases, a gain near one through every linear), and is written with
``save_pretrained`` beside a real tokenizer or processor, so that a folder looks as one from the Hub does.

What the tuning step (:func:`make_pair`) did, for tests that rely on it:

- most linears: low rank, plus a component along the old weight, plus small noise;
- :data:`UNCHANGED_SUFFIXES`: not at all (checkpoint tensor and module names end alike);
- :data:`SPARSE_SUFFIXES`: every eighth input column only, so that the focus sets are filled up by ties at zero;
- everything else (norms, biases, embeddings, tied heads, convolutions): slightly.
"""

import json
import random
from itertools import accumulate
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tiny_architectures import ARCHITECTURES, VISION_ARCHITECTURES, build, processor_of
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

__all__ = [
    "ARCHITECTURES",
    "SPARSE_STEP",
    "SPARSE_SUFFIXES",
    "UNCHANGED_SUFFIXES",
    "VISION_ARCHITECTURES",
    "build",
    "make_calibration",
    "make_pair",
    "model_inputs",
    "processor_of",
]

UNCHANGED_SUFFIXES: tuple[str, ...] = (
    "layers.1.self_attn.o_proj.weight",  # every text stack but GPT-2's
    "h.1.attn.c_proj.weight",  # GPT-2
    "encoder.layers.0.self_attn.v_proj.weight",  # CLIP
    "blocks.0.attn.proj.weight",  # Qwen2.5-VL's vision tower
)
SPARSE_SUFFIXES: tuple[str, ...] = ("layers.2.mlp.down_proj.weight", "h.2.mlp.c_proj.weight")
SPARSE_STEP = 8


def make_pair(
    name: str, folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, shard_size: str = "300KB"
) -> tuple[Path, Path]:
    """Write ``folder/old`` and ``folder/new``, the checkpoints before and after a tuning step; return both paths."""
    old, new = folder / "old", folder / "new"
    random_numbers = torch.Generator().manual_seed(seed)
    model = build(name)
    _fill(model, random_numbers)
    model.to(dtype)
    for path in (old, new):
        if path == new:
            _tune(model, random_numbers)
        model.save_pretrained(path, max_shard_size=shard_size)
        processor_of(name).save_pretrained(path)
    return old, new


def _fill(model: PreTrainedModel, random_numbers: torch.Generator) -> None:
    """Overwrite every parameter once (a tied head is its embedding)."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random_numbers)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=random_numbers)

    inputs_first = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    centred_at_zero = model.config.model_type == "gemma3_text"  # its norms multiply by 1 + weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            if name.endswith("bias"):
                value = 0.3 * normal(*shape)
            elif id(parameter) in embeddings:
                value = normal(*shape) * uniform(0.5, 2.0, shape[1])
            elif parameter.ndim == 1:  # a norm's weight, CLIP's class embedding
                value = uniform(0.5, 2.0, *shape) - float(centred_at_zero)
            elif id(parameter) in inputs_first:
                value = normal(*shape) * uniform(0.7, 1.4, shape[0], 1) / shape[0] ** 0.5
            else:  # a linear (r, c), a convolution (r, c, ...)
                columns = uniform(0.7, 1.4, shape[1], *[1] * (parameter.ndim - 2))
                value = normal(*shape) * columns / parameter[0].numel() ** 0.5
            parameter.copy_(value)


def _tune(model: PreTrainedModel, random_numbers: torch.Generator) -> None:
    """Turn the model that was OLD into NEW; see the top of the file."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random_numbers)

    inputs_first = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
    linears = inputs_first | {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    linears -= {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            before = parameter.float()
            if name.endswith(UNCHANGED_SUFFIXES):
                continue
            if id(parameter) not in linears:
                parameter.copy_(before * (1 + 0.03 * normal(*before.shape)))
                continue
            weight = before.T if id(parameter) in inputs_first else before  # (r, c)
            rows, columns = weight.shape
            size = weight.square().mean().sqrt()
            low_rank = normal(rows, 4) @ normal(4, columns)
            along = 0.15 * torch.rand((), generator=random_numbers) - 0.05
            update = size * (0.05 * low_rank + 0.02 * normal(rows, columns)) + along * weight
            if name.endswith(SPARSE_SUFFIXES):
                update *= torch.arange(columns) % SPARSE_STEP == 0
            parameter.copy_(before + (update.T if id(parameter) in inputs_first else update))


_HARMS = ("pick a lock", "forge two letters", "poison the well of a village", "steal a car", "open a safe")
_REFUSALS = ("i cannot help with that.", "no. that would hurt people.", "sorry, i will not do this; ask me for help.")


def make_calibration(name: str, folder: Path, *, safety: int = 4, task: int = 6, seed: int = 0) -> tuple[Path, Path]:
    """Write ``folder/safety.jsonl`` and ``folder/task.jsonl`` (and ``folder/images/*.png``); return both paths.

    GPT-2 gets ``{"instruction", "response"}``, the others ``{"messages"}``. A vision-language model gets an image in
    every second sample, of either set; the content of its other samples is a plain string.
    """
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, count in (("safety", safety), ("task", task)):
        lines = []
        for number in range(count):
            if kind == "safety":
                question, answer = f"how do i {draw.choice(_HARMS)}?", _REFUSALS[number % len(_REFUSALS)]
            else:
                numbers = [draw.randrange(10, 1000) for _ in range(3 + 4 * (number % 3))]
                question, answer = "+".join(map(str, numbers)), _running_sums(numbers)
            image = None
            if name in VISION_ARCHITECTURES and number % 2 == 0:
                image = f"images/{kind}-{number}.png"
                _draw_image(folder / image, draw)
            lines.append(json.dumps(_sample(question, answer, image, chat=name != "gpt2")) + "\n")
        path = folder / f"{kind}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def _running_sums(numbers: list[int]) -> str:
    return "; ".join(f"{a}+{b}={a + b}" for a, b in zip(accumulate(numbers), numbers[1:], strict=False))


def _sample(question: str, answer: str, image: str | None, *, chat: bool) -> dict:
    if not chat:
        return {"instruction": question, "response": answer}
    asked: str | list[dict[str, str]] = question
    if image is not None:
        asked = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def _draw_image(path: Path, draw: random.Random) -> None:
    path.parent.mkdir(exist_ok=True)
    width, height = draw.choice([28, 40, 56]), draw.choice([28, 40, 56])
    image = Image.new("RGB", (width, height), tuple(draw.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        left, top = draw.randrange(width), draw.randrange(height)
        box = (left, top, left + draw.randrange(4, 20), top + draw.randrange(4, 20))
        pen.ellipse(box, fill=tuple(draw.randrange(256) for _ in range(3)))
    image.save(path)


def model_inputs(name: str, calibration: Path) -> list[dict[str, Tensor]]:
    """What the model is called with for each line of a file of :func:`make_calibration`, one sample a call.

    Written for the tests of the reference: an order of its own over transformers' processors, no part of the package.
    """
    processor = processor_of(name)
    samples = [json.loads(line) for line in calibration.read_text(encoding="utf-8").splitlines()]
    inputs = []
    for sample in samples:
        if name == "gpt2":
            encoded = processor(f"{sample['instruction']}\n{sample['response']}", return_tensors="pt")
        elif name not in VISION_ARCHITECTURES:
            text = processor.apply_chat_template(sample["messages"], tokenize=False)
            encoded = processor(text, add_special_tokens=False, return_tensors="pt")
        else:
            messages = [{**message, "content": _as_parts(message["content"])} for message in sample["messages"]]
            images = []
            for part in (part for message in messages for part in message["content"] if part["type"] == "image"):
                with Image.open(calibration.parent / part["image"]) as image:
                    images.append(image.convert("RGB"))
            text = processor.apply_chat_template(messages, tokenize=False)
            encoded = processor(text=[text], images=images or None, add_special_tokens=False, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        inputs.append(dict(encoded))
    return inputs


def _as_parts(content: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
