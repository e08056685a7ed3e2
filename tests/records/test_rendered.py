"""What the layouts become is what a model gets: the text of its chat template, its images, and the answer's tokens."""

import re
from pathlib import Path

import pytest
import tiny_processors as tiny
from layout_cases import Case
from layout_table import CASES

from hpa_merge.calibration import Encoder, read_samples
from hpa_merge.records import ReadingOptions

WRITTEN = [
    case
    for case in CASES
    if case.sample and not re.search(r"tools?:|call |\(thinks|\[video|\[audio|text:|ids:", case.sample)
]
"""The rows that a template without tools and a processor without video take."""


@pytest.fixture(name="encoder", scope="module")
def encoder_of_llava() -> Encoder:
    return Encoder(processor=tiny.llava_processor())


def written(case: Case) -> str:
    """The sample as the tiny LLaVA's template writes it, with as many tokens for an image as its processor puts."""
    text = "<bos>"
    for turn in case.sample.split(" / "):
        role, _, said = turn.partition(": ")
        parts = (
            "<image>" * tiny.LLAVA_IMAGE_TOKENS + "\n" if part.startswith("[image ") else part
            for part in said.split(" | ")
        )
        text += f"<|im_start|>{role}\n{''.join(parts)}<|im_end|>\n"
    return text


@pytest.mark.parametrize("case", WRITTEN, ids=[case.name for case in WRITTEN])
def test_a_layout_as_a_model_gets_it(case: Case, tmp_path: Path, encoder: Encoder) -> None:
    path = case.write(tmp_path)
    sample = read_samples(path, 9, 0, ReadingOptions(**case.options), purpose=case.purpose).samples[0]
    inputs = encoder.encode(sample, 4096)
    ids = inputs["input_ids"][0]
    tokenizer = tiny.text_tokenizer(chat=False)
    assert tokenizer.decode(ids) == written(case)
    images = case.sample.count("[image ")
    assert ("pixel_values" in inputs) == bool(images)
    assert not images or len(inputs["pixel_values"]) == images
    answer = tokenizer(case.sample.rpartition(" / assistant: ")[2] + "<|im_end|>\n", add_special_tokens=False)[
        "input_ids"
    ]
    assert ids[-len(answer) :].tolist() == answer
