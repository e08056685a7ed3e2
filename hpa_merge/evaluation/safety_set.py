"""The safety set, as the paper makes it: the aligned model's own safe answers to unsafe prompts."""

import base64
import json
import math
import os
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.counting import counted
from hpa_merge.errors import EvaluationError, OutputError
from hpa_merge.evaluation.collecting import batches
from hpa_merge.evaluation.judges import Answerer, Judge, judged
from hpa_merge.evaluation.prompts import Prompt, PromptFile
from hpa_merge.evaluation.thinking import read_answer
from hpa_merge.files.disk import inside, write_whole
from hpa_merge.files.weight_names import protected
from hpa_merge.progress import Progress, silent
from hpa_merge.records import Media, Turn
from hpa_merge.report.showing import Shown

__all__ = ["SafetySet", "check_place", "make_safety_set", "write_safety_set"]

FAULTS = {
    "unfinished": "with thinking that does not end",
    "empty": "with no word",
    "looping": "with repetitions alone",
}
"""The answers of :mod:`hpa_merge.evaluation.broken`, in words."""


@final
@dataclass(frozen=True, repr=False)
class SafetySet(Shown):
    """Prompts that were refused, with what the model said in the end, without its thoughts.

    Attributes:
        samples: prompt and answer.
        asked: how many prompts were answered; those behind the last sample that was needed were not.
        reasons: how many answers were dropped: ``unsafe`` ones, and broken ones by their fault.
    """

    samples: tuple[tuple[Prompt, str], ...]
    asked: int
    reasons: Mapping[str, int]

    @property
    def dropped(self) -> int:
        """How many answers were dropped."""
        return sum(self.reasons.values())

    @property
    def categories(self) -> Mapping[str, int]:
        """How many samples each category has; empty where the file has none."""
        return Counter(prompt.category for prompt, _ in self.samples if prompt.category)

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        kinds = [*self.categories.items(), *((f"dropped, {why}", count) for why, count in self.reasons.items())]
        title = f"{counted(len(self.samples), 'sample')} from {counted(self.asked, 'prompt')}"
        return title, [(name, str(count)) for name, count in kinds]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each sample."""
        return [
            {"source": prompt.source, "category": prompt.category or None, "prompt": prompt.text, "answer": answer}
            for prompt, answer in self.samples
        ]


def make_safety_set(
    prompts: PromptFile,
    answerer: Answerer,
    judge: Judge,
    count: int,
    *,
    seed: int = 0,
    on_progress: Progress = silent,
) -> SafetySet:
    """``count`` samples; each of the prompts' categories has as many as another, as far as their answers allow it.

    Prompts are drawn by ``random.Random(seed)``: of each category first as many as are wanted of it, then twice as many
    as are still missing, and so on, until there are enough.

    Raises:
        EvaluationError: too few answers were safe; says how many.
        InputError, ResourceError: as the answerer and the judge do.
    """
    on_progress("looking for refusals", 0, prompts.count)
    waiting = _shuffled(prompts, seed)
    found: dict[str, list[tuple[Prompt, str]]] = {category: [] for category in waiting}
    asked = rounds = 0
    reasons: Counter[str] = Counter()
    while True:
        # A category that has prompts left may still come to any number of samples.
        room = {category: math.inf if waiting[category] else len(found[category]) for category in waiting}
        shares = _shares(room, count)
        missing = {category: share - len(found[category]) for category, share in shares.items()}
        drawn = {n for category, more in missing.items() for n in _draw(waiting[category], more * 2**rounds)}
        if not drawn:
            break
        rounds += 1
        chosen = (prompt for number, prompt in enumerate(prompts) if number in drawn)
        for several in batches(chosen, answerer.window):
            on_progress(f"{sum(map(len, found.values()))} found", asked, prompts.count)
            answers = [read_answer(text) for text in answerer.answer([prompt.sample for prompt in several])]
            asked += len(several)
            for prompt, answer, verdict in zip(several, answers, judged(judge, several, answers), strict=True):
                if verdict.unsafe or verdict.fault:
                    reasons[verdict.fault or "unsafe"] += 1
                else:
                    found[prompt.category].append((prompt, answer.final))
    on_progress("done", prompts.count, prompts.count)
    kept = [sample for category, share in shares.items() for sample in found[category][:share]]
    if len(kept) < count:
        longer = "raise --max-new-tokens, " if reasons["unfinished"] else ""
        faults = "".join(f", {number} {FAULTS[fault]}" for fault, number in reasons.items() if fault in FAULTS)
        raise EvaluationError(
            f"of the {counted(asked, 'prompt')} of {prompts.source.name}, {len(kept)} were answered "
            f"safely{faults}, and {count} are asked for: {longer}give more prompts, lower "
            "--n, or check that the model is aligned."
        )
    return SafetySet(tuple(kept), asked, dict(reasons))


def write_safety_set(made: SafetySet, out: Path) -> None:
    """Write the samples as conversations that a merge reads, JSON Lines; the file is there whole or as it was before.

    Paths of images are relative to it.

    Raises:
        OutputError: it cannot be written.
    """
    lines = (json.dumps(_record(*sample, out.parent), ensure_ascii=False) for sample in made.samples)
    try:
        write_whole(out, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"), through=True)
    except OSError as error:
        raise OutputError(
            f"the safety set {out} cannot be written ({error.strerror or error}): choose another place."
        ) from error


def check_place(out: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Whether a file may be written there; nothing is created.

    Args:
        inputs: folders and files that are read.

    Raises:
        OutputError: it exists and is not to be replaced, would be or lie in an input or a checkpoint, or its folder
            does not exist.
    """
    if (os.path.lexists(out) and not out.is_file()) or (out.exists() and not overwrite):
        raise OutputError(f"{out} exists already: choose another file, or replace it with --overwrite.")
    if (found := inside(out, [each for each in inputs if each.exists()])) is not None:
        raise OutputError(
            f"{out} would lie in the input {found}, and inputs are never written to: choose a path outside of it."
        )
    if harm := protected(out):
        raise OutputError(f"{out} would {harm}: choose another place.")
    if not out.absolute().parent.is_dir():
        raise OutputError(
            f"{out} cannot be written, because the folder {out.absolute().parent} does not exist: create it first."
        )


