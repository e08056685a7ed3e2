"""The families of the matrix as tiny checkpoints: what a row says of one, how OLD and NEW are made, and their samples.

Numbers are seeded and unequal from column to column. What the tuning step does: every seventh linear nothing, the other
linears and every expert a low rank, something along the old weight and small noise, everything else a little.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from family_media import WRITERS, read_medium
from tiny_processors import text_tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

__all__ = ["SIZES", "Family", "Inputs", "Pair", "make_pair"]

Inputs = Mapping[str, Tensor]

SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Family:
    """One row of the matrix.

    Attributes:
        name: as people call it.
        kind: text, mixture, state space, vision-language, encoder-decoder.
        build: the model, as its own class makes it; takes the changes of sizes that the nightly run asks for.
        text: path of the stack that carries the text.
        stacks: paths of the other stacks of blocks.
        after: paths of the linears behind the text stack.
        processor: makes the real processor; None where there are no images, or where their tensors are made by hand.
        by_hand: makes the inputs of a sample, from a generator and whether there is to be an image.
        unreached: how paths of modules end whose weight is used and which are not called, or not by these samples.
        unvisited: units that no sample comes to, in the ordinary forward neither.
        loops: whether samples come back to a unit after others have run.
        template: whether the tokenizer has a chat template; without one the samples are instruction and response.
        media: the kinds that every second sample has, one of each.
        note: what stays NEW's, or is otherwise remarkable, in a few words.
    """

    name: str
    kind: str
    build: Callable[..., PreTrainedModel]
    text: str = "model.layers"
    stacks: tuple[str, ...] = ()
    after: tuple[str, ...] = ("lm_head",)
    processor: Callable[[], Any] | None = None
    by_hand: Callable[[torch.Generator, bool], dict[str, Tensor]] | None = None
    unreached: tuple[str, ...] = ()
    unvisited: frozenset[str] = frozenset()
    loops: bool = False
    template: bool = True
    media: tuple[str, ...] = ("image",)
    note: str = ""

    @property
    def id(self) -> str:
        """The name as a test's id has it."""
        return self.name.replace(" ", "_")

    @property
    def model(self) -> str:
        """The class of the model."""
        return type(self.build_on_meta()).__name__

    def build_on_meta(self) -> PreTrainedModel:
        """The model without memory."""
        with torch.device("meta"):
            return self.build()

    @property
    def images(self) -> str:
        """Where images come from: a processor, by hand, or none."""
        return "processor" if self.processor is not None else "by hand" if self.by_hand is not None else ""


@dataclass(frozen=True)
class Pair:
    """OLD and NEW on disk with their calibration files, and what the models are to be called with for each line."""

    family: Family
    old: Path
    new: Path
    safety: Path
    task: Path
    safety_inputs: list[Inputs]
    task_inputs: list[Inputs]


