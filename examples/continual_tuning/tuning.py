"""One tuning step: the aligned model learns a task, by LoRA whose product is added to the weights, or in full."""

from pathlib import Path
from random import Random

from bases import Regime, load
from hpa_merge.demo.pair import Recipe, train
from hpa_merge.demo.samples import encode
from hpa_merge.demo.scenes import Sample
from peft import LoraConfig, get_peft_model

SAMPLES = 512
LORA = Recipe(steps=60, batch=16, rate=6e-4, warmup=6)
FULL = Recipe(steps=60, batch=16, rate=2e-4, warmup=6)
ADAPTER = LoraConfig(
    r=32, lora_alpha=64, target_modules=r".*\.(language_model|multi_modal_projector)\..*(_proj|linear_[12])"
)
