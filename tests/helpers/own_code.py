"""Tiny checkpoints that bring code of their own, as on the Hub: a model, a processor and a tokenizer.

``old`` and ``new`` are written with plain ``save_pretrained`` from the same classes that the folders bring.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tiny_processors
import torch
from safetensors.torch import save_file
from transformers import dynamic_module_utils

__all__ = ["AUTO", "FILES", "SEER", "add_encoders", "make_decoder_pair", "mark", "modules_in", "write_code"]

CONFIG = """
from transformers import PretrainedConfig


class TinyDecConfig(PretrainedConfig):
    model_type = "tinydec"

    def __init__(self, vocab_size=512, width=32, num_hidden_layers=3, **kwargs):
        self.vocab_size, self.width, self.num_hidden_layers = vocab_size, width, num_hidden_layers
        super().__init__(**kwargs)
"""

PARTS = '''
import torch
from torch import nn

from .tinydec_linears import Halved


class Mixer(nn.Module):
    """Reads all earlier tokens."""

    def __init__(self, width):
        super().__init__()
        self.reader = Halved(width, width, bias=False)
        self.writer = Halved(width, width, bias=False)

    def forward(self, hidden):
        scores = self.reader(hidden) @ hidden.transpose(-1, -2) / hidden.shape[-1] ** 0.5
        mask = torch.full(scores.shape[-2:], float("-inf"), dtype=hidden.dtype).triu(1)
        return self.writer((scores + mask).softmax(-1) @ hidden)


class Blob(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mixer = Mixer(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, hidden):
        hidden = hidden + self.mixer(hidden)
        return hidden + self.down(torch.tanh(self.up(hidden)))
'''

LINEARS = """
from torch import nn


class Halved(nn.Linear):
    def forward(self, hidden):
        return super().forward(hidden) / 2
"""

MODEL = """
import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_tinydec import TinyDecConfig
from .tinydec_parts import (
    Blob,
)


class TinyDecForText(PreTrainedModel, GenerationMixin):
    config_class = TinyDecConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.blobs = nn.ModuleList(Blob(config.width) for _ in range(config.num_hidden_layers))
        self.voice = nn.Linear(config.width, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def get_output_embeddings(self):
        return self.voice

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids, attention_mask=None, **kwargs):
        hidden = self.words(input_ids)
        for blob in self.blobs:
            hidden = blob(hidden)
        return CausalLMOutput(logits=self.voice(hidden))
"""

FILES = {
    "configuration_tinydec.py": CONFIG,
    "modeling_tinydec.py": MODEL,
    "tinydec_parts.py": PARTS,
    "tinydec_linears.py": LINEARS,
}
"""The code of the decoder; the last two files are reached by relative imports only."""

SEER = """
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, Qwen2Config


class EyeConfig(PretrainedConfig):
    model_type = "own_eye"

    def __init__(self, size=16, **kwargs):
        self.size = size
        super().__init__(**kwargs)


class SeerConfig(PretrainedConfig):
    model_type = "own_seer"
    sub_configs = {"text_config": Qwen2Config, "eye_config": EyeConfig}

    def __init__(self, text_config=None, eye_config=None, **kwargs):
        self.text_config, self.eye_config = Qwen2Config(**text_config or {}), EyeConfig(**eye_config or {})
        super().__init__(**kwargs)


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.both = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))


class Eye(PreTrainedModel):
    config_class = EyeConfig

    def __init__(self, config):
        super().__init__(config)
        self.patch = nn.Conv2d(3, config.size, 14, 14)
        self.blocks = nn.ModuleList(Block(config.size) for _ in range(2))
        self.post_init()


class Seer(PreTrainedModel):
    config_class = SeerConfig
    base_model_prefix = "brain"

    def __init__(self, config):
        super().__init__(config)
        self.eye = AutoModel.from_config(config.eye_config)
        self.bridge = nn.Linear(config.eye_config.size, config.text_config.hidden_size)
        self.brain = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.brain.get_input_embeddings()

    def get_output_embeddings(self):
        return self.brain.get_output_embeddings()

    def forward(self, input_ids, **kwargs):
        return self.brain(input_ids, **kwargs)


AutoConfig.register("own_eye", EyeConfig)
AutoModel.register(EyeConfig, Eye)
"""
"""A model of two, with names of its own, whose parts transformers builds: one of them from what it registers."""

WORDS = """
from transformers import PreTrainedTokenizerFast


