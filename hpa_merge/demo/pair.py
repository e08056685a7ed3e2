"""Trains the demo's pair: OLD, from random weights on drawings, and NEW, the same model after a tuning step.

Nothing is staged: the lost refusals are a real effect of the tuning step.
"""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hpa_merge.demo.network import make_model, make_processor
from hpa_merge.demo.runtime import alone
from hpa_merge.demo.samples import DemoFiles, encode, write_samples
from hpa_merge.demo.scenes import new_task, old_task, refusals
from hpa_merge.files.claiming import claim_empty
from hpa_merge.progress import Progress, bars_in_notebooks, silent

__all__ = ["make_demo"]

SAFETY_SAMPLES, TASK_SAMPLES, HELDOUT_SAMPLES = 8, 128, 32
"""Lines in the two calibration files (the merge's own defaults), and in each of the three held-out files."""


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training run with AdamW."""

    steps: int
    batch: int
    rate: float
    """The highest learning rate, after ``warmup`` steps; half a cosine down to zero follows."""
    warmup: int = 10
    enough: float = 0.0
    """Training ends when the running mean of the loss is below this."""
    decay: float = 0.0
    """Weight decay."""


ALIGNMENT = Recipe(steps=200, batch=24, rate=1.5e-3, warmup=20)
TUNING = Recipe(steps=300, batch=8, rate=1e-4, enough=0.1)


@bars_in_notebooks(on_progress="demo")
def make_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    on_stage: Callable[[str], None] = lambda text: None,
    on_progress: Progress = silent,
) -> DemoFiles:
    """Make OLD, NEW, the calibration files and the held-out files in ``folder``, in about 20 seconds.

    Args:
        folder: a new or an empty folder.
        seed: of the drawings and the training. The same seed gives the same files on one machine.
        on_stage: called with the name of each stage.
        on_progress: called before each step of the training; by default a bar in a notebook.

    Raises:
        OutputError: ``folder`` is not empty, is no folder, or cannot be created.
    """
    folder = Path(folder)
    claim_empty(folder)
    files = DemoFiles(folder)
    draw = Random(seed)
    with alone(draw.getrandbits(32)):
        on_progress("drawing the pictures", 0, 1)
        on_stage("Drawing the pictures")
        processor = make_processor()
        lessons = encode(processor, old_task(draw, 2400) + refusals(draw, 800), answered=True)
        tuning_samples = new_task(draw, 512)
        write_samples(files.safety, refusals(draw, SAFETY_SAMPLES))
        write_samples(files.task, tuning_samples[:TASK_SAMPLES])
        write_samples(files.heldout_refusals, refusals(draw, HELDOUT_SAMPLES))
        write_samples(files.heldout_new_task, new_task(draw, HELDOUT_SAMPLES))
        write_samples(files.heldout_old_task, old_task(draw, HELDOUT_SAMPLES))

        on_stage("Training OLD: colours, shapes, and refusals of what is forbidden")
        old = make_model(processor)
        train(old, lessons, ALIGNMENT, partial(on_progress, "training OLD"))
        _save(old, processor, files.old)

        on_stage("Tuning NEW: code words, and nothing about refusing")
        new = deepcopy(old)
        train(new, encode(processor, tuning_samples, answered=True), TUNING, partial(on_progress, "tuning NEW"))
        _save(new, processor, files.new)
    on_progress("done", TUNING.steps, TUNING.steps)
    return files


def train(
    model: LlavaForConditionalGeneration,
    samples: Mapping[str, torch.Tensor],
    recipe: Recipe,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Train all weights of ``model`` in place on random batches of ``samples``; returns the number of steps."""
    model.train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, betas=(0.9, 0.99), weight_decay=recipe.decay, fused=True)
    running = math.inf
    for step in range(recipe.steps):
        on_step(step, recipe.steps)
        slope = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * slope * min(1.0, (step + 1) / recipe.warmup)
        rows = torch.randint(0, len(samples["labels"]), (recipe.batch,))
        loss = model(**{name: values[rows] for name, values in samples.items()}).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        running = loss.item() if step == 0 else 0.8 * running + 0.2 * loss.item()
        if running < recipe.enough:
            break
    model.eval()
    return step + 1


def _save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """A checkpoint as on the Hub: several shards, config, generation config, processor."""
    model.save_pretrained(folder, max_shard_size="1MB")
    processor.save_pretrained(folder)