def make_pair(
    family: Family, folder: Path, *, dtype: torch.dtype = torch.float32, words: int = 1, **sizes: Any
) -> Pair:
    """Write the two checkpoints and the two files of samples; ``words`` times as long as usual, ``sizes`` changed."""
    draw = torch.Generator().manual_seed(int(hashlib.sha256(family.name.encode()).hexdigest()[:8], 16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = family.build(**sizes).eval()
    _fill(model, draw)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    processor = family.processor() if family.processor else text_tokenizer(chat=family.template)
    for path in (folder / "old", folder / "new"):
        if path.name == "new":
            _tune(model, draw)
        model.save_pretrained(path, max_shard_size="100KB")
        processor.save_pretrained(path)
    files, inputs = [], []
    for purpose, count in (("safety", 3), ("task", 4)):
        path = folder / f"{purpose}.jsonl"
        if family.by_hand is not None:
            samples = [family.by_hand(draw, number % 2 == 0) for number in range(count)]
            lines = [{"input_ids": sample["input_ids"][0].tolist()} for sample in samples]
        else:
            lines = [_line(family, path.parent, f"{purpose}-{number}", number, words) for number in range(count)]
            samples = [_encoded(family, model, processor, path.parent, line) for line in lines]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        files.append(path)
        inputs.append([{k: v.to(dtype) if v.is_floating_point() else v for k, v in s.items()} for s in samples])
    return Pair(family, folder / "old", folder / "new", *files, *inputs)


# --- weights ---


def _fill(model: PreTrainedModel, draw: torch.Generator) -> None:
    """Overwrite every matrix and jitter everything else, so that no gate is shut and no norm is neutral."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    turned = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim < 2 or "A_log" in name:
                value += 0.2 * normal(*value.shape)
                continue
            fan_in = value.shape[0] if id(value) in turned else value[0].numel() if value.ndim != 3 else value.shape[2]
            if id(value) in embeddings or value.ndim > 3:
                scale = torch.ones(value.shape[1:])
            else:  # unequal inputs, whichever axis they lie along
                scale = 0.7 + 0.7 * torch.rand(value.shape[-2:], generator=draw).mean(0)
                scale = scale * (0.7 + 0.7 * torch.rand(value.shape[-2], 1, generator=draw))
            value.copy_(normal(*value.shape) * scale / (1.0 if id(value) in embeddings else fan_in**0.5))
        for name, value in model.named_buffers():
            if value.ndim == 1 and name in model.state_dict() and value.is_floating_point():
                value += 0.05 * normal(*value.shape)


def _tune(model: PreTrainedModel, draw: torch.Generator) -> None:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    def step(weight: Tensor) -> Tensor:
        rows, columns = weight.shape
        low_rank = normal(rows, 3) @ normal(3, columns)
        along = 0.15 * float(torch.rand((), generator=draw)) - 0.05
        return weight.square().mean().sqrt() * (0.05 * low_rank + 0.02 * normal(rows, columns)) + along * weight

    linears = [module.weight for module in model.modules() if isinstance(module, nn.Linear | Conv1D)]
    places = {id(weight): place for place, weight in enumerate(linears)}
    with torch.no_grad():
        for value in model.parameters():
            before = value.float()
            if value.ndim == 2 and id(value) in places:
                if places[id(value)] % 7 != 3:
                    value.copy_(before + step(before))
            elif value.ndim == 3:
                value.copy_(torch.stack([old + step(old) if e != 1 else old for e, old in enumerate(before)]))
            else:
                value.copy_(before * (1 + 0.03 * normal(*value.shape)))


# --- samples ---


def _line(family: Family, folder: Path, name: str, number: int, words: int) -> dict[str, Any]:
    """A line of a calibration file; of a family with media every second has them."""
    draw = random.Random(name)

    def text(count: int) -> str:
        return " ".join(draw.choice(["the", "red", "fox", "opens", "a", "locked", "door", "12"]) for _ in range(count))

    asked, answer = text(words * (2 + number)), text(words * (3 + number % 2))
    if not family.template:
        return {"instruction": asked, "response": answer}
    content: Any = asked
    if family.processor is not None and number % 2 == 0:
        parts = [{"type": kind, kind: WRITERS[kind](folder / name, draw)} for kind in family.media]
        content = [*parts, {"type": "text", "text": asked}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


def _encoded(
    family: Family, model: PreTrainedModel, processor: Any, folder: Path, line: Mapping[str, Any]
) -> dict[str, Tensor]:
    """What the model is called with for a line, by transformers' processor and no part of the package."""
    if model.config.is_encoder_decoder:
        prompt, answer = (processor(line[part], return_tensors="pt") for part in ("instruction", "response"))
        start = torch.tensor([[model.config.decoder_start_token_id]])
        return {**prompt, "decoder_input_ids": torch.cat([start, answer["input_ids"][:, :-1]], dim=1)}
    if not family.template:
        return dict(processor(f"{line['instruction']}\n{line['response']}", return_tensors="pt"))
    if family.processor is None:
        text = processor.apply_chat_template(line["messages"], tokenize=False)
        return dict(processor(text, add_special_tokens=False, return_tensors="pt"))
    media, messages = {}, []
    for message in line["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        messages.append({"role": message["role"], "content": parts})
        for part in parts:
            if (kind := part["type"]) != "text":
                media |= read_medium(kind, folder / part[kind])
    if "fps" in media and processor.video_processor.do_sample_frames:
        del media["fps"]  # it samples frames at the rate that its configuration says
    text = processor.apply_chat_template(messages, tokenize=False)
    options = {"add_special_tokens": False, "return_tensors": "pt"}
    if not media:
        return dict(processor.tokenizer(text, **options))
    return {k: v for k, v in processor(text=[text], **media, **options).items() if isinstance(v, Tensor)}