class QuietWords(PreTrainedTokenizerFast):
    def __call__(self, text=None, *args, **kwargs):
        text = [each.lower() for each in text] if isinstance(text, list) else text.lower()
        return super().__call__(text, *args, **kwargs)
"""

EYES = """
from transformers import LlavaProcessor

from .lids import FACTOR


class BrightEyes(LlavaProcessor):
    def __call__(self, images=None, text=None, **kwargs):
        made = super().__call__(images=images, text=text, **kwargs)
        made["pixel_values"] = made["pixel_values"] * FACTOR
        return made
"""

ENCODERS = {"words.py": WORDS, "eyes.py": EYES, "lids.py": "FACTOR = 3"}
"""The code of a tokenizer that reads lower case, and of a processor of LLaVA's kind that brightens images."""

AUTO = {
    "AutoConfig": "configuration_tinydec.TinyDecConfig",
    "AutoModelForCausalLM": "modeling_tinydec.TinyDecForText",
}


def write_code(folder: Path, files: Mapping[str, str] = FILES) -> None:
    """Write files of code into a folder."""
    for name, text in files.items():
        (folder / name).write_text(text)


MARK = """import os, pathlib
with pathlib.Path({marker!r}).open("a") as marks:
    marks.write("{name} " + str(os.getpid()) + "\\n")
"""


def mark(folder: Path, marker: Path) -> None:
    """Have every file of code in a folder write its name and the process into ``marker`` when it is imported."""
    for path in folder.glob("*.py"):
        path.write_text(MARK.format(marker=str(marker), name=path.name) + path.read_text())


@contextmanager
def modules_in(folder: Path) -> Iterator[Path]:
    """Within the block, transformers itself keeps its copies of code in a folder, and knows no others."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
            del sys.modules[name]

    forget()
    path, kept = list(sys.path), dynamic_module_utils.HF_MODULES_CACHE
    dynamic_module_utils.HF_MODULES_CACHE = str(folder)
    try:
        yield folder
    finally:
        dynamic_module_utils.HF_MODULES_CACHE, sys.path[:] = kept, path
        forget()


def make_decoder_pair(folder: Path, *, auto: Mapping[str, Any] = AUTO, seed: int = 0) -> tuple[Path, Path]:
    """``old`` and ``new`` in ``folder``: a decoder that transformers does not know, before and after tuning."""
    random_numbers = torch.Generator().manual_seed(seed)
    config = {"model_type": "tinydec", "architectures": ["TinyDecForText"], "auto_map": dict(auto), "dtype": "float32"}
    config |= {"vocab_size": 512, "width": 32, "num_hidden_layers": 3}

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random_numbers) / shape[-1] ** 0.5

    tensors = {"words.weight": numbers(512, 32), "voice.weight": numbers(512, 32)}
    for block in range(3):
        of_block = {
            "mixer.reader.weight": numbers(32, 32),
            "mixer.writer.weight": numbers(32, 32),
            "up.weight": numbers(64, 32),
            "up.bias": numbers(64),
            "down.weight": numbers(32, 64),
            "down.bias": numbers(32),
        }
        tensors |= {f"blobs.{block}.{name}": value for name, value in of_block.items()}
    for name in ("old", "new"):
        path = folder / name
        tiny_processors.text_tokenizer(chat=True).save_pretrained(path)
        (path / "config.json").write_text(json.dumps(config))
        write_code(path)
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        tensors = {
            key: value if value.ndim == 1 else value + 0.1 * numbers(*value.shape) for key, value in tensors.items()
        }
    return folder / "old", folder / "new"


def add_encoders(folder: Path) -> None:
    """Have the tokenizer, and the processor if there is one, of a checkpoint be of its own classes."""
    write_code(folder, ENCODERS)
    of_file = {
        "tokenizer_config.json": {
            "tokenizer_class": "QuietWords",
            "auto_map": {"AutoTokenizer": [None, "words.QuietWords"]},
        },
        "processor_config.json": {"processor_class": "BrightEyes", "auto_map": {"AutoProcessor": "eyes.BrightEyes"}},
    }
    for name, fields in of_file.items():
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text()) | fields
            (folder / name).write_text(json.dumps(content))
