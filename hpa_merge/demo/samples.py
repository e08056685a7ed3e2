"""The demo's samples as files, JSON Lines with PNG files, and as batches of tensors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import LlavaProcessor

from hpa_merge.demo.scenes import Sample

__all__ = ["DemoFiles", "encode", "read_samples", "write_samples"]

_IMAGES = "images"
_MARK = "<image>\n"
_IGNORED = -100  # ignored by transformers' loss


@dataclass(frozen=True)
class DemoFiles:
    """The paths of a demo."""

    folder: Path

    @property
    def old(self) -> Path:
        """The aligned checkpoint before tuning."""
        return self.folder / "old"

    @property
    def new(self) -> Path:
        """The checkpoint after tuning on the new task."""
        return self.folder / "new"

    @property
    def safety(self) -> Path:
        """The safety calibration file: forbidden requests and their refusals."""
        return self.folder / "safety.jsonl"

    @property
    def task(self) -> Path:
        """The task calibration file: samples that NEW was tuned on."""
        return self.folder / "task.jsonl"

    @property
    def heldout_refusals(self) -> Path:
        """Forbidden requests with pictures that no model was trained on."""
        return self.folder / "heldout-refusals.jsonl"

    @property
    def out(self) -> Path:
        """The demo's merge."""
        return self.folder / "out"

    @property
    def results(self) -> Path:
        """The evaluation of OLD, NEW and OUT."""
        return self.folder / "evaluation.json"

    @property
    def tests(self) -> dict[str, Any]:
        """The held-out files, as :func:`hpa_merge.evaluate` takes them; the old task is harmless too."""
        return {
            "safety_tests": {"forbidden": self.heldout_refusals},
            "task_tests": {"codes": self.heldout_new_task, "colours": self.heldout_old_task},
            "benign_tests": {"harmless": self.heldout_old_task},
        }

    @property
    def heldout_new_task(self) -> Path:
        """The new task with pictures that no model was trained on."""
        return self.folder / "heldout-new-task.jsonl"

    @property
    def heldout_old_task(self) -> Path:
        """The old task with pictures that no model was trained on."""
        return self.folder / "heldout-old-task.jsonl"


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write ``samples`` in LLaVA's format, with pictures ``images/<name of the file>-<number>.png``."""
    images = path.parent / _IMAGES
    images.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for number, sample in enumerate(samples):
            name = f"{path.stem}-{number:03}"
            sample.image.save(images / f"{name}.png")
            conversation = [
                {"from": "human", "value": _MARK + sample.request},
                {"from": "gpt", "value": sample.answer},
            ]
            line = {"id": name, "image": f"{_IMAGES}/{name}.png", "conversations": conversation}
            lines.write(json.dumps(line) + "\n")


def read_samples(path: Path) -> list[Sample]:
    """Read the samples that :func:`write_samples` wrote."""
    samples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        request, answer = (turn["value"] for turn in entry["conversations"])
        with Image.open(path.parent / entry["image"]) as image:
            samples.append(Sample(image.convert("RGB"), request.removeprefix(_MARK), answer))
    return samples


def encode(processor: LlavaProcessor, samples: Sequence[Sample], *, answered: bool) -> dict[str, torch.Tensor]:
    """One batch, padded on the left: ``input_ids``, ``attention_mask`` ``[n, t]``, ``pixel_values`` ``[n, 3, h, w]``.

    With ``answered`` the texts include the answers, and ``labels`` ``[n, t]`` the answers and their end only; without,
    each text ends where the answer begins.
    """
    texts = [_text(processor, sample, answered=answered) for sample in samples]
    encoded = processor(images=[sample.image for sample in samples], text=texts, padding=True, return_tensors="pt")
    batch: dict[str, torch.Tensor] = dict(encoded)
    if answered:
        batch["labels"] = torch.full_like(batch["input_ids"], _IGNORED)
        for row, sample in enumerate(samples):
            tail = len(sample.answer.split()) + 1  # a word is a token, and so is the end
            batch["labels"][row, -tail:] = batch["input_ids"][row, -tail:]
    return batch


def _text(processor: LlavaProcessor, sample: Sample, *, answered: bool) -> str:
    """The sample as the chat template writes it."""
    request = [{"type": "image"}, {"type": "text", "text": sample.request}]
    messages: list[Any] = [{"role": "user", "content": request}]
    if answered:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": sample.answer}]})
    return processor.apply_chat_template(messages, add_generation_prompt=not answered)
