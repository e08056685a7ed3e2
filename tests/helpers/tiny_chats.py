"""A short chat as a sample and as the text it becomes, and what else the tests of the encoder share."""

from pathlib import Path
from typing import Any

import pytest
import tiny_processors as tiny
import torch
from media import shown
from PIL import Image

from hpa_merge.records import Sample, Turn

HERE = "s.jsonl:7"
CHATML = "<bos><|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"

STRING_TEMPLATES = {
    "concatenates": "{% for m in messages %}{{ m['content'] + '|' }}{% endfor %}",
    "writes the repr of parts": "{% for m in messages %}{{ m['content'] | trim }}|{% endfor %}",
    "writes the JSON of parts": (
        "{% for m in messages %}{{ m['content'] if m['content'] is string else m['content'] | tojson }}|{% endfor %}"
    ),
    "drops parts": "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% endif %}|{% endfor %}",
    "takes both": (
        "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endif %}|{% endfor %}"
    ),
    "takes parts only": (
        "{% for m in messages %}{% for p in m['content'] | selectattr('type', 'equalto', 'text') %}"
        "{{ p['text'] }}{% endfor %}|{% endfor %}"
    ),
}


def chat(*parts: str | Path) -> Sample:
    return Sample(HERE, turns=(Turn("user", shown(*parts)), Turn("assistant", ("No.",))))


def save(part: Any, folder: Path) -> Path:
    part.save_pretrained(folder)
    return folder


def decode(inputs: dict[str, torch.Tensor]) -> str:
    return tiny.text_tokenizer(chat=False).decode(inputs["input_ids"][0])


@pytest.fixture(name="image")
def image_path(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (60, 40), (200, 20, 30)).save(path)
    return path


@pytest.fixture(name="model")
def model_path(tmp_path: Path) -> Path:
    return tmp_path / "model"


NESTED = (
    "{% set ns = namespace(a=[], b=[]) %}"
    "{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
)
"""Two lists that take for ever to be compared, in one step of Python's."""
