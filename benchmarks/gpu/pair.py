"""A pair of random bfloat16 checkpoints and their calibration files, made tensor by tensor on the device."""

import json
import math
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from shapes import SPECIAL_TOKENS, Shape
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.core_model_loading import revert_weight_conversion

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}{% endfor %}"
)
"""LLaVA-1.5's; beside the image and the two texts it makes 21 tokens of a sample."""

TEMPLATE_TOKENS = 21

UPDATE = 0.01
"""Size of the update, relative to the matrix."""

LARGE_CHANNELS, LARGEST = 6, 50.0
"""As in real models so many entries of each norm and outputs of each up_proj are far larger than the others."""

SHARD_BYTES = 2 * 10**9


def make_pair(folder: Path, shape: Shape, device: str, seed: int = 0) -> None:
    """Write old/, new/ and the calibration files, unless they are there; the task's file comes last."""
    if (folder / "task.jsonl").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    config, shapes = shape.config(), disk_shapes(shape)
    groups = list(_groups(shapes))
    generator = torch.Generator(device).manual_seed(seed)
    for checkpoint in ("old", "new"):
        (folder / checkpoint).mkdir(parents=True)
        config.save_pretrained(folder / checkpoint)
        _write_index(folder / checkpoint, groups, shapes)
        if shape.vision:
            make_processor(shape.vision).save_pretrained(folder / checkpoint)
    for number in range(len(groups)):
        drawn = {n: _draw(n, shapes[n], config.get_text_config().num_hidden_layers, generator) for n in groups[number]}
        for checkpoint, place in (("old", 0), ("new", 1)):
            path = folder / checkpoint / _shard(number, len(groups))
            save_file({name: pair[place] for name, pair in drawn.items()}, path, metadata={"format": "pt"})
            with path.open("r+b") as file:
                os.fsync(file.fileno())
    for name, count in shape.samples.items():
        make_calibration(folder / f"{name}.jsonl", shape, count, random.Random(f"{name} {seed}"))


def disk_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor as ``save_pretrained`` would write it."""
    with torch.device("meta"):
        model = getattr(transformers, shape.config().architectures[0])(shape.config())
    return {name: tuple(value.shape) for name, value in revert_weight_conversion(model, model.state_dict()).items()}


def _groups(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """The names of each shard."""
    group, size = [], 0
    for name, shape in shapes.items():
        if group and size + 2 * math.prod(shape) > SHARD_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += 2 * math.prod(shape)
    yield group


def _shard(number: int, count: int) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _write_index(folder: Path, groups: list[list[str]], shapes: dict[str, tuple[int, ...]]) -> None:
    weight_map = {name: _shard(number, len(groups)) for number, group in enumerate(groups) for name in group}
    content = {"metadata": {"total_size": 2 * sum(map(math.prod, shapes.values()))}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2))


def _draw(name: str, shape: tuple[int, ...], layers: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """The tensor of that name in OLD and in NEW, on the CPU."""
    device = generator.device
    large = torch.randint(0, shape[0], (LARGE_CHANNELS,), generator=generator, device=device)
    last = name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight"))
    scale = 0.02 / (2 * layers) ** 0.5 if last else 0.02
    old = torch.randn(shape, generator=generator, device=device) * scale
    if len(shape) == 1 and name.endswith("weight"):  # a norm
        old += 1
        old[large] = torch.linspace(20, LARGEST, LARGE_CHANNELS, device=device)
    change = torch.randn(shape, generator=generator, device=device) * (UPDATE * scale)
    if name.endswith("up_proj.weight"):
        old[large] *= 20
        change[large] *= 20
    old = old.bfloat16()
    return old.cpu(), (change + old).bfloat16().cpu()


def make_processor(vision: dict[str, Any]) -> Any:
    """LLaVA's processor with a tokenizer of one token a byte."""
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    letters = (*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    vocabulary = {token: index for index, token in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL_TOKENS.index("<s>"))]
    )
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    side = vision["image_size"]
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names),
        patch_size=vision["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=TEMPLATE,
    )


def make_calibration(path: Path, shape: Shape, count: int, draw: random.Random) -> None:
    """So many samples of about ``shape.tokens`` tokens: chats about a picture each, or token ids."""
    lines = []
    for number in range(count):
        length = round(shape.tokens * draw.uniform(0.98, 1.02))
        if shape.vision is None:
            lines.append({"input_ids": [draw.randrange(shape.text["vocab_size"]) for _ in range(length)]})
            continue
        image = f"images/{path.stem}-{number}.png"
        _draw_image(path.parent / image, shape.vision["image_size"], draw)
        room = length - shape.image_tokens - TEMPLATE_TOKENS
        question, answer = _words(room // 2, draw), _words(room - room // 2, draw)
        asked = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        lines.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _words(length: int, draw: random.Random) -> str:
    return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz      ") for _ in range(length - 1)) + "."


def _draw_image(path: Path, side: int, draw: random.Random) -> None:
    """Coarse noise with ellipses on it, at least as large as what the model sees."""
    path.parent.mkdir(exist_ok=True)
    width, height = (side + draw.randrange(side) for _ in range(2))
    image = Image.frombytes("RGB", (width // 4, height // 4), draw.randbytes(3 * (width // 4) * (height // 4)))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(image)
    for _ in range(8):
        left, top = draw.randrange(width), draw.randrange(height)
        box = (left, top, left + draw.randrange(8, side), top + draw.randrange(8, side))
        pen.ellipse(box, fill=tuple(draw.randbytes(3)))
    image.save(path)
