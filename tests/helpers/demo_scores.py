"""Scores a checkpoint on the demo's held-out samples: greedy answers, compared word for word."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from hpa_merge.demo.runtime import alone
from hpa_merge.demo.samples import DemoFiles, encode, read_samples


@dataclass(frozen=True)
class DemoScores:
    """Percent of the held-out samples that a checkpoint answers correctly, word for word."""

    refusal: float
    new_task: float
    old_task: float


def measure(model_folder: Path, files: DemoFiles) -> DemoScores:
    """The scores of OLD, NEW or a merge of the two, in a second or two."""
    sets = [read_samples(path) for path in (files.heldout_refusals, files.heldout_new_task, files.heldout_old_task)]
    samples = [sample for one in sets for sample in one]
    with alone(), torch.inference_mode():
        processor = AutoProcessor.from_pretrained(model_folder, local_files_only=True)
        model = AutoModelForImageTextToText.from_pretrained(
            model_folder, local_files_only=True, dtype=torch.float32
        ).eval()
        batch = encode(processor, samples, answered=False)
        ids = model.generate(**batch)[:, batch["input_ids"].shape[1] :]  # (samples, words)
    answers = processor.batch_decode(ids, skip_special_tokens=True)
    right = [answer.strip() == sample.answer for answer, sample in zip(answers, samples, strict=True)]
    shares = []
    for one in sets:
        shares.append(100 * sum(right[: len(one)]) / len(one))
        right = right[len(one) :]
    return DemoScores(*shares)
