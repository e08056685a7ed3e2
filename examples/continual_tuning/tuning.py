"""One tuning step: a model learns a task, by LoRA whose product is then added to the weights, or in full."""

import warnings
from dataclasses import replace
from pathlib import Path
from random import Random

from bases import Regime, load, save
from peft import LoraConfig, get_peft_model

from hpa_merge.demo.pair import Recipe, train
from hpa_merge.demo.runtime import alone
from hpa_merge.demo.samples import encode
from hpa_merge.demo.scenes import Sample

SAMPLES = 512
LORA = Recipe(steps=80, batch=16, rate=1.5e-4, warmup=6)
FULL = Recipe(steps=80, batch=16, rate=5e-5, warmup=6)
RANK, ALPHA = 32, 64
TUNED = r".*\.(language_model|multi_modal_projector)\..*(_proj|linear_[12])"  # the vision tower stays as it is


def tune(old: Path, new: Path, samples: list[Sample], regime: Regime, seed: int) -> Path:
    """Makes ``new``, unless it is there: the checkpoint ``old`` after it was tuned on ``samples``."""
    if new.exists():
        return new
    model, processor = load(old)
    lessons = encode(processor, samples, answered=True)
    with alone(seed), warnings.catch_warnings():
        if regime.tuning == "lora":
            adapted = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TUNED))
            train(adapted, lessons, replace(LORA, rate=LORA.rate * regime.rate))
            model = adapted.merge_and_unload()
        else:
            train(model, lessons, replace(FULL, rate=FULL.rate * regime.rate, decay=regime.decay))
        return save(model, processor, new)


def task_seed(base: int, step: int) -> int:
    """The seed of a step's samples and training: one for all methods, so that they can be compared in pairs."""
    return Random(f"base {base} step {step}").getrandbits(32)
