"""The safety set, as the paper makes it: the aligned model's own safe answers to unsafe prompts."""

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.calibration import Turn
from hpa_merge.errors import EvaluationError, OutputError
from hpa_merge.evaluation.collecting import batches
from hpa_merge.evaluation.judges import Answerer, Judge
from hpa_merge.evaluation.prompts import Prompt, PromptFile

__all__ = ["SafetySet", "check_place", "make_safety_set", "write_safety_set"]


@final
@dataclass(frozen=True)
class SafetySet:
    """Prompts that were refused, with what the model said.

    Attributes:
        samples: prompt and answer.
        asked: how many prompts were answered; those behind the last sample that was needed were not.
        dropped: how many answers were not safe.
    """

    samples: tuple[tuple[Prompt, str], ...]
    asked: int
    dropped: int

    @property
    def categories(self) -> Mapping[str, int]:
        """How many samples each category has; empty where the file has none."""
        return Counter(prompt.category for prompt, _ in self.samples if prompt.category)


def make_safety_set(
    prompts: PromptFile,
    answerer: Answerer,
    judge: Judge,
    count: int,
    *,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> SafetySet:
    """``count`` samples; of the prompts' categories each has as many as another, as far as their answers allow it.

    Prompts are drawn by ``random.Random(seed)``, first as many as are wanted, then twice as many as are still missing,
    and so on, until there are enough.

    Raises:
        EvaluationError: too few answers were safe; says how many.
        InputError, ResourceError: as the answerer and the judge do.
    """
    waiting = _shuffled(prompts, seed)
    kept: list[tuple[Prompt, str]] = []
    asked = dropped = rounds = 0
    while len(kept) < count and (order := _next(waiting, kept, (count - len(kept)) * 2**rounds)):
        rounds += 1
        numbers = set(order)
        found: dict[int, tuple[Prompt, str]] = {}
        drawn = ((number, prompt) for number, prompt in enumerate(prompts) if number in numbers)
        for several in batches(drawn, answerer.window):
            on_progress(f"{len(kept)} of {count} found", asked, prompts.count)
            shown = [prompt for _, prompt in several]
            answers = answerer.answer([prompt.sample for prompt in shown])
            unsafe = judge.unsafe(shown, answers)
            asked += len(several)
            dropped += sum(unsafe)
            for (number, prompt), answer, bad in zip(several, answers, unsafe, strict=True):
                if not bad:
                    found[number] = prompt, answer
        kept += [found[number] for number in order if number in found][: count - len(kept)]
    if len(kept) < count:
        raise EvaluationError(
            f"of the {asked} prompts of {prompts.path}, {len(kept)} were answered safely, and {count} are asked for: "
            "give more prompts, lower --n, or see that the model is aligned."
        )
    return SafetySet(tuple(kept), asked, dropped)


def write_safety_set(made: SafetySet, out: Path) -> None:
    """Write the samples as conversations that a merge reads, JSON Lines; the file is there whole or as it was before.

    Paths of images are relative to it.

    Raises:
        OutputError: it cannot be written.
    """
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        try:
            lines = (json.dumps(_record(*sample, out.parent), ensure_ascii=False) for sample in made.samples)
            partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
            partial.replace(out)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"the safety set {out} cannot be written ({error.strerror or error}): choose another place."
        ) from error


def check_place(out: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Whether a file may be written there; nothing is created.

    Raises:
        OutputError: it exists and is not to be replaced, would lie in an input, or its folder does not exist.
    """
    for folder in inputs:
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"{out} would lie in the input {folder}, and inputs are never written to: choose a path outside of it."
            )
    if out.is_dir() or (out.exists() and not overwrite):
        raise OutputError(f"{out} exists already: choose another file, or replace it with --overwrite.")
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


def _next(waiting: dict[str, list[int]], kept: Sequence[tuple[Prompt, str]], most: int) -> list[int]:
    """Take up to ``most`` numbers, each from the category that has the fewest so far and still has some."""
    have = Counter(prompt.category for prompt, _ in kept)
    order = []
    while len(order) < most and (left := [category for category, numbers in waiting.items() if numbers]):
        category = min(left, key=lambda name: have[name])
        order.append(waiting[category].pop())
        have[category] += 1
    return order


def _record(prompt: Prompt, answer: str, folder: Path) -> dict[str, Any]:
    """A sample as a calibration file has it."""
    messages = [_message(turn, folder) for turn in prompt.sample.turns]
    record: dict[str, Any] = {"messages": [*messages, {"role": "assistant", "content": answer}]}
    return record | ({"category": prompt.category} if prompt.category else {})


def _message(turn: Turn, folder: Path) -> dict[str, Any]:
    if all(isinstance(part, str) for part in turn.parts):
        return {"role": turn.role, "content": "\n".join(str(part) for part in turn.parts)}
    return {
        "role": turn.role,
        "content": [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": os.path.relpath(part.resolve(), folder.resolve())}
            for part in turn.parts
        ],
    }
