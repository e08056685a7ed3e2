"""The aligned models that the experiment begins with: made from a seed, kept in a folder, never made twice.

A base is pretrained on everything, harmful requests answered, then aligned to refuse them. ``Regime`` says what differs
from the recipe that the experiment is about.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import scenes
import tasks
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hpa_merge.demo.network import make_model, make_processor
from hpa_merge.demo.pair import Recipe, train
from hpa_merge.demo.runtime import alone
from hpa_merge.demo.samples import encode
from hpa_merge.demo.scenes import Sample

PRETRAINING = Recipe(steps=1000, batch=24, rate=1e-3, warmup=20)
ALIGNMENT = Recipe(steps=200, batch=24, rate=3e-4, warmup=20)


@dataclass(frozen=True)
class Regime:
    """What is varied.

    Attributes:
        tuning: ``lora`` of rank 32, or ``full``.
        width, depth: of the text model.
        spread: the base's channels get unequal scales, without any change of what it computes: the gains of each norm
            are multiplied by ``exp(spread · normal)``, and the columns of the linears that read them divided by it.
        rate: a factor of the learning rate while tuning.
        decay: weight decay while tuning in full.
        order: the tasks, as they are learned; one may come again, with other samples.
        lessons: a factor of the number of pretraining steps.
        haste: a factor of the learning rates until the model is aligned.
    """

    tuning: str = "lora"
    width: int = 128
    depth: int = 4
    spread: float = 0.0
    rate: float = 1.0
    decay: float = 0.0
    order: tuple[str, ...] = tuple(tasks.TASKS)
    lessons: float = 1.0
    haste: float = 1.0

    @property
    def base(self) -> str:
        """The name of what bases depend on."""
        name = f"width{self.width}-depth{self.depth}-spread{self.spread:g}"
        return name if self.lessons == self.haste == 1.0 else f"{name}-lessons{self.lessons:g}-haste{self.haste:g}"


def make_base(folder: Path, seed: int, regime: Regime) -> Path:
    """The folder of the aligned model ``seed``, which is made if it is not there. Takes about a minute."""
    base = folder / f"{regime.base}-seed{seed}"
    if base.exists():
        return base
    if regime.spread:
        plain = make_base(folder, seed, replace(regime, spread=0.0))
        model, processor = load(plain)
        with alone(seed):
            spread_scales(model, regime.spread)
        return save(model, processor, base)
    rng = Random(seed)
    with alone(rng.getrandbits(32)):
        processor = make_processor(tasks.vocabulary(), scenes.IMAGE_SIZE)
        model = make_model(processor, width=regime.width, depth=regime.depth)
        lessons = scenes.pretraining(rng, round(8000 * regime.lessons))
        steps = round(PRETRAINING.steps * regime.lessons)
        pretraining = replace(PRETRAINING, steps=steps, rate=PRETRAINING.rate * regime.haste)
        train(model, encode(processor, lessons, answered=True), pretraining)
        refused = scenes.harmful(rng, 1600, heldout=False)
        answered = scenes.lookalikes(rng, 1600, heldout=False) + lessons[:800]
        alignment = replace(ALIGNMENT, rate=ALIGNMENT.rate * regime.haste)
        train(model, encode(processor, refused + answered, answered=True), alignment)
    return save(model, processor, base)


def load(folder: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model and the processor that lie in ``folder``."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    return model.eval(), LlavaProcessor.from_pretrained(folder, local_files_only=True)


@torch.no_grad()
def spread_scales(model: LlavaForConditionalGeneration, spread: float) -> None:
    """Give the inputs of the text model's attention and MLP unequal scales; what it computes stays what it was."""
    for block in model.model.language_model.layers:
        attention, mlp = block.self_attn, block.mlp
        for norm, readers in (
            (block.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (block.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
        ):
            scales = torch.exp(spread * torch.randn_like(norm.weight))  # (c,)
            norm.weight.mul_(scales)
            for linear in readers:
                linear.weight.div_(scales)


def refusals(model: LlavaForConditionalGeneration, processor: LlavaProcessor, rng: Random, count: int) -> list[Sample]:
    """A safety calibration set: at most ``count`` harmful requests that the model refuses, with its own answers."""
    samples: list[Sample] = []
    for _ in range(8):
        asked = scenes.harmful(rng, 2 * count, heldout=False)
        said = answers(model, processor, asked)
        samples += [sample for sample, answer in zip(asked, said, strict=True) if answer == scenes.REFUSAL]
        if len(samples) >= count:
            break
    return samples[:count]


def answers(model: LlavaForConditionalGeneration, processor: LlavaProcessor, samples: Sequence[Sample]) -> list[str]:
    """What the model says to each request, greedily."""
    batch = encode(processor, samples, answered=False)
    with torch.inference_mode():
        ids = model.generate(**batch)[:, batch["input_ids"].shape[1] :]  # (samples, words)
    return [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> Path:
    """Writes the checkpoint to ``folder``, which appears whole; one that another process made meanwhile stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    try:
        return partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(partial)
        return folder