def _shuffled(prompts: PromptFile, seed: int) -> dict[str, list[int]]:
    """The prompts' numbers by category, each in a drawn order; the next is the last."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        numbers[prompt.category].append(number)
    draw = random.Random(seed)
    for of_category in numbers.values():
        draw.shuffle(of_category)
    return dict(numbers)


def _shares(room: Mapping[str, float], count: int) -> dict[str, int]:
    """``count`` handed out one by one, each to the category that has the fewest and room for another."""
    shares = dict.fromkeys(room, 0)
    for _ in range(count):
        if not (open_ones := [category for category in room if shares[category] < room[category]]):
            break
        shares[min(open_ones, key=lambda category: shares[category])] += 1
    return shares


def _draw(numbers: list[int], most: int) -> list[int]:
    """Take up to ``most`` off the end."""
    return [numbers.pop() for _ in range(min(most, len(numbers)))]


def _record(prompt: Prompt, answer: str, folder: Path) -> dict[str, Any]:
    """A sample as a calibration file has it."""
    messages = [_message(turn, folder) for turn in prompt.sample.turns]
    record: dict[str, Any] = {"messages": [*messages, {"role": "assistant", "content": answer}]}
    if prompt.sample.tools:
        record["tools"] = list(prompt.sample.tools)
    return record | ({"category": prompt.category} if prompt.category else {})


def _message(turn: Turn, folder: Path) -> dict[str, Any]:
    message = {"role": turn.role, **turn.extras}
    if all(isinstance(part, str) for part in turn.parts):
        return message | {"content": "\n".join(turn.texts)}
    return message | {
        "content": [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": part.kind, part.kind: _written(part, folder)}
            for part in turn.parts
        ],
    }


def _written(media: Media, folder: Path) -> str:
    """A file by its path, relative to ``folder``; what the record held, as a ``data:`` URL."""
    if isinstance(media.content, bytes):
        return f"data:{media.kind}/*;base64,{base64.b64encode(media.content).decode('ascii')}"
    return os.path.relpath(media.content.resolve(), folder.resolve())
